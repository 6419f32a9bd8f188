//! One block: attention, then (or beside it) the MLP, around the residual stream.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, Hooks};

use crate::{
    ModelConfig, ModelError, Param, Parameters,
    components::{Attention, AttentionInput, HookedNorm, LayerKeyValues, Mlp, Norm, NormKind, Reach},
    config::{BlockLayout, NormPlacement},
    forward::Pass,
};

/// One block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    layer: usize,
    layout: BlockLayout,
    placement: NormPlacement,
    n_heads: usize,
    n_kv_heads: usize,
    ln1: Norm,
    attn: Attention,
    ln1_post: Option<Norm>,
    mlp: Option<MlpHalf>,
}

#[derive(Clone, Debug)]
struct MlpHalf {
    ln2: Norm,
    mlp: Mlp,
    ln2_post: Option<Norm>,
}

impl Block {
    pub(crate) fn new(config: &ModelConfig, layer: usize, params: &Parameters) -> Result<Self, ModelError> {
        let norm = |w: Param, b: Param| Norm {
            kind: config.norm.kind,
            eps: config.norm.eps,
            w: params.find(w),
            b: params.find(b),
        };
        let both = config.norm.placement == NormPlacement::Both;
        let mlp = match &config.mlp {
            None => None,
            Some(mlp) => Some(MlpHalf {
                ln2: norm(Param::Ln2W(layer), Param::Ln2B(layer)),
                mlp: Mlp::new(config, mlp, layer, params)?,
                ln2_post: both.then(|| norm(Param::Ln2PostW(layer), Param::Ln2PostB(layer))),
            }),
        };
        Ok(Self {
            layer,
            layout: config.layout,
            placement: config.norm.placement,
            n_heads: config.attention.n_heads,
            n_kv_heads: config.attention.n_kv_heads,
            ln1: norm(Param::Ln1W(layer), Param::Ln1B(layer)),
            attn: Attention::new(config, layer, params)?,
            ln1_post: both.then(|| norm(Param::Ln1PostW(layer), Param::Ln1PostB(layer))),
            mlp,
        })
    }

    /// # Shapes
    ///
    /// - `resid`: `[batch, pos, d_model]`; returns the same
    pub(crate) fn forward(
        &self,
        hooks: &mut Hooks<'_>,
        resid: Tensor<3>,
        pass: &Pass,
        past: Option<&mut LayerKeyValues>,
    ) -> Tensor<3> {
        let resid_pre = hooks.at(HookPoint::ResidPre(self.layer), resid);
        let attn_out = self.attention_half(hooks, resid_pre.clone(), pass, past);
        self.after_attention(hooks, resid_pre, attn_out)
    }

    /// From the values that heads mixed.
    pub(crate) fn forward_from_z(
        &self,
        hooks: &mut Hooks<'_>,
        resid_pre: Tensor<3>,
        z: Tensor<4>,
    ) -> Tensor<3> {
        let out = self.attn.forward_from_z(hooks, self.layer, z);
        let attn_out = self.attention_written(hooks, out);
        self.after_attention(hooks, resid_pre, attn_out)
    }

    /// From the stream between attention and MLP, in a sequential block.
    pub(crate) fn forward_from_mid(&self, hooks: &mut Hooks<'_>, resid_mid: Tensor<3>) -> Tensor<3> {
        let Some(half) = &self.mlp else {
            return hooks.at(HookPoint::ResidPost(self.layer), resid_mid);
        };
        let post = self.behind_mid(half, hooks, resid_mid);
        hooks.at(HookPoint::ResidPost(self.layer), post)
    }

    /// For the last positions alone, those of `tail`, without hooks.
    ///
    /// # Shapes
    ///
    /// - `resid`: `[batch, pos, d_model]`; returns `[batch, tail_pos, d_model]`
    pub(crate) fn forward_tail(
        &self,
        resid: Tensor<3>,
        pass: &Pass,
        tail: &Pass,
        past: Option<&mut LayerKeyValues>,
    ) -> Tensor<3> {
        let hooks = &mut Hooks::none();
        let (pos, read) = (resid.dims()[1], tail.len());
        let shared = self.attention_input(resid.clone());
        let resid = resid.narrow(1, pos - read, read);
        let out = self.attn.forward_tail(&shared, self.reach(pass, past), &self.reach(tail, None), read);
        let attn_out = self.attention_written(hooks, out);
        self.after_attention(hooks, resid, attn_out)
    }

