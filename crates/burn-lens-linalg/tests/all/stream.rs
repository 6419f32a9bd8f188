//! Top entries and diagonals of products that are not formed.

use burn_lens_linalg::{Entry, Extreme};
use proptest::prelude::*;

use crate::dense::{Case, Dense, cases, close};

fn best(m: &Dense, rows: &[usize], k: usize, which: Extreme) -> Vec<Entry> {
    let key = |x: f64| match which {
        Extreme::Largest => -x,
        Extreme::Smallest => x,
        Extreme::Magnitude => -x.abs(),
    };
    let entries = rows.iter().flat_map(|&row| (0..m.cols).map(move |col| (row, col)));
    let mut all: Vec<Entry> = entries.map(|(row, col)| Entry { row, col, value: m.at(row, col) }).collect();
    all.sort_by(|a, b| key(a.value).total_cmp(&key(b.value)));
    all.truncate(k);
    all
}

/// Entries are compared in `f32`.
const SINGLE: f64 = 1e-6;

#[track_caller]
fn same(found: &[Entry], expected: &[Entry]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found.value - expected.value).abs() <= SINGLE * expected.value.abs().max(1.0),
            "{found:?} {expected:?}"
        );
    }
    let distinct: std::collections::HashSet<_> = found.iter().map(|e| (e.row, e.col)).collect();
    assert_eq!(distinct.len(), found.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn top_entries_are_those_of_the_product(case in cases(), k in 1..20usize, which in 0..3usize) {
        let which = [Extreme::Largest, Extreme::Smallest, Extreme::Magnitude][which];
        let m = case.factored();
        let found = m.top_entries(k, which).unwrap();
        let kept = k.min(m.ldim() * m.rdim());
        prop_assert_eq!(found.shape(), [&case.lead[..], &[kept]].concat());
        let rows: Vec<usize> = (0..m.ldim()).collect();
        for (found, m) in found.data().chunks(kept).zip(&case.product()) {
            same(found, &best(m, &rows, k, which));
            for e in found {
                assert!((m.at(e.row, e.col) - e.value).abs() < SINGLE * e.value.abs().max(1.0));
            }
        }
    }

    #[test]
    fn top_entries_of_rows(case in cases(), k in 1..6usize) {
        let m = case.factored();
        let rows = [m.ldim() - 1, 0];
        let found = m.row_top_k(&rows, k, Extreme::Largest).unwrap();
        let kept = k.min(m.rdim());
        prop_assert_eq!(found.shape(), [&case.lead[..], &[2, kept]].concat());
        for (i, m) in case.product().iter().enumerate() {
            for (r, &row) in rows.iter().enumerate() {
                let at = (i * 2 + r) * kept;
                same(&found.data()[at..at + kept], &best(m, &[row], k, Extreme::Largest));
                prop_assert!(found.data()[at..at + kept].iter().all(|entry| entry.row == row));
            }
        }
    }

    #[test]
    fn diagonals(case in cases()) {
        let found = case.factored().diagonal().unwrap();
        let k = case.dims[0].min(case.dims[2]);
        prop_assert_eq!(found.shape(), [&case.lead[..], &[k]].concat());
        for (i, m) in case.product().iter().enumerate() {
            (0..k).for_each(|at| close(found.data()[i * k + at], m.at(at, at), m.norm().max(1.0)));
        }
    }
}

/// More rows than a block of 2²⁴ entries holds, so blocks are put together.
#[test]
fn entries_of_a_product_of_many_blocks() {
    let n = 5000;
    let case = Case { lead: vec![], dims: [n, 2, n], seed: 3 };
    let m = case.factored();
    let (a, b) = m.pair();
    let (a, b) = (crate::dense::dense(&a).remove(0), crate::dense::dense(&b).remove(0));
    let at = |e: &Entry| (0..2).map(|k| a.at(e.row, k) * b.at(k, e.col)).sum::<f64>();
    let found = m.top_entries(50, Extreme::Magnitude).unwrap();
    let bar = found.data().last().unwrap().value.abs();
    let mut above = 0;
    for row in 0..n {
        for col in 0..n {
            let value = at(&Entry { row, col, value: 0.0 }).abs();
            above += usize::from(value > bar * (1.0 + SINGLE));
        }
    }
    assert!(above < 50, "{above} entries are above the 50th");
    found.data().iter().for_each(|e| assert!((at(e) - e.value).abs() < SINGLE * e.value.abs()));
    assert!(found.data().is_sorted_by(|x, y| x.value.abs() >= y.value.abs()));
}
