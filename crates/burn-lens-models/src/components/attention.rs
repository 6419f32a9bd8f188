//! Attention: queries, keys and values of each head, scores, pattern, and what heads write.
//!
//! Hook points, in the order they fire: `hook_q`, `hook_k`, `hook_v`, `q_norm.*`, `k_norm.*`,
//! `hook_rot_q`, `hook_rot_k`, `hook_attn_scores`, `hook_pattern`, `hook_z`, `hook_result`.
//!
//! Grouped queries are multiplied with their shared keys and values without repeating these:
//! the query heads of a group are stacked along the position axis.

use burn::tensor::{Tensor, module};
use burn_lens_hooks::{HookPoint, Hooks};
use burn_lens_tensor::numeric;

use super::{HookedNorm, Norm, NormKind, Positions, alibi, mask::Mask, rotary::RotaryTable};
use crate::{ModelConfig, ModelError, Param, Parameters};

/// One projection into heads.
#[derive(Clone, Debug)]
struct Projection {
    /// `[d_model, heads·d_head]`
    w: Tensor<2>,
    /// `[heads·d_head]`
    b: Option<Tensor<1>>,
    heads: usize,
}

/// The attention half of one block.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    q: Projection,
    k: Projection,
    v: Projection,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    /// `[n_heads]`
    sinks: Option<Tensor<1>>,
    /// `[n_heads·d_head, d_model]`
    w_o: Tensor<2>,
    /// `[d_model]`
    b_o: Option<Tensor<1>>,
    d_head: usize,
    scale: f64,
    soft_cap: Option<f64>,
    clip: Option<f64>,
    alibi: bool,
    /// Which mask of the pass applies here.
    pub(crate) window: Option<usize>,
}

/// What queries, keys and values read.
pub(crate) struct AttentionInput {
    /// `[batch, pos, d_model]`
    pub(crate) shared: Tensor<3>,
    /// Streams of their own for each head, `[batch, pos, heads, d_model]`, where a hook made
    /// them differ.
    pub(crate) forks: [Option<Tensor<4>>; 3],
}

/// Where this pass' positions are, and what they may see.
pub(crate) struct Reach<'a> {
    pub(crate) rotary: Option<&'a RotaryTable>,
    pub(crate) mask: Option<&'a Mask>,
    pub(crate) past: Option<&'a mut LayerKeyValues>,
}

/// The keys (rotated) and values of earlier passes, `[batch, n_kv_heads, key_pos, d_head]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerKeyValues(Option<[Tensor<4>; 2]>);

impl LayerKeyValues {
    /// These keys and values.
    pub(crate) fn of(keys: Tensor<4>, values: Tensor<4>) -> Self {
        Self(Some([keys, values]))
    }

    /// Appends and returns all.
    fn extend(&mut self, k: Tensor<4>, v: Tensor<4>) -> [Tensor<4>; 2] {
        let all = match self.0.take() {
            None => [k, v],
            Some([past_k, past_v]) => [Tensor::cat(vec![past_k, k], 2), Tensor::cat(vec![past_v, v], 2)],
        };
        self.0 = Some(all.clone());
        all
    }
}

