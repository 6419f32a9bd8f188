//! The forward pass once more, with sizes in place of tensors.

use burn_lens_hooks::{HookPoint, HookedModel as _, ModelDims, ReturnType, RunError};

use super::{
    AttentionPath, PlannedPart, PlannedRun,
    meter::{Buffer, Meter},
};
use crate::{
    HookedTransformer,
    components::{NormKind, Positions},
    config::{BlockLayout, MlpKind},
    forward::Layers,
};

/// A walk through the forward pass of one run.
pub(super) struct Walk<'a> {
    model: &'a HookedTransformer,
    run: &'a PlannedRun<'a>,
    dims: ModelDims,
    layers: [usize; 2],
    stopped: bool,
    attention: &'a AttentionPath,
    /// How many positions get logits.
    logits_pos: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        model: &'a HookedTransformer,
        run: &'a PlannedRun<'a>,
        layers: [usize; 2],
        stopped: bool,
        attention: &'a AttentionPath,
    ) -> Result<Self, RunError> {
        let refuse = |error| RunError::Options(format!("RunOptions::logits_pos: {error}"));
        let logits_pos = run.options.logits_pos.resolve(run.size[1]).map_err(refuse)?.len();
        Ok(Self { model, run, dims: model.dims(), layers, stopped, attention, logits_pos })
    }

    fn rows(&self) -> usize {
        self.run.size[0] * self.run.size[1]
    }

    fn stream(&self) -> usize {
        self.rows() * self.dims.d_model
    }

    fn has_end(&self) -> bool {
        let nothing = self.run.options.return_type == ReturnType::None && !self.run.options.loss_per_token;
        !self.stopped && !nothing
    }

    /// The width of the result: the vocabulary, or the read-out.
    fn width(&self) -> usize {
        if self.model.config.readers().is_some() { self.dims.d_out } else { self.dims.d_vocab_out }
    }

    /// Shapes and products, part by part.
    pub(super) fn parts(&self) -> Vec<PlannedPart> {
        let [batch, pos] = self.run.size;
        let ModelDims { d_model, n_heads, n_kv_heads, d_head, d_mlp, .. } = self.dims;
        let product = |rows: usize, inner: usize, columns: usize| 2 * (rows * inner * columns) as u64;
        let blocks = self.layers[1] - self.layers[0];
        let all = |flops: u64| flops * blocks as u64;
        // Rows of the last block's own queries, outputs and neurons.
        let layers = Layers { start: self.layers[0], stop: self.layers[1], stopped: self.stopped };
        let wants = |point| self.run.kept.contains(&point) || self.run.hooked.contains(&point);
        let read = self.model.tail(self.run.options, &layers, pos, wants);
        let computed = batch * (blocks * pos - read.map_or(0, |read| pos - read));
        let attention = &self.model.config.attention;
        let seen: usize = (self.layers[0]..self.layers[1])
            .flat_map(|layer| {
                let first = match read {
                    Some(read) if layer + 1 == self.layers[1] => pos - read,
                    _ => 0,
                };
                (first..pos).map(move |query| {
                    let end = if attention.bidirectional { pos } else { query + 1 };
                    end - attention.windows[layer].map_or(0, |window| (query + 1).saturating_sub(window))
                })
            })
            .sum();
        let part = |name: &str, shape: &[usize], flops: u64| PlannedPart {
            name: name.to_owned(),
            shape: shape.to_vec(),
            flops,
        };
        let mut parts = vec![part("embedding", &[batch, pos, d_model], 0)];
        if blocks > 0 {
            let projections = product(computed, d_model, n_heads * d_head)
                + all(product(batch * pos, d_model, 2 * n_kv_heads * d_head));
            let mixing = 4 * (batch * seen * n_heads * d_head) as u64;
            let z = [batch, pos, n_heads, d_head];
            let stream = [batch, pos, d_model];
            parts.push(part(
                "queries, keys, values",
                &[batch, pos, n_heads + 2 * n_kv_heads, d_head],
                projections,
            ));
            parts.push(part("scores and mixing", &z, mixing));
            parts.push(part("attention output", &stream, product(computed, n_heads * d_head, d_model)));
            if let Some(mlp) = &self.model.config.mlp {
                let matrices = if mlp.kind == MlpKind::Gated { 3 } else { 2 };
                parts.push(part("MLP", &[batch, pos, d_mlp], matrices * product(computed, d_model, d_mlp)));
            }
        }
        if self.has_end() {
            let flops = product(batch * self.logits_pos, d_model, self.width());
            parts.push(part("unembedding", &[batch, self.logits_pos, self.width()], flops));
        }
        parts
    }

    /// The most bytes of activations that are alive at one time.
    pub(super) fn peak(&self) -> u64 {
        let mut meter = Meter::new(self.run);
        let embed = meter.make(self.stream());
        let mut resid = meter.at(HookPoint::Embed, embed);
        if self.model.config.positions == Positions::Learned {
            // The same rows for every prompt.
            let pos = meter.make(self.run.size[1] * self.dims.d_model);
            let pos = meter.at(HookPoint::PosEmbed, pos);
            resid = meter.change(resid);
            meter.drop(pos);
        }
        for layer in self.layers[0]..self.layers[1] {
            resid = self.block(&mut meter, layer, resid);
        }
        if !self.stopped {
            self.end(&mut meter, resid);
        }
        meter.peak() * self.model.dtype().size() as u64
    }

    fn block(&self, meter: &mut Meter<'_>, layer: usize, resid: Buffer) -> Buffer {
        let resid_pre = meter.at(HookPoint::ResidPre(layer), resid);
        let attn_out = self.attention(meter, layer);
        let sequential = self.model.config.layout == BlockLayout::Sequential;
        let mut resid = meter.change(resid_pre);
        if self.model.config.mlp.is_none() {
            meter.drop(attn_out);
            return meter.at(HookPoint::ResidPost(layer), resid);
        }
        if sequential {
            meter.drop(attn_out);
            resid = meter.at(HookPoint::ResidMid(layer), resid);
        }
        let mlp_out = self.mlp(meter, layer);
        resid = meter.change(resid);
        meter.drop(mlp_out);
        if !sequential {
            meter.drop(attn_out);
        }
        meter.at(HookPoint::ResidPost(layer), resid)
    }

    /// A norm of a stream that others hold.
    fn norm(&self, meter: &mut Meter<'_>, [scale, normalized]: [HookPoint; 2]) -> Buffer {
        if !self.model.config.has_pre_norm() || self.model.config.norm.kind == NormKind::None {
            return meter.make(0);
        }
        let x = meter.make(self.stream());
        if !meter.wants(scale) && !meter.wants(normalized) {
            return x;
        }
        let rows = meter.make(self.rows());
        let rows = meter.at(scale, rows);
        meter.drop(rows);
        let x = meter.at(normalized, x);
        let affine = self.model.config.norm.kind != NormKind::None && self.has_norm_weights();
        if affine { meter.change(x) } else { x }
    }

    fn has_norm_weights(&self) -> bool {
        self.model.parameters().contains(crate::Param::Ln1W(0))
    }

    fn attention(&self, meter: &mut Meter<'_>, layer: usize) -> Buffer {
        let [batch, pos] = self.run.size;
        let ModelDims { n_heads, n_kv_heads, d_head, .. } = self.dims;
        let x = self.norm(meter, [HookPoint::Ln1Scale(layer), HookPoint::Ln1Normalized(layer)]);
        let points = [HookPoint::AttnQ(layer), HookPoint::AttnK(layer), HookPoint::AttnV(layer)];
        let [mut q, mut k, v] = [n_heads, n_kv_heads, n_kv_heads]
            .map(|heads| heads * self.rows() * d_head)
            .map(|values| meter.make(values));
        q = meter.at(points[0], q);
        k = meter.at(points[1], k);
        let v = meter.at(points[2], v);
        meter.drop(x);
        if matches!(self.model.config.positions, Positions::Rotary(_)) {
            q = meter.change(q);
            q = meter.at(HookPoint::AttnRotQ(layer), q);
            k = meter.change(k);
            k = meter.at(HookPoint::AttnRotK(layer), k);
        }
        let seen = [HookPoint::AttnScores(layer), HookPoint::AttnPattern(layer)];
        let may_change = seen.iter().any(|point| self.run.hooked.contains(point));
        let scores = batch * n_heads * pos * pos;
        let z = if may_change || *self.attention == AttentionPath::Composed {
            let scores = meter.make(scores);
            meter.drop(q);
            meter.drop(k);
            let scores = meter.at(seen[0], scores);
            let pattern = meter.change(scores);
            let pattern = meter.at(seen[1], pattern);
            let z = meter.make(self.rows() * n_heads * d_head);
            meter.drop(pattern);
            z
        } else {
            let derived = self.run.derives_pattern(layer, self.attention);
            let stored = seen.map(|point| meter.keeps(point) && !(derived && point == seen[1]));
            let kept = stored.map(|stored| stored.then(|| meter.make(scores)));
            let z = meter.make(self.rows() * n_heads * d_head);
            for (point, kept) in seen.into_iter().zip(kept) {
                if let Some(kept) = kept {
                    let kept = meter.at(point, kept);
                    meter.drop(kept);
                }
            }
            meter.drop(q);
            meter.drop(k);
            z
        };
        meter.drop(v);
        let z = meter.at(HookPoint::AttnZ(layer), z);
        let out = meter.make(self.stream());
        meter.drop(z);
        meter.at(HookPoint::AttnOut(layer), out)
    }

    fn mlp(&self, meter: &mut Meter<'_>, layer: usize) -> Buffer {
        let neurons = self.rows() * self.dims.d_mlp;
        let x = self.norm(meter, [HookPoint::Ln2Scale(layer), HookPoint::Ln2Normalized(layer)]);
        let pre = meter.make(neurons);
        let gated = self.model.config.mlp.as_ref().is_some_and(|mlp| mlp.kind == MlpKind::Gated);
        let post = if gated {
            let linear = meter.make(neurons);
            meter.drop(x);
            let pre = meter.at(HookPoint::MlpPre(layer), pre);
            let linear = meter.at(HookPoint::MlpPreLinear(layer), linear);
            let post = meter.change(pre);
            meter.drop(linear);
            post
        } else {
            let pre = meter.at(HookPoint::MlpPre(layer), pre);
            meter.drop(x);
            meter.change(pre)
        };
        let post = meter.at(HookPoint::MlpPost(layer), post);
        let out = meter.make(self.stream());
        meter.drop(post);
        meter.at(HookPoint::MlpOut(layer), out)
    }

    fn end(&self, meter: &mut Meter<'_>, resid: Buffer) {
        let points = [HookPoint::LnFinalScale, HookPoint::LnFinalNormalized];
        let mut x = meter.change(resid);
        if points.iter().any(|&point| meter.wants(point)) {
            let rows = meter.make(self.rows());
            let rows = meter.at(points[0], rows);
            meter.drop(rows);
            x = meter.at(points[1], x);
            if self.model.parameters().contains(crate::Param::LnFinalW) {
                x = meter.change(x);
            }
        }
        if !self.has_end() {
            return;
        }
        x = meter.at(HookPoint::UnembedIn, x);
        let logits = meter.make(self.run.size[0] * self.logits_pos * self.width());
        let logits = meter.at(HookPoint::UnembedOut, logits);
        meter.drop(x);
        meter.drop(logits);
    }
}
