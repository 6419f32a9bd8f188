//! How a model is put together: what an analysis must know beside activations and weights.

use burn_lens_tensor::{Norm, NormKind, TypedTensor, burn::tensor::Tensor};

use crate::{HookPoint, HookedModel, Param, RunError};

/// How the halves of a block are wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockLayout {
    /// The MLP reads what attention wrote.
    Sequential,
    /// Both read the same stream (GPT-J, Pythia).
    Parallel,
}

/// Where norms sit in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// On what a half reads (GPT-2, Llama).
    Pre,
    /// On what a half writes (OLMo 2).
    Post,
    /// On both (Gemma 2).
    Both,
}

/// How a model is put together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wiring {
    /// How the halves of a block are wired.
    pub layout: BlockLayout,
    /// Where norms sit in a block.
    pub placement: NormPlacement,
    /// The kind of norm in blocks.
    pub norm: NormKind,
    /// The kind of norm before the unembedding.
    pub final_norm: NormKind,
    /// Added to the mean square by every norm.
    pub eps: f64,
    /// Whether a position reads no later one.
    pub causal: bool,
    /// Queries, keys and values are clamped to `±clip` behind their hooks.
    pub clip_qkv: Option<f64>,
    /// `cap · tanh(logits / cap)` at the end.
    pub logits_soft_cap: Option<f64>,
}

/// Which norm of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormSite {
    /// `ln1` of a block.
    Ln1(usize),
    /// `ln1_post` of a block.
    Ln1Post(usize),
    /// `ln2` of a block.
    Ln2(usize),
    /// `ln2_post` of a block.
    Ln2Post(usize),
    /// `ln_final`.
    Final,
}

impl NormSite {
    /// Its weight and bias.
    #[must_use]
    pub fn params(self) -> [Param; 2] {
        match self {
            Self::Ln1(layer) => [Param::Ln1W(layer), Param::Ln1B(layer)],
            Self::Ln1Post(layer) => [Param::Ln1PostW(layer), Param::Ln1PostB(layer)],
            Self::Ln2(layer) => [Param::Ln2W(layer), Param::Ln2B(layer)],
            Self::Ln2Post(layer) => [Param::Ln2PostW(layer), Param::Ln2PostB(layer)],
            Self::Final => [Param::LnFinalW, Param::LnFinalB],
        }
    }

    /// The hook that holds its scale.
    #[must_use]
    pub fn scale_hook(self) -> HookPoint {
        match self {
            Self::Ln1(layer) => HookPoint::Ln1Scale(layer),
            Self::Ln1Post(layer) => HookPoint::Ln1PostScale(layer),
            Self::Ln2(layer) => HookPoint::Ln2Scale(layer),
            Self::Ln2Post(layer) => HookPoint::Ln2PostScale(layer),
            Self::Final => HookPoint::LnFinalScale,
        }
    }
}

/// What an analysis reads of a model's weights, for every [`HookedModel`] that gives them.
pub trait ModelWeights: HookedModel {
    /// The weight `param` as a tensor of known rank; `None` if the model has none.
    ///
    /// # Panics
    ///
    /// If the model gives a tensor of another rank than [`Param`] documents.
    fn find_weight<const D: usize>(&self, param: Param) -> Option<Tensor<D>>
    where
        Tensor<D>: TypedTensor,
    {
        let tensor = self.param(param)?;
        Some(Tensor::<D>::from_any(tensor).unwrap_or_else(|error| panic!("{param}: {error}")))
    }

    /// The weight `param` as a tensor of known rank.
    ///
    /// # Errors
    ///
    /// If the model has none.
    fn weight<const D: usize>(&self, param: Param) -> Result<Tensor<D>, RunError>
    where
        Tensor<D>: TypedTensor,
    {
        self.find_weight(param).ok_or_else(|| RunError::NoWeight { param })
    }

    /// How the model is put together.
    ///
    /// # Errors
    ///
    /// If it does not say.
    fn known_wiring(&self) -> Result<Wiring, RunError> {
        self.wiring().ok_or_else(|| {
            RunError::Options(
                "this model does not say how it is wired: implement HookedModel::wiring".to_owned(),
            )
        })
    }

    /// One of its norms, with what it has of weight and bias (folded ones are `None`).
    ///
    /// # Errors
    ///
    /// If the model does not say how it is wired.
    fn norm_at(&self, site: NormSite) -> Result<Norm, RunError> {
        let wiring = self.known_wiring()?;
        let kind = if site == NormSite::Final { wiring.final_norm } else { wiring.norm };
        let [w, b] = site.params();
        Ok(Norm { kind, eps: wiring.eps, w: self.find_weight(w), b: self.find_weight(b) })
    }
}

impl<M: HookedModel + ?Sized> ModelWeights for M {}