impl Attention {
    pub(crate) fn new(config: &ModelConfig, layer: usize, params: &Parameters) -> Result<Self, ModelError> {
        let attention = &config.attention;
        let projection = |w: Param, b: Param, heads: usize| -> Result<Projection, ModelError> {
            Ok(Projection { w: params.get(w)?, b: params.find(b), heads })
        };
        let qk_norm = |w: Param| -> Result<Option<Norm>, ModelError> {
            let Some(eps) = attention.qk_norm_eps else { return Ok(None) };
            Ok(Some(Norm { kind: NormKind::Rms, eps, w: Some(params.get(w)?), b: None }))
        };
        let by_layer = if attention.scale_by_inverse_layer { (layer + 1) as f64 } else { 1.0 };
        Ok(Self {
            q: projection(Param::WQ(layer), Param::BQ(layer), attention.n_heads)?,
            k: projection(Param::WK(layer), Param::BK(layer), attention.n_kv_heads)?,
            v: projection(Param::WV(layer), Param::BV(layer), attention.n_kv_heads)?,
            q_norm: qk_norm(Param::QNorm(layer))?,
            k_norm: qk_norm(Param::KNorm(layer))?,
            sinks: params.find(Param::Sinks(layer)),
            w_o: params.get(Param::WO(layer))?,
            b_o: params.find(Param::BO(layer)),
            d_head: attention.d_head,
            scale: attention.scale * by_layer,
            soft_cap: attention.scores_soft_cap,
            clip: attention.clip_qkv,
            alibi: config.positions == Positions::Alibi,
            window: attention.windows[layer],
        })
    }

    /// Maps the normalised residual stream to what this half adds to it.
    ///
    /// # Shapes
    ///
    /// - returns: `[batch, pos, d_model]`
    pub(crate) fn forward(
        &self,
        hooks: &mut Hooks<'_>,
        layer: usize,
        input: AttentionInput,
        reach: Reach<'_>,
    ) -> Tensor<3> {
        let Reach { rotary, mask, past } = reach;
        let [q, k, v] = self.queries_keys_values(hooks, layer, input);
        let (q, k) = match rotary {
            None => (q, k),
            Some(table) => (
                hooks.at(HookPoint::AttnRotQ(layer), table.rotate(q)),
                hooks.at(HookPoint::AttnRotK(layer), table.rotate(k)),
            ),
        };
        let (mut k, mut v) = (k.swap_dims(1, 2), v.swap_dims(1, 2));
        if let Some(past) = past {
            [k, v] = past.extend(k, v);
        }
        let scores = self.masked_scores(q, k, mask);
        let scores = hooks.at(HookPoint::AttnScores(layer), scores);
        let pattern = hooks.at(HookPoint::AttnPattern(layer), self.pattern(scores, mask));
        self.forward_from_z(hooks, layer, self.mixed(pattern, v))
    }

    /// From the values that heads mixed, `[batch, pos, n_heads, d_head]`.
    pub(crate) fn forward_from_z(&self, hooks: &mut Hooks<'_>, layer: usize, z: Tensor<4>) -> Tensor<3> {
        let z = hooks.at(HookPoint::AttnZ(layer), z);
        self.written(hooks, layer, z)
    }

    /// For the last `read` positions alone, without hooks.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_model]`; returns `[batch, read, d_model]`
    pub(crate) fn forward_tail(
        &self,
        x: &Tensor<3>,
        reach: Reach<'_>,
        tail: &Reach<'_>,
        read: usize,
    ) -> Tensor<3> {
        let [mut k, mut v] = self.keys_and_values(x, reach.rotary);
        if let Some(past) = reach.past {
            [k, v] = past.extend(k, v);
        }
        let pos = x.dims()[1];
        let q = self.q.forward(&x.clone().narrow(1, pos - read, read), None, self.d_head);
        let q = self.finished(q, self.q_norm.as_ref(), tail.rotary);
        let pattern = self.pattern(self.masked_scores(q, k, tail.mask), tail.mask);
        let z = self.mixed(pattern, v);
        self.written(&mut Hooks::none(), 0, z)
    }

    /// # Shapes
    ///
    /// - `x`: `[batch, pos, d_model]`
    /// - returns: keys as scores read them, and values, `[batch, n_kv_heads, pos, d_head]`
    pub(crate) fn keys_and_values(&self, x: &Tensor<3>, rotary: Option<&RotaryTable>) -> [Tensor<4>; 2] {
        let k =
            self.finished(self.k.forward(x, None, self.d_head), self.k_norm.as_ref(), rotary).swap_dims(1, 2);
        let v = self.finished(self.v.forward(x, None, self.d_head), None, None).swap_dims(1, 2);
        [k, v]
    }

