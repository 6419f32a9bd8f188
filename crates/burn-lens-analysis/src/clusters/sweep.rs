//! Many heads, samples and checkpoints in one call.

use burn_lens_hooks::{CacheOptions, HookPoint, HookedModel, Input, ReturnType, RunOptions};
use burn_lens_tensor::burn::tensor::Tensor;

use super::{ClusterOptions, HeadClusters, Quadrants, attention_clusters};
use crate::AnalysisError;

/// Sequences `x₁ y₁ x₂ y₂ …` as a model takes them, and what they are made of.
#[derive(Clone, Debug)]
pub struct Examples {
    /// `[samples, 2n, …]`
    pub input: Input,
    /// `[samples][n][width]`
    pub x: Vec<Vec<Vec<f64>>>,
    /// `[samples][n]`
    pub y: Vec<Vec<f64>>,
}

/// Which heads and samples to look at; all where empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Layers.
    pub layers: Vec<usize>,
    /// Heads of each layer.
    pub heads: Vec<usize>,
    /// Sequences.
    pub samples: Vec<usize>,
}

/// What was found at one place.
#[derive(Debug)]
pub struct Swept {
    /// The name of the checkpoint.
    pub checkpoint: String,
    /// The layer.
    pub layer: usize,
    /// The head.
    pub head: usize,
    /// The sequence.
    pub sample: usize,
    /// The head's pattern on the sequence.
    pub pattern: Quadrants,
    /// The clusters, or why there are none.
    pub clusters: Result<HeadClusters, AnalysisError>,
}

/// Clusters attention over checkpoints × samples × layers × heads. Each checkpoint runs once.
///
/// # Errors
///
/// If a model cannot run on the examples, a layer, head or sample is not there, or a sequence
/// is not made of pairs. A head whose rows cannot be clustered says so in its own result.
pub fn sweep(
    checkpoints: &[(&str, &dyn HookedModel)],
    examples: &Examples,
    selection: &Selection,
    options: &ClusterOptions,
) -> Result<Vec<Swept>, AnalysisError> {
    let mut found = Vec::new();
    for &(name, model) in checkpoints {
        let patterns = patterns(model, &examples.input)?;
        let dims = model.dims();
        let all = |chosen: &[usize], count: usize| {
            if chosen.is_empty() { (0..count).collect() } else { chosen.to_vec() }
        };
        for sample in all(&selection.samples, examples.x.len()) {
            let (Some(layers), Some(x), Some(y)) =
                (patterns.get(sample), examples.x.get(sample), examples.y.get(sample))
            else {
                let reason = format!("sample {sample} is outside 0..{}", patterns.len());
                return Err(AnalysisError::Refused { what: "the sweep", reason });
            };
            for layer in all(&selection.layers, dims.n_layers) {
                for head in all(&selection.heads, dims.n_heads) {
                    let pattern = head_pattern(layers, layer, head)?;
                    let clusters = attention_clusters(layers, [layer, head], x, y, options);
                    found.push(Swept { checkpoint: name.to_owned(), layer, head, sample, pattern, clusters });
                }
            }
        }
    }
    Ok(found)
}

fn head_pattern(layers: &[Vec<Quadrants>], layer: usize, head: usize) -> Result<Quadrants, AnalysisError> {
    let outside = AnalysisError::Layer { layer: layer as isize, n_layers: layers.len().saturating_sub(1) };
    let heads = layers.get(layer).ok_or(outside)?;
    heads.get(head).cloned().ok_or(AnalysisError::Head { head, n_heads: heads.len() })
}

/// By sample, layer and head.
fn patterns(model: &dyn HookedModel, input: &Input) -> Result<Vec<Vec<Vec<Quadrants>>>, AnalysisError> {
    let n_layers = model.dims().n_layers;
    let keep = CacheOptions::names((0..n_layers).map(HookPoint::AttnPattern));
    let (_, cache) = model.run_with_cache(input, &RunOptions::returning(ReturnType::None), &keep)?;
    let [samples, _] = input.batch_pos();
    let mut found = vec![Vec::new(); samples];
    for layer in 0..n_layers {
        let pattern: Tensor<4> = cache.tensor(HookPoint::AttnPattern(layer))?;
        let [_, n_heads, pos, _] = pattern.dims();
        let data = pattern.try_into_data()?;
        let values: Vec<f64> = data.iter::<f64>().collect();
        for (sample, values) in values.chunks(n_heads * pos * pos).enumerate() {
            let heads = values.chunks(pos * pos).map(|head| Quadrants::new(head.to_vec()));
            found[sample].push(heads.collect::<Result<Vec<_>, _>>()?);
        }
    }
    Ok(found)
}
