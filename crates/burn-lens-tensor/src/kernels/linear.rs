//! Products with a weight matrix.

use burn::tensor::{Tensor, module};

use super::{fused, half, widened};
use crate::backend;

/// `x w + b`.
///
/// # Shapes
///
/// - `x`: `[.., d_in]`, `w`: `[d_in, d_out]`, `b`: `[d_out]`; returns `[.., d_out]`
#[must_use]
pub fn linear<const D: usize>(x: Tensor<D>, w: Tensor<2>, b: Option<Tensor<1>>) -> Tensor<D> {
    if fused(&x, false) && fused(&w, false) && b.as_ref().is_none_or(|b| fused(b, false)) {
        backend::linear(x, w, b)
    } else if half(&x) && half(&w) && b.as_ref().is_none_or(half) {
        backend::linear(x, w, b.map(widened))
    } else {
        module::linear(x, w, b)
    }
}
