//! Vectors into the residual stream and out of it, in models without a vocabulary.
//!
//! Hook points: `hook_read_in`, `hook_read_out`.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, Hooks, Param};
use burn_lens_tensor::kernels;

use crate::{ModelError, Parameters};

/// The read-in, in place of an embedding: `x W + b`.
#[derive(Clone, Debug)]
pub(crate) struct ReadIn {
    /// `[d_in, d_model]`
    pub(crate) w: Tensor<2>,
    /// `[d_model]`
    b: Option<Tensor<1>>,
}

impl ReadIn {
    pub(crate) fn new(params: &Parameters) -> Result<Self, ModelError> {
        Ok(Self { w: params.get(Param::ReadInW)?, b: params.find(Param::ReadInB) })
    }

    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_in]`
    /// - returns: `[batch, pos, d_model]`
    pub(crate) fn forward(&self, hooks: &mut Hooks<'_>, x: Tensor<3>) -> Tensor<3> {
        hooks.at(HookPoint::ReadIn, kernels::linear(x, self.w.clone(), self.b.clone()))
    }
}

/// The read-out, in place of an unembedding: `x W + b`.
#[derive(Clone, Debug)]
pub(crate) struct ReadOut {
    /// `[d_model, d_out]`
    w: Tensor<2>,
    /// `[d_out]`
    b: Option<Tensor<1>>,
}

impl ReadOut {
    pub(crate) fn new(params: &Parameters) -> Result<Self, ModelError> {
        Ok(Self { w: params.get(Param::ReadOutW)?, b: params.find(Param::ReadOutB) })
    }

    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_model]`
    /// - returns: `[batch, pos, d_out]`
    pub(crate) fn forward(&self, hooks: &mut Hooks<'_>, x: Tensor<3>) -> Tensor<3> {
        hooks.at(HookPoint::ReadOut, kernels::linear(x, self.w.clone(), self.b.clone()))
    }
}
