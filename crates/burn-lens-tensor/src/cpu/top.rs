//! The largest values of each row.
//!
//! A row is read once. What is not larger than the smallest of those that are kept is passed over many values
//! at a time; in a row without order, that is almost all of it.

use std::cmp::Ordering;

use pulp::NullaryFnOnce;
use rayon::prelude::*;

use super::{path::dispatch, rows::LANES};

/// Where a value is, beside it.
type Found = (f32, usize);

/// The largest first, NaN before every number; of equal ones, the first in the row.
fn order(a: &Found, b: &Found) -> Ordering {
    let by_value = b.0.partial_cmp(&a.0).unwrap_or_else(|| b.0.is_nan().cmp(&a.0.is_nan()));
    by_value.then(a.1.cmp(&b.1))
}

/// Where the `k` largest values of a row are, `k` at most its length.
struct Top<'a> {
    row: &'a [f32],
    out: &'a mut [i64],
    kept: &'a mut Vec<Found>,
}

impl NullaryFnOnce for Top<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { row, out, kept } = self;
        let k = out.len();
        let room = 2 * k + LANES;
        let mut smallest = None;
        kept.clear();
        for (at, values) in row.chunks(LANES).enumerate() {
            if let Some(smallest) = smallest
                && values.iter().map(|&value| usize::from(value <= smallest)).sum::<usize>() == values.len()
            {
                continue;
            }
            let larger = |&(value, _): &Found| {
                smallest.is_none_or(|smallest| value.partial_cmp(&smallest).is_none_or(Ordering::is_gt))
            };
            let found = values.iter().enumerate().map(|(lane, &value)| (value, at * LANES + lane));
            kept.extend(found.filter(larger));
            if kept.len() + LANES > room {
                kept.select_nth_unstable_by(k - 1, order);
                kept.truncate(k);
                // A NaN is smaller than nothing: then no number is passed over.
                smallest = Some(kept[k - 1].0).filter(|value| !value.is_nan());
            }
        }
        kept.sort_unstable_by(order);
        for (out, &(_, at)) in out.iter_mut().zip(&*kept) {
            *out = at as i64;
        }
    }
}

/// Where the `k` largest values of each row are, from the largest: `[rows, k]`. Of equal ones, the first comes
/// first; NaN counts as larger than every number. `k` is at most `row`.
pub(crate) fn top(data: &[f32], row: usize, k: usize) -> Vec<i64> {
    /// Rows that a thread takes at least.
    const ROWS: usize = 4;
    if row == 0 || k == 0 {
        return Vec::new();
    }
    let mut out = vec![0; data.len() / row * k];
    out.par_chunks_mut(k)
        .zip(data.par_chunks_exact(row))
        .with_min_len(ROWS)
        .for_each_init(Vec::new, |kept, (out, row)| dispatch(Top { row, out, kept }));
    out
}
