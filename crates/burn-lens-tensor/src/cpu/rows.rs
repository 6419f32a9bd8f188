//! Kernels over rows, run on several threads.
//!
//! Rows are given out in chunks whose size does not depend on the number of threads.

use pulp::NullaryFnOnce;
use rayon::prelude::*;

use super::{
    half::{Value, convert_into, converted},
    path::dispatch,
    raw,
};

/// Changes rows in place. `change` must be `#[inline(always)]`.
pub(crate) trait RowKernel: Sync {
    /// Changes whole rows of `row` values; `first` is the index of the first one.
    fn change(&self, rows: &mut [f32], row: usize, first: usize);
}

/// Changes rows in place, beside rows of another tensor. `change` must be `#[inline(always)]`.
pub(crate) trait PairKernel: Sync {
    /// Changes whole rows of `row` values; `other` has the same size.
    fn change(&self, rows: &mut [f32], other: &[f32], row: usize);
}

/// One number from each row. `reduce` must be `#[inline(always)]`.
pub(crate) trait ReduceKernel: Sync {
    /// Writes one number for each row of `row` values.
    fn reduce(&self, out: &mut [f32], rows: &[f32], row: usize, first: usize);
}

/// About how many values a thread takes at once: 32 KiB of them stay in the first cache.
const CHUNK: usize = 8 * 1024;

fn rows_at_once(row: usize) -> usize {
    (CHUNK / row.max(1)).max(1)
}

struct Change<'a, K>(&'a K, &'a mut [f32], usize, usize);

impl<K: RowKernel> NullaryFnOnce for Change<'_, K> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.0.change(self.1, self.2, self.3);
    }
}

struct Pair<'a, K>(&'a K, &'a mut [f32], &'a [f32], usize);

impl<K: PairKernel> NullaryFnOnce for Pair<'_, K> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.0.change(self.1, self.2, self.3);
    }
}

struct Reduce<'a, K>(&'a K, &'a mut [f32], &'a [f32], usize, usize);

impl<K: ReduceKernel> NullaryFnOnce for Reduce<'_, K> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.0.reduce(self.1, self.2, self.3, self.4);
    }
}

/// Runs `kernel` over some rows, on the calling thread.
pub(super) fn change<K: RowKernel>(kernel: &K, rows: &mut [f32], row: usize, first: usize) {
    dispatch(Change(kernel, rows, row, first));
}

/// Runs `kernel` over every row of `data`, in place.
pub(crate) fn in_place<K: RowKernel>(kernel: &K, data: &mut [f32], row: usize) {
    let at_once = rows_at_once(row);
    if data.len() <= CHUNK {
        return change(kernel, data, row, 0);
    }
    data.par_chunks_mut(at_once * row)
        .enumerate()
        .for_each(|(at, rows)| change(kernel, rows, row, at * at_once));
}

/// Runs `kernel` over every row of `data` in place: in `f32`, some rows at a time, and rounded.
pub(crate) fn in_place_rounded<E: Value, K: RowKernel>(kernel: &K, data: &mut [E], row: usize) {
    let at_once = rows_at_once(row);
    data.par_chunks_mut(at_once * row).enumerate().for_each(|(at, rows)| {
        let mut wide: Vec<f32> = converted(rows);
        change(kernel, &mut wide, row, at * at_once);
        convert_into(rows, &wide);
    });
}

/// Runs `kernel` over every row of `data` beside `other` in place: in `f32`, some rows at a time, and rounded.
pub(crate) fn paired_rounded<E: Value, K: PairKernel>(kernel: &K, data: &mut [E], other: &[E], row: usize) {
    assert_eq!(data.len(), other.len(), "two tensors of different sizes");
    let chunk = rows_at_once(row) * row;
    data.par_chunks_mut(chunk).zip(other.par_chunks(chunk)).for_each(|(rows, other)| {
        let (mut wide, other): (Vec<f32>, Vec<f32>) = (converted(rows), converted(other));
        dispatch(Pair(kernel, &mut wide, &other, row));
        convert_into(rows, &wide);
    });
}

/// Runs `kernel` over a copy of every row of `data`.
pub(crate) fn copied<K: RowKernel>(kernel: &K, data: &[f32], row: usize) -> Vec<f32> {
    let at_once = rows_at_once(row);
    raw::copied(data, (at_once * row).max(1), |rows, at| change(kernel, rows, row, at * at_once))
}

/// Runs `kernel` over every row of `data` beside `other`, in place.
pub(crate) fn paired<K: PairKernel>(kernel: &K, data: &mut [f32], other: &[f32], row: usize) {
    assert_eq!(data.len(), other.len(), "two tensors of different sizes");
    if data.len() <= CHUNK {
        return dispatch(Pair(kernel, data, other, row));
    }
    let chunk = rows_at_once(row) * row;
    data.par_chunks_mut(chunk)
        .zip(other.par_chunks(chunk))
        .for_each(|(rows, other)| dispatch(Pair(kernel, rows, other, row)));
}

/// Runs `kernel` over every row of `data`.
pub(crate) fn reduced<K: ReduceKernel>(kernel: &K, data: &[f32], row: usize) -> Vec<f32> {
    let mut out = vec![0.0; data.len() / row.max(1)];
    let at_once = rows_at_once(row);
    if data.len() <= CHUNK {
        dispatch(Reduce(kernel, &mut out, data, row, 0));
        return out;
    }
    out.par_chunks_mut(at_once)
        .zip(data.par_chunks(at_once * row))
        .enumerate()
        .for_each(|(at, (out, rows))| dispatch(Reduce(kernel, out, rows, row, at * at_once)));
    out
}

/// How many sums run beside each other over a row, whatever the instructions: value `i` goes
/// to sum `i % LANES`, so that equal rows give equal bits everywhere.
pub(super) const LANES: usize = 16;

/// Folds a row into [`LANES`] values. A macro and no function: a closure is a function of its own,
/// which takes no instruction set where the compiler does not inline it.
macro_rules! folded {
    ($row:expr, $start:expr, |$sum:ident, $x:ident| $body:expr) => {{
        let mut lanes = [$start; $crate::cpu::rows::LANES];
        let (chunks, rest) = $row.as_chunks::<{ $crate::cpu::rows::LANES }>();
        for chunk in chunks {
            for lane in 0..$crate::cpu::rows::LANES {
                let ($sum, $x) = (lanes[lane], chunk[lane]);
                lanes[lane] = $body;
            }
        }
        for (lane, &$x) in rest.iter().enumerate() {
            let $sum = lanes[lane];
            lanes[lane] = $body;
        }
        lanes
    }};
}
pub(super) use folded;

/// The sum of lanes, as a tree.
#[inline(always)]
pub(super) fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for at in 0..half {
            lanes[at] += lanes[at + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The largest of lanes; NaN where there is one.
#[inline(always)]
pub(super) fn largest_of(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for at in 0..half {
            lanes[at] = larger(lanes[at], lanes[at + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The larger one; NaN where there is one.
#[inline(always)]
pub(super) fn larger(a: f32, b: f32) -> f32 {
    // `b` unless `a` is larger or NaN: a NaN on either side comes through.
    if a > b || a.is_nan() { a } else { b }
}
