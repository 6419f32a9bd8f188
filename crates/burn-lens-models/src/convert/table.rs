//! The table of rules.

use burn::tensor::TensorData;
use burn_lens_hooks::ModelDims;
use burn_lens_tensor::Weights;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    ConvertError, Converter,
    rearrange::{Rearrange, Sizes, concatenated, split},
};
use crate::{ModelConfig, ModelError, Param, Parameters, architecture_config};

/// Rules that turn the checkpoint of another program into a model.
///
/// `{layer}` in a name stands for each block in turn. Unknown keys are refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleTable {
    /// The model, in the keys of TransformerLens's `config.json`; `d_in` and `d_out` for one
    /// without a vocabulary. `d_head` is `d_model / n_heads` if it is not given.
    pub model: Map<String, Value>,
    /// Where the weights lie.
    #[serde(default, rename = "weight")]
    pub weights: Vec<WeightRule>,
    /// Tensors of the source that are of no use.
    #[serde(default)]
    pub drop: Vec<String>,
    /// What the source's modules give, in terms of hooks.
    #[serde(default, rename = "activation")]
    pub activations: Vec<ActivationRule>,
}

/// One tensor of the source, and the weights that it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightRule {
    /// Its name there.
    pub source: String,
    /// The [`Param`] that it holds, or several that lie one behind the other.
    pub target: Names,
    /// How the source's axes become ours, in the notation of einops; sizes are those of the
    /// model (`n_heads`, `d_head`, …), numbers, or follow. As it is, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rearrange: Option<String>,
    /// The axis (after `rearrange`) along which several targets lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<usize>,
}

/// What one module of the source gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationRule {
    /// The module's name.
    pub module: String,
    /// The hook that is its output, or several that lie one behind the other on the last axis.
    pub hook: Names,
    /// As [`WeightRule::rearrange`], from each hook's axes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rearrange: Option<String>,
    /// A norm (`blocks.{layer}.ln1`) whose weight and bias are applied: hooks of norms fire
    /// before these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm: Option<String>,
}

/// One name, or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Names {
    /// One.
    One(String),
    /// Several, in order.
    Many(Vec<String>),
}

impl Names {
    /// As a list.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

pub(super) const LAYER: &str = "{layer}";

/// `name` for each block, or for none.
pub(super) fn layers(name: &str, n_layers: usize) -> Vec<Option<usize>> {
    if name.contains(LAYER) { (0..n_layers).map(Some).collect() } else { vec![None] }
}

pub(super) fn filled(name: &str, layer: Option<usize>) -> String {
    layer.map_or_else(|| name.to_owned(), |layer| name.replace(LAYER, &layer.to_string()))
}

/// Whether `name` is `pattern` for some block.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once(LAYER) else { return pattern == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    digits > 0 && matches(&after.replace(LAYER, &rest[..digits]), &rest[digits..])
}

/// One rule for one block, checked against the model.
struct Entry {
    source: String,
    params: Vec<Param>,
    rearrange: Option<Rearrange>,
    axis: usize,
}

impl Entry {
    /// The shapes of the weights, and of all of them one behind the other.
    fn shapes(&self, dims: &ModelDims) -> Result<(Vec<Vec<usize>>, Vec<usize>), ConvertError> {
        let shapes: Vec<Vec<usize>> = self.params.iter().map(|param| param.shape(dims)).collect();
        let mut whole = shapes[0].clone();
        let differs = |shape: &Vec<usize>| {
            shape.len() != whole.len()
                || shape.iter().zip(&whole).enumerate().any(|(at, (a, b))| at != self.axis && a != b)
        };
        if self.axis >= whole.len() || shapes.iter().any(differs) {
            let reason = format!(
                "weights of shapes {shapes:?} do not lie one behind the other along axis {}",
                self.axis
            );
            return Err(ConvertError::Pattern { pattern: self.source.clone(), reason });
        }
        whole[self.axis] = shapes.iter().map(|shape| shape[self.axis]).sum();
        Ok((shapes, whole))
    }

    /// The shape in the source of a tensor that is `whole` here. Names of the pattern that are
    /// no sizes of the model are solved from this side.
    fn source_shape(&self, whole: &[usize], sizes: &Sizes) -> Result<Vec<usize>, ConvertError> {
        match &self.rearrange {
            None => Ok(whole.to_vec()),
            Some(pattern) => pattern.inverse().shape(whole, sizes),
        }
    }

    fn read(
        &self,
        weights: &mut dyn Weights,
        dims: &ModelDims,
        sizes: &Sizes,
    ) -> Result<Vec<(Param, TensorData)>, ConvertError> {
        let (shapes, whole) = self.shapes(dims)?;
        let stored = weights.get(&self.source, &self.source_shape(&whole, sizes)?)?;
        let data = match &self.rearrange {
            None => stored,
            Some(pattern) => pattern.apply(&stored, sizes)?,
        };
        if self.params.len() == 1 {
            return Ok(vec![(self.params[0], data)]);
        }
        let lengths: Vec<usize> = shapes.iter().map(|shape| shape[self.axis]).collect();
        Ok(self.params.iter().copied().zip(split(&data, self.axis, &lengths)?).collect())
    }