    /// A projection normed, clamped and rotated.
    fn finished(&self, x: Tensor<4>, norm: Option<&Norm>, rotary: Option<&RotaryTable>) -> Tensor<4> {
        let x = match norm {
            None => x,
            Some(norm) => norm.apply(x),
        };
        let x = match self.clip {
            None => x,
            Some(clip) => x.clamp(-clip, clip),
        };
        match rotary {
            None => x,
            Some(table) => table.rotate(x),
        }
    }

    /// The hooks that attention fires in every run, in firing order.
    pub(crate) fn firing(config: &ModelConfig, layer: usize, add: &mut impl FnMut(bool, &[HookPoint])) {
        add(true, &[HookPoint::AttnQ(layer), HookPoint::AttnK(layer), HookPoint::AttnV(layer)]);
        let qk_norm = config.attention.qk_norm_eps.is_some();
        add(qk_norm, &[HookPoint::QNormScale(layer), HookPoint::QNormNormalized(layer)]);
        add(qk_norm, &[HookPoint::KNormScale(layer), HookPoint::KNormNormalized(layer)]);
        let rotary = matches!(config.positions, Positions::Rotary(_));
        add(rotary, &[HookPoint::AttnRotQ(layer), HookPoint::AttnRotK(layer)]);
        add(true, &[HookPoint::AttnScores(layer), HookPoint::AttnPattern(layer), HookPoint::AttnZ(layer)]);
    }

    fn queries_keys_values(
        &self,
        hooks: &mut Hooks<'_>,
        layer: usize,
        input: AttentionInput,
    ) -> [Tensor<4>; 3] {
        let [q_fork, k_fork, v_fork] = input.forks;
        let x = input.shared;
        let q = hooks.at(HookPoint::AttnQ(layer), self.q.forward(&x, q_fork, self.d_head));
        let k = hooks.at(HookPoint::AttnK(layer), self.k.forward(&x, k_fork, self.d_head));
        let v = hooks.at(HookPoint::AttnV(layer), self.v.forward(&x, v_fork, self.d_head));
        let q = match &self.q_norm {
            None => q,
            Some(norm) => {
                norm.forward(hooks, [HookPoint::QNormScale(layer), HookPoint::QNormNormalized(layer)], q)
            }
        };
        let k = match &self.k_norm {
            None => k,
            Some(norm) => {
                norm.forward(hooks, [HookPoint::KNormScale(layer), HookPoint::KNormNormalized(layer)], k)
            }
        };
        match self.clip {
            None => [q, k, v],
            Some(clip) => [q, k, v].map(|x| x.clamp(-clip, clip)),
        }
    }

    /// # Shapes
    ///
    /// - `q`: `[batch, pos, n_heads, d_head]`, `k`: `[batch, n_kv_heads, key_pos, d_head]`
    /// - returns: `[batch, n_heads, query_pos, key_pos]`
    fn masked_scores(&self, q: Tensor<4>, k: Tensor<4>, mask: Option<&Mask>) -> Tensor<4> {
        let [batch, queries, n_heads, d_head] = q.dims();
        let [_, n_kv_heads, keys, _] = k.dims();
        let group = n_heads / n_kv_heads;
        let (device, dtype) = (q.device(), q.dtype());
        let q = q.swap_dims(1, 2).reshape([batch, n_kv_heads, group * queries, d_head]);
        let scores = q.matmul(k.transpose()) / self.scale;
        let mut scores = scores.reshape([batch, n_heads, queries, keys]);
        if let Some(cap) = self.soft_cap {
            scores = numeric::soft_cap(scores, cap);
        }
        if self.alibi {
            scores = scores + alibi::bias(n_heads, queries, keys, &device.without_autodiff(), dtype);
        }
        match mask {
            None => scores,
            Some(mask) => {
                let hidden = mask.hidden.clone().expand([batch, n_heads, queries, keys]);
                scores.mask_fill(hidden, f64::NEG_INFINITY)
            }
        }
    }

