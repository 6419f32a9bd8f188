//! Dictionaries spliced into a run of any model.
//!
//! A dictionary sits behind the hooks of the activation that it writes. Its own hooks have SAELens's
//! names, `{hook}.hook_sae_input` to `{hook}.hook_sae_output`, and are read, edited, cached and
//! differentiated like any other. As `{hook}` itself stays what the model computed, a cache holds
//! both that and what took its place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Bool, Int, Tensor};
use burn_lens_hooks::{
    ActivationCache, CacheOptions, Hook, HookPoint, HookedModel, Hooks, Input, Output, RunError, RunOptions,
    SaeHook, SaeHost,
};
use burn_lens_tensor::{AnyTensor, TypedTensor};

use crate::{Codes, Prepared, SaeError, SparseAutoencoder};

/// A dictionary, and how it stands in a run.
#[derive(Clone, Debug)]
pub struct SplicedSae {
    /// The dictionary.
    pub sae: Arc<dyn SparseAutoencoder>,
    /// Whether what its reconstruction lacks is added, so that the run is what it is without the
    /// dictionary, bit for bit, until a hook changes something inside it.
    pub use_error_term: bool,
    /// Tokens at whose positions the activation passes by the dictionary.
    pub exclude_tokens: Vec<i64>,
}

impl SplicedSae {
    /// A dictionary whose reconstruction takes the activation's place.
    #[must_use]
    pub fn new(sae: impl Into<Arc<dyn SparseAutoencoder>>) -> Self {
        Self { sae: sae.into(), use_error_term: false, exclude_tokens: Vec::new() }
    }

    /// Adds what the reconstruction lacks.
    #[must_use]
    pub fn with_error_term(mut self) -> Self {
        self.use_error_term = true;
        self
    }

    /// Lets the activation pass at these tokens, such as BOS, EOS and padding.
    #[must_use]
    pub fn excluding(mut self, tokens: impl IntoIterator<Item = i64>) -> Self {
        self.exclude_tokens.extend(tokens);
        self
    }
}

