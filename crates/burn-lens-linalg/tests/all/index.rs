//! Every form of index, against the dense product.

use burn_lens_linalg::{FactoredMatrix, Index};
use burn_lens_tensor::Slice;

use crate::dense::{Dense, dense, random, same};

fn all() -> Index {
    Index::Slice(Slice::All)
}

fn list(list: &[isize]) -> Index {
    Index::Slice(Slice::List(list.to_vec()))
}

fn range(start: isize, stop: isize) -> Index {
    Index::Slice(Slice::range(start, stop))
}

fn one_axis() -> FactoredMatrix {
    FactoredMatrix::new(random(1, [3, 7, 2]), random(2, [3, 2, 9])).unwrap()
}

fn two_axes() -> FactoredMatrix {
    let (a, b) = (random(1, [12, 5, 2]), random(2, [12, 2, 6]));
    FactoredMatrix::new(a.reshape([3, 4, 5, 2]), b.reshape([3, 4, 2, 6])).unwrap()
}

/// The shape is `shape`, and the matrices are `rows` and `cols` of those at the flat indices `chosen`.
#[track_caller]
fn check(m: &FactoredMatrix, index: &[Index], shape: &[usize], chosen: &[usize], parts: [&[usize]; 2]) {
    let found = m.index(index).unwrap();
    assert_eq!(found.shape(), shape);
    let whole = dense(&m.ab());
    let [rows, cols] = parts;
    let part = |&i: &usize| Dense::from_fn(rows.len(), cols.len(), |r, c| whole[i].at(rows[r], cols[c]));
    same(&dense(&found.ab()), &chosen.iter().map(part).collect::<Vec<_>>());
}

const R7: [usize; 7] = [0, 1, 2, 3, 4, 5, 6];
const C9: [usize; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn the_forms_of_version_4_3() {
    let m = one_axis();
    check(&m, &[Index::Ellipsis, 0.into()], &[3, 7, 1], &[0, 1, 2], [&R7, &[0]]);
    check(&m, &[0.into(), Index::Ellipsis, 1.into()], &[7, 1], &[0], [&R7, &[1]]);
    check(&m, &[all(), Index::NewAxis], &[3, 1, 7, 9], &[0, 1, 2], [&R7, &C9]);
    check(&m, &[0.into(), range(1, 3)], &[2, 9], &[0], [&[1, 2], &C9]);
    check(&m, &[list(&[0, 2])], &[2, 7, 9], &[0, 2], [&R7, &C9]);
    check(&m, &[all(), list(&[1, 3]), 0.into()], &[3, 2, 1], &[0, 1, 2], [&[1, 3], &[0]]);
    check(&m, &[Index::Mask(vec![true, false, true])], &[2, 7, 9], &[0, 2], [&R7, &C9]);
    check(&m, &[(-1).into(), (-1).into(), (-2).into()], &[1, 1], &[2], [&[6], &[7]]);
    check(&m, &[], &[3, 7, 9], &[0, 1, 2], [&R7, &C9]);
    check(&m, &[Index::NewAxis, 1.into()], &[1, 7, 9], &[1], [&R7, &C9]);
    let strided = Index::Slice("0:7:3".parse().unwrap());
    check(&m, &[range(1, 9), strided], &[2, 3, 9], &[1, 2], [&[0, 3, 6], &C9]);
}

#[test]
fn two_leading_axes() {
    let (m, r, c) = (two_axes(), [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]);
    let whole: [&[usize]; 2] = [&r, &c];
    check(&m, &[1.into()], &[4, 5, 6], &[4, 5, 6, 7], whole);
    check(&m, &[all(), (-1).into()], &[3, 5, 6], &[3, 7, 11], whole);
    check(&m, &[2.into(), 1.into(), Index::Ellipsis], &[5, 6], &[9], whole);
    // Lists on two axes go together; a list of one entry stands for all.
    check(&m, &[list(&[0, 2]), list(&[3, 1])], &[2, 5, 6], &[3, 9], whole);
    check(&m, &[list(&[2]), list(&[3, 1])], &[2, 5, 6], &[11, 9], whole);
    // With an axis between them, theirs comes first.
    check(&m, &[list(&[0, 2]), Index::NewAxis, list(&[3, 1])], &[2, 1, 5, 6], &[3, 9], whole);
    check(&m, &[range(1, 3), list(&[3, 0])], &[2, 2, 5, 6], &[7, 4, 11, 8], whole);
    check(&m, &[1.into(), Index::NewAxis, range(0, 2)], &[1, 2, 5, 6], &[4, 5], whole);
    check(
        &m,
        &[Index::Ellipsis, range(1, 3), all()],
        &[3, 4, 2, 6],
        &(0..12).collect::<Vec<_>>(),
        [&[1, 2], &c],
    );
    // An index of an index.
    let part = m.index(&[list(&[2, 0])]).unwrap();
    check(&part, &[1.into(), 2.into()], &[5, 6], &[6], whole);
    same(&dense(&part.index(&[1.into(), 2.into()]).unwrap().ab()), &dense(&m.at(&[0, 2]).ab()));
}

#[test]
fn what_does_not_fit_is_refused() {
    let m = one_axis().named("OV");
    let message = |index: &[Index]| m.index(index).unwrap_err().to_string();
    assert_eq!(message(&[3.into()]), "axis 0 of `OV`: position 3 is outside an axis of length 3");
    assert_eq!(message(&[all(), (-8).into()]), "axis 1 of `OV`: position -8 is outside an axis of length 7");
    assert_eq!(
        message(&[Index::Ellipsis, 9.into()]),
        "axis 2 of `OV`: position 9 is outside an axis of length 9"
    );
    assert_eq!(message(&[0.into(), 0.into(), 0.into(), 0.into()]), "4 indices for `OV`, which has 3 axes");
    assert_eq!(
        message(&[Index::Ellipsis, Index::Ellipsis]),
        "indices of `OV`: there is more than one ellipsis"
    );
    assert!(message(&[Index::Mask(vec![true])]).contains("a mask of 1 places on axis 0, which has 3"));
    assert!(message(&[Index::Mask(vec![false; 3])]).contains("keeps no position"));
    assert!(message(&[Index::Ellipsis, Index::NewAxis]).contains("before rows and columns"));
    assert!(message(&[all(), all(), Index::NewAxis]).contains("before rows and columns"));
    let lists = two_axes().index(&[list(&[0, 1, 2]), list(&[0, 1])]).unwrap_err().to_string();
    assert_eq!(
        lists,
        "indices of the factored matrix: lists of 3 and 2 entries on leading axes do not go together"
    );
}

#[test]
fn rows_and_columns() {
    let m = one_axis();
    let whole = dense(&m.ab());
    let values =
        |any: burn_lens_tensor::AnyTensor| any.into_data().unwrap().iter::<f64>().collect::<Vec<_>>();
    let row: Vec<f64> = whole.iter().flat_map(|m| (0..9).map(|j| m.at(4, j))).collect();
    let col: Vec<f64> = whole.iter().flat_map(|m| (0..7).map(|i| m.at(i, 8))).collect();
    let close =
        |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).for_each(|(a, b)| crate::dense::close(*a, *b, 10.0));
    close(values(m.row(4).unwrap()), row);
    close(values(m.col(8).unwrap()), col);
    assert!(m.row(7).is_err() && m.col(9).is_err());
}
