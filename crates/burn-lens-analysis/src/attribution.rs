//! Direct logit attribution: which parts of the model write the answer.
//!
//! The logit of a token (or the difference of two) is linear in what every part wrote, once the
//! final norm's scale is that of the run. Attributions of heads, neurons and source positions are
//! computed by pulling the token's direction back through the norms and the output weights, so
//! nothing of size `component × batch × pos × d_model` is ever formed.

use burn::tensor::Tensor;
use burn_lens_hooks::{HookPoint, HookedModel, ModelWeights, NormSite, Param};
use burn_lens_tensor::{Slice, kernels};

use crate::{
    AnalysisError,
    resid::{Answers, Component, Directions, FrozenNorm, LogitAttrs, Residuals, StackOptions, Sublayers},
};

/// What is listed one by one; everything else stays whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Embeddings, attention and MLPs of each block.
    Component,
    /// Heads; MLPs stay whole.
    Head,
    /// Neurons; attention stays whole.
    Neuron,
    /// Source positions of each head: its output split by the position that it attends to.
    Source,
}

impl std::str::FromStr for Unit {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "component" => Self::Component,
            "head" => Self::Head,
            "neuron" => Self::Neuron,
            "source" => Self::Source,
            _ => {
                let reason = format!("`{text}` is none of `component`, `head`, `neuron`, `source`");
                return Err(AnalysisError::Refused { what: "the unit of attribution", reason });
            }
        })
    }
}

/// What to attribute.
#[derive(Clone, Debug)]
pub struct AttributionOptions {
    /// The token whose logit is attributed.
    pub answers: Answers,
    /// A token whose logit is subtracted.
    pub against: Option<Answers>,
    /// What is listed one by one.
    pub by: Unit,
    /// At which positions.
    pub pos_slice: Slice,
}

/// The hooks that [`direct_logit_attribution`] reads.
#[must_use]
pub fn attribution_hooks<M: HookedModel + ?Sized>(model: &M, by: Unit) -> Vec<HookPoint> {
    let wanted = |point: &HookPoint| match point {
        // The scale of the final norm, and of those behind sublayers.
        HookPoint::Embed
        | HookPoint::PosEmbed
        | HookPoint::LnFinalScale
        | HookPoint::Ln1PostScale(_)
        | HookPoint::Ln2PostScale(_) => true,
        HookPoint::AttnOut(_) => !matches!(by, Unit::Head | Unit::Source),
        HookPoint::MlpOut(_) => by != Unit::Neuron,
        HookPoint::AttnZ(_) => by == Unit::Head,
        HookPoint::AttnPattern(_) | HookPoint::AttnV(_) => by == Unit::Source,
        HookPoint::MlpPost(_) => by == Unit::Neuron,
        HookPoint::Ln1Scale(_) | HookPoint::Ln2Scale(_) => {
            model.wiring().is_some_and(|wiring| wiring.placement == burn_lens_hooks::NormPlacement::Post)
        }
        _ => false,
    };
    model.firing().always.into_iter().filter(wanted).collect()
}

/// Attributes the logit of a token, or a difference of two, to every part of the model.
///
/// The rows sum to the logit before any soft-cap ([`LogitAttrs::total`]); biases are rows of their
/// own.
///
/// # Errors
///
/// If an activation is missing ([`attribution_hooks`] lists them), or a token does not fit.
pub fn direct_logit_attribution<M: HookedModel + ?Sized>(
    residuals: &Residuals<'_, M>,
    options: &AttributionOptions,
) -> Result<LogitAttrs, AnalysisError> {
    let missing: Vec<HookPoint> = attribution_hooks(residuals.model, options.by)
        .into_iter()
        .filter(|&point| !residuals.cache.contains(point))
        .collect();
    if !missing.is_empty() && options.by != Unit::Component {
        return Err(AnalysisError::MissingHooks { what: "direct logit attribution".to_owned(), missing });
    }
    Attribution::new(residuals, options)?.run()
}

/// Some rows, `[batch, pos, component]`: the order in which neurons are kept.
struct Rows {
    x: Tensor<3>,
    /// A scale `[batch, pos, 1]` and weights `[component]` of rows `x · w / scale`, which are computed in their
    /// place among the others.
    scaled: Option<Box<(Tensor<3>, Tensor<1>)>>,
}

