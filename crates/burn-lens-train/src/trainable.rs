//! A model's weights as leaves of an autodiff graph, their gradients, and the optimizer's state.

use burn::{
    optim::{AdamW, AdamWState, AdaptiveMomentumState},
    tensor::{Device, Gradients, Tensor, TensorData},
};
use burn_lens_models::{HookedTransformer, ModelConfig, Param as Name, Parameters};
use burn_lens_tensor::{AnyTensor, TypedTensor};

use crate::{
    Objective, Snapshot, TrainError,
    leaf::{Leaf, tracked},
};

/// A model's weights, in the order of `ModelConfig::params`, and what the optimizer knows of
/// each.
///
/// Every weight of a model is a vector or a matrix, so two lists hold any architecture.
#[derive(Clone)]
pub struct Trainable {
    /// Biases and norm weights.
    vectors: Vec<Weight<1>>,
    /// Embeddings and projections.
    matrices: Vec<Weight<2>>,
}

/// One weight.
#[derive(Clone)]
struct Weight<const D: usize> {
    name: Name,
    leaf: Leaf<D>,
}

/// The gradients of one batch.
pub(crate) struct BatchGradients {
    /// The batch's loss.
    pub(crate) loss: f64,
    /// Their norm over all weights, before clipping.
    pub(crate) norm: f64,
    grads: Gradients,
    /// What clipping multiplies them by.
    scale: f64,
}

impl Trainable {
    /// Makes the weights of a model trainable. A tied unembedding becomes a matrix of its own.
    ///
    /// # Errors
    ///
    /// If a weight is missing, of another shape than the configuration implies, or not one of
    /// the configuration's.
    pub fn new(config: &ModelConfig, params: &Parameters) -> Result<Self, TrainError> {
        params.check(config)?;
        let names = config.params();
        if let Some((param, _)) = params.iter().find(|(param, _)| !names.contains(param)) {
            return Err(TrainError::NotTrainable(param));
        }
        let (mut vectors, mut matrices) = (Vec::new(), Vec::new());
        for name in names {
            if name.shape(&config.dims()).len() == 1 {
                vectors.push(Weight { name, leaf: Leaf::new(params.get(name)?) });
            } else {
                matrices.push(Weight { name, leaf: Leaf::new(params.get(name)?) });
            }
        }
        Ok(Self { vectors, matrices })
    }

    /// The weights as they are now, cut off from autodiff.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.tracked().map(|_, tensor| tensor.detach())
    }

    /// The same tensors, still tracked.
    fn tracked(&self) -> Parameters {
        let vectors =
            self.vectors.iter().map(|weight| (weight.name, AnyTensor::from(weight.leaf.value.clone())));
        let matrices =
            self.matrices.iter().map(|weight| (weight.name, AnyTensor::from(weight.leaf.value.clone())));
        vectors.chain(matrices).collect()
    }

    /// The loss `[1]` of a batch, tracked.
    ///
    /// # Errors
    ///
    /// If the batch does not fit itself or the model.
    pub fn loss(&self, config: &ModelConfig, batch: &impl Objective) -> Result<Tensor<1>, TrainError> {
        batch.loss(&HookedTransformer::new(config.clone(), self.tracked())?)
    }

    /// The gradients of a batch, to be scaled down to `clip_norm`.
    pub(crate) fn gradients(
        &self,
        config: &ModelConfig,
        batch: &impl Objective,
        clip_norm: Option<f64>,
    ) -> Result<BatchGradients, TrainError> {
        let loss = self.loss(config, batch)?;
        let grads = loss.backward();
        let squares = squares(&self.vectors, &grads).chain(squares(&self.matrices, &grads));
        let norm = squares.reduce(|sum, next| sum + next).map_or(Ok(0.0), read).map(f64::sqrt)?;
        let scale = clip_norm.filter(|&most| norm > most).map_or(1.0, |most| most / norm);
        Ok(BatchGradients { loss: read(loss)?, norm, grads, scale })
    }

    /// Takes a step against the gradients.
    pub(crate) fn step(&mut self, [plain, decayed]: &[AdamW; 2], rate: f64, grads: &BatchGradients) {
        self.vectors.iter_mut().for_each(|weight| weight.step(plain, rate, grads));
        self.matrices.iter_mut().for_each(|weight| weight.step(decayed, rate, grads));
    }

    /// Everything, as named tensors.
    pub(crate) fn tensors(&self) -> Result<Vec<(String, TensorData)>, TrainError> {
        let mut tensors = Vec::new();
        self.vectors.iter().try_for_each(|weight| weight.save(&mut tensors))?;
        self.matrices.iter().try_for_each(|weight| weight.save(&mut tensors))?;
        Ok(tensors)
    }

    /// The inverse of [`Trainable::tensors`].
    pub(crate) fn restore(
        config: &ModelConfig,
        snapshot: &Snapshot,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let (mut vectors, mut matrices) = (Vec::new(), Vec::new());
        for name in config.params() {
            if name.shape(&config.dims()).len() == 1 {
                vectors.push(Weight::load(name, snapshot, device)?);
            } else {
                matrices.push(Weight::load(name, snapshot, device)?);
            }
        }
        let restored = Self { vectors, matrices };
        restored.parameters().check(config)?;
        Ok(restored)
    }
}

