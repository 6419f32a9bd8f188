//! Activation functions, their slopes, and products with a gate.

use super::{
    math::{normal_cdf, normal_density, sigmoid, sigmoid_slope, tanh},
    rows::{PairKernel, RowKernel},
};
use crate::kernels::Activation;

/// `2 √(2/π)` and the factor of the cube inside the tanh form of GELU, which is
/// `x σ(2 √(2/π) (x + 0.044715 x³))`.
const GELU: [f32; 2] = [1.595_769, 0.044_715];

#[inline(always)]
fn gelu_tanh_inner(x: f32) -> f32 {
    GELU[0] * (GELU[1] * (x * x) * x + x)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    x * sigmoid(gelu_tanh_inner(x))
}

#[inline(always)]
fn gelu_tanh_slope(x: f32) -> f32 {
    // Beyond ±10 the sigmoid is flat; cut there, the square cannot overflow.
    let cut = if x > 10.0 { 10.0 } else { x };
    let cut = if cut < -10.0 { -10.0 } else { cut };
    let inner = gelu_tanh_inner(cut);
    let inner_slope = GELU[0] * (3.0 * GELU[1] * (cut * cut) + 1.0);
    (cut * sigmoid_slope(inner)).mul_add(inner_slope, sigmoid(inner))
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal_cdf(x)
}

#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    let cut = if x > 15.0 { 15.0 } else { x };
    let cut = if cut < -15.0 { -15.0 } else { cut };
    cut.mul_add(normal_density(cut), normal_cdf(cut))
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

#[inline(always)]
fn silu_slope(x: f32) -> f32 {
    let cut = if x > 100.0 { 100.0 } else { x };
    let cut = if cut < -100.0 { -100.0 } else { cut };
    cut.mul_add(sigmoid_slope(cut), sigmoid(cut))
}

/// Changes each value. Macros and no functions, as `rows::folded`.
macro_rules! each {
    ($values:expr, |$x:ident| $body:expr) => {
        for value in $values.iter_mut() {
            let $x = *value;
            *value = $body;
        }
    };
}

macro_rules! each_pair {
    ($values:expr, $others:expr, |$x:ident, $y:ident| $body:expr) => {
        for (value, &$y) in $values.iter_mut().zip($others) {
            let $x = *value;
            *value = $body;
        }
    };
}

impl RowKernel for Activation {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], _: usize, _: usize) {
        match self {
            Self::Gelu => each!(rows, |x| gelu(x)),
            Self::GeluTanh => each!(rows, |x| gelu_tanh(x)),
            Self::Silu => each!(rows, |x| silu(x)),
        }
    }
}

/// `act(x) · y`, over `x`.
pub(crate) struct Gated(pub(crate) Activation);

impl PairKernel for Gated {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], other: &[f32], _: usize) {
        match self.0 {
            Activation::Gelu => each_pair!(rows, other, |x, y| gelu(x) * y),
            Activation::GeluTanh => each_pair!(rows, other, |x, y| gelu_tanh(x) * y),
            Activation::Silu => each_pair!(rows, other, |x, y| silu(x) * y),
        }
    }
}

/// `g · act'(x)`, over `g`.
pub(crate) struct Slope(pub(crate) Activation);

impl PairKernel for Slope {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], other: &[f32], _: usize) {
        match self.0 {
            Activation::Gelu => each_pair!(rows, other, |g, x| g * gelu_slope(x)),
            Activation::GeluTanh => each_pair!(rows, other, |g, x| g * gelu_tanh_slope(x)),
            Activation::Silu => each_pair!(rows, other, |g, x| g * silu_slope(x)),
        }
    }
}

/// `cap · tanh(x / cap)`.
pub(crate) struct SoftCap(pub(crate) f32);

impl RowKernel for SoftCap {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], _: usize, _: usize) {
        let cap = self.0;
        each!(rows, |x| tanh(x / cap) * cap);
    }
}

/// `g · (1 - (y / cap)²)`, over `g`, from the result `y`.
pub(crate) struct SoftCapSlope(pub(crate) f32);

impl PairKernel for SoftCapSlope {
    #[inline(always)]
    fn change(&self, rows: &mut [f32], other: &[f32], _: usize) {
        let cap = self.0;
        each_pair!(rows, other, |g, y| {
            let t = y / cap;
            g * ((1.0 - t) * (1.0 + t))
        });
    }
}
