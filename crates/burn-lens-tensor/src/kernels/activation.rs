//! Activation functions.

use std::f64::consts::PI;

use burn::tensor::{Tensor, activation as composed};

use super::{RowOp, fused, half};
use crate::backend;

/// A smooth activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x Φ(x)`, with the error function.
    Gelu,
    /// The tanh form of GELU: `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `x σ(x)`
    Silu,
}

/// Applies `act` to every element.
///
/// # Shapes
///
/// - `x`: any; returns the same
#[must_use]
pub fn activation<const D: usize>(x: Tensor<D>, act: Activation) -> Tensor<D> {
    if fused(&x, true) {
        return backend::map(x, RowOp::Activation(act));
    }
    if half(&x) {
        return backend::map(x, RowOp::Activation(act));
    }
    match act {
        Activation::Gelu => composed::gelu(x),
        Activation::GeluTanh => {
            let cubed = x.clone() * x.clone() * x.clone();
            let inner = (x.clone() + cubed * 0.044_715) * (2.0 / PI).sqrt();
            x * 0.5 * (inner.tanh() + 1.0)
        }
        Activation::Silu => composed::silu(x),
    }
}

/// `act(x) · y`, what a gated MLP computes.
///
/// # Shapes
///
/// - `x`, `y`: the same; returns it
#[must_use]
pub fn gated<const D: usize>(x: Tensor<D>, y: Tensor<D>, act: Activation) -> Tensor<D> {
    if fused(&x, true) && fused(&y, true) && x.dims() == y.dims() {
        return backend::gated(x, y, act);
    }
    if half(&x) && half(&y) && x.dims() == y.dims() {
        return backend::gated(x, y, act);
    }
    activation(x, act) * y
}