    /// The keys (rotated) and values of every position, `[batch, n_kv_heads, pos, d_head]`.
    pub(crate) fn keys_and_values(&self, resid_pre: Tensor<3>, pass: &Pass) -> [Tensor<4>; 2] {
        self.attn.keys_and_values(&self.attention_input(resid_pre), self.reach(pass, None).rotary)
    }

    fn attention_input(&self, resid_pre: Tensor<3>) -> Tensor<3> {
        if self.placement == NormPlacement::Post { resid_pre } else { self.ln1.apply(resid_pre) }
    }

    fn reach<'a>(&self, pass: &'a Pass, past: Option<&'a mut LayerKeyValues>) -> Reach<'a> {
        let mask = pass.masks.get(self.attn.window);
        let rotary = pass.rotary.as_ref().map(|tables| tables.get(self.attn.window));
        Reach { rotary, mask, alibi: pass.alibi.as_ref(), past }
    }

    fn behind_mid(&self, half: &MlpHalf, hooks: &mut Hooks<'_>, resid_mid: Tensor<3>) -> Tensor<3> {
        let resid_mid = hooks.at(HookPoint::ResidMid(self.layer), resid_mid);
        let mlp_out = self.mlp_half(half, hooks, resid_mid.clone());
        resid_mid + mlp_out
    }

    fn after_attention(&self, hooks: &mut Hooks<'_>, resid_pre: Tensor<3>, attn_out: Tensor<3>) -> Tensor<3> {
        let layer = self.layer;
        let Some(half) = &self.mlp else {
            return hooks.at(HookPoint::ResidPost(layer), resid_pre + attn_out);
        };
        let post = match self.layout {
            BlockLayout::Sequential => self.behind_mid(half, hooks, resid_pre + attn_out),
            BlockLayout::Parallel => {
                let mlp_out = self.mlp_half(half, hooks, resid_pre.clone());
                resid_pre + attn_out + mlp_out
            }
        };
        hooks.at(HookPoint::ResidPost(layer), post)
    }

    fn attention_half(
        &self,
        hooks: &mut Hooks<'_>,
        resid_pre: Tensor<3>,
        pass: &Pass,
        past: Option<&mut LayerKeyValues>,
    ) -> Tensor<3> {
        let layer = self.layer;
        let points = [HookPoint::Ln1Scale(layer), HookPoint::Ln1Normalized(layer)];
        let pre = self.placement != NormPlacement::Post;
        let forks = self.forks(hooks, &resid_pre);
        let shared = if pre { self.ln1.forward(hooks, points, resid_pre) } else { resid_pre };
        let input = AttentionInput { shared, forks };
        let out = self.attn.forward(hooks, layer, input, self.reach(pass, past));
        self.attention_written(hooks, out)
    }

    /// What attention wrote as the stream gets it.
    fn attention_written(&self, hooks: &mut Hooks<'_>, out: Tensor<3>) -> Tensor<3> {
        let layer = self.layer;
        let points = [HookPoint::Ln1Scale(layer), HookPoint::Ln1Normalized(layer)];
        let pre = self.placement != NormPlacement::Post;
        let out = match (&self.ln1_post, pre) {
            (Some(norm), _) => norm.forward(
                hooks,
                [HookPoint::Ln1PostScale(layer), HookPoint::Ln1PostNormalized(layer)],
                out,
            ),
            (None, false) => self.ln1.forward(hooks, points, out),
            (None, true) => out,
        };
        hooks.at(HookPoint::AttnOut(layer), out)
    }