/// All rows behind each other.
fn joined(rows: Vec<Rows>) -> Tensor<3> {
    let Some(some) = rows.iter().find(|rows| rows.scaled.is_some()) else {
        return Tensor::cat(rows.into_iter().map(|rows| rows.x).collect(), 2);
    };
    let ([batch, pos, _], device, dtype) = (some.x.dims(), some.x.device(), some.x.dtype());
    let ones = |shape: [usize; 3]| Tensor::<3>::ones(shape, (&device, dtype));
    let part = |Rows { x, scaled }: Rows| {
        let width = x.dims()[2];
        let unscaled = || (ones([batch, pos, 1]), ones([1, 1, width]).reshape([width]));
        let (scale, w) = scaled.map_or_else(unscaled, |scaled| *scaled);
        (x, scale, w)
    };
    kernels::rescaled(rows.into_iter().map(part).collect())
}

/// One attribution under way.
struct Attribution<'a, 'c, M: ?Sized> {
    residuals: &'a Residuals<'c, M>,
    options: &'a AttributionOptions,
    /// The direction seen from the stream at the end.
    dirs: Directions,
    unembed_bias: Tensor<2>,
    shape: [usize; 2],
    components: Vec<Component>,
    rows: Vec<Rows>,
    bias: Option<Tensor<2>>,
}

impl<'a, 'c, M: HookedModel + ?Sized> Attribution<'a, 'c, M> {
    fn new(residuals: &'a Residuals<'c, M>, options: &'a AttributionOptions) -> Result<Self, AnalysisError> {
        let embed: Tensor<3> = residuals.get(HookPoint::Embed, &options.pos_slice)?;
        let [batch, pos, _] = embed.dims();
        let norm = FrozenNorm::of(residuals, NormSite::Final, &options.pos_slice)?;
        let (dirs, unembed_bias) =
            residuals.unembed_directions([batch, pos], &options.answers, options.against.as_ref(), &norm)?;
        Ok(Self {
            residuals,
            options,
            dirs: dirs.pulled_back(&norm),
            unembed_bias,
            shape: [batch, pos],
            components: Vec::new(),
            rows: Vec::new(),
            bias: None,
        })
    }

    fn run(mut self) -> Result<LogitAttrs, AnalysisError> {
        if self.options.by == Unit::Component {
            let stack = StackOptions { pos_slice: self.options.pos_slice.clone(), ..StackOptions::default() };
            let parts = self.residuals.decompose_resid(&stack, Sublayers::All, true)?;
            self.push(self.dirs.dot(parts.values()));
            self.components.extend_from_slice(parts.components());
            return Ok(self.finish());
        }
        let place = self.residuals.place(&StackOptions::default())?;
        for component in self.residuals.embeddings() {
            self.push_whole(component)?;
        }
        for layer in self.residuals.attn_layers(place) {
            match self.options.by {
                Unit::Head => self.push_heads(layer)?,
                Unit::Source => self.push_sources(layer)?,
                _ => self.push_whole(Component::AttnOut(layer))?,
            }
        }
        for layer in self.residuals.mlp_layers(place) {
            match self.options.by {
                Unit::Neuron => self.push_neurons(layer)?,
                _ => self.push_whole(Component::MlpOut(layer))?,
            }
        }
        if let Some(bias) = self.bias.take() {
            self.components.push(Component::Bias);
            self.push(bias.unsqueeze_dim(0));
        }
        Ok(self.finish())
    }

    /// Adds rows `[component, batch, pos]`.
    fn push(&mut self, rows: Tensor<3>) {
        self.rows.push(Rows { x: rows.permute([1, 2, 0]), scaled: None });
    }

    fn finish(self) -> LogitAttrs {
        let no_batch = !self.residuals.cache.has_batch_dim();
        LogitAttrs {
            components: self.components,
            values: joined(self.rows).permute([2, 0, 1]),
            unembed_bias: self.unembed_bias,
            axes: [!no_batch, !self.options.pos_slice.is_index()],
        }
    }

    fn push_whole(&mut self, component: Component) -> Result<(), AnalysisError> {
        let stack = StackOptions { pos_slice: self.options.pos_slice.clone(), ..StackOptions::default() };
        let row = self.residuals.sublayer(component, &stack)?;
        self.components.push(component);
        self.push(self.dirs.dot(row.unsqueeze_dim(0)));
        Ok(())
    }

    /// The direction seen from before the norm behind a sublayer, and what that norm's bias and the
    /// sublayer's output bias contribute.
    fn before(&mut self, write: Option<NormSite>, bias: Param) -> Result<Directions, AnalysisError> {
        let mut dirs = self.dirs.clone();
        if let Some(site) = write {
            let norm = FrozenNorm::of(self.residuals, site, &self.options.pos_slice)?;
            if let Some(b) = norm.bias() {
                self.add_bias(dirs.dot_vector(b, self.shape));
            }
            dirs = dirs.pulled_back(&norm);
        }
        if let Some(b) = self.residuals.model.find_weight::<1>(bias) {
            self.add_bias(dirs.dot_vector(b, self.shape));
        }
        Ok(dirs)
    }

