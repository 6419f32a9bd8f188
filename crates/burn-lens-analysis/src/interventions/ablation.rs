//! Ablation: what a part of the model adds to its answer, by taking it away.

use std::{str::FromStr, sync::Arc};

use burn::tensor::{Int, Tensor, TensorData};
use burn_lens_hooks::{ActivationCache, HookPoint, HookedModel, RunError};
use burn_lens_tensor::{AnyTensor, Slice};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Edit, Intervention, Sweep, SweepAxis, Values};
use crate::AnalysisError;

/// What is ablated, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AblationUnit {
    /// Heads, at `hook_z`: `[layer, head]`.
    Head,
    /// Attention of whole blocks: `[layer]`.
    Attention,
    /// MLPs: `[layer]`.
    Mlp,
    /// Neurons, at `mlp.hook_post`: `[layer, neuron]`.
    Neuron,
}

impl FromStr for AblationUnit {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "head" => Self::Head,
            "attention" => Self::Attention,
            "mlp" => Self::Mlp,
            "neuron" => Self::Neuron,
            _ => {
                let reason = format!("`{text}` is none of `head`, `attention`, `mlp`, `neuron`");
                return Err(AnalysisError::Refused { what: "what is ablated", reason });
            }
        })
    }
}

impl AblationUnit {
    /// The activation of a layer that holds it.
    #[must_use]
    pub fn hook(self, layer: usize) -> HookPoint {
        match self {
            Self::Head => HookPoint::AttnZ(layer),
            Self::Attention => HookPoint::AttnOut(layer),
            Self::Mlp => HookPoint::MlpOut(layer),
            Self::Neuron => HookPoint::MlpPost(layer),
        }
    }
}

/// What an ablated activation becomes.
#[derive(Clone, Debug)]
pub enum Ablation {
    /// Zero.
    Zero,
    /// Its mean over the prompts and positions of a reference.
    Mean(Reference),
    /// That of a position of the reference, drawn by a seed, for each prompt and position.
    Resample(Reference, u64),
}

/// Activations of other prompts.
#[derive(Clone, Debug)]
pub struct Reference {
    /// What was kept of their run.
    pub cache: Arc<ActivationCache>,
    /// `[batch, pos]` of their run, where it had padding, which is left out.
    pub attention_mask: Option<Tensor<2, Int>>,
}

/// The cells that ablate each unit alone, in runs of `batch` prompts and `pos` positions.
///
/// # Errors
///
/// If the model has no such unit, or the reference does not hold its activation.
pub fn ablation_sweep<M: HookedModel + ?Sized>(
    model: &M,
    unit: AblationUnit,
    ablation: &Ablation,
    [batch, pos]: [usize; 2],
) -> Result<Sweep, AnalysisError> {
    let (dims, firing) = (model.dims(), model.firing());
    let per_layer = match unit {
        AblationUnit::Head => dims.n_heads,
        AblationUnit::Neuron => dims.d_mlp,
        AblationUnit::Attention | AblationUnit::Mlp => 1,
    };
    if !firing.always.contains(&unit.hook(0)) {
        let reason = format!("this model computes no `{}`", unit.hook(0));
        return Err(AnalysisError::Refused { what: "an ablation", reason });
    }
    let mut cells = Vec::new();
    for layer in 0..dims.n_layers {
        let point = unit.hook(layer);
        let values = ablation.values(point, [batch, pos])?;
        for at in 0..per_layer {
            let one = Intervention::new(point, Edit::Replace(values.clone()));
            let index = Slice::Index(at.cast_signed());
            cells.push(Some(vec![match unit {
                AblationUnit::Head => one.heads(index),
                AblationUnit::Neuron => one.units(index),
                AblationUnit::Attention | AblationUnit::Mlp => one,
            }]));
        }
    }
    let mut axes = vec![SweepAxis::counted("layer", dims.n_layers)];
    match unit {
        AblationUnit::Head => axes.push(SweepAxis::counted("head", per_layer)),
        AblationUnit::Neuron => axes.push(SweepAxis::counted("neuron", per_layer)),
        AblationUnit::Attention | AblationUnit::Mlp => {}
    }
    Ok(Sweep { axes, cells })
}

impl Ablation {
    /// What an activation becomes.
    ///
    /// # Errors
    ///
    /// If the reference does not hold it.
    pub fn values(&self, point: HookPoint, [batch, pos]: [usize; 2]) -> Result<Values, AnalysisError> {
        let (reference, seed) = match self {
            Self::Zero => return Ok(Values::Fill(0.0)),
            Self::Mean(reference) => (reference, None),
            Self::Resample(reference, seed) => (reference, Some(*seed)),
        };
        let places = reference.places(point)?;
        let tensor = match reference.cache.get(point)? {
            AnyTensor::Float3(x) => chosen(x, &places, seed.map(|seed| (seed, [batch, pos]))),
            AnyTensor::Float4(x) => {
                let [rows, len, heads, width] = x.dims();
                let flat =
                    chosen(x.reshape([rows, len, heads * width]), &places, seed.map(|s| (s, [batch, pos])));
                let [rows, len, _] = flat.dims();
                return Ok(Values::Tensor(flat.reshape([rows, len, heads, width]).into()));
            }
            other => {
                let reason = format!("`{point}` is {}", other.kind());
                return Err(AnalysisError::Refused { what: "an ablation", reason });
            }
        };
        Ok(Values::Tensor(tensor.into()))
    }
}

impl Reference {
    /// The places, prompt by prompt, that are no padding.
    fn places(&self, point: HookPoint) -> Result<Vec<i64>, AnalysisError> {
        let shape = self.cache.get(point)?.shape();
        let count = shape[0] * shape[1];
        let mask = match &self.attention_mask {
            None => vec![1; count],
            Some(mask) => {
                mask.try_to_vec_as::<i64>().map_err(|error| RunError::Device(format!("{error:?}")))?
            }
        };
        let places: Vec<i64> =
            (0..count).filter(|&at| mask.get(at) == Some(&1)).map(|at| at as i64).collect();
        if places.is_empty() {
            let reason = "it holds nothing but padding".to_owned();
            return Err(AnalysisError::Empty { what: "the reference of an ablation", reason });
        }
        Ok(places)
    }
}

/// The mean over `places`, `[1, 1, _]`, or one of them for each prompt and position.
fn chosen(x: Tensor<3>, places: &[i64], draw: Option<(u64, [usize; 2])>) -> Tensor<3> {
    let [rows, len, width] = x.dims();
    let device = x.device();
    let flat = x.reshape([rows * len, width]);
    let at = |places: &[i64]| {
        Tensor::<1, Int>::from_data(TensorData::new(places.to_vec(), [places.len()]), &device)
    };
    match draw {
        None => flat.select(0, at(places)).mean_dim(0).reshape([1, 1, width]),
        Some((seed, [batch, pos])) => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let drawn: Vec<i64> =
                (0..batch * pos).map(|_| places[rng.random_range(0..places.len())]).collect();
            flat.select(0, at(&drawn)).reshape([batch, pos, width])
        }
    }
}