/// Runs with dictionaries, of every [`HookedModel`].
///
/// ```
/// use burn_lens_hooks::{CacheOptions, Firing, Hook, HookContext, HookPoint, HookedModel, Hooks, Input, ModelDims, Output, RunError, RunOptions};
/// use burn_lens_sae::{SaeModel, SaeOptions, SplicedSae, read_sae_lens};
/// use burn_lens_tensor::{DeviceSpec, MemoryWeights, burn::tensor::{Device, Tensor, TensorData}};
///
/// // A model whose logits are its residual stream.
/// struct Plain(Device);
/// impl HookedModel for Plain {
///     fn dims(&self) -> ModelDims {
///         ModelDims { n_layers: 1, d_model: 2, ..ModelDims::default() }
///     }
///     fn firing(&self) -> Firing {
///         Firing { always: vec![HookPoint::ResidPost(0)], ..Firing::default() }
///     }
///     fn device(&self) -> Device {
///         self.0.clone()
///     }
///     fn forward(&self, input: &Input, _: &RunOptions, hooks: &mut Hooks<'_>) -> Result<Output, RunError> {
///         let Input::Resid(x) = input else { unreachable!() };
///         Ok(Output { logits: Some(hooks.at(HookPoint::ResidPost(0), x.clone())), ..Output::default() })
///     }
/// }
///
/// // A dictionary of one feature: how much there is of the first direction.
/// let device = DeviceSpec::cpu().open()?;
/// let tensor = |name: &str, values: &[f32], shape: &[usize]| (name.to_owned(), TensorData::new(values.to_vec(), shape));
/// let mut weights = MemoryWeights::new([
///     tensor("W_enc", &[1.0, 0.0], &[2, 1]),
///     tensor("W_dec", &[1.0, 0.0], &[1, 2]),
///     tensor("b_enc", &[0.0], &[1]),
///     tensor("b_dec", &[0.0, 0.0], &[2]),
/// ]);
/// let config = r#"{"d_in": 2, "d_sae": 1, "hook_name": "blocks.0.hook_resid_post"}"#;
/// let sae = SplicedSae::new(read_sae_lens(config, "cfg.json", &mut weights, &SaeOptions::on(&device))?);
///
/// let (model, input) = (Plain(device.clone()), Input::Resid(Tensor::from_floats([[[3.0, 4.0]]], &device)));
/// let run = |saes: &[SplicedSae], hooks| -> Result<Vec<f32>, Box<dyn std::error::Error>> {
///     let output = model.run_with_hooks_with_saes(&input, &RunOptions::default(), saes, hooks)?;
///     Ok(output.into_logits()?.into_data().try_to_vec()?)
/// };
/// assert_eq!(run(&[sae.clone()], vec![])?, [3.0, 0.0]);
/// assert_eq!(run(&[sae.clone().with_error_term()], vec![])?, [3.0, 4.0]);
/// let double = Hook::edit("blocks.0.hook_resid_post.hook_sae_acts_post", |a: Tensor<3>, _: &mut HookContext| a * 2.0);
/// assert_eq!(run(&[sae.with_error_term()], vec![double])?, [6.0, 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait SaeModel: HookedModel {
    /// Runs it with dictionaries in place of activations.
    ///
    /// # Errors
    ///
    /// If a dictionary does not fit the model, or the run fails.
    fn run_with_saes(
        &self,
        input: &Input,
        options: &RunOptions,
        saes: &[SplicedSae],
    ) -> Result<Output, SaeError> {
        self.run_with_hooks_with_saes(input, options, saes, Vec::new())
    }

    /// Runs it with dictionaries, and with hooks for this call only, which can name the hooks inside
    /// dictionaries.
    ///
    /// # Errors
    ///
    /// As [`SaeModel::run_with_saes`].
    fn run_with_hooks_with_saes(
        &self,
        input: &Input,
        options: &RunOptions,
        saes: &[SplicedSae],
        hooks: Vec<Hook<'_>>,
    ) -> Result<Output, SaeError> {
        let hooks = with_saes(self, saes, hooks)?;
        Ok(self.run_with_hooks(input, options, hooks)?)
    }

    /// Runs it with dictionaries and keeps activations, those inside the dictionaries among them.
    ///
    /// # Errors
    ///
    /// As [`SaeModel::run_with_saes`].
    fn run_with_cache_with_saes(
        &self,
        input: &Input,
        options: &RunOptions,
        saes: &[SplicedSae],
        cache: &CacheOptions,
    ) -> Result<(Output, ActivationCache), SaeError> {
        let hooks = with_saes(self, saes, Vec::new())?;
        Ok(self.run(input, options, hooks, cache)?)
    }
}

impl<M: HookedModel + ?Sized> SaeModel for M {}

fn with_saes<'h, M: HookedModel + ?Sized>(
    model: &M,
    saes: &[SplicedSae],
    hooks: Vec<Hook<'h>>,
) -> Result<Vec<Hook<'h>>, SaeError> {
    let mut all: Vec<Hook<'h>> = sae_hooks(model, saes)?;
    all.extend(hooks);
    Ok(all)
}

