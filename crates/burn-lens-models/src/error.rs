//! Everything that can go wrong while a model is described, built or processed.

use burn_lens_hooks::RunError;
use burn_lens_tensor::{RankError, WeightError};

use crate::Param;

/// Why a model could not be built or processed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The configuration is not JSON.
    #[error("config.json is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// No family answers to the class that the configuration names.
    #[error("unknown architecture `{name}`{}; burn-lens knows {}", hint(nearest), known.join(", "))]
    UnknownArchitecture {
        /// The class named.
        name: String,
        /// The closest known ones.
        nearest: Vec<String>,
        /// All of them.
        known: Vec<&'static str>,
    },
    /// The configuration names no class.
    #[error("config.json has neither `architectures` nor `architecture`, so the model's class is unknown")]
    NoArchitecture,
    /// A key is missing.
    #[error("config.json lacks `{key}`, which {architecture} needs")]
    MissingKey {
        /// The key.
        key: String,
        /// The class.
        architecture: String,
    },
    /// A key has a value of another kind than expected.
    #[error("config.json: `{key}` is {found}, expected {expected}")]
    BadValue {
        /// The key.
        key: String,
        /// What was expected.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Keys that the family neither reads nor knowingly ignores.
    #[error("config.json has keys that {architecture} does not understand: {}; refusing to guess what they change", keys.join(", "))]
    UnreadKeys {
        /// The class.
        architecture: String,
        /// The keys.
        keys: Vec<String>,
    },
    /// A value that this product does not support.
    #[error("config.json: `{key}` = {value} is not supported: {reason}")]
    Unsupported {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// Why not.
        reason: String,
    },
    /// A weight could not be had.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A parameter is missing.
    #[error("parameter `{0}` is missing")]
    MissingParam(Param),
    /// A parameter has another shape than the configuration implies.
    #[error("parameter `{param}` has shape {found:?}, but the configuration implies {expected:?}")]
    ParamShape {
        /// The parameter.
        param: Param,
        /// The shape implied.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A parameter is of an impossible rank.
    #[error("parameter `{param}`: {source}")]
    ParamRank {
        /// The parameter.
        param: Param,
        /// What was expected and found.
        source: RankError,
    },
    /// A processing step that is not valid for this model.
    #[error("{step} is not valid for this model: {reason}")]
    Processing {
        /// The step.
        step: &'static str,
        /// Why not.
        reason: String,
    },
    /// Something that TransformerLens's format cannot express.
    #[error("TransformerLens's format cannot express {0}")]
    NotExpressible(String),
    /// A decomposition failed.
    #[error("decomposition of `{param}` failed: {reason}")]
    Decomposition {
        /// The parameter.
        param: Param,
        /// Why.
        reason: String,
    },
    /// A run failed.
    #[error(transparent)]
    Run(#[from] RunError),
}

fn hint(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) }
}
