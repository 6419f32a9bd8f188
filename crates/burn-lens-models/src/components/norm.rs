//! Layer norm and root-mean-square norm, with the hooks that TransformerLens puts in them.
//!
//! `scale = sqrt(mean(x²) + eps)`, `normalized = x / scale`, output `normalized · w + b`; layer
//! norm subtracts the mean from `x` first. Hook points: `hook_scale`, then `hook_normalized`.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, Hooks};
use burn_lens_tensor::{TypedTensor, numeric};

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// None: the identity, without hooks.
    None,
    /// Layer norm: centres, then divides by the standard deviation.
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
    /// Normalises the last axis of `x`, in the accumulator type for half precision.
    ///
    /// # Shapes
    ///
    /// - `x`: `[.., d_model]`
    /// - `hook_scale`: `[.., 1]`; `hook_normalized` and the result: as `x`
    pub fn forward<const D: usize>(
        &self,
        hooks: &mut Hooks<'_>,
        [scale_point, normalized_point]: [HookPoint; 2],
        x: Tensor<D>,
    ) -> Tensor<D>
    where
        Tensor<D>: TypedTensor,
    {
        if self.kind == NormKind::None {
            return x;
        }
        let (x, dtype) = self.centred(x);
        let scale = hooks.at(scale_point, numeric::root_mean_square(x.clone(), self.eps));
        let normalized = x / scale;
        let normalized = if normalized.dtype() == dtype { normalized } else { normalized.cast(dtype) };
        self.affine(hooks.at(normalized_point, normalized))
    }

    /// The same without hooks, for streams that are forked per head.
    #[must_use]
    pub fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if self.kind == NormKind::None {
            return x;
        }
        let (x, dtype) = self.centred(x);
        let normalized = x.clone() / numeric::root_mean_square(x, self.eps);
        self.affine(if normalized.dtype() == dtype { normalized } else { normalized.cast(dtype) })
    }

    fn centred<const D: usize>(&self, x: Tensor<D>) -> (Tensor<D>, burn::tensor::DType) {
        let (x, dtype) = numeric::widened(x);
        if self.kind == NormKind::Layer {
            let mean = x.clone().mean_dim(D - 1);
            (x - mean, dtype)
        } else {
            (x, dtype)
        }
    }

    fn affine<const D: usize>(&self, mut x: Tensor<D>) -> Tensor<D> {
        if let Some(w) = &self.w {
            x = x * w.clone().unsqueeze();
        }
        if let Some(b) = &self.b {
            x = x + b.clone().unsqueeze();
        }
        x
    }
}
