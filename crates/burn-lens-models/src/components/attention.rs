//! Attention: queries, keys and values of each head, scores, pattern, and what heads write.
//!
//! Hook points, in the order they fire: `hook_q`, `hook_k`, `hook_v`, `q_norm.*`, `k_norm.*`,
//! `hook_rot_q`, `hook_rot_k`, `hook_attn_scores`, `hook_pattern`, `hook_z`, `hook_result`.
//!
//! Where hooks change neither scores nor pattern, all is computed at once, if the device has a kernel for
//! that, and they are stored only where they are kept: the result is the same to the last bit.
//!
//! Grouped queries are multiplied with their shared keys and values without repeating these:
//! the query heads of a group are stacked along the position axis.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, Hooks};
use burn_lens_tensor::{
    kernels::{self, Attended, AttentionScores, Looks},
    numeric,
};

use super::{Alibi, HookedNorm, Norm, NormKind, Positions, mask::Mask, rotary::RotaryTable};
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
    pub(crate) mask: &'a Mask,
    pub(crate) alibi: Option<&'a Alibi>,
    pub(crate) past: Option<&'a mut LayerKeyValues>,
}

/// The keys (rotated) and values of earlier passes, `[batch, n_kv_heads, room, d_head]`, of
/// which the first `len` positions are filled.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerKeyValues {
    buffers: Option<[Tensor<4>; 2]>,
    len: usize,
}

impl LayerKeyValues {
    /// These keys and values.
    pub(crate) fn of(keys: Tensor<4>, values: Tensor<4>) -> Self {
        let len = keys.dims()[2];
        Self { buffers: Some([keys, values]), len }
    }

    /// Appends and returns all. Buffers that are full are replaced by ones with room for twice
    /// as much; one that nobody else holds is written in place.
    fn extend(&mut self, k: Tensor<4>, v: Tensor<4>) -> [Tensor<4>; 2] {
        let (start, len) = (self.len, self.len + k.dims()[2]);
        self.len = len;
        let mut past = self.buffers.take().map_or([None, None], |past| past.map(Some)).into_iter();
        let buffers = [k, v].map(|new| appended(past.next().flatten(), new, start));
        self.buffers = Some(buffers.clone());
        buffers.map(|buffer| buffer.narrow(2, 0, len))
    }
}

/// `past` with `new` at `start..`, in a larger buffer if it has no room.
fn appended(past: Option<Tensor<4>>, new: Tensor<4>, start: usize) -> Tensor<4> {
    /// Room for this many positions at least.
    const ROOM: usize = 64;
    let [batch, heads, pos, d_head] = new.dims();
    let end = start + pos;
    let at = |range: std::ops::Range<usize>| [0..batch, 0..heads, range, 0..d_head];
    let buffer = match past {
        Some(past) if past.dims()[2] >= end => past,
        past => {
            let room = end.next_power_of_two().max(ROOM);
            let buffer = numeric::zeros([batch, heads, room, d_head], &new.device(), new.dtype());
            match past {
                None => buffer,
                Some(past) => buffer.slice_assign(at(0..start), past.narrow(2, 0, start)),
            }
        }
    };
    buffer.slice_assign(at(start..end), new)
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
        let Reach { rotary, mask, alibi, past } = reach;
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
        let z = self.mixed_values(hooks, layer, [q, k, v], (mask, alibi));
        self.forward_from_z(hooks, layer, z)
    }

    /// Values mixed by heads, `[batch, pos, n_heads, d_head]`: all at once, or through scores and pattern where hooks
    /// may change them or there is no kernel.
    fn mixed_values(
        &self,
        hooks: &mut Hooks<'_>,
        layer: usize,
        [q, k, v]: [Tensor<4>; 3],
        (mask, alibi): (&Mask, Option<&Alibi>),
    ) -> Tensor<4> {
        let [on_scores, on_pattern] = [HookPoint::AttnScores(layer), HookPoint::AttnPattern(layer)];
        let (how, sinks, mask) = (self.scoring(mask, alibi), self.sinks.clone(), mask.clone());
        let parts = Parts { attention: self, alibi, to_pattern: ToPattern { how, sinks, mask } };
        if !hooks.may_change(on_scores) && !hooks.may_change(on_pattern) {
            let derived = hooks.may_derive(on_pattern, on_scores);
            let looks =
                Looks { scores: hooks.wants(on_scores), pattern: hooks.wants(on_pattern) && !derived };
            let whole = kernels::attention([&q, &k, &v], self.sinks.as_ref(), &parts.to_pattern.how, looks);
            if let Some(Attended { scores, pattern, z }) = whole {
                for (point, kept) in [(on_scores, scores), (on_pattern, pattern)] {
                    kept.map(|kept| hooks.at(point, kept));
                }
                if derived {
                    let to_pattern = parts.to_pattern;
                    hooks.derive(on_pattern, on_scores, move |scores| to_pattern.of(scores));
                }
                return z;
            }
        }
        let scores = hooks.at(on_scores, parts.scores(q, k));
        let pattern = hooks.at(on_pattern, parts.to_pattern.of(scores));
        parts.mixed(pattern, v)
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
        let mut hooks = Hooks::none();
        let z = self.mixed_values(&mut hooks, 0, [q, k, v], (tail.mask, tail.alibi));
        self.written(&mut hooks, 0, z)
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
        let x = &input.shared;
        let [q, k, v] = match input.forks {
            [None, None, None] => {
                let maps = [&self.q, &self.k, &self.v].map(|to| (&to.w, to.b.as_ref()));
                let [q, k, v] = kernels::linears(x, maps);
                [
                    self.q.by_head(q, self.d_head),
                    self.k.by_head(k, self.d_head),
                    self.v.by_head(v, self.d_head),
                ]
            }
            [on_q, on_k, on_v] => [
                self.q.forward(x, on_q, self.d_head),
                self.k.forward(x, on_k, self.d_head),
                self.v.forward(x, on_v, self.d_head),
            ],
        };
        let q = hooks.at(HookPoint::AttnQ(layer), q);
        let k = hooks.at(HookPoint::AttnK(layer), k);
        let v = hooks.at(HookPoint::AttnV(layer), v);
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

    fn scoring(&self, mask: &Mask, alibi: Option<&Alibi>) -> AttentionScores {
        AttentionScores {
            scale: self.scale,
            soft_cap: self.soft_cap,
            slopes: alibi.map(|alibi| alibi.slopes.clone()),
            sight: mask.sight.clone(),
        }
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
        kernels::linear(z.reshape([batch, pos, n_heads * d_head]), self.w_o.clone(), self.b_o.clone())
    }
}

