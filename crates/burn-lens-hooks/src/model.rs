//! What every analysis is written against: a model that can be run with hooks.

use std::{collections::HashSet, fmt, sync::Arc};

use burn_lens_tensor::{
    FloatType, Slice,
    burn::tensor::{Device, Int, Tensor},
};
use indexmap::IndexMap;

use crate::{
    ActivationCache, Axis, Firing, Hook, HookId, HookPoint, HookRegistry, HookScope, Hooks, RunError,
    Selector, hooks::Sink,
};

/// The sizes of a model, in the glossary's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each field is the axis word itself")]
pub struct ModelDims {
    pub n_layers: usize,
    pub d_model: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
    pub d_mlp: usize,
    pub d_vocab: usize,
    pub d_vocab_out: usize,
    pub n_ctx: usize,
}

impl ModelDims {
    /// The length of `axis`, where the model fixes it.
    #[must_use]
    pub fn len_of(&self, axis: Axis) -> Option<usize> {
        match axis {
            Axis::Head => Some(self.n_heads),
            Axis::KvHead => Some(self.n_kv_heads),
            Axis::DModel => Some(self.d_model),
            Axis::DHead => Some(self.d_head),
            Axis::DMlp => Some(self.d_mlp),
            Axis::Vocab => Some(self.d_vocab_out),
            Axis::One => Some(1),
            _ => None,
        }
    }
}

/// What a model runs on.
#[derive(Clone, Debug)]
pub enum Input {
    /// Token ids `[batch, pos]`.
    Tokens(Tensor<2, Int>),
    /// Token embeddings `[batch, pos, d_model]`, in place of `hook_embed`; positions are added.
    Embeds(Tensor<3>),
    /// A residual stream `[batch, pos, d_model]`, for `start_at_layer`.
    Resid(Tensor<3>),
}

impl Input {
    /// `[batch, pos]`.
    #[must_use]
    pub fn batch_pos(&self) -> [usize; 2] {
        match self {
            Self::Tokens(tokens) => tokens.dims(),
            Self::Embeds(x) | Self::Resid(x) => [x.dims()[0], x.dims()[1]],
        }
    }
}

impl From<Tensor<2, Int>> for Input {
    fn from(tokens: Tensor<2, Int>) -> Self {
        Self::Tokens(tokens)
    }
}

impl From<&Tensor<2, Int>> for Input {
    fn from(tokens: &Tensor<2, Int>) -> Self {
        Self::Tokens(tokens.clone())
    }
}

/// What a run computes at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReturnType {
    /// Logits.
    #[default]
    Logits,
    /// The mean next-token loss.
    Loss,
    /// Logits and loss.
    Both,
    /// Nothing; the blocks and the final norm still run, the unembedding does not.
    None,
}

/// How to run a model. `RunOptions::default()` gives logits.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// What to compute.
    pub return_type: ReturnType,
    /// Also give the loss at each position.
    pub loss_per_token: bool,
    /// First block to run, negative from the end; needs [`Input::Resid`].
    pub start_at_layer: Option<isize>,
    /// First block **not** to run, negative from the end; 0 stops after the embedding.
    pub stop_at_layer: Option<isize>,
    /// `[batch, pos]`, 1 for tokens and 0 for padding, on either side.
    pub attention_mask: Option<Tensor<2, Int>>,
    /// Tokens `[batch, pos]` to predict, where the input is not tokens.
    pub labels: Option<Tensor<2, Int>>,
}

impl RunOptions {
    /// Runs with this return type.
    #[must_use]
    pub fn returning(return_type: ReturnType) -> Self {
        Self { return_type, ..Self::default() }
    }
}

/// What a run gave.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// `[batch, pos, d_vocab_out]`
    pub logits: Option<Tensor<3>>,
    /// `[1]`: mean over predicted tokens, padding left out.
    pub loss: Option<Tensor<1>>,
    /// `[batch, pos - 1]`
    pub loss_per_token: Option<Tensor<2>>,
    /// `[batch, pos, d_model]`: the residual stream, where `stop_at_layer` was given.
    pub resid: Option<Tensor<3>>,
}

