//! Delphi's cache of sparse activations: for each range of features a safetensors file
//! `{first}_{last}.safetensors` with `locations` `[n, 3]` (prompt, position, feature less the
//! first), `activations` `[n]` and `tokens` `[prompt, position]`, beside `config.json`.
//!
//! Activations are `f32` here, which Delphi reads as well; itself it rounds them to `f16`.

use std::collections::BTreeMap;

use burn_lens_tensor::burn::tensor::{DType, TensorData};
use serde_json::json;

use crate::features::{FeatureError, TensorStore, parts::Parts};

/// One file of a cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The first feature.
    pub first: usize,
    /// The last feature.
    pub last: usize,
    /// Prompt, position and feature of each activation, in order of prompt and position.
    pub locations: Vec<[u32; 3]>,
    /// The activations.
    pub activations: Vec<f32>,
    /// `[prompt, position]`
    pub tokens: Vec<u32>,
    /// How long prompts are.
    pub n_positions: usize,
}

/// Smaller activations are none, as there.
const SMALLEST: f32 = 1e-5;

/// The cache of a run in `n_splits` files.
///
/// # Errors
///
/// If the stores do not hold a whole run.
pub fn cache(stores: &[&dyn TensorStore], n_splits: usize) -> Result<Vec<Split>, FeatureError> {
    let parts = Parts::open(stores)?;
    let (n_features, n_positions) = (parts.run.n_features, parts.run.n_positions);
    let n_splits = n_splits.clamp(1, n_features.max(1));
    let bound = |at: usize| n_features * at / n_splits;
    let mut splits: Vec<Split> = (0..n_splits)
        .map(|at| Split {
            first: bound(at),
            last: bound(at + 1).saturating_sub(1),
            locations: Vec::new(),
            activations: Vec::new(),
            tokens: Vec::new(),
            n_positions,
        })
        .collect();
    let mut tokens = Vec::new();
    parts.each(|segment| {
        tokens.extend_from_slice(&segment.tokens);
        for row in 0..segment.codes.n_rows() {
            let (prompt, position) = (segment.first + row / n_positions, row % n_positions);
            let (features, values) = segment.codes.row(row);
            for (&feature, &value) in features.iter().zip(values).filter(|(_, value)| value.abs() > SMALLEST)
            {
                let at = splits.partition_point(|split| split.last < feature as usize);
                splits[at].locations.push([prompt as u32, position as u32, feature]);
                splits[at].activations.push(value);
            }
        }
        Ok(())
    })?;
    for split in &mut splits {
        split.tokens.clone_from(&tokens);
    }
    Ok(splits)
}

impl Split {
    /// The name of its file.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}_{}.safetensors", self.first, self.last)
    }

    /// Its tensors: locations are `u16` where they fit, else `u32`, as there.
    #[must_use]
    pub fn to_tensors(&self) -> Vec<(String, TensorData)> {
        let n = self.locations.len();
        let flat: Vec<u32> = self
            .locations
            .iter()
            .flat_map(|&[prompt, at, feature]| [prompt, at, feature - self.first as u32])
            .collect();
        let narrow: Option<Vec<u16>> = flat.iter().map(|&x| u16::try_from(x).ok()).collect();
        let locations = match narrow {
            Some(narrow) => TensorData::new(narrow, [n, 3]),
            None => TensorData::new(flat, [n, 3]),
        };
        let tokens: Vec<i64> = self.tokens.iter().map(|&token| i64::from(token)).collect();
        let shape = [tokens.len() / self.n_positions.max(1), self.n_positions];
        vec![
            ("locations".to_owned(), locations),
            ("activations".to_owned(), TensorData::new(self.activations.clone(), [n])),
            ("tokens".to_owned(), TensorData::new(tokens, shape)),
        ]
    }

    /// The inverse, for a file of Delphi's own too.
    ///
    /// # Errors
    ///
    /// If the name or the tensors are something else.
    pub fn from_tensors(
        file_name: &str,
        tensors: &BTreeMap<String, TensorData>,
    ) -> Result<Self, FeatureError> {
        let wrong = |what: &str| FeatureError::Format {
            format: "cache of Delphi",
            what: format!("{file_name}: {what}"),
        };
        let range = file_name.strip_suffix(".safetensors").and_then(|name| name.split_once('_'));
        let range = range.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        let (first, last): (usize, usize) = range
            .filter(|(first, last)| first <= last)
            .ok_or_else(|| wrong("its name is not FIRST_LAST.safetensors"))?;
        let get = |name: &str| tensors.get(name).ok_or_else(|| wrong(&format!("it has no tensor `{name}`")));
        let (locations, activations) = (get("locations")?, get("activations")?);
        let n = activations.num_elements();
        if locations.shape().to_vec() != [n, 3]
            || !is_integer(locations.dtype())
            || !activations.dtype().is_float()
        {
            return Err(wrong("`locations` is not [n, 3] integers for n activations"));
        }
        let flat: Vec<u32> = locations.iter().collect();
        let locations: Vec<[u32; 3]> =
            flat.chunks_exact(3).map(|at| [at[0], at[1], at[2].saturating_add(first as u32)]).collect();
        if locations.iter().any(|at| at[2] as usize > last) {
            return Err(wrong("a location is outside the range of features"));
        }
        let (tokens, n_positions) = match tensors.get("tokens") {
            None => (Vec::new(), 0),
            Some(tokens) => match tokens.shape().to_vec()[..] {
                [_, n_positions] if is_integer(tokens.dtype()) => (tokens.iter().collect(), n_positions),
                _ => return Err(wrong("`tokens` is not [prompt, position] integers")),
            },
        };
        Ok(Self { first, last, locations, activations: activations.iter().collect(), tokens, n_positions })
    }
}

fn is_integer(dtype: DType) -> bool {
    dtype.is_int() || dtype.is_uint()
}

/// `config.json`, with what is known of the run.
#[must_use]
pub fn config(model_name: &str, n_positions: usize, n_tokens: usize) -> String {
    let config = json!({
        "model_name": model_name,
        "cache_ctx_len": n_positions,
        "ctx_len": n_positions,
        "n_tokens": n_tokens,
        "batch_size": 1,
        "dataset_repo": "",
        "dataset_split": "",
        "dataset_name": "",
    });
    format!("{config:#}")
}