/// The hooks that splice dictionaries into a run of `model`: for whatever takes hooks, such as
/// generation, or [`HookedModel::hook_scope`], which keeps them in place for a while.
///
/// # Errors
///
/// If a dictionary reads or writes an activation that it does not fit.
pub fn sae_hooks<M: HookedModel + ?Sized>(
    model: &M,
    saes: &[SplicedSae],
) -> Result<Vec<Hook<'static>>, SaeError> {
    let mut hooks = Vec::new();
    let mut readers = Vec::new();
    for spliced in saes {
        let config = spliced.sae.config();
        let (from, to) = (config.hook_in()?, config.hook_out()?);
        check_width(model, spliced, from, config.d_in)?;
        check_width(model, spliced, to, config.d_out)?;
        if !spliced.sae.base().undoes_normalization && config.hook_name_out.is_none() {
            return Err(SaeError::Untold {
                origin: config.name.clone(),
                what: "which activation it writes",
                how: "name its hook (`hook_name_out`; `--hook-out` of the command)",
            });
        }
        let Some(host) = SaeHost::new(to) else { continue }; // a width was found, so it is none
        let state = Arc::new(Mutex::new(Seen::default()));
        if !spliced.exclude_tokens.is_empty() {
            let state = Arc::clone(&state);
            hooks.push(Hook::splice(HookPoint::Tokens, Vec::new(), move |tokens, _| {
                seen(&state).tokens = Tensor::from_any(tokens).ok();
                Ok(None)
            }));
        }
        if from != to {
            let state = Arc::clone(&state);
            readers.push(Hook::splice(from, Vec::new(), move |x, _| {
                seen(&state).read = Some(Vectors::of(x, from)?.x);
                Ok(None)
            }));
        }
        let run = Run { spliced: spliced.clone(), host, transcodes: from != to, state };
        hooks.push(Hook::splice(to, run.fires(), move |x, hooks| run.at(x, hooks)));
    }
    // A transcoder reads what another dictionary made of its input, where there is one.
    hooks.extend(readers);
    Ok(hooks)
}

/// Refuses a dictionary of vectors that the activation does not have.
fn check_width<M: HookedModel + ?Sized>(
    model: &M,
    spliced: &SplicedSae,
    point: HookPoint,
    expected: usize,
) -> Result<(), SaeError> {
    let dims = model.dims();
    let by_token = point.batch_axis() == Some(0) && point.pos_axis() == Some(1) && !point.is_integer();
    let lens: Option<Vec<usize>> =
        point.axes().iter().skip(2).map(|&axis| dims.len_of(axis)).collect::<Option<_>>();
    let found =
        lens.filter(|lens| by_token && (1..=2).contains(&lens.len())).map_or(0, |lens| lens.iter().product());
    if found == expected {
        return Ok(());
    }
    let name = spliced.sae.config().name.clone();
    Err(SaeError::Width { name, what: format!("`{point}`"), expected, found })
}

/// What a run has shown so far.
#[derive(Debug, Default)]
struct Seen {
    /// `[batch, pos]`
    tokens: Option<Tensor<2, Int>>,
    /// What a transcoder reads, `[batch, pos, d_in]`.
    read: Option<Tensor<3>>,
}

