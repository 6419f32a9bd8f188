//! The largest values of each row.

use burn::tensor::{Int, Tensor};

use super::{fused, half, widened};
use crate::backend;

/// The `k` largest values of each row and where they are, from the largest; all of them if there are fewer.
///
/// Of equal values, the first comes first, and NaN counts as larger than every number; where there is no kernel,
/// both are as burn has them.
///
/// # Shapes
///
/// - `x`: `[rows, width]`; returns `[rows, min(k, width)]` twice
#[must_use]
pub fn top(x: Tensor<2>, k: usize) -> (Tensor<2>, Tensor<2, Int>) {
    let [_, width] = x.dims();
    let k = k.min(width);
    let plain = x.clone().without_autodiff();
    let indices = if half(&plain) {
        backend::top(widened(plain), k)
    } else if fused(&plain, false) {
        backend::top(plain, k)
    } else {
        return x.topk_with_indices(k, 1);
    };
    (x.gather(1, indices.clone()), indices)
}
