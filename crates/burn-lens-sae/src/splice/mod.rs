//! Dictionaries spliced into a run of any model.
//!
//! A dictionary sits behind the hooks of the activation that it writes. Its own hooks have SAELens's
//! names, `{hook}.hook_sae_input` to `{hook}.hook_sae_output`, and are read, edited, cached and
//! differentiated like any other. As `{hook}` itself stays what the model computed, a cache holds
//! both that and what took its place.

mod run;
mod vectors;

use std::sync::{Arc, Mutex};

use burn::tensor::Tensor;
use burn_lens_hooks::{
    ActivationCache, CacheOptions, Hook, HookPoint, HookedModel, Input, Output, RunOptions, SaeHost,
};
use burn_lens_tensor::TypedTensor;

use crate::{SaeConfig, SaeError, SparseAutoencoder};
use run::{Run, Seen, seen};
pub(crate) use vectors::Vectors;

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
                seen(&state).read = Some(Vectors::of(x, from, None)?.x);
                Ok(None)
            }));
        }
        let alone = from == to && spliced.exclude_tokens.is_empty() && !spliced.sae.reads_context();
        let run = Run { spliced: spliced.clone(), host, transcodes: from != to, state };
        let hook = Hook::splice(to, run.fires(), move |x, hooks| run.at(x, hooks));
        hooks.push(if alone { hook.by_position() } else { hook });
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
    let lens = lens.filter(|lens| by_token && (1..=2).contains(&lens.len())).unwrap_or_default();
    let SaeConfig { name, head, .. } = spliced.sae.config();
    let name = name.clone();
    let found = match (head, &lens[..]) {
        (None, []) => 0,
        (None, lens) => lens.iter().product(),
        (&Some(head), &[n_heads, width]) if head < n_heads => width,
        (&Some(head), lens) => {
            let n_heads = if lens.len() == 2 { lens[0] } else { 0 };
            return Err(SaeError::Head { name, head, point, n_heads });
        }
    };
    if found == expected {
        return Ok(());
    }
    Err(SaeError::Width { name, what: format!("`{point}`"), expected, found })
}