    fn write(&self, params: &Parameters, sizes: &Sizes) -> Result<(String, TensorData), ConvertError> {
        let part = |&param: &Param| {
            let tensor = params.any(param).cloned().ok_or(ModelError::MissingParam(param))?;
            Ok(tensor.into_data().map_err(burn_lens_hooks::RunError::from).map_err(ModelError::from)?)
        };
        let parts = self.params.iter().map(part).collect::<Result<Vec<_>, ConvertError>>()?;
        let whole = match <[TensorData; 1]>::try_from(parts) {
            Ok([whole]) => whole,
            Err(parts) => concatenated(&parts, self.axis)?,
        };
        let stored = match &self.rearrange {
            None => whole,
            Some(pattern) => pattern.inverse().apply(&whole, sizes)?,
        };
        Ok((self.source.clone(), stored))
    }
}

/// The model's sizes by their names.
pub(super) fn sizes(dims: &ModelDims) -> Sizes {
    let sizes = [
        ("n_layers", dims.n_layers),
        ("d_model", dims.d_model),
        ("n_heads", dims.n_heads),
        ("n_kv_heads", dims.n_kv_heads),
        ("d_head", dims.d_head),
        ("d_mlp", dims.d_mlp),
        ("d_vocab", dims.d_vocab),
        ("d_vocab_out", dims.d_vocab_out),
        ("n_ctx", dims.n_ctx),
        ("d_in", dims.d_in),
        ("d_out", dims.d_out),
    ];
    sizes.into_iter().map(|(name, size)| (name.to_owned(), size)).collect()
}

impl RuleTable {
    fn entries(&self, config: &ModelConfig) -> Result<Vec<Entry>, ConvertError> {
        let known = config.params();
        let mut entries = Vec::new();
        for rule in &self.weights {
            let targets = rule.target.as_slice();
            if targets.is_empty() || (targets.len() > 1) != rule.split.is_some() {
                let (rule, split) = (rule.source.clone(), rule.split.is_some());
                return Err(ConvertError::Targets { rule, targets: targets.len(), split });
            }
            let rearrange = rule.rearrange.as_deref().map(Rearrange::parse).transpose()?;
            for layer in layers(&rule.source, config.n_layers) {
                let mut params = Vec::new();
                for target in targets {
                    let param: Param = filled(target, layer).parse()?;
                    if !known.contains(&param) {
                        return Err(ConvertError::NoSuchWeight { rule: rule.source.clone(), param });
                    }
                    params.push(param);
                }
                let source = filled(&rule.source, layer);
                entries.push(Entry {
                    source,
                    params,
                    rearrange: rearrange.clone(),
                    axis: rule.split.unwrap_or(0),
                });
            }
        }
        Ok(entries)
    }
}

impl Converter for RuleTable {
    fn config(&self) -> Result<ModelConfig, ConvertError> {
        let mut model = self.model.clone();
        model.insert("architecture".to_owned(), "HookedTransformer".into());
        let size = |model: &Map<String, Value>, key: &str| model.get(key).and_then(Value::as_u64);
        if let (None, Some(d_model), Some(n_heads @ 1..)) =
            (size(&model, "d_head"), size(&model, "d_model"), size(&model, "n_heads"))
        {
            model.insert("d_head".to_owned(), (d_model / n_heads).into());
        }
        let (_, config) = architecture_config(&Value::Object(model).to_string())?;
        Ok(config)
    }

    fn read(&self, weights: &mut dyn Weights) -> Result<Vec<(Param, TensorData)>, ConvertError> {
        let config = self.config()?;
        let (dims, sizes) = (config.dims(), sizes(&config.dims()));
        let mut params = Vec::new();
        for entry in self.entries(&config)? {
            if weights.shape(&entry.source).is_some() {
                params.extend(entry.read(weights, &dims, &sizes)?);
            }
        }
        Ok(params)
    }

    fn write(&self, params: &Parameters) -> Result<Vec<(String, TensorData)>, ConvertError> {
        let config = self.config()?;
        let sizes = sizes(&config.dims());
        params.check(&config)?;
        self.entries(&config)?.iter().map(|entry| entry.write(params, &sizes)).collect()
    }

    fn drops(&self, name: &str) -> bool {
        self.drop.iter().any(|pattern| matches(pattern, name))
    }

    fn source_of(&self, param: Param) -> Option<String> {
        let entries = self.entries(&self.config().ok()?).ok()?;
        entries.into_iter().find(|entry| entry.params.contains(&param)).map(|entry| entry.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_for_any_block() {
        assert!(matches("h.{layer}.attn.bias", "h.12.attn.bias"));
        assert!(matches("a", "a"));
        assert!(!matches("h.{layer}.attn.bias", "h..attn.bias"));
        assert!(!matches("h.{layer}.attn.bias", "h.1.attn.biases"));
        assert!(matches("{layer}.{layer}", "3.3") && !matches("{layer}.{layer}", "3.4"));
    }
}
