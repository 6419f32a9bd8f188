//! What every analysis is written against: a model that can be run with hooks.

use std::{collections::HashSet, sync::PoisonError};

use burn_lens_tensor::{AnyTensor, burn::tensor::Device};
use indexmap::IndexMap;

use crate::{
    ActivationCache, CacheOptions, Firing, Frame, Hook, HookId, HookPoint, HookRegistry, HookScope, Hooks,
    Input, ModelDims, Output, Param, PartialPass, ReturnType, RunError, RunOptions, Selector, Wiring,
    hooks::{Sink, spliced},
};

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
            HookPoint::ReadIn => matches!(input, Input::Vectors(_)),
            HookPoint::Embed | HookPoint::PosEmbed => !matches!(input, Input::Resid(_)),
            HookPoint::LnFinalScale | HookPoint::LnFinalNormalized => !stopped,
            HookPoint::UnembedIn | HookPoint::UnembedOut | HookPoint::ReadOut => !stopped && !no_logits,
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

    /// One of its weights, in the layout that [`Param`] documents; `None` if it has none by that
    /// name. What an analysis of weights or of single heads needs; a model that gives none can
    /// still be run, hooked and cached.
    fn param(&self, param: Param) -> Option<AnyTensor> {
        let _ = param;
        None
    }

    /// How it is put together, for analyses that take its residual stream apart.
    fn wiring(&self) -> Option<Wiring> {
        None
    }

    /// Its blocks one at a time over a part of the positions of an earlier run, if it can do that.
    /// Analyses that could reuse the earlier run compute everything anew where it is `None`.
    ///
    /// # Errors
    ///
    /// If the frame does not fit the model.
    fn partial<'m>(&'m self, frame: &Frame) -> Result<Option<Box<dyn PartialPass + 'm>>, RunError> {
        let _ = frame;
        Ok(None)
    }

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
        let points = chosen(&cache.names, &spliced(firing.clone(), self.registry(), &hooks)?)?;
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
        let mut kept = ActivationCache::of_kept(values, self.dims().n_layers);
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
            let mut grads = std::mem::take(&mut *received.lock().unwrap_or_else(PoisonError::into_inner));
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
        let firing = spliced(self.firing(), Some(registry), &hooks)?;
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
        installed(self.firing(), self.registry(), hook, false)
    }

    /// Installs a hook that also survives `reset_hooks`, unless that includes permanent ones.
    ///
    /// # Errors
    ///
    /// As [`HookedModel::hook_scope`].
    fn add_perma_hook(&self, hook: Hook<'static>) -> Result<HookId, RunError> {
        installed(self.firing(), self.registry(), hook, true)
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

fn installed(
    firing: Firing,
    registry: Option<&HookRegistry>,
    hook: Hook<'static>,
    permanent: bool,
) -> Result<HookId, RunError> {
    let firing = spliced(firing, registry, std::slice::from_ref(&hook))?;
    hook.selector.resolve(&firing)?;
    Ok(installable(registry)?.install(hook, permanent))
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