    /// Softmax over keys (and the head's sink, which is then dropped); zero for queries that see
    /// nothing.
    fn pattern(&self, scores: Tensor<4>, mask: Option<&Mask>) -> Tensor<4> {
        let dims = scores.dims();
        let [batch, n_heads, queries, keys] = dims;
        let pattern = match &self.sinks {
            None => numeric::softmax(scores),
            Some(sinks) => {
                let sinks = sinks.clone().reshape([1, n_heads, 1, 1]).expand([batch, n_heads, queries, 1]);
                numeric::softmax(Tensor::cat(vec![scores, sinks], 3)).narrow(3, 0, keys)
            }
        };
        match mask.and_then(|mask| mask.blind.as_ref()) {
            None => pattern,
            Some(blind) => pattern.mask_fill(blind.clone().expand(dims), 0.0),
        }
    }

    /// # Shapes
    ///
    /// - `pattern`: `[batch, n_heads, query_pos, key_pos]`, `v`: `[batch, n_kv_heads, key_pos, d_head]`
    /// - returns: `[batch, query_pos, n_heads, d_head]`
    fn mixed(&self, pattern: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
        let [batch, n_heads, queries, keys] = pattern.dims();
        let n_kv_heads = v.dims()[1];
        let group = n_heads / n_kv_heads;
        let pattern = pattern.reshape([batch, n_kv_heads, group * queries, keys]);
        pattern.matmul(v).reshape([batch, n_heads, queries, self.d_head]).swap_dims(1, 2)
    }

    /// # Shapes
    ///
    /// - `z`: `[batch, pos, n_heads, d_head]`
    /// - returns: `[batch, pos, d_model]`
    fn written(&self, hooks: &mut Hooks<'_>, layer: usize, z: Tensor<4>) -> Tensor<3> {
        let [batch, pos, n_heads, d_head] = z.dims();
        let [_, d_model] = self.w_o.dims();
        let point = HookPoint::AttnResult(layer);
        if hooks.wants(point) {
            let by_head = z.clone().permute([2, 0, 1, 3]).reshape([n_heads, batch * pos, d_head]);
            let result = by_head.matmul(self.w_o.clone().reshape([n_heads, d_head, d_model]));
            let result = result.reshape([n_heads, batch, pos, d_model]).permute([1, 2, 0, 3]);
            let (result, changed) = hooks.at_changed(point, result);
            if changed {
                let out = result.sum_dim(2).reshape([batch, pos, d_model]);
                return match &self.b_o {
                    Some(b) => out + b.clone().unsqueeze(),
                    None => out,
                };
            }
        }
        module::linear(z.reshape([batch, pos, n_heads * d_head]), self.w_o.clone(), self.b_o.clone())
    }
}

impl Projection {
    /// # Shapes
    ///
    /// - `shared`: `[batch, pos, d_model]`, `fork`: `[batch, pos, heads, d_model]`
    /// - returns: `[batch, pos, heads, d_head]`
    fn forward(&self, shared: &Tensor<3>, fork: Option<Tensor<4>>, d_head: usize) -> Tensor<4> {
        let [batch, pos, d_model] = shared.dims();
        let shape = [batch, pos, self.heads, d_head];
        let Some(fork) = fork else {
            return module::linear(shared.clone(), self.w.clone(), self.b.clone()).reshape(shape);
        };
        let fork = fork.permute([2, 0, 1, 3]).reshape([self.heads, batch * pos, d_model]);
        let w = self.w.clone().reshape([d_model, self.heads, d_head]).permute([1, 0, 2]);
        let out = fork.matmul(w).reshape([self.heads, batch, pos, d_head]).permute([1, 2, 0, 3]);
        match &self.b {
            Some(b) => out + b.clone().reshape([1, 1, self.heads, d_head]),
            None => out,
        }
    }
}