impl Output {
    fn expect<T>(value: Option<T>, what: &str) -> Result<T, RunError> {
        value.ok_or_else(|| {
            RunError::Options(format!("this run was not asked for {what}: see RunOptions::return_type"))
        })
    }

    /// The logits `[batch, pos, d_vocab_out]`.
    ///
    /// # Errors
    ///
    /// If the run was not asked for them.
    pub fn into_logits(self) -> Result<Tensor<3>, RunError> {
        Self::expect(self.logits, "logits")
    }

    /// The mean loss `[1]`.
    ///
    /// # Errors
    ///
    /// If the run was not asked for it.
    pub fn into_loss(self) -> Result<Tensor<1>, RunError> {
        Self::expect(self.loss, "the loss")
    }
}

/// A scalar `[1]` of a run's output, whose gradients are wanted.
pub type Metric = Arc<dyn Fn(&Output) -> Result<Tensor<1>, RunError> + Send + Sync>;

/// What to keep of a run. The default keeps every activation that always fires.
#[derive(Clone, Default)]
pub struct CacheOptions {
    /// Which activations; all that always fire where empty.
    pub names: Vec<Selector>,
    /// Which positions (destinations, for scores and pattern). An index keeps its axis.
    pub pos_slice: Slice,
    /// Where to keep them; where they were computed if `None`.
    pub device: Option<Device>,
    /// The float type to keep them in; the model's if `None`.
    pub dtype: Option<FloatType>,
    /// Remove the batch axis; an error above one prompt.
    pub remove_batch_dim: bool,
    /// Also keep the gradients of this metric at the chosen points.
    pub backward: Option<Metric>,
}

impl CacheOptions {
    /// Keeps only the activations that `names` select.
    pub fn names<S: Into<Selector>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Also keeps the gradients of the mean loss (TransformerLens's `incl_bwd`); the run must
    /// return the loss.
    #[must_use]
    pub fn incl_bwd(self) -> Self {
        self.incl_bwd_of(|output| output.clone().into_loss())
    }

    /// Also keeps the gradients of `metric`, a `[1]` tensor.
    #[must_use]
    pub fn incl_bwd_of(
        mut self,
        metric: impl Fn(&Output) -> Result<Tensor<1>, RunError> + Send + Sync + 'static,
    ) -> Self {
        self.backward = Some(Arc::new(metric));
        self
    }
}

impl fmt::Debug for CacheOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheOptions")
            .field("names", &self.names)
            .field("pos_slice", &self.pos_slice)
            .field("dtype", &self.dtype)
            .field("remove_batch_dim", &self.remove_batch_dim)
            .field("backward", &self.backward.is_some())
            .finish_non_exhaustive()
    }
}

