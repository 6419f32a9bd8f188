//! Softmax and log-softmax over rows.

use super::{
    math::exp_neg,
    rows::{LANES, PairKernel, RowKernel, folded, larger, largest_of, total},
};

/// The largest value of `row` and of `floor`.
#[inline(always)]
pub(super) fn largest(row: &[f32], floor: f32) -> f32 {
    larger(largest_of(folded!(row, f32::NEG_INFINITY, |max, x| larger(max, x))), floor)
}

/// Replaces `row` by `exp(x - max)` and returns the sum.
#[inline(always)]
fn exponentials(row: &mut [f32], max: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp_neg(chunk[lane] - max);
            lanes[lane] += chunk[lane];
        }
    }
    for (lane, x) in rest.iter_mut().enumerate() {
        *x = exp_neg(*x - max);
        lanes[lane] += *x;
    }
    total(lanes)
}

/// Softmax of one row, with a logit beside it that takes its share and is dropped.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32], sink: Option<f32>) {
    let max = largest(row, sink.unwrap_or(f32::NEG_INFINITY));
    let mut sum = exponentials(row, max);
    if let Some(sink) = sink {
        sum += exp_neg(sink - max);
    }
    let share = 1.0 / sum;
    for x in row {
        *x *= share;
    }
}

/// `ln Σ exp(x)` of one row: the largest value, and the logarithm to add to it.
///
/// The sum over a vocabulary is taken in blocks, whose sums are added in `f64`.
#[inline(always)]
pub(super) fn log_sum_exp(row: &[f32]) -> (f32, f32) {
    let max = largest(row, f32::NEG_INFINITY);
    let mut sum = 0.0_f64;
    for block in row.chunks(64 * LANES) {
        sum += f64::from(total(folded!(block, 0.0_f32, |sum, x| sum + exp_neg(x - max))));
    }
    (max, sum.ln() as f32)
}

/// Softmax of each row.
pub(crate) struct Softmax;

impl RowKernel for Softmax {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], row: usize, _: usize) {
        for row in rows.chunks_exact_mut(row) {
            softmax(row, None);
        }
    }
}

/// Log-softmax of each row.
pub(crate) struct LogSoftmax;

impl RowKernel for LogSoftmax {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], row: usize, _: usize) {
        for row in rows.chunks_exact_mut(row) {
            let (max, log) = log_sum_exp(row);
            for x in row {
                *x = (*x - max) - log;
            }
        }
    }
}

/// The gradient of softmax over that of its result, from its result: `y · (g - Σ g y)`.
pub(crate) struct SoftmaxSlope;

impl PairKernel for SoftmaxSlope {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], other: &[f32], row: usize) {
        for (g, y) in rows.chunks_exact_mut(row).zip(other.chunks_exact(row)) {
            let mut lanes = [0.0; LANES];
            for (at, (&g, &y)) in g.iter().zip(y).enumerate() {
                lanes[at % LANES] = g.mul_add(y, lanes[at % LANES]);
            }
            let along = total(lanes);
            for (g, &y) in g.iter_mut().zip(y) {
                *g = y * (*g - along);
            }
        }
    }
}

/// The gradient of log-softmax over that of its result, from its result: `g - exp(y) · Σ g`.
pub(crate) struct LogSoftmaxSlope;

impl PairKernel for LogSoftmaxSlope {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], other: &[f32], row: usize) {
        for (g, y) in rows.chunks_exact_mut(row).zip(other.chunks_exact(row)) {
            let along = total(folded!(g, 0.0_f32, |sum, g| sum + g));
            for (g, &y) in g.iter_mut().zip(y) {
                *g = exp_neg(y).mul_add(-along, *g);
            }
        }
    }
}
