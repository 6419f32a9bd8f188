//! The transformer: embedding or read-in, blocks, final norm, unembedding or read-out.

use std::sync::OnceLock;

use burn::tensor::{DType, Device};
use burn_lens_hooks::{
    Firing, Frame, HookPoint, HookRegistry, HookedModel, Hooks, Input, ModelDims, Output, Param, PartialPass,
    RunError, RunOptions, Wiring,
};
use burn_lens_tensor::AnyTensor;

use crate::{
    ModelConfig, ModelError, Parameters,
    block::Block,
    components::{Embed, Norm, NormKind, PosEmbed, Positions, ReadIn, ReadOut, Unembed},
    config::Interface,
    forward::same_hardware,
    partial::Partial,
    stacked::Stacks,
};

/// A transformer with a hook on every activation.
///
/// It is a pure function of its [`ModelConfig`] and [`Parameters`]; processing or training
/// makes new parameters and builds a new one from them, which shares every tensor that did
/// not change.
#[derive(Clone, Debug)]
pub struct HookedTransformer {
    pub(crate) config: ModelConfig,
    pub(crate) params: Parameters,
    pub(crate) ends: Ends,
    pub(crate) embed_norm: Option<Norm>,
    pub(crate) pos_embed: Option<PosEmbed>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) ln_final: Norm,
    pub(crate) device: Device,
    pub(crate) dtype: DType,
    pub(crate) stacks: Stacks,
    registry: HookRegistry,
    firing: OnceLock<Firing>,
}

/// How things get into the stream and out of it.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub(crate) enum Ends {
    Tokens { embed: Embed, unembed: Unembed },
    Vectors { read_in: ReadIn, read_out: ReadOut },
}

impl Ends {
    fn new(config: &ModelConfig, params: &Parameters) -> Result<Self, ModelError> {
        if let Interface::Vectors(_) = config.interface {
            return Ok(Self::Vectors { read_in: ReadIn::new(params)?, read_out: ReadOut::new(params)? });
        }
        let unembed = Unembed {
            w_u: params.get(Param::WU)?,
            b_u: params.find(Param::BU),
            soft_cap: config.logits_soft_cap,
        };
        Ok(Self::Tokens { embed: Embed { w_e: params.get(Param::Embed)? }, unembed })
    }

    fn device_and_dtype(&self) -> (Device, DType) {
        let first = match self {
            Self::Tokens { embed, .. } => &embed.w_e,
            Self::Vectors { read_in, .. } => &read_in.w,
        };
        (first.device().without_autodiff(), first.dtype())
    }
}

impl HookedTransformer {
    /// Builds the model of this configuration with these weights.
    ///
    /// # Errors
    ///
    /// If a weight is missing or of another shape than the configuration implies.
    pub fn new(config: ModelConfig, params: Parameters) -> Result<Self, ModelError> {
        config.check()?;
        params.check(&config)?;
        let ends = Ends::new(&config, &params)?;
        let (device, dtype) = ends.device_and_dtype();
        let norm = |kind: NormKind, w: Param, b: Param| Norm {
            kind,
            eps: config.norm.eps,
            w: params.find(w),
            b: params.find(b),
        };
        let embed_norm =
            config.norm.after_embedding.then(|| norm(config.norm.kind, Param::EmbedLnW, Param::EmbedLnB));
        let pos_embed = match config.positions {
            Positions::Learned => Some(PosEmbed { w_pos: params.get(Param::PosEmbed)? }),
            _ => None,
        };
        let blocks = (0..config.n_layers)
            .map(|layer| Block::new(&config, layer, &params))
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            ends,
            embed_norm,
            pos_embed,
            blocks,
            ln_final: norm(config.norm.final_kind, Param::LnFinalW, Param::LnFinalB),
            device,
            dtype,
            stacks: Stacks::default(),
            registry: HookRegistry::default(),
            firing: OnceLock::new(),
            config,
            params,
        })
    }

    /// What it is made of.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its weights.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.params
    }

    /// The dtype of its weights.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The same model on another device.
    ///
    /// # Errors
    ///
    /// Never for a model that was built already; the signature is that of [`Self::new`].
    pub fn to_device(&self, device: &Device) -> Result<Self, ModelError> {
        if same_hardware(&self.device, device) {
            return Ok(self.clone());
        }
        Self::new(self.config.clone(), self.params.clone().to_device(device))
    }

    /// The same model with every weight changed by `f`.
    ///
    /// # Errors
    ///
    /// If `f` changes a shape.
    pub fn map_parameters(&self, f: impl FnMut(Param, AnyTensor) -> AnyTensor) -> Result<Self, ModelError> {
        Self::new(self.config.clone(), self.params.clone().map(f))
    }

    pub(crate) fn fires(&self) -> &Firing {
        self.firing.get_or_init(|| self.list_firing())
    }

    fn list_firing(&self) -> Firing {
        let mut firing = Firing::default();
        match self.ends {
            Ends::Tokens { .. } => firing.optional.push(HookPoint::Tokens),
            Ends::Vectors { .. } => firing.always.push(HookPoint::ReadIn),
        }
        let normed = |kind: NormKind| kind != NormKind::None;
        if self.config.norm.after_embedding && normed(self.config.norm.kind) {
            firing.always.extend([HookPoint::EmbedLnScale, HookPoint::EmbedLnNormalized]);
        }
        firing.always.push(HookPoint::Embed);
        if self.config.positions == Positions::Learned {
            firing.always.push(HookPoint::PosEmbed);
        }
        for layer in 0..self.config.n_layers {
            let [always, optional] = Block::firing(&self.config, layer);
            firing.always.extend(always);
            firing.optional.extend(optional);
        }
        if normed(self.config.norm.final_kind) {
            firing.always.extend([HookPoint::LnFinalScale, HookPoint::LnFinalNormalized]);
        }
        match self.ends {
            Ends::Tokens { .. } => firing.always.extend([HookPoint::UnembedIn, HookPoint::UnembedOut]),
            Ends::Vectors { .. } => firing.always.push(HookPoint::ReadOut),
        }
        firing
    }
}

impl HookedModel for HookedTransformer {
    fn dims(&self) -> ModelDims {
        self.config.dims()
    }

    fn firing(&self) -> Firing {
        self.fires().clone()
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn param(&self, param: Param) -> Option<AnyTensor> {
        self.params.any(param).cloned()
    }

    fn wiring(&self) -> Option<Wiring> {
        Some(Wiring {
            layout: self.config.layout,
            placement: self.config.norm.placement,
            norm: self.config.norm.kind,
            final_norm: self.config.norm.final_kind,
            eps: self.config.norm.eps,
            causal: !self.config.attention.bidirectional,
            clip_qkv: self.config.attention.clip_qkv,
            logits_soft_cap: self.config.logits_soft_cap,
        })
    }

    fn registry(&self) -> Option<&HookRegistry> {
        Some(&self.registry)
    }

    fn partial<'m>(&'m self, frame: &Frame) -> Result<Option<Box<dyn PartialPass + 'm>>, RunError> {
        Ok(Some(Box::new(Partial::new(self, frame)?)))
    }

    fn forward(
        &self,
        input: &Input,
        options: &RunOptions,
        hooks: &mut Hooks<'_>,
    ) -> Result<Output, RunError> {
        self.forward_with_past(input, options, hooks, None)
    }
}
