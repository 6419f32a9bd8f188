//! Layer norm and root-mean-square norm, as arithmetic.
//!
//! `scale = sqrt(mean(x²) + eps)`, `normalized = x / scale`, output `normalized · w + b`; layer
//! norm subtracts the mean from `x` first.

use burn::tensor::Tensor;

use crate::{kernels, numeric};

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// None: the identity.
    None,
    /// Layer norm: centers, then divides by the standard deviation.
    Layer,
    /// Divides by the root mean square.
    Rms,
}

/// One norm.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Which.
    pub kind: NormKind,
    /// Added to the mean square.
    pub eps: f64,
    /// `[d_model]`; folded into what follows where `None`.
    pub w: Option<Tensor<1>>,
    /// `[d_model]`
    pub b: Option<Tensor<1>>,
}

impl Norm {
    /// Normalizes the last axis of `x`, in the accumulator type for half precision.
    ///
    /// # Shapes
    ///
    /// - `x`: `[.., d_model]`; returns the same
    #[must_use]
    pub fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if self.kind == NormKind::None {
            return x;
        }
        kernels::normalized(x, self.kind == NormKind::Layer, self.eps, self.w.as_ref(), self.b.as_ref())
    }

    /// What the scale divides: `x` less its mean over the last axis in a layer norm, `x`
    /// itself otherwise. Linear in `x`.
    #[must_use]
    pub fn centered<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if self.kind == NormKind::Layer { kernels::centered(x) } else { x }
    }

    /// `sqrt(mean(x²) + eps)` of a centered `x`, the last axis kept with length 1.
    #[must_use]
    pub fn scale<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        numeric::root_mean_square(x, self.eps)
    }

    /// `x · w + b`, with what there is of them.
    #[must_use]
    pub fn affine<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::affine(x, self.w.as_ref(), self.b.as_ref())
    }
}
