//! The residual stream, taken apart: TransformerLens's `ActivationCache` methods.
//!
//! [`Residuals`] joins a cache with the model that it came from. Every method gives a
//! [`ResidStack`]: rows with labels, `[component, batch, pos, d_model]`.

mod accumulated;
mod activations;
mod component;
mod decompose;
mod full;
mod heads;
mod logit_attrs;
mod neurons;
mod normalize;
mod reader;
mod rows;
mod stack;
mod streams;

use burn_lens_hooks::{ActivationCache, HookPoint, HookedModel, ModelDims, ModelWeights, Wiring};
use burn_lens_tensor::Slice;

pub use component::Component;
pub use decompose::Sublayers;
pub use logit_attrs::{Answers, LogitAttrs};
pub use neurons::NeuronOptions;
pub use normalize::Normalize;
pub use stack::ResidStack;

pub(crate) use logit_attrs::Directions;
pub(crate) use normalize::{Chain, FrozenNorm};
pub(crate) use stack::slice_axis;

use crate::AnalysisError;

/// Where and how rows are taken; what most methods have in common.
#[derive(Clone, Debug, Default)]
pub struct StackOptions {
    /// Everything written before this block reads; `None` and -1 stand for the end of the
    /// model, 0 for the embedding.
    pub layer: Option<isize>,
    /// Before that block's MLP reads, not before its attention does.
    pub mlp_input: bool,
    /// Which positions. An index removes the axis in [`ResidStack::into_any`].
    pub pos_slice: Slice,
    /// Which norm to apply to the rows: TransformerLens's `apply_ln`, by name.
    pub normalize: Normalize,
}

impl StackOptions {
    /// At the end of the model (`None`, -1) or before block `layer`.
    #[must_use]
    pub fn at(layer: impl Into<Option<isize>>) -> Self {
        Self { layer: layer.into(), ..Self::default() }
    }
}

/// A cache and the model that filled it.
///
/// ```
/// use burn_lens_analysis::{Residuals, StackOptions, Sublayers};
/// use burn_lens_hooks::{CacheOptions, HookedModel, Input, RunOptions};
/// # use burn_lens_hooks::{BlockLayout, Firing, HookPoint, Hooks, ModelDims, NormPlacement, Output, RunError, Wiring};
/// # use burn_lens_tensor::{DeviceSpec, NormKind, burn::tensor::{Device, Tensor}};
/// # struct Squarer(Device);
/// # impl HookedModel for Squarer {
/// #     fn dims(&self) -> ModelDims {
/// #         ModelDims { n_layers: 1, d_model: 2, ..ModelDims::default() }
/// #     }
/// #     fn firing(&self) -> Firing {
/// #         let always = vec![HookPoint::Embed, HookPoint::ResidPre(0), HookPoint::MlpOut(0), HookPoint::ResidPost(0)];
/// #         Firing { always, ..Firing::default() }
/// #     }
/// #     fn device(&self) -> Device { self.0.clone() }
/// #     fn wiring(&self) -> Option<Wiring> {
/// #         let (norm, final_norm) = (NormKind::None, NormKind::None);
/// #         Some(Wiring { layout: BlockLayout::Sequential, placement: NormPlacement::Pre, norm, final_norm, eps: 0.0, causal: true, clip_qkv: None, logits_soft_cap: None })
/// #     }
/// #     fn forward(&self, input: &Input, _: &RunOptions, hooks: &mut Hooks<'_>) -> Result<Output, RunError> {
/// #         let Input::Embeds(x) = input else { unreachable!() };
/// #         let x = hooks.at(HookPoint::Embed, x.clone());
/// #         let x = hooks.at(HookPoint::ResidPre(0), x);
/// #         let out = hooks.at(HookPoint::MlpOut(0), x.clone() * x.clone());
/// #         hooks.at(HookPoint::ResidPost(0), x + out);
/// #         Ok(Output::default())
/// #     }
/// # }
/// # let device = DeviceSpec::cpu().open()?;
/// # let (model, input) = (Squarer(device.clone()), Input::Embeds(Tensor::full([1, 3, 2], 2.0, &device)));
/// // A model whose MLP writes the square of what it reads.
/// let (_, cache) = model.run_with_cache(&input, &RunOptions::default(), &CacheOptions::default())?;
/// let residuals = Residuals::new(&model, &cache)?;
/// let parts = residuals.decompose_resid(&StackOptions::default(), Sublayers::All, true)?;
/// assert_eq!(parts.labels(), ["embed", "0_mlp_out"]);
/// let whole: Tensor<3> = cache.tensor("resid_post0")?;
/// assert_eq!((parts.sum() - whole).abs().max().into_scalar::<f32>(), 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Residuals<'a, M: ?Sized> {
    pub(crate) model: &'a M,
    pub(crate) cache: &'a ActivationCache,
    pub(crate) wiring: Wiring,
    pub(crate) dims: ModelDims,
    /// The hooks that the model fires.
    pub(crate) fired: Vec<HookPoint>,
}

/// A place where the stream is read: everything written before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) layer: usize,
    pub(crate) mlp_input: bool,
}

impl<'a, M: HookedModel + ?Sized> Residuals<'a, M> {
    /// Joins them.
    ///
    /// # Errors
    ///
    /// If the model does not say how it is wired, or has another number of layers than the
    /// cache.
    pub fn new(model: &'a M, cache: &'a ActivationCache) -> Result<Self, AnalysisError> {
        let (wiring, dims) = (model.known_wiring()?, model.dims());
        if cache.n_layers() != dims.n_layers {
            let reason = format!(
                "the cache is of a model with {} layers, this one has {}",
                cache.n_layers(),
                dims.n_layers
            );
            return Err(AnalysisError::Refused { what: "joining a cache with a model", reason });
        }
        let fired = model.firing().always;
        Ok(Self { model, cache, wiring, dims, fired })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &'a M {
        self.model
    }

    pub(crate) fn fires(&self, point: HookPoint) -> bool {
        self.fired.contains(&point)
    }

    /// Checks `layer` and `mlp_input` against each other and the layout.
    pub(crate) fn place(&self, options: &StackOptions) -> Result<Place, AnalysisError> {
        let n_layers = self.dims.n_layers;
        let layer = match options.layer {
            None | Some(-1) => n_layers,
            Some(layer) => usize::try_from(layer)
                .ok()
                .filter(|&layer| layer <= n_layers)
                .ok_or(AnalysisError::Layer { layer, n_layers })?,
        };
        let mlp_input = options.mlp_input;
        if mlp_input && layer == n_layers {
            let reason = format!("there is no block {layer}: give the layer whose MLP reads");
            return Err(AnalysisError::Refused { what: "mlp_input", reason });
        }
        if mlp_input && !self.fires(HookPoint::MlpOut(layer)) {
            let reason = "this model has no MLPs".to_owned();
            return Err(AnalysisError::Refused { what: "mlp_input", reason });
        }
        Ok(Place { layer, mlp_input })
    }

    pub(crate) fn is_parallel(&self) -> bool {
        self.wiring.layout == burn_lens_hooks::BlockLayout::Parallel
    }
}
