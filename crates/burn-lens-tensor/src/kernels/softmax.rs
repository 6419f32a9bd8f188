//! Softmax, log-softmax and soft-cap, in the dtype that is given.

use burn::tensor::{Tensor, activation as composed};

use super::{RowOp, fused};
use crate::backend;

/// Softmax over the last axis.
///
/// # Shapes
///
/// - `x`: any; returns the same
#[must_use]
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if fused(&x, true) { backend::map(x, RowOp::Softmax) } else { composed::softmax(x, D - 1) }
}

/// Log-softmax over the last axis.
///
/// # Shapes
///
/// - `x`: any; returns the same
#[must_use]
pub fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if fused(&x, true) { backend::map(x, RowOp::LogSoftmax) } else { composed::log_softmax(x, D - 1) }
}

/// `cap · tanh(x / cap)`.
///
/// # Shapes
///
/// - `x`: any; returns the same
#[must_use]
pub fn soft_cap<const D: usize>(x: Tensor<D>, cap: f64) -> Tensor<D> {
    if fused(&x, true) { backend::map(x, RowOp::SoftCap(cap as f32)) } else { (x / cap).tanh() * cap }
}
