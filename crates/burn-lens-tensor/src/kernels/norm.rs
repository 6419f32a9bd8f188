//! The parts of a norm, and the whole.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use super::{RowOp, fused, half, widened};
use crate::{backend, columns::Columns, numeric};

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

/// `x · w / scale` of each part `(x, scale, w)`, beside each other: norms whose scale is given.
///
/// # Shapes
///
/// - of each part: `x`: `[.., width]`, `scale`: `[.., 1]`, `w`: `[width]`; returns `[.., sum of the widths]`
///
/// # Panics
///
/// If the shapes do not fit, or there are no parts.
#[must_use]
#[track_caller]
pub fn rescaled<const D: usize>(parts: Vec<(Tensor<D>, Tensor<D>, Tensor<1>)>) -> Tensor<D> {
    let mut dims = parts.first().expect("a part").0.dims();
    dims[D - 1] = 1;
    for (x, scale, w) in &parts {
        let (x, width) = (x.dims(), x.dims()[D - 1]);
        let fits = x[..D - 1] == dims[..D - 1] && scale.dims() == dims && w.dims() == [width];
        assert!(fits, "a norm of {x:?} with scales {:?}, {:?}", scale.dims(), w.dims());
    }
    let (device, dtype, rows) = (parts[0].0.device(), parts[0].0.dtype(), dims.iter().product());
    dims[D - 1] = parts.iter().map(|(x, ..)| x.dims()[D - 1]).sum();
    if !parts.iter().all(|(x, scale, w)| fused(x, false) && fused(scale, false) && fused(w, false)) {
        // Each into its place, so that none is held beside the whole.
        let mut place = dims.map(|len| 0..len);
        place[D - 1].end = 0;
        return parts.into_iter().fold(numeric::zeros(dims, &device, dtype), |out, (x, scale, w)| {
            place[D - 1] = place[D - 1].end..place[D - 1].end + x.dims()[D - 1];
            out.slice_assign(place.clone(), x * w.unsqueeze() / scale)
        });
    }
    let columns = Arc::new(Columns::new(rows, dims[D - 1]));
    for (x, scale, w) in parts {
        backend::rescale(x, scale, w, &columns);
    }
    let columns = Arc::into_inner(columns).expect("nobody holds it but for a call");
    Tensor::from_data(TensorData::new(columns.into_values(), dims), (&device, dtype))
}
