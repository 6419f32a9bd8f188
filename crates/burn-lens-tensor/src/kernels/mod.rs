//! The few operations that transformers spend their time in beside matrix products.
//!
//! Each is one function over burn tensors. On the CPU in `f32` it runs a vectorized kernel, with
//! its gradient; everywhere else it is composed of burn's operations. `fused` is the one place
//! that decides; half types are computed in `f32` there and rounded, but for products of `bf16` where the
//! processor has tile registers. Both ways compute the same to a few units of the last place, and the kernels
//! give the same bits whatever the instructions (but for tiles), the number of threads and, but for products
//! with weights, the batch.

mod activation;
mod attention;
mod linear;
mod loss;
mod norm;
mod placed;
mod products;
mod rotary;
mod simd_path;
mod softmax;
mod top;

use burn::tensor::{DType, Device, Tensor};

use crate::backend;

pub use activation::{Activation, activation, gated};
pub(crate) use attention::Seen;
pub use attention::{Attended, AttentionScores, Looks, Sight, attention, mixed, pattern, scores};
pub use linear::{linear, linears};
pub use loss::negative_log_likelihood;
pub use norm::{affine, centered, normalized, rescaled, root_mean_square};
pub use placed::placed;
pub use products::{Products, UnknownProducts};
pub use rotary::{Turns, rotate};
pub use simd_path::SimdPath;
pub use softmax::{log_softmax, soft_cap, softmax};
pub use top::top;

/// An operation that maps each row of a tensor, in the shape that it has.
#[derive(Clone, Debug)]
pub(crate) enum RowOp {
    Activation(Activation),
    SoftCap(f32),
    Softmax,
    LogSoftmax,
    Center,
    Normalize {
        layer: bool,
        eps: f32,
    },
    /// With the size of a head.
    Rotate(Turns, usize),
}

impl RowOp {
    /// Whether the gradient is computed from the result; if not, it is from the input.
    pub(crate) fn gradient_from_result(&self) -> bool {
        matches!(self, Self::SoftCap(_) | Self::Softmax | Self::LogSoftmax)
    }
}

/// Whether there are kernels for this device and type: on the CPU, in `f32`. They compute whatever
/// has a gradient; what has none also needs a tensor that is not on an autodiff device.
#[must_use]
pub fn available(device: &Device, dtype: DType) -> bool {
    backend::has_kernels(device, dtype)
}

/// As [`available`], or of half precision where there are kernels for `f32`: those compute, and what they give is
/// rounded; gradients have none of this.
#[must_use]
pub fn available_rounded(device: &Device, dtype: DType) -> bool {
    available(device, dtype) || (is_half(dtype) && available(device, DType::F32))
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16)
}

/// Whether kernels of `f32` compute what is made of `x`, which is of half precision, and round it.
fn half<const D: usize>(x: &Tensor<D>) -> bool {
    is_half(x.dtype()) && !x.is_autodiff() && available(&x.device(), DType::F32)
}

/// `x` in another float type.
#[must_use]
pub fn cast<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    let to_half = fused(&x, false) && is_half(dtype);
    match x.dtype() {
        same if same == dtype => x,
        _ if to_half || half(&x) && dtype == DType::F32 => backend::converted(x, dtype),
        _ => x.cast(dtype),
    }
}

/// `x` in `f32`, where it is [`half`].
fn widened<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    backend::converted(x, DType::F32)
}

/// `f` of an `x` that is [`half`], in `f32`; the result is of the type of `x` again.
fn in_f32<const D: usize, const D2: usize>(
    x: Tensor<D>,
    f: impl FnOnce(Tensor<D>) -> Tensor<D2>,
) -> Tensor<D2> {
    let dtype = x.dtype();
    backend::converted(f(widened(x)), dtype)
}

/// Whether kernels compute what is made of `x`.
fn fused<const D: usize>(x: &Tensor<D>, has_gradient: bool) -> bool {
    (has_gradient || !x.is_autodiff()) && available(&x.device(), x.dtype())
}
