//! Cross-entropy of each row of logits with one target, without the row's log-probabilities.

use super::{
    math::exp_neg,
    rows::{ReduceKernel, RowKernel},
    softmax::log_sum_exp,
};

/// `-log p(target)` of each row.
pub(crate) struct NegativeLogLikelihood<'a>(pub(crate) &'a [usize]);

impl ReduceKernel for NegativeLogLikelihood<'_> {
    #[inline(always)]
    fn reduce(&self, out: &mut [f32], rows: &[f32], row: usize, first: usize) {
        for ((out, logits), &target) in out.iter_mut().zip(rows.chunks_exact(row)).zip(&self.0[first..]) {
            let (max, log) = log_sum_exp(logits);
            *out = (max - logits[target]) + log;
        }
    }
}

/// Its gradient, over a copy of the logits: `g · (softmax(x) - onehot(target))`.
pub(crate) struct NegativeLogLikelihoodSlope<'a> {
    pub(crate) targets: &'a [usize],
    /// One for each row.
    pub(crate) grads: &'a [f32],
}

impl RowKernel for NegativeLogLikelihoodSlope<'_> {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], row: usize, first: usize) {
        for (at, logits) in rows.chunks_exact_mut(row).enumerate() {
            let (target, grad) = (self.targets[first + at], self.grads[first + at]);
            let (max, log) = log_sum_exp(logits);
            for x in logits.iter_mut() {
                *x = exp_neg((*x - max) - log) * grad;
            }
            logits[target] -= grad;
        }
    }
}
