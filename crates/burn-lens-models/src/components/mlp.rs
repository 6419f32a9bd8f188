//! The feed-forward half of a block, plain or gated.
//!
//! Plain: `act(x W_in + b_in) W_out + b_out`. Gated:
//! `(act(x W_gate + b_gate) ⊙ (x W_in + b_in) + b_post) W_out + b_out`.
//!
//! Hook points, in the order they fire: `mlp.hook_pre`, `mlp.hook_pre_linear` (gated),
//! `mlp.hook_mid` and `mlp.ln.*` (SoLU with a norm), `mlp.hook_post`.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, Hooks};
use burn_lens_tensor::kernels;

use super::{ActFn, HookedNorm, Norm, NormKind};
use crate::{
    ModelConfig, ModelError, Param, Parameters,
    config::{MlpConfig, MlpKind},
};

/// The feed-forward network of one block.
#[derive(Clone, Debug)]
pub(crate) struct Mlp {
    act_fn: ActFn,
    gate: Option<Gate>,
    /// `[d_model, d_mlp]`; column `i` is what neuron `i` reads.
    w_in: Tensor<2>,
    /// `[d_mlp]`
    b_in: Option<Tensor<1>>,
    inner_norm: Option<Norm>,
    /// `[d_mlp, d_model]`; row `i` is what neuron `i` writes.
    w_out: Tensor<2>,
    /// `[d_model]`
    b_out: Option<Tensor<1>>,
}

#[derive(Clone, Debug)]
struct Gate {
    /// `[d_model, d_mlp]`
    w: Tensor<2>,
    /// `[d_mlp]`
    b: Option<Tensor<1>>,
    /// `[d_mlp]`, added behind the product.
    b_post: Option<Tensor<1>>,
}

impl Mlp {
    pub(crate) fn new(
        config: &ModelConfig,
        mlp: &MlpConfig,
        layer: usize,
        params: &Parameters,
    ) -> Result<Self, ModelError> {
        let gate = match mlp.kind {
            MlpKind::Plain => None,
            MlpKind::Gated => Some(Gate {
                w: params.get(Param::WGate(layer))?,
                b: params.find(Param::BGate(layer)),
                b_post: params.find(Param::BPost(layer)),
            }),
        };
        let inner_norm = mlp.act_fn.has_inner_norm().then(|| Norm {
            kind: NormKind::Layer,
            eps: config.norm.eps,
            w: params.find(Param::MlpLnW(layer)),
            b: params.find(Param::MlpLnB(layer)),
        });
        Ok(Self {
            act_fn: mlp.act_fn,
            gate,
            w_in: params.get(Param::WIn(layer))?,
            b_in: params.find(Param::BIn(layer)),
            inner_norm,
            w_out: params.get(Param::WOut(layer))?,
            b_out: params.find(Param::BOut(layer)),
        })
    }

    /// Maps the normalised residual stream to what this half adds to it.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_model]`; returns the same
    pub(crate) fn forward(&self, hooks: &mut Hooks<'_>, layer: usize, x: Tensor<3>) -> Tensor<3> {
        let post = match &self.gate {
            None => {
                let pre = kernels::linear(x, self.w_in.clone(), self.b_in.clone());
                let pre = hooks.at(HookPoint::MlpPre(layer), pre);
                self.activated(hooks, layer, pre)
            }
            Some(gate) => {
                let maps = [(&gate.w, gate.b.as_ref()), (&self.w_in, self.b_in.as_ref())];
                let [pre, linear] = kernels::linears(&x, maps);
                drop(x);
                let pre = hooks.at(HookPoint::MlpPre(layer), pre);
                let linear = hooks.at(HookPoint::MlpPreLinear(layer), linear);
                let post = self.act_fn.gated(pre, linear);
                match &gate.b_post {
                    Some(b) => post + b.clone().unsqueeze(),
                    None => post,
                }
            }
        };
        let post = hooks.at(HookPoint::MlpPost(layer), post);
        kernels::linear(post, self.w_out.clone(), self.b_out.clone())
    }

    /// The hooks that the MLP fires in every run, in firing order.
    pub(crate) fn firing(mlp: &MlpConfig, layer: usize, add: &mut impl FnMut(bool, &[HookPoint])) {
        add(true, &[HookPoint::MlpPre(layer)]);
        add(mlp.kind == MlpKind::Gated, &[HookPoint::MlpPreLinear(layer)]);
        let inner_norm = mlp.kind == MlpKind::Plain && mlp.act_fn.has_inner_norm();
        let points =
            [HookPoint::MlpMid(layer), HookPoint::MlpLnScale(layer), HookPoint::MlpLnNormalized(layer)];
        add(inner_norm, &points);
        add(true, &[HookPoint::MlpPost(layer)]);
    }

    fn activated(&self, hooks: &mut Hooks<'_>, layer: usize, pre: Tensor<3>) -> Tensor<3> {
        let post = self.act_fn.apply(pre);
        match &self.inner_norm {
            None => post,
            Some(norm) => {
                let mid = hooks.at(HookPoint::MlpMid(layer), post);
                norm.forward(hooks, [HookPoint::MlpLnScale(layer), HookPoint::MlpLnNormalized(layer)], mid)
            }
        }
    }
}
