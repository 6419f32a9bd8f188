//! The residual stream into logits.
//!
//! Hook points: `unembed.hook_in`, `unembed.hook_out` (before any soft-cap).

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, Hooks};
use burn_lens_tensor::{kernels, numeric};

/// The unembedding.
#[derive(Clone, Debug)]
pub(crate) struct Unembed {
    /// `[d_model, d_vocab_out]`
    pub(crate) w_u: Tensor<2>,
    /// `[d_vocab_out]`
    pub(crate) b_u: Option<Tensor<1>>,
    pub(crate) soft_cap: Option<f64>,
}

impl Unembed {
    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_model]`
    /// - returns: `[batch, pos, d_vocab_out]`
    pub(crate) fn forward(&self, hooks: &mut Hooks<'_>, x: Tensor<3>) -> Tensor<3> {
        let x = hooks.at(HookPoint::UnembedIn, x);
        let logits = kernels::linear(x, self.w_u.clone(), self.b_u.clone());
        let logits = hooks.at(HookPoint::UnembedOut, logits);
        match self.soft_cap {
            Some(cap) => numeric::soft_cap(logits, cap),
            None => logits,
        }
    }
}
