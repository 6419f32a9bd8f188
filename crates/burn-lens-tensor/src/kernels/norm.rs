//! The parts of a norm, and the whole.

use burn::tensor::Tensor;

use super::{RowOp, fused};
use crate::backend;

/// `x` less its mean over the last axis.
///
/// # Shapes
///
/// - `x`: any; returns the same
#[must_use]
pub fn centered<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if fused(&x, true) {
        return backend::map(x, RowOp::Center);
    }
    let mean = x.clone().mean_dim(D - 1);
    x - mean
}

/// `sqrt(mean(x²) + eps)` over the last axis, which is kept with length 1.
///
/// # Shapes
///
/// - `x`: `[.., width]`; returns `[.., 1]`
#[must_use]
pub fn root_mean_square<const D: usize>(x: Tensor<D>, eps: f64) -> Tensor<D> {
    if fused(&x, true) {
        return backend::root_mean_square(x, eps as f32);
    }
    ((x.clone() * x).mean_dim(D - 1) + eps).sqrt()
}

/// The whole norm, `x / scale · w + b`, where `x` is centered first if `layer`.
///
/// # Shapes
///
/// - `x`: `[.., width]`, `w`, `b`: `[width]`; returns as `x`
#[must_use]
pub fn normalized<const D: usize>(
    x: Tensor<D>,
    layer: bool,
    eps: f64,
    w: Option<&Tensor<1>>,
    b: Option<&Tensor<1>>,
) -> Tensor<D> {
    let plain = |t: Option<&Tensor<1>>| t.is_none_or(|t| fused(t, false));
    if fused(&x, false) && plain(w) && plain(b) {
        return backend::normalize(x, layer, eps as f32, w.cloned(), b.cloned());
    }
    let mut x = if fused(&x, true) {
        backend::map(x, RowOp::Normalize { layer, eps: eps as f32 })
    } else {
        let x = if layer { centered(x) } else { x };
        let scale = root_mean_square(x.clone(), eps);
        x / scale
    };
    if let Some(w) = w {
        x = x * w.clone().unsqueeze();
    }
    if let Some(b) = b {
        x = x + b.clone().unsqueeze();
    }
    x
}

/// A norm whose scale is given, `x · w / scale`.
///
/// # Shapes
///
/// - `x`: `[.., width]`, `scale`: `[.., 1]`, `w`: `[width]`; returns as `x`
///
/// # Panics
///
/// If the shapes do not fit.
#[must_use]
pub fn rescaled<const D: usize>(x: Tensor<D>, scale: Tensor<D>, w: Tensor<1>) -> Tensor<D> {
    let (outer, width) = (&x.dims()[..D - 1], x.dims()[D - 1]);
    let for_each_row = scale.dims()[..D - 1] == *outer && scale.dims()[D - 1] == 1 && w.dims() == [width];
    if for_each_row && fused(&x, false) && fused(&scale, false) && fused(&w, false) {
        return backend::rescale(x, scale, w);
    }
    x * w.unsqueeze() / scale
}
