//! Cross-entropy.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use super::{fused, softmax::log_softmax};
use crate::backend;

/// `-log p(target)` of each row of logits. On the CPU in `f32` the log-probabilities of the
/// other tokens are never stored.
///
/// # Shapes
///
/// - `logits`: `[rows, d_vocab_out]`, `targets`: one for each row; returns `[rows]`
///
/// # Panics
///
/// If there is not one target, below `d_vocab_out`, for each row.
#[must_use]
#[track_caller]
pub fn negative_log_likelihood(logits: Tensor<2>, targets: &[usize]) -> Tensor<1> {
    let [rows, d_vocab] = logits.dims();
    assert_eq!(targets.len(), rows, "one target for each row of logits");
    assert!(targets.iter().all(|&target| target < d_vocab), "a target is no column of the logits");
    if fused(&logits, true) {
        return backend::negative_log_likelihood(logits, Arc::from(targets));
    }
    let ids: Vec<i64> = targets.iter().map(|&target| target as i64).collect();
    let device = logits.device().without_autodiff();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, 1]), &device);
    -log_softmax(logits).gather(1, ids).reshape([rows])
}