    fn add_bias(&mut self, bias: Tensor<2>) {
        self.bias = Some(match self.bias.take() {
            None => bias,
            Some(sum) => sum + bias,
        });
    }

    /// The direction seen from each head's inner space, `[batch or 1, pos or 1, n_heads, d_head]`.
    fn before_heads(&mut self, layer: usize) -> Result<(Directions, Tensor<4>), AnalysisError> {
        let dirs = self.before(self.residuals.attn_write_norm(layer), Param::BO(layer))?;
        let w_o: Tensor<2> = self.residuals.model.weight(Param::WO(layer))?;
        let [b, p, d_model] = dirs.dirs.dims();
        let dims = self.residuals.dims;
        let inner = dirs.dirs.clone().reshape([b * p, d_model]).matmul(w_o.transpose());
        Ok((dirs, inner.reshape([b, p, dims.n_heads, dims.d_head])))
    }

    fn push_heads(&mut self, layer: usize) -> Result<(), AnalysisError> {
        let (dirs, inner) = self.before_heads(layer)?;
        let z: Tensor<4> = self.residuals.get(HookPoint::AttnZ(layer), &self.options.pos_slice)?;
        let rows: Tensor<3> = (z * inner).sum_dim(3).squeeze_dim(3);
        self.components.extend((0..self.residuals.dims.n_heads).map(|head| Component::Head(layer, head)));
        self.push(dirs.divide(rows.permute([2, 0, 1])));
        Ok(())
    }

    fn push_neurons(&mut self, layer: usize) -> Result<(), AnalysisError> {
        let dirs = self.before(self.residuals.mlp_write_norm(layer), Param::BOut(layer))?;
        let w_out: Tensor<2> = self.residuals.model.weight(Param::WOut(layer))?;
        let post: Tensor<3> = self.residuals.get(HookPoint::MlpPost(layer), &self.options.pos_slice)?;
        let (d_mlp, [b, p, d_model]) = (self.residuals.dims.d_mlp, dirs.dirs.dims());
        let inner = kernels::linear(dirs.dirs.clone().reshape([b * p, d_model]), w_out.transpose(), None);
        self.components.extend((0..d_mlp).map(|neuron| Component::Neuron(layer, neuron)));
        match &dirs.divisor {
            Some(scale) if b * p == 1 => {
                let scaled = Some(Box::new((scale.clone().cast(post.dtype()), inner.reshape([d_mlp]))));
                self.rows.push(Rows { x: post, scaled });
            }
            _ => {
                let rows = post * inner.reshape([b, p, d_mlp]);
                self.push(dirs.divide(rows.permute([2, 0, 1])));
            }
        }
        Ok(())
    }

    /// `pattern[q, k] · (v[k] W_O · direction at q)`, for each head and each source `k`.
    fn push_sources(&mut self, layer: usize) -> Result<(), AnalysisError> {
        let (dirs, inner) = self.before_heads(layer)?;
        let dims = self.residuals.dims;
        let pattern: Tensor<4> =
            self.residuals.get(HookPoint::AttnPattern(layer), &self.options.pos_slice)?;
        let v: Tensor<4> = self.residuals.get(HookPoint::AttnV(layer), &Slice::All)?;
        let v = match self.residuals.wiring.clip_qkv {
            None => v,
            Some(clip) => v.clamp(-clip, clip),
        };
        let [batch, heads, queries, keys] = pattern.dims();
        if v.dims()[1] != keys {
            return Err(AnalysisError::Shape {
                what: "attn.hook_v",
                expected: format!("[batch, {keys}, n_kv_heads, d_head]: the values of all positions"),
                found: v.dims().to_vec(),
            });
        }
        // Grouped heads read the same value: [batch, kv, group, ..].
        let group = dims.n_heads / dims.n_kv_heads;
        let v = v.permute([0, 2, 3, 1]).unsqueeze_dim::<5>(2);
        let [ib, ip, ..] = inner.dims();
        let inner = inner.permute([0, 2, 1, 3]).reshape([ib, dims.n_kv_heads, group, ip, dims.d_head]);
        let inner = inner.expand([batch, dims.n_kv_heads, group, ip, dims.d_head]);
        let v = v.expand([batch, dims.n_kv_heads, group, dims.d_head, keys]);
        let reads = inner.matmul(v).reshape([batch, heads, ip, keys]);
        let rows = pattern * reads;
        let rows = rows.permute([1, 3, 0, 2]).reshape([heads * keys, batch, queries]);
        self.components.extend(
            (0..heads).flat_map(|head| (0..keys).map(move |key| Component::Source(layer, head, key))),
        );
        self.push(dirs.divide(rows));
        Ok(())
    }
}
