//! Numerically delicate operations, written once.
//!
//! Half-precision inputs are computed in `f32` and cast back; `f64` stays `f64`.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::{FloatType, kernels};

/// Runs `f` in the accumulator type of `x` and casts the result back.
fn in_accumulator<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let (x, dtype) = widened(x);
    let y = f(x);
    kernels::cast(y, dtype)
}

/// `x` in its accumulator type ([`FloatType::accumulator`]), and the dtype that it had.
#[must_use]
pub fn widened<const D: usize>(x: Tensor<D>) -> (Tensor<D>, DType) {
    let dtype = x.dtype();
    let wide = FloatType::from_dtype(dtype).map_or(dtype, |float| float.accumulator().dtype());
    (kernels::cast(x, wide), dtype)
}

/// Softmax over the last axis.
#[must_use]
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_accumulator(x, kernels::softmax)
}

/// Log-softmax over the last axis, in the accumulator type (it is **not** cast back: a
/// log-probability in half precision has lost what it was computed for).
#[must_use]
pub fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    kernels::log_softmax(widened(x).0)
}

/// `cap · tanh(x / cap)`: smoothly bounds `x` to `±cap`.
#[must_use]
pub fn soft_cap<const D: usize>(x: Tensor<D>, cap: f64) -> Tensor<D> {
    in_accumulator(x, |x| kernels::soft_cap(x, cap))
}

/// The root of the mean square over the last axis: `sqrt(mean(x²) + eps)`, axis kept.
#[must_use]
pub fn root_mean_square<const D: usize>(x: Tensor<D>, eps: f64) -> Tensor<D> {
    kernels::root_mean_square(x, eps)
}

/// `x` laid out anew in memory, row-major; what a transposed view needs before many products.
#[must_use]
pub fn contiguous<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let dims = x.dims();
    x.reshape([dims.iter().product::<usize>()]).reshape(dims)
}

/// A tensor of zeros, which take memory only where they are written: burn's own tensors of zeros (and its empty
/// ones) are copied once on the CPU, and so take twice their size for a moment.
#[must_use]
pub fn zeros<const D: usize>(shape: [usize; D], device: &Device, dtype: DType) -> Tensor<D> {
    let len = shape.iter().product();
    let data = match dtype {
        _ if !kernels::available(device, DType::F32) => return Tensor::zeros(shape, (device, dtype)),
        DType::F32 => TensorData::new(vec![0.0_f32; len], shape),
        DType::F64 => TensorData::new(vec![0.0_f64; len], shape),
        _ => return Tensor::zeros(shape, (device, dtype)),
    };
    Tensor::from_data(data, (device, dtype))
}
