//! The parts of a norm, and the whole.

use burn::tensor::Tensor;

use super::{RowOp, fused, half, widened};
use crate::{backend, numeric};

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

/// The whole norm, `x / scale · w + b`, where `x` is centered first if `layer`. Half types are normalized in `f32`,
/// rounded, then scaled and shifted in `f32` and rounded again.
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
    affine(divided(x, layer, eps), w, b)
}

/// The norm without weight and bias.
fn divided<const D: usize>(x: Tensor<D>, layer: bool, eps: f64) -> Tensor<D> {
    if fused(&x, true) || half(&x) {
        return backend::map(x, RowOp::Normalize { layer, eps: eps as f32 });
    }
    let (wide, dtype) = numeric::widened(x);
    if wide.dtype() != dtype {
        return divided(wide, layer, eps).cast(dtype);
    }
    let x = if layer { centered(wide) } else { wide };
    let scale = root_mean_square(x.clone(), eps);
    x / scale
}

/// `x · w + b`, with what there is of them.
///
/// # Shapes
///
/// - `x`: `[.., width]`, `w`, `b`: `[width]`; returns as `x`
#[must_use]
pub fn affine<const D: usize>(mut x: Tensor<D>, w: Option<&Tensor<1>>, b: Option<&Tensor<1>>) -> Tensor<D> {
    if w.is_none() && b.is_none() {
        return x;
    }
    if half(&x) && w.is_none_or(half) && b.is_none_or(half) {
        return backend::affine(x, w.cloned().map(widened), b.cloned().map(widened));
    }
    if let Some(w) = w {
        x = x * w.clone().unsqueeze();
    }
    if let Some(b) = b {
        x = x + b.clone().unsqueeze();
    }
    x
}

/// `out` with the columns from `at` on replaced by `x · w / scale`: a norm whose scale is given, into
/// its place among others.
///
/// # Shapes
///
/// - `out`: `[.., columns]`, `x`: `[.., width]`, `scale`: `[.., 1]`, `w`: `[width]`; returns as `out`
///
/// # Panics
///
/// If the shapes do not fit.
#[must_use]
pub fn rescaled_into<const D: usize>(
    out: Tensor<D>,
    at: usize,
    x: Tensor<D>,
    scale: Tensor<D>,
    w: Tensor<1>,
) -> Tensor<D> {
    let (dims, width) = (x.dims(), x.dims()[D - 1]);
    let outer = &dims[..D - 1];
    let fits = out.dims()[..D - 1] == *outer && scale.dims()[..D - 1] == *outer && scale.dims()[D - 1] == 1;
    assert!(fits && w.dims() == [width], "a norm of {dims:?} with scales {:?}, {:?}", scale.dims(), w.dims());
    assert!(at + width <= out.dims()[D - 1], "{width} columns from {at} on of {:?}", out.dims());
    if fused(&out, false) && fused(&x, false) && fused(&scale, false) && fused(&w, false) {
        return backend::rescale_into(out, x, scale, w, at);
    }
    let mut place = dims.map(|len| 0..len);
    place[D - 1] = at..at + width;
    out.slice_assign(place, x * w.unsqueeze() / scale)
}