    /// The streams of `hook_attn_in` and `hook_{q,k,v}_input`, normed, where a hook made them
    /// differ from the shared one.
    ///
    /// A fork that no hook changes stays on the shared path, so asking to see one costs an
    /// expanded view and changes no bit of the result.
    fn forks(&self, hooks: &mut Hooks<'_>, resid_pre: &Tensor<3>) -> [Option<Tensor<4>>; 3] {
        let layer = self.layer;
        let points = [HookPoint::QInput(layer), HookPoint::KInput(layer), HookPoint::VInput(layer)];
        let attn_in = HookPoint::AttnIn(layer);
        let wants_attn_in = hooks.wants(attn_in);
        if !wants_attn_in && !points.iter().any(|&point| hooks.wants(point)) {
            return [None, None, None];
        }
        let [batch, pos, d_model] = resid_pre.dims();
        let forked =
            |heads: usize| resid_pre.clone().unsqueeze_dim::<4>(2).expand([batch, pos, heads, d_model]);
        let mut base = None;
        if wants_attn_in {
            let (x, changed) = hooks.at_changed(attn_in, forked(self.n_heads));
            base = changed.then_some(x);
        }
        let heads = [self.n_heads, self.n_kv_heads, self.n_kv_heads];
        let mut forks = [None, None, None];
        for ((fork, point), heads) in forks.iter_mut().zip(points).zip(heads) {
            let x = base.clone().unwrap_or_else(|| forked(heads));
            let (x, changed) = if hooks.wants(point) { hooks.at_changed(point, x) } else { (x, false) };
            if changed || base.is_some() {
                let pre = self.placement != NormPlacement::Post;
                *fork = Some(if pre { self.ln1.apply(x) } else { x });
            }
        }
        forks
    }

    fn mlp_half(&self, half: &MlpHalf, hooks: &mut Hooks<'_>, resid: Tensor<3>) -> Tensor<3> {
        let layer = self.layer;
        let points = [HookPoint::Ln2Scale(layer), HookPoint::Ln2Normalized(layer)];
        let x = hooks.at(HookPoint::MlpIn(layer), resid);
        let pre = self.placement != NormPlacement::Post;
        let x = if pre { half.ln2.forward(hooks, points, x) } else { x };
        let x = hooks.at(HookPoint::MlpInput(layer), x);
        let out = half.mlp.forward(hooks, layer, x);
        let out = match (&half.ln2_post, pre) {
            (Some(norm), _) => norm.forward(
                hooks,
                [HookPoint::Ln2PostScale(layer), HookPoint::Ln2PostNormalized(layer)],
                out,
            ),
            (None, false) => half.ln2.forward(hooks, points, out),
            (None, true) => out,
        };
        hooks.at(HookPoint::MlpOut(layer), out)
    }

    /// The hooks that this block fires, in firing order: always, then when asked for.
    pub(crate) fn firing(config: &ModelConfig, layer: usize) -> [Vec<HookPoint>; 2] {
        let normed = config.norm.kind != NormKind::None;
        let pre = config.has_pre_norm();
        let both = config.norm.placement == NormPlacement::Both;
        let ln1 = [HookPoint::Ln1Scale(layer), HookPoint::Ln1Normalized(layer)];
        let ln2 = [HookPoint::Ln2Scale(layer), HookPoint::Ln2Normalized(layer)];
        let mut always = vec![HookPoint::ResidPre(layer)];
        let mut add = |condition: bool, points: &[HookPoint]| {
            if condition {
                always.extend_from_slice(points);
            }
        };
        add(normed && pre, &ln1);
        Attention::firing(config, layer, &mut add);
        add(normed && both, &[HookPoint::Ln1PostScale(layer), HookPoint::Ln1PostNormalized(layer)]);
        add(normed && !pre, &ln1);
        add(true, &[HookPoint::AttnOut(layer)]);
        if let Some(mlp) = &config.mlp {
            add(config.layout == BlockLayout::Sequential, &[HookPoint::ResidMid(layer)]);
            add(normed && pre, &ln2);
            Mlp::firing(mlp, layer, &mut add);
            add(normed && both, &[HookPoint::Ln2PostScale(layer), HookPoint::Ln2PostNormalized(layer)]);
            add(normed && !pre, &ln2);
            add(true, &[HookPoint::MlpOut(layer)]);
        }
        add(true, &[HookPoint::ResidPost(layer)]);

        let mut optional = Vec::new();
        if config.attention.n_heads == config.attention.n_kv_heads {
            optional.push(HookPoint::AttnIn(layer));
        }
        optional.extend([
            HookPoint::QInput(layer),
            HookPoint::KInput(layer),
            HookPoint::VInput(layer),
            HookPoint::AttnResult(layer),
        ]);
        if config.mlp.is_some() {
            optional.extend([HookPoint::MlpIn(layer), HookPoint::MlpInput(layer)]);
        }
        [always, optional]
    }
}
