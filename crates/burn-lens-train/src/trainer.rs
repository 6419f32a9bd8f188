//! The training loop.

use burn::{optim::ModuleOptimizer, tensor::Device};
use burn_lens_models::{ModelConfig, Parameters, random_parameters};
use burn_lens_tensor::FloatType;

use crate::{Batch, Batches, TrainConfig, TrainError, Trainable};

/// A model in training: its weights and the optimizer's state.
#[derive(Clone)]
pub struct Trainer {
    config: TrainConfig,
    model: ModelConfig,
    trainable: Trainable,
    optimizer: ModuleOptimizer,
    step: usize,
}

/// What one step did.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The step, from 0.
    pub step: usize,
    /// How many there will be.
    pub steps: usize,
    /// The weighted mean loss of the batch, before the step.
    pub loss: f64,
    /// The learning rate.
    pub rate: f64,
    /// The norm of all gradients together, before clipping.
    pub grad_norm: f64,
    trainable: &'a Trainable,
    model: &'a ModelConfig,
}

impl Progress<'_> {
    /// The weights behind the step, for checkpoints and evaluations. Cheap: tensors are shared.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.trainable.parameters(self.model)
    }
}

impl Trainer {
    /// Starts from given weights, on their device and in their dtype.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense or the weights do not fit the model.
    pub fn new(config: &TrainConfig, model: &ModelConfig, initial: &Parameters) -> Result<Self, TrainError> {
        config.check()?;
        let trainable = Trainable::new(model, initial)?;
        let optimizer = config.optimizer();
        Ok(Self { config: config.clone(), model: model.clone(), trainable, optimizer, step: 0 })
    }

    /// Takes one step on one batch.
    ///
    /// # Errors
    ///
    /// If the batch does not fit the model, or the loss is no longer a number; the weights are
    /// then as they were.
    pub fn step(&mut self, batch: &Batch) -> Result<Progress<'_>, TrainError> {
        let grads = self.trainable.gradients(&self.model, batch, self.config.clip_norm)?;
        let (step, rate) = (self.step, self.config.rate(self.step));
        if !(grads.loss.is_finite() && grads.norm.is_finite()) {
            return Err(TrainError::Diverged { step, loss: grads.loss });
        }
        self.trainable = self.optimizer.step(rate, self.trainable.clone(), grads.params);
        self.step += 1;
        Ok(Progress {
            step,
            steps: self.config.steps,
            loss: grads.loss,
            rate,
            grad_norm: grads.norm,
            trainable: &self.trainable,
            model: &self.model,
        })
    }

    /// The weights as they are now.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.trainable.parameters(&self.model)
    }
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("config", &self.config)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

/// Trains a model from fresh weights, in `f32`.
///
/// # Errors
///
/// As [`Trainer::new`] and [`Trainer::step`].
pub fn train(
    config: &TrainConfig,
    model: &ModelConfig,
    device: &Device,
    data: &mut dyn Batches,
    observer: &mut dyn FnMut(&Progress<'_>),
) -> Result<Parameters, TrainError> {
    let initial = random_parameters(model, config.seed, device, FloatType::F32);
    train_from(config, model, &initial, data, observer)
}

/// Trains a model from given weights, on their device and in their dtype.
///
/// # Errors
///
/// As [`Trainer::new`] and [`Trainer::step`].
pub fn train_from(
    config: &TrainConfig,
    model: &ModelConfig,
    initial: &Parameters,
    data: &mut dyn Batches,
    observer: &mut dyn FnMut(&Progress<'_>),
) -> Result<Parameters, TrainError> {
    let mut trainer = Trainer::new(config, model, initial)?;
    for step in 0..config.steps {
        observer(&trainer.step(&data.batch(step))?);
    }
    Ok(trainer.parameters())
}