fn seen(state: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An activation as vectors, and the shape that it had.
struct Vectors {
    x: Tensor<3>,
    heads: Option<[usize; 2]>,
}

impl Vectors {
    fn of(x: AnyTensor, point: HookPoint) -> Result<Self, RunError> {
        match x {
            AnyTensor::Float4(x) => {
                let [batch, pos, head, width] = x.dims();
                Ok(Self { x: x.reshape([batch, pos, head * width]), heads: Some([head, width]) })
            }
            x => {
                let x = Tensor::<3>::from_any(x).map_err(|source| RunError::HookRank { point, source })?;
                Ok(Self { x, heads: None })
            }
        }
    }

    /// Vectors in the shape that the activation had.
    fn restored(&self, x: Tensor<3>) -> AnyTensor {
        let [batch, pos, _] = x.dims();
        match self.heads {
            Some([head, width]) => x.reshape([batch, pos, head, width]).into(),
            None => x.into(),
        }
    }
}

/// One dictionary in one run.
struct Run {
    spliced: SplicedSae,
    host: SaeHost,
    transcodes: bool,
    state: Arc<Mutex<Seen>>,
}

/// What encoding with hooks gave.
struct Encoded {
    /// The input before and after its hooks.
    input: Tensor<3>,
    edited: Tensor<3>,
    prepared: Prepared,
    /// Before the hooks on activations.
    codes: Codes,
    acts: Tensor<3>,
    input_changed: bool,
    pre_changed: bool,
    acts_changed: bool,
}

impl Run {
    fn point(&self, hook: SaeHook) -> HookPoint {
        HookPoint::Sae(self.host, hook)
    }

    fn fires(&self) -> Vec<HookPoint> {
        let fires = |hook: &SaeHook| match hook {
            SaeHook::ActsPre => self.spliced.sae.has_pre_acts(),
            SaeHook::Error => self.spliced.use_error_term,
            _ => true,
        };
        SaeHook::ALL.iter().filter(|hook| fires(hook)).map(|&hook| self.point(hook)).collect()
    }

    fn at(&self, x: AnyTensor, hooks: &mut Hooks<'_>) -> Result<Option<AnyTensor>, RunError> {
        let sae = &*self.spliced.sae;
        if sae.reads_context() && hooks.pos_offset() > 0 {
            return Err(RunError::Options(format!(
                "{} codes a position by those before it, which a key-value cache leaves out: run without one \
                 (--no-kv-cache)",
                sae.config().name
            )));
        }
        let y = Vectors::of(x, self.host.point())?;
        let read = match seen(&self.state).read.take() {
            Some(read) if self.transcodes => read,
            _ => y.x.clone(),
        };
        let dtype = sae.base().w_dec.dtype();
        let encoded = self.encode(read.cast(dtype), hooks);
        let out = if self.spliced.use_error_term {
            self.with_error(&encoded, &y, hooks)
        } else {
            let recons = sae.recons(&encoded.live());
            let recons = hooks.at(self.point(SaeHook::Recons), recons);
            let out = self.finished(&encoded.prepared, &encoded.edited, recons).cast(y.x.dtype());
            Some(self.past_excluded(out, &y.x))
        };
        let changed = out.is_some();
        let out = y.restored(out.unwrap_or_else(|| y.x.clone()));
        let (out, edited) = hooks.at_changed(self.point(SaeHook::Output), out);
        Ok((changed || edited).then_some(out))
    }

    fn encode(&self, input: Tensor<3>, hooks: &mut Hooks<'_>) -> Encoded {
        let sae = &*self.spliced.sae;
        let (edited, input_changed) = hooks.at_changed(self.point(SaeHook::Input), input.clone());
        let prepared = sae.prepare(edited.clone());
        let mut pre_changed = false;
        let codes = sae.codes(prepared.x.clone(), &mut |pre| {
            let (pre, changed) = hooks.at_changed(self.point(SaeHook::ActsPre), pre);
            pre_changed |= changed;
            pre
        });
        let (acts, acts_changed) = hooks.at_changed(self.point(SaeHook::ActsPost), codes.acts.clone());
        Encoded { input, edited, prepared, codes, acts, input_changed, pre_changed, acts_changed }
    }

    /// A reconstruction as it is at the hook, with what skips the features.
    fn finished(&self, prepared: &Prepared, input: &Tensor<3>, recons: Tensor<3>) -> Tensor<3> {
        let out = prepared.undo(recons);
        match self.spliced.sae.skip(input) {
            Some(skip) => out + skip,
            None => out,
        }
    }

    /// The activation, and whatever hooks changed; `None` where that is nothing.
    ///
    /// Nothing is added and taken away again: the decoder is linear, so what an edit of activations
    /// changes is their difference, decoded. Gradients reach the activation only through the
    /// features, as in SAELens, where the error is no part of the graph.
    fn with_error(&self, encoded: &Encoded, y: &Vectors, hooks: &mut Hooks<'_>) -> Option<Tensor<3>> {
        let sae = &*self.spliced.sae;
        let tracked = [&y.x, &encoded.acts, &encoded.prepared.x].iter().any(|x| x.is_tracked());
        let edited = encoded.input_changed || encoded.pre_changed || encoded.acts_changed;
        let recons = self.point(SaeHook::Recons);
        let whole = tracked || encoded.input_changed || hooks.wants(recons);
        let live = whole.then(|| sae.recons(&encoded.live()));
        let clean = |encoded: &Encoded| self.clean(encoded, if edited { None } else { live.clone() });
        let (hooked, recons_changed) = match live.clone() {
            Some(live) => {
                let (hooked, changed) = hooks.at_changed(recons, live);
                (Some(hooked), changed)
            }
            None => (None, false),
        };
        let mut delta = match (hooked, &live) {
            (Some(hooked), Some(_)) if tracked || encoded.input_changed => {
                let out = self.finished(&encoded.prepared, &encoded.edited, hooked);
                Some(out - clean(encoded).detach())
            }
            (Some(hooked), Some(live)) if recons_changed => {
                let difference = self.edit(encoded) + (hooked - live.clone());
                Some(encoded.prepared.undo_linear(difference))
            }
            _ => edited.then(|| encoded.prepared.undo_linear(self.edit(encoded))),
        };
        let point = self.point(SaeHook::Error);
        if hooks.wants(point) {
            let error = y.x.clone().cast(encoded.acts.dtype()).detach() - clean(encoded).detach();
            let error = self.masked(error);
            let (hooked, changed) = hooks.at_changed(point, y.restored(error.clone().cast(y.x.dtype())));
            if let (true, Ok(hooked)) = (changed, Vectors::of(hooked, point)) {
                let change = hooked.x.cast(encoded.acts.dtype()) - error;
                delta = Some(delta.map_or(change.clone(), |delta| delta + change));
            }
        }
        let delta = self.masked(delta?).cast(y.x.dtype());
        let kept = if tracked { y.x.clone().detach() } else { y.x.clone() };
        Some(self.past_excluded(kept + delta, &y.x))
    }

    /// What the edits of activations change, decoded.
    fn edit(&self, encoded: &Encoded) -> Tensor<3> {
        let before = if encoded.pre_changed { self.codes_of(&encoded.input) } else { encoded.codes.clone() };
        self.spliced.sae.decode_linear(encoded.acts.clone() - before.acts)
    }

    fn codes_of(&self, input: &Tensor<3>) -> Codes {
        let sae = &*self.spliced.sae;
        sae.codes(sae.prepare(input.clone()).x, &mut |pre| pre)
    }

    /// What the dictionary makes of its input without any hook; `live` where no hook changed it.
    fn clean(&self, encoded: &Encoded, live: Option<Tensor<3>>) -> Tensor<3> {
        let sae = &*self.spliced.sae;
        let prepared = sae.prepare(encoded.input.clone());
        let recons = live.unwrap_or_else(|| {
            let unedited = !encoded.input_changed && !encoded.pre_changed;
            let codes = if unedited { encoded.codes.clone() } else { self.codes_of(&encoded.input) };
            sae.recons(&codes)
        });
        self.finished(&prepared, &encoded.input, recons)
    }

    /// Where the activation passes by the dictionary, `[batch, pos, 1]`.
    fn excluded(&self) -> Option<Tensor<3, Bool>> {
        let tokens = seen(&self.state).tokens.clone()?;
        let at = |&token: &i64| tokens.clone().equal_elem(token);
        let mask = self.spliced.exclude_tokens.iter().map(at).reduce(Tensor::bool_or)?;
        Some(mask.unsqueeze_dim(2))
    }

    /// Zero where the activation passes.
    fn masked(&self, x: Tensor<3>) -> Tensor<3> {
        match self.excluded() {
            Some(mask) => {
                let dims = x.dims();
                x.mask_fill(mask.expand(dims), 0.0)
            }
            None => x,
        }
    }

    /// `y` where the activation passes.
    fn past_excluded(&self, out: Tensor<3>, y: &Tensor<3>) -> Tensor<3> {
        match self.excluded() {
            Some(mask) => {
                let dims = out.dims();
                out.mask_where(mask.expand(dims), y.clone())
            }
            None => out,
        }
    }
}

impl Encoded {
    /// The codes after their hooks.
    fn live(&self) -> Codes {
        Codes { acts: self.acts.clone(), predicted: self.codes.predicted.clone() }
    }
}
