//! Tensors that are written part by part.

use burn::tensor::Tensor;

use super::fused;
use crate::backend;

/// `out` with its entries along the first axis from `at` on replaced by `x`, in place where nobody else holds
/// it. A view is read where it lies.
///
/// # Shapes
///
/// - `out`: `[n, ..]`, `x`: `[part, ..]` with the same other axes; returns as `out`
///
/// # Panics
///
/// If the shapes do not fit.
#[must_use]
#[track_caller]
pub fn placed<const D: usize>(out: Tensor<D>, at: usize, x: Tensor<D>) -> Tensor<D> {
    let (dims, part) = (out.dims(), x.dims());
    assert!(at + part[0] <= dims[0] && part[1..] == dims[1..], "{part:?} at {at} of {dims:?}");
    if fused(&out, false) && fused(&x, false) {
        return backend::place(out, x, at);
    }
    let mut place = part.map(|len| 0..len);
    place[0] = at..at + part[0];
    out.slice_assign(place, x)
}
