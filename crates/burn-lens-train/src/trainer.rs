//! The training loop.

use std::{collections::BTreeMap, ops::ControlFlow};

use burn::{
    optim::AdamW,
    tensor::{Device, TensorData},
};
use burn_lens_models::{ModelConfig, Parameters, random_parameters};
use burn_lens_tensor::FloatType;

use crate::{Batches, Metrics, Objective, TrainConfig, TrainError, Trainable};

/// A model in training: its weights and the optimizer's state.
#[derive(Clone)]
pub struct Trainer {
    config: TrainConfig,
    model: ModelConfig,
    trainable: Trainable,
    optimizers: [AdamW; 2],
    step: usize,
}

/// Everything that training needs to go on as if it had never stopped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Weights, moments and the number of steps, by name.
    pub tensors: BTreeMap<String, TensorData>,
}

/// The name of the number of steps taken.
const STEP: &str = "step";

impl Snapshot {
    /// How many steps were taken.
    ///
    /// # Errors
    ///
    /// If that is missing.
    pub fn step(&self) -> Result<usize, TrainError> {
        let step = self.tensors.get(STEP).and_then(|data| data.iter::<i64>().next());
        step.and_then(|step| usize::try_from(step).ok()).ok_or_else(|| TrainError::Snapshot {
            tensor: STEP.to_owned(),
            reason: "it is missing or no number of steps".to_owned(),
        })
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The step, from 0.
    pub step: usize,
    /// How many there will be.
    pub steps: usize,
    /// The loss of the batch, before the step.
    pub loss: f64,
    /// The learning rate.
    pub rate: f64,
    /// The norm of all gradients together, before clipping.
    pub grad_norm: f64,
    trainer: &'a Trainer,
}

impl Progress<'_> {
    /// The weights behind the step, for checkpoints and evaluations. Cheap: tensors are shared.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.trainer.parameters()
    }

    /// Everything that [`Trainer::resume`] needs.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn snapshot(&self) -> Result<Snapshot, TrainError> {
        self.trainer.snapshot()
    }

    /// The numbers, to be kept.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics::new(self.step, self.loss, self.rate, self.grad_norm)
    }
}

impl Trainer {
    /// Starts from given weights, on their device and in their dtype.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense or the weights do not fit the model.
    pub fn new(config: &TrainConfig, model: &ModelConfig, initial: &Parameters) -> Result<Self, TrainError> {
        Self::with(config, model, Trainable::new(model, initial)?, 0)
    }

    /// Goes on where a snapshot was taken, to the same bits as if it had not been.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, or the snapshot is not one of this model.
    pub fn resume(
        config: &TrainConfig,
        model: &ModelConfig,
        snapshot: &Snapshot,
        device: &Device,
    ) -> Result<Self, TrainError> {
        Self::with(config, model, Trainable::restore(model, snapshot, device)?, snapshot.step()?)
    }

    fn with(
        config: &TrainConfig,
        model: &ModelConfig,
        trainable: Trainable,
        step: usize,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let optimizers = config.optimizers();
        Ok(Self { config: config.clone(), model: model.clone(), trainable, optimizers, step })
    }

    /// Takes one step on one batch.
    ///
    /// # Errors
    ///
    /// If the batch does not fit the model, or the loss is no longer a number; the weights are
    /// then as they were.
    pub fn step(&mut self, batch: &impl Objective) -> Result<Progress<'_>, TrainError> {
        let grads = self.trainable.gradients(&self.model, batch, self.config.clip_norm)?;
        let (step, rate) = (self.step, self.config.rate(self.step));
        if !(grads.loss.is_finite() && grads.norm.is_finite()) {
            return Err(TrainError::Diverged { step, loss: grads.loss });
        }
        self.trainable.step(&self.optimizers, rate, &grads);
        self.step += 1;
        let (steps, loss, grad_norm) = (self.config.steps, grads.loss, grads.norm);
        Ok(Progress { step, steps, loss, rate, grad_norm, trainer: self })
    }

    /// Takes the steps that are left, until `observer` breaks off.
    ///
    /// # Errors
    ///
    /// As [`Trainer::step`].
    pub fn run<B: Batches + ?Sized>(
        &mut self,
        data: &mut B,
        observer: &mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        while self.step < self.config.steps {
            let batch = data.batch(self.step);
            if observer(&self.step(&batch)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The weights as they are now.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.trainable.parameters()
    }

    /// Everything that [`Trainer::resume`] needs.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn snapshot(&self) -> Result<Snapshot, TrainError> {
        let mut tensors: BTreeMap<_, _> = self.trainable.tensors()?.into_iter().collect();
        tensors.insert(STEP.to_owned(), TensorData::new(vec![self.step as i64], [1]));
        Ok(Snapshot { tensors })
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
pub fn train<B: Batches + ?Sized>(
    config: &TrainConfig,
    model: &ModelConfig,
    device: &Device,
    data: &mut B,
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
pub fn train_from<B: Batches + ?Sized>(
    config: &TrainConfig,
    model: &ModelConfig,
    initial: &Parameters,
    data: &mut B,
    observer: &mut dyn FnMut(&Progress<'_>),
) -> Result<Parameters, TrainError> {
    let mut trainer = Trainer::new(config, model, initial)?;
    trainer.run(data, &mut |progress| {
        observer(progress);
        ControlFlow::Continue(())
    })?;
    Ok(trainer.parameters())
}