/// A model whose activations can be read and edited.
///
/// Four methods are a model's own: its sizes, the hooks that it fires, its device and its
/// forward pass. The rest follows.
///
/// ```
/// use burn_lens_hooks::{
///     CacheOptions, Firing, Hook, HookContext, HookPoint, HookedModel, Hooks, Input, ModelDims, Output, RunError,
///     RunOptions,
/// };
/// use burn_lens_tensor::{DeviceSpec, burn::tensor::{Device, Tensor}};
///
/// struct Doubler(Device);
///
/// impl HookedModel for Doubler {
///     fn dims(&self) -> ModelDims {
///         ModelDims { d_model: 2, ..ModelDims::default() }
///     }
///     fn firing(&self) -> Firing {
///         Firing { always: vec![HookPoint::Embed, HookPoint::UnembedIn], ..Firing::default() }
///     }
///     fn device(&self) -> Device {
///         self.0.clone()
///     }
///     fn forward(&self, input: &Input, _: &RunOptions, hooks: &mut Hooks<'_>) -> Result<Output, RunError> {
///         let Input::Embeds(x) = input else { unreachable!() };
///         let x = hooks.at(HookPoint::Embed, x.clone());
///         let y = hooks.at(HookPoint::UnembedIn, x * 2.0);
///         Ok(Output { logits: Some(y), ..Output::default() })
///     }
/// }
///
/// let device = DeviceSpec::cpu().open()?;
/// let model = Doubler(device.clone());
/// let input = Input::Embeds(Tensor::ones([1, 3, 2], &device));
/// let plus_one = Hook::edit("hook_embed", |x: Tensor<3>, _: &mut HookContext| x + 1.0);
/// let logits = model.run_with_hooks(&input, &RunOptions::default(), vec![plus_one])?.into_logits()?;
/// assert_eq!(logits.into_data().to_vec::<f32>().unwrap(), [4.0; 6]);
///
/// let (_, cache) = model.run_with_cache(&input, &RunOptions::default(), &CacheOptions::default())?;
/// assert_eq!(cache.get("unembed.hook_in")?.shape(), [1, 3, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait HookedModel {
    /// Its sizes.
    fn dims(&self) -> ModelDims;

    /// The hooks that it fires.
    fn firing(&self) -> Firing;

    /// The hooks that a run with this input and these options fires.
    fn firing_in(&self, input: &Input, options: &RunOptions) -> Firing {
        let n_layers = self.dims().n_layers;
        let layer = |layer: Option<isize>, default: usize| match layer {
            None => default,
            Some(layer) if layer < 0 => n_layers.saturating_sub(layer.unsigned_abs()),
            Some(layer) => layer.unsigned_abs(),
        };
        let start = layer(options.start_at_layer, 0);
        let stop = layer(options.stop_at_layer, n_layers);
        let stopped = options.stop_at_layer.is_some();
        let no_logits = options.return_type == ReturnType::None && !options.loss_per_token;
        self.firing().within(|point| match point {
            HookPoint::Tokens | HookPoint::EmbedLnScale | HookPoint::EmbedLnNormalized => {
                matches!(input, Input::Tokens(_))
            }
            HookPoint::Embed | HookPoint::PosEmbed => !matches!(input, Input::Resid(_)),
            HookPoint::LnFinalScale | HookPoint::LnFinalNormalized => !stopped,
            HookPoint::UnembedIn | HookPoint::UnembedOut => !stopped && !no_logits,
            point => point.layer().is_none_or(|layer| (start..stop).contains(&layer)),
        })
    }

    /// Where it runs.
    fn device(&self) -> Device;

    /// Runs it, calling `hooks` at each hook point.
    ///
    /// # Errors
    ///
    /// If the input does not fit the model. Failures inside hooks are reported by `hooks`.
    fn forward(&self, input: &Input, options: &RunOptions, hooks: &mut Hooks<'_>)
    -> Result<Output, RunError>;

    /// The hooks installed on it, if it can hold any.
    fn registry(&self) -> Option<&HookRegistry> {
        None
    }

    /// Runs it with `hooks` for this call only, besides those installed.
    ///
    /// # Errors
    ///
    /// If a hook cannot fire in this model or fails, or the input does not fit the model.
    fn run_with_hooks(
        &self,
        input: &Input,
        options: &RunOptions,
        hooks: Vec<Hook<'_>>,
    ) -> Result<Output, RunError> {
        if hooks.is_empty() && self.registry().is_none_or(HookRegistry::is_empty) {
            return self.forward(input, options, &mut Hooks::none());
        }
        let mut hooks = Hooks::resolve(hooks, self.registry(), &self.firing_in(input, options))?;
        let output = self.forward(input, options, &mut hooks);
        hooks.finish(self.registry())?;
        output
    }

    /// Runs it and keeps activations.
    ///
    /// # Errors
    ///
    /// As [`HookedModel::run_with_hooks`], and where the options do not fit the model.
    fn run_with_cache(
        &self,
        input: &Input,
        options: &RunOptions,
        cache: &CacheOptions,
    ) -> Result<(Output, ActivationCache), RunError> {
        self.run(input, options, Vec::new(), cache)
    }

    /// Runs it with hooks and keeps activations, as they are after the hooks.
    ///
    /// # Errors
    ///
    /// As [`HookedModel::run_with_hooks`], and where the options do not fit the model.
    fn run(
        &self,
        input: &Input,
        options: &RunOptions,
        hooks: Vec<Hook<'_>>,
        cache: &CacheOptions,
    ) -> Result<(Output, ActivationCache), RunError> {
        let firing = self.firing_in(input, options);
        let points = chosen(&cache.names, &firing)?;
        let batch = input.batch_pos()[0];
        if cache.remove_batch_dim && batch != 1 {
            return Err(RunError::BatchNotOne { batch });
        }
        let mut hooks = Hooks::resolve(hooks, self.registry(), &firing)?;
        hooks.keep(Sink::new(&points, cache));
        let grads = cache.backward.is_some().then(|| {
            hooks.keep_grads(
                points.iter().copied().filter(|point| !point.is_integer()).collect::<HashSet<_>>(),
            )
        });
        let output = self.forward(input, options, &mut hooks);
        hooks.finish(self.registry())?;
        let output = output?;
        let values = hooks.take_kept();
        let mut kept = ActivationCache::new(values, self.dims().n_layers);
        if let (Some(metric), Some(received)) = (&cache.backward, grads) {
            let metric = metric(&output)?;
            if !metric.is_tracked() {
                return Err(RunError::Options(
                    "the metric does not depend on any of the activations chosen, so it has no gradient"
                        .to_owned(),
                ));
            }
            metric.backward();
            hooks.finish_backward()?;
            let mut grads =
                std::mem::take(&mut *received.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            let sink = Sink::new(&points, cache);
            let ordered = kept.keys().collect::<Vec<_>>().into_iter().filter_map(|point| {
                let grad = grads.remove(&point)?;
                Some(sink.prepared(point, grad).map(|grad| (point, grad)))
            });
            let ordered = ordered.collect::<Result<IndexMap<_, _>, RunError>>()?;
            kept = kept.with_grads(ordered);
        }
        let kept = if cache.remove_batch_dim { kept.remove_batch_dim()? } else { kept };
        Ok((output.detached(cache.backward.is_some()), kept))
    }

    /// Installs hooks for as long as the returned scope lives.
    ///
    /// # Errors
    ///
    /// If a hook cannot fire in this model, or the model holds no hooks.
    fn hook_scope(&self, hooks: Vec<Hook<'static>>) -> Result<HookScope<'_>, RunError> {
        let registry = installable(self.registry())?;
        let firing = self.firing();
        for hook in &hooks {
            hook.selector.resolve(&firing)?;
        }
        let ids = hooks.into_iter().map(|hook| registry.install(hook, false)).collect();
        Ok(HookScope { registry, ids })
    }

    /// Installs a hook until it is removed or the hooks are reset.
    ///
    /// # Errors
    ///
    /// As [`HookedModel::hook_scope`].
    fn add_hook(&self, hook: Hook<'static>) -> Result<HookId, RunError> {
        hook.selector.resolve(&self.firing())?;
        Ok(installable(self.registry())?.install(hook, false))
    }

    /// Installs a hook that also survives `reset_hooks`, unless that includes permanent ones.
    ///
    /// # Errors
    ///
    /// As [`HookedModel::hook_scope`].
    fn add_perma_hook(&self, hook: Hook<'static>) -> Result<HookId, RunError> {
        hook.selector.resolve(&self.firing())?;
        Ok(installable(self.registry())?.install(hook, true))
    }

    /// Removes the installed hooks, the permanent ones only on request.
    fn reset_hooks(&self, including_permanent: bool) {
        if let Some(registry) = self.registry() {
            registry.reset(including_permanent);
        }
    }
}

fn installable(registry: Option<&HookRegistry>) -> Result<&HookRegistry, RunError> {
    registry.ok_or_else(|| {
        RunError::Options("this model cannot hold hooks; pass them to run_with_hooks".to_owned())
    })
}

fn chosen(names: &[Selector], firing: &Firing) -> Result<Vec<HookPoint>, RunError> {
    if names.is_empty() {
        return Ok(firing.always.clone());
    }
    let mut points = Vec::new();
    for selector in names {
        points.extend(selector.resolve(firing)?);
    }
    Ok(points)
}

impl Output {
    /// The same, cut off from a graph that has been walked already.
    fn detached(self, cut: bool) -> Self {
        if !cut {
            return self;
        }
        Self {
            logits: self.logits.map(Tensor::without_autodiff),
            loss: self.loss.map(Tensor::without_autodiff),
            loss_per_token: self.loss_per_token.map(Tensor::without_autodiff),
            resid: self.resid.map(Tensor::without_autodiff),
        }
    }
}
