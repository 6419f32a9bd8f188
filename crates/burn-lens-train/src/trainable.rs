//! A model's weights as burn parameters, and their gradients.

use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{Device, Int, Tensor, TensorData},
};
use burn_lens_hooks::{HookedModel, Input, ReturnType, RunError, RunOptions};
use burn_lens_models::{HookedTransformer, ModelConfig, Param as Name, Parameters};

use crate::{Batch, TrainError};

/// The name of the field of vectors, which the optimizer matches.
pub(crate) const VECTORS: &str = "vectors";

/// A model's weights as burn parameters, in the order of `ModelConfig::params`.
///
/// Every weight of a model is a vector or a matrix, so two lists hold any architecture.
#[derive(Module, Debug)]
pub struct Trainable {
    /// Biases and norm weights.
    vectors: Vec<Param<Tensor<1>>>,
    /// Embeddings and projections.
    matrices: Vec<Param<Tensor<2>>>,
}

/// The gradients of one batch.
pub(crate) struct Gradients {
    /// The weighted mean loss.
    pub(crate) loss: f64,
    /// Their norm over all parameters, before clipping.
    pub(crate) norm: f64,
    /// By burn's parameter ids.
    pub(crate) params: GradientsParams,
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
            if is_vector(name, config) {
                let tensor = params.get::<1>(name)?.without_autodiff().autodiff();
                vectors.push(Param::from_tensor(tensor));
            } else {
                let tensor = params.get::<2>(name)?.without_autodiff().autodiff();
                matrices.push(Param::from_tensor(tensor));
            }
        }
        Ok(Self { vectors, matrices })
    }

    /// The weights as they are now, cut off from autodiff.
    ///
    /// # Panics
    ///
    /// If `config` is not the one that it was made with.
    #[must_use]
    pub fn parameters(&self, config: &ModelConfig) -> Parameters {
        self.tracked(config).map(|_, tensor| tensor.detach())
    }

    /// The same tensors, still tracked.
    fn tracked(&self, config: &ModelConfig) -> Parameters {
        const SAME: &str = "the configuration is the one that this was made with";
        let (mut vectors, mut matrices) = (self.vectors.iter(), self.matrices.iter());
        let mut params = Parameters::default();
        for name in config.params() {
            if is_vector(name, config) {
                params.insert(name, vectors.next().expect(SAME).val());
            } else {
                params.insert(name, matrices.next().expect(SAME).val());
            }
        }
        params
    }

    /// The weighted mean loss `[1]` of a batch, tracked.
    ///
    /// # Errors
    ///
    /// If the batch does not fit itself or the model.
    pub fn loss(&self, config: &ModelConfig, batch: &Batch) -> Result<Tensor<1>, TrainError> {
        let total = batch.check()?;
        let model = HookedTransformer::new(config.clone(), self.tracked(config))?;
        let Batch { batch: rows, pos, .. } = *batch;
        let device: Device = model.device();
        let tokens = TensorData::new(batch.tokens.clone(), [rows, pos]);
        let input = Input::Tokens(Tensor::<2, Int>::from_data(tokens, &device));
        let options = RunOptions { loss_per_token: true, ..RunOptions::returning(ReturnType::None) };
        let output = model.run_with_hooks(&input, &options, Vec::new())?;
        let missing = || RunError::Options("the run gave no loss per token".to_owned());
        let per_token = output.loss_per_token.ok_or_else(missing)?;
        let weights = TensorData::new(batch.weights.clone(), [rows, pos]);
        let weights = Tensor::<2>::from_data(weights, (&device, per_token.dtype())).narrow(1, 1, pos - 1);
        Ok((per_token * weights).sum() / total)
    }

    /// The gradients of a batch, scaled down to `clip_norm`.
    pub(crate) fn gradients(
        &self,
        config: &ModelConfig,
        batch: &Batch,
        clip_norm: Option<f64>,
    ) -> Result<Gradients, TrainError> {
        let loss = self.loss(config, batch)?;
        let mut params = GradientsParams::from_grads(loss.backward(), self);
        let norm = self.norm(&params)?;
        if let Some(most) = clip_norm.filter(|&most| norm > most) {
            scale(&self.vectors, &mut params, most / norm);
            scale(&self.matrices, &mut params, most / norm);
        }
        Ok(Gradients { loss: read(loss)?, norm, params })
    }

    /// The norm of all gradients together.
    fn norm(&self, grads: &GradientsParams) -> Result<f64, TrainError> {
        let squares = squares(&self.vectors, grads).chain(squares(&self.matrices, grads));
        squares.reduce(|sum, next| sum + next).map_or(Ok(0.0), read).map(f64::sqrt)
    }
}

fn is_vector(name: Name, config: &ModelConfig) -> bool {
    name.shape(&config.dims()).len() == 1
}

/// The sum of squares `[1]` of each gradient, in the order of `params`.
fn squares<const D: usize>(
    params: &[Param<Tensor<D>>],
    grads: &GradientsParams,
) -> impl Iterator<Item = Tensor<1>> {
    params.iter().filter_map(|param| grads.get::<D>(param.id)).map(|grad| grad.square().sum())
}

fn scale<const D: usize>(params: &[Param<Tensor<D>>], grads: &mut GradientsParams, factor: f64) {
    for param in params {
        if let Some(grad) = grads.remove::<D>(param.id) {
            grads.register(param.id, grad * factor);
        }
    }
}

fn read(scalar: Tensor<1>) -> Result<f64, TrainError> {
    scalar.try_into_scalar::<f64>().map_err(|error| TrainError::Device(error.to_string()))
}
