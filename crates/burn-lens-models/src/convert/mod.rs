//! Checkpoints of other programs, by a table of rules: names, layouts and shapes as data.
//!
//! - [`RuleTable`]: the table, as serde reads it from TOML or JSON
//! - [`Converter`]: what a table does, for formats that need code
//! - [`convert`]: a checkpoint into a model, with every tensor accounted for
//! - [`SourceActivations`]: a run's activations under the source's own module names
//! - [`NameTree`]: anything with dotted names, as a tree

mod activations;
mod rearrange;
mod table;
mod tree;

use burn::tensor::{Device, TensorData};
use burn_lens_hooks::{UnknownHook, UnknownParam};
use burn_lens_tensor::{AnyTensor, FloatType, RankError, WeightError, Weights};

use crate::{HookedTransformer, ModelConfig, ModelError, Param, Parameters};

pub use activations::SourceActivations;
pub use table::{ActivationRule, Names, RuleTable, WeightRule};
pub use tree::NameTree;

/// How the weights of another program become a model's, and back.
///
/// [`RuleTable`] implements it for everything that names, splits and shapes can say. Implement
/// it for a format that needs arithmetic.
pub trait Converter {
    /// The model that the weights are for.
    ///
    /// # Errors
    ///
    /// If the description is missing something or contradicts itself.
    fn config(&self) -> Result<ModelConfig, ConvertError>;

    /// Reads what is there of the model's weights. What is missing is found by the caller.
    ///
    /// # Errors
    ///
    /// If a tensor has another shape than the model needs, or cannot be read.
    fn read(&self, weights: &mut dyn Weights) -> Result<Vec<(Param, TensorData)>, ConvertError>;

    /// The weights under the source's names and in its shapes: the inverse of [`Converter::read`].
    ///
    /// # Errors
    ///
    /// If a weight is missing or has a shape that the format cannot hold.
    fn write(&self, params: &Parameters) -> Result<Vec<(String, TensorData)>, ConvertError>;

    /// Whether a tensor of the source is known to be of no use.
    fn drops(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// Where `param` lies in the source, for messages.
    fn source_of(&self, param: Param) -> Option<String> {
        let _ = param;
        None
    }
}

/// A converted checkpoint.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The model.
    pub model: HookedTransformer,
    /// The tensors of the source that the converter knowingly left out.
    pub dropped: Vec<String>,
}

/// Why a checkpoint could not be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The model's description or weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tensor of the source.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A rule's target is no weight.
    #[error("a rule of the table: {0}")]
    Param(#[from] UnknownParam),
    /// An activation rule names no hook.
    #[error("a rule of the table: {0}")]
    Hook(#[from] UnknownHook),
    /// A rule's target is no weight of the model described.
    #[error("the rule for `{rule}` makes `{param}`, which the model described under `model` does not have")]
    NoSuchWeight {
        /// The rule's source.
        rule: String,
        /// Its target.
        param: Param,
    },
    /// A rule has several targets and no axis to split along, or the reverse.
    #[error("the rule for `{rule}` has {targets} targets and {}", if *split { "`split`, which needs two or more" } else { "no `split`, the axis along which they lie" })]
    Targets {
        /// The rule's source.
        rule: String,
        /// How many targets it has.
        targets: usize,
        /// Whether it says where to split.
        split: bool,
    },
    /// A layout that makes no sense, or does not fit a tensor.
    #[error("the layout `{pattern}` does not fit: {reason}")]
    Pattern {
        /// The layout.
        pattern: String,
        /// Why not.
        reason: String,
    },
    /// Tensors of the source that no rule reads, and weights that no tensor gives.
    #[error("{}", incomplete(origin, leftovers, gaps))]
    Incomplete {
        /// The source.
        origin: String,
        /// Its tensors that nothing reads.
        leftovers: Vec<String>,
        /// Weights that nothing gives, with the tensor looked for.
        gaps: Vec<String>,
    },
    /// A tensor of an impossible rank.
    #[error("`{name}`: {source}")]
    Rank {
        /// The tensor.
        name: String,
        /// What was expected and found.
        source: RankError,
    },
    /// Activations that were asked for and were not kept.
    #[error("the module `{name}` needs `{hook}`, which the cache does not hold")]
    NotKept {
        /// The module.
        name: String,
        /// The hook.
        hook: String,
    },
}

fn incomplete(origin: &str, leftovers: &[String], gaps: &[String]) -> String {
    let mut text = format!("{origin} and the rules do not match");
    if !leftovers.is_empty() {
        text.push_str("\n  tensors that no rule reads (list them under `drop` if they are of no use):");
        text.extend(leftovers.iter().map(|name| format!("\n    {name}")));
    }
    if !gaps.is_empty() {
        text.push_str("\n  weights of the model that no tensor gives:");
        text.extend(gaps.iter().map(|name| format!("\n    {name}")));
    }
    text
}

/// Converts a checkpoint. Every tensor must be read or knowingly dropped, and every weight of
/// the model given.
///
/// ```
/// use burn_lens_models::convert::{RuleTable, convert};
/// use burn_lens_tensor::{DeviceSpec, FloatType, MemoryWeights};
///
/// let table: RuleTable = serde_json::from_str(
///     r#"{"model": {"n_layers": 1, "d_model": 2, "n_heads": 1, "n_ctx": 4, "d_in": 3, "d_out": 1,
///                   "attn_only": true, "normalization_type": null},
///         "weight": [{"source": "read_in.weight", "target": "read_in.W", "rearrange": "out in -> in out"}]}"#,
/// )?;
/// let device = DeviceSpec::cpu().open()?;
/// let error = convert(&table, &mut MemoryWeights::default(), FloatType::F32, &device).unwrap_err();
/// assert!(error.to_string().contains("read_in.W (no `read_in.weight`)"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`Converter::config`] and [`Converter::read`]; or lists what is left over and missing.
pub fn convert(
    converter: &dyn Converter,
    weights: &mut dyn Weights,
    dtype: FloatType,
    device: &Device,
) -> Result<Converted, ConvertError> {
    let config = converter.config()?;
    let mut params = Vec::new();
    for (param, data) in converter.read(weights)? {
        let found = data.dtype();
        if FloatType::from_dtype(found).is_none() {
            let (name, found) = (param.to_string(), format!("{found:?}"));
            return Err(WeightError::Dtype { name, origin: weights.origin(), found }.into());
        }
        let rank = |source| ModelError::ParamRank { param, source };
        params.push((param, AnyTensor::from_data(data, device).map_err(rank)?.cast(dtype)));
    }
    let params: Parameters = params.into_iter().collect();
    let (dropped, leftovers) = weights.unread().into_iter().partition(|name| converter.drops(name));
    let gap = |param: Param| match converter.source_of(param) {
        Some(source) => format!("{param} (no `{source}`)"),
        None => format!("{param} (no rule makes it)"),
    };
    let gaps: Vec<String> =
        config.params().into_iter().filter(|&param| !params.contains(param)).map(gap).collect();
    let leftovers: Vec<String> = leftovers;
    if !leftovers.is_empty() || !gaps.is_empty() {
        return Err(ConvertError::Incomplete { origin: weights.origin(), leftovers, gaps });
    }
    Ok(Converted { model: HookedTransformer::new(config, params)?, dropped })
}
