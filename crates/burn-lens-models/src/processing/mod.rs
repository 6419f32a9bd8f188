//! Weights into other weights that compute the same log-probabilities.
//!
//! Each step is one file and says for which models it is valid. Steps run in the accumulator
//! type of the weights: `f64` stays `f64` (TransformerLens rounds it to `f32`).

mod center;
mod fold_ln;
mod fold_value_biases;
mod refactor;

use std::{fmt, str::FromStr};

use burn_lens_tensor::{FloatType, nearest};

use crate::{HookedTransformer, ModelConfig, ModelError, NormPlacement, Parameters, components::NormKind};

/// A model's description and weights, while they are processed.
pub(crate) struct Draft {
    pub(crate) config: ModelConfig,
    pub(crate) params: Parameters,
}

/// One processing step, by TransformerLens's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Norm weights and biases into what reads the norm's output.
    FoldLn,
    /// Everything that writes to the stream has mean zero over `d_model`.
    CenterWritingWeights,
    /// Logits have mean zero over the vocabulary.
    CenterUnembed,
    /// Value biases into the output bias.
    FoldValueBiases,
    /// `W_Q`, `W_K` balanced; `W_O` orthonormal, `W_V` scaled by singular values.
    RefactorFactoredAttnMatrices,
}

impl Step {
    /// Every step, in the order in which they run.
    pub const ALL: [Self; 5] = [
        Self::FoldLn,
        Self::CenterWritingWeights,
        Self::CenterUnembed,
        Self::FoldValueBiases,
        Self::RefactorFactoredAttnMatrices,
    ];

    /// What TransformerLens's `from_pretrained` does.
    pub const DEFAULT: [Self; 4] =
        [Self::FoldLn, Self::CenterWritingWeights, Self::CenterUnembed, Self::FoldValueBiases];

    /// TransformerLens's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FoldLn => "fold_ln",
            Self::CenterWritingWeights => "center_writing_weights",
            Self::CenterUnembed => "center_unembed",
            Self::FoldValueBiases => "fold_value_biases",
            Self::RefactorFactoredAttnMatrices => "refactor_factored_attn_matrices",
        }
    }

    /// Why the step is not valid for a model, if it is not.
    #[must_use]
    pub fn invalid_for(self, config: &ModelConfig) -> Option<String> {
        let because = |invalid: bool, reason: &str| invalid.then(|| reason.to_owned());
        let norm = config.norm;
        match self {
            Self::FoldLn => because(
                norm.placement == NormPlacement::Post,
                "its norms follow the halves of a block, so there is nothing behind them to fold into",
            ),
            Self::CenterWritingWeights => because(
                norm.kind != NormKind::Layer || norm.final_kind != NormKind::Layer,
                "only layer norm ignores the mean of the stream",
            )
            .or(because(
                norm.placement != NormPlacement::Pre,
                "norms on what the halves write would undo the centring",
            )),
            Self::CenterUnembed => because(
                config.readers().is_some(),
                "its read-out gives values, not logits: a constant added to all of them changes them",
            )
            .or(because(
                config.logits_soft_cap.is_some(),
                "its logits are soft-capped, so a constant added to all of them changes probabilities",
            )),
            Self::FoldValueBiases => {
                because(config.attention.sinks, "with attention sinks pattern rows do not sum to 1").or(
                    because(
                        config.attention.clip_qkv.is_some(),
                        "its values are clipped after the bias is added",
                    ),
                )
            }
            Self::RefactorFactoredAttnMatrices => because(
                matches!(config.positions, crate::components::Positions::Rotary(_)),
                "rotary positions act between W_Q and W_K",
            )
            .or(because(
                config.attention.qk_norm_eps.is_some() || config.attention.clip_qkv.is_some(),
                "queries and keys are normed or clipped between W_Q and W_K",
            ))
            .or(because(
                config.attention.n_heads != config.attention.n_kv_heads,
                "grouped heads share their keys and values",
            ))
            .or(because(config.attention.sinks, "with attention sinks pattern rows do not sum to 1")),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is not a step's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown processing step `{name}`; steps are {}{}", Step::ALL.map(Step::name).join(", "), if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) })]
pub struct UnknownStep {
    /// The name as given.
    pub name: String,
    /// The closest names.
    pub nearest: Vec<String>,
}

impl FromStr for Step {
    type Err = UnknownStep;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|step| step.name() == name).ok_or_else(|| UnknownStep {
            name: name.to_owned(),
            nearest: nearest(name, Self::ALL.map(Self::name)),
        })
    }
}

impl HookedTransformer {
    /// The same model after `steps`, which run in their fixed order.
    ///
    /// # Errors
    ///
    /// If a step is not valid for this model; the reason is given.
    pub fn processed(&self, steps: &[Step]) -> Result<Self, ModelError> {
        for &step in steps {
            if let Some(reason) = step.invalid_for(&self.config) {
                return Err(ModelError::Processing { step: step.name(), reason });
            }
        }
        self.run_steps(steps)
    }

    /// The same model after those of TransformerLens's default steps that are valid for it,
    /// and the steps left out, with the reason.
    ///
    /// # Errors
    ///
    /// If a decomposition fails, which none of the default steps needs.
    pub fn processed_by_default(&self) -> Result<(Self, Vec<(Step, String)>), ModelError> {
        let mut steps = Vec::new();
        let mut left_out = Vec::new();
        for step in Step::DEFAULT {
            match step.invalid_for(&self.config) {
                None => steps.push(step),
                Some(reason) => left_out.push((step, reason)),
            }
        }
        Ok((self.run_steps(&steps)?, left_out))
    }

    fn run_steps(&self, steps: &[Step]) -> Result<Self, ModelError> {
        let dtype = FloatType::from_dtype(self.dtype).unwrap_or_default();
        let params = self.params.clone().cast(dtype.accumulator());
        let mut draft = Draft { config: self.config.clone(), params };
        for step in Step::ALL.into_iter().filter(|step| steps.contains(step)) {
            match step {
                Step::FoldLn => fold_ln::run(&mut draft)?,
                Step::CenterWritingWeights => center::writing_weights(&mut draft),
                Step::CenterUnembed => center::unembed(&mut draft)?,
                Step::FoldValueBiases => {
                    let center = steps.contains(&Step::CenterWritingWeights);
                    fold_value_biases::run(&mut draft, center)?;
                }
                Step::RefactorFactoredAttnMatrices => refactor::run(&mut draft)?,
            }
        }
        Self::new(draft.config, draft.params.cast(dtype))
    }
}