impl<const D: usize> Weight<D> {
    fn step(&mut self, optimizer: &AdamW, rate: f64, grads: &BatchGradients) {
        self.leaf.step(optimizer, rate, (&grads.grads, grads.scale));
    }
}

impl<const D: usize> Weight<D>
where
    Tensor<D>: TypedTensor,
{
    fn save(&self, tensors: &mut Vec<(String, TensorData)>) -> Result<(), TrainError> {
        let mut push = |part: &str, tensor: &Tensor<D>| {
            let data = tensor.clone().without_autodiff().into_any().into_data();
            let data = data.map_err(|error| TrainError::Device(format!("{error:?}")))?;
            tensors.push((format!("{part}/{}", self.name), data));
            Ok::<(), TrainError>(())
        };
        push(WEIGHT, &self.leaf.value)?;
        let Some(AdamWState { momentum }) = &self.leaf.state else { return Ok(()) };
        push(MOMENT_1, &momentum.moment_1)?;
        push(MOMENT_2, &momentum.moment_2)?;
        tensors.push((format!("{TIME}/{}", self.name), TensorData::new(vec![momentum.time as i64], [1])));
        Ok(())
    }

    fn load(name: Name, snapshot: &Snapshot, device: &Device) -> Result<Self, TrainError> {
        let find = |part: &str| snapshot.tensors.get(&format!("{part}/{name}"));
        let tensor = |part: &str| -> Result<Tensor<D>, TrainError> {
            let bad = |reason: String| TrainError::Snapshot { tensor: format!("{part}/{name}"), reason };
            let data = find(part).ok_or_else(|| bad("it is missing".to_owned()))?.clone();
            let any = AnyTensor::from_data(data, device).map_err(|error| bad(error.to_string()))?;
            Tensor::<D>::from_any(any).map_err(|error| bad(error.to_string()))
        };
        let value = tracked(tensor(WEIGHT)?);
        let state = match find(TIME).and_then(|time| time.iter::<i64>().next()) {
            None => None,
            Some(time) => {
                let time = usize::try_from(time).unwrap_or(0);
                let (moment_1, moment_2) = (tensor(MOMENT_1)?, tensor(MOMENT_2)?);
                let momentum = AdaptiveMomentumState { time, moment_1, moment_2, max_moment_2: None };
                Some(AdamWState { momentum })
            }
        };
        Ok(Self { name, leaf: Leaf { value, state } })
    }
}

const WEIGHT: &str = "weight";
const MOMENT_1: &str = "moment_1";
const MOMENT_2: &str = "moment_2";
const TIME: &str = "time";

/// The sum of squares `[1]` of each gradient.
fn squares<'a, const D: usize>(
    weights: &'a [Weight<D>],
    grads: &'a Gradients,
) -> impl Iterator<Item = Tensor<1>> + 'a {
    weights.iter().filter_map(|weight| weight.leaf.squares(grads))
}

pub(crate) fn read(scalar: Tensor<1>) -> Result<f64, TrainError> {
    scalar.try_into_scalar::<f64>().map_err(|error| TrainError::Device(error.to_string()))
}

impl std::fmt::Debug for Trainable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (vectors, matrices) = (self.vectors.len(), self.matrices.len());
        f.debug_struct("Trainable").field("vectors", &vectors).field("matrices", &matrices).finish()
    }
}