/// Attention in steps that hooks can see: by kernels where there are some, else by burn.
struct Parts<'a> {
    attention: &'a Attention,
    alibi: Option<&'a Alibi>,
    to_pattern: ToPattern,
}

/// What makes a pattern of scores.
struct ToPattern {
    how: AttentionScores,
    /// `[n_heads]`
    sinks: Option<Tensor<1>>,
    mask: Mask,
}

impl Parts<'_> {
    /// # Shapes
    ///
    /// - `q`: `[batch, pos, n_heads, d_head]`, `k`: `[batch, n_kv_heads, key_pos, d_head]`
    /// - returns: `[batch, n_heads, query_pos, key_pos]`
    fn scores(&self, q: Tensor<4>, k: Tensor<4>) -> Tensor<4> {
        if let Some(scores) = kernels::scores(&q, &k, &self.to_pattern.how) {
            return scores;
        }
        let [batch, queries, n_heads, d_head] = q.dims();
        let [_, n_kv_heads, keys, _] = k.dims();
        let group = n_heads / n_kv_heads;
        let (device, dtype) = (q.device(), q.dtype());
        let q = q.swap_dims(1, 2).reshape([batch, n_kv_heads, group * queries, d_head]);
        let scores = q.matmul(k.transpose()) / self.attention.scale;
        let mut scores = scores.reshape([batch, n_heads, queries, keys]);
        if let Some(cap) = self.attention.soft_cap {
            scores = numeric::soft_cap(scores, cap);
        }
        if let Some(alibi) = self.alibi {
            scores = scores + alibi.bias(&device.without_autodiff(), dtype);
        }
        match self.to_pattern.mask.hidden() {
            None => scores,
            Some(hidden) => {
                let hidden = hidden.clone().expand([batch, n_heads, queries, keys]);
                scores.mask_fill(hidden, f64::NEG_INFINITY)
            }
        }
    }

    /// # Shapes
    ///
    /// - `pattern`: `[batch, n_heads, query_pos, key_pos]`, `v`: `[batch, n_kv_heads, key_pos, d_head]`
    /// - returns: `[batch, query_pos, n_heads, d_head]`
    fn mixed(&self, pattern: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
        if let Some(z) = kernels::mixed(&pattern, &v) {
            return z;
        }
        let [batch, n_heads, queries, keys] = pattern.dims();
        let n_kv_heads = v.dims()[1];
        let group = n_heads / n_kv_heads;
        let pattern = pattern.reshape([batch, n_kv_heads, group * queries, keys]);
        let z = pattern.matmul(v).reshape([batch, n_heads, queries, self.attention.d_head]);
        z.swap_dims(1, 2)
    }
}

impl ToPattern {
    /// Softmax over keys (and the head's sink, which is then dropped); zero for queries that see
    /// nothing.
    fn of(&self, scores: Tensor<4>) -> Tensor<4> {
        let sinks = self.sinks.as_ref();
        let scores = match kernels::pattern(scores, sinks, &self.how) {
            Ok(pattern) => return pattern,
            Err(scores) => scores,
        };
        let dims = scores.dims();
        let [batch, n_heads, queries, keys] = dims;
        let pattern = match sinks {
            None => numeric::softmax(scores),
            Some(sinks) => {
                let sinks = sinks.clone().reshape([1, n_heads, 1, 1]).expand([batch, n_heads, queries, 1]);
                numeric::softmax(Tensor::cat(vec![scores, sinks], 3)).narrow(3, 0, keys)
            }
        };
        match self.mask.blind() {
            None => pattern,
            Some(blind) => pattern.mask_fill(blind.clone().expand(dims), 0.0),
        }
    }
}

impl Projection {
    /// # Shapes
    ///
    /// - `x`: `[batch, pos, heads·d_head]`; returns `[batch, pos, heads, d_head]`
    fn by_head(&self, x: Tensor<3>, d_head: usize) -> Tensor<4> {
        let [batch, pos, _] = x.dims();
        x.reshape([batch, pos, self.heads, d_head])
    }

    /// # Shapes
    ///
    /// - `shared`: `[batch, pos, d_model]`, `fork`: `[batch, pos, heads, d_model]`
    /// - returns: `[batch, pos, heads, d_head]`
    fn forward(&self, shared: &Tensor<3>, fork: Option<Tensor<4>>, d_head: usize) -> Tensor<4> {
        let [batch, pos, d_model] = shared.dims();
        let Some(fork) = fork else {
            return self.by_head(kernels::linear(shared.clone(), self.w.clone(), self.b.clone()), d_head);
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
