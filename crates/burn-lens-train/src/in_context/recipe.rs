//! Everything that a run of training depends on, as one description.

use burn::tensor::Device;
use burn_lens_models::{ModelConfig, random_parameters};
use burn_lens_tensor::FloatType;
use serde::{Deserialize, Serialize};

use super::{Episodes, ModelSize, Problem};
use crate::{Snapshot, TrainConfig, TrainError, Trainer};

/// Everything that a run of training depends on: the same recipe gives the same weights.
///
/// Weights and episodes are drawn from `training.seed`, [held-out](super::held_out) episodes
/// from the same one, further up.
///
/// ```
/// use burn_lens_tensor::DeviceSpec;
/// use burn_lens_train::{Batches as _, in_context::Recipe};
///
/// let recipe = Recipe::default();
/// let mut trainer = recipe.trainer(&DeviceSpec::cpu().open()?)?;
/// let loss = trainer.step(&recipe.episodes()?.batch(0))?.loss;
/// assert!(loss.is_finite());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What is to be learnt.
    pub problem: Problem,
    /// How large the model is.
    pub model: ModelSize,
    /// How it is trained.
    pub training: TrainConfig,
    /// Episodes in a batch.
    pub batch: usize,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            problem: Problem::Regression(super::Regression::default()),
            model: ModelSize::default(),
            training: TrainConfig::default(),
            batch: 64,
        }
    }
}

impl Recipe {
    /// The model, checked with everything else.
    ///
    /// # Errors
    ///
    /// Names the first setting that makes no sense.
    pub fn config(&self) -> Result<ModelConfig, TrainError> {
        self.problem.check()?;
        self.training.check()?;
        if self.training.steps == 0 {
            return Err(TrainError::Config { key: "steps", expected: "at least 1", found: 0.0 });
        }
        self.problem.model(self.model)
    }

    /// The episodes to train on.
    ///
    /// # Errors
    ///
    /// As [`Episodes::new`].
    pub fn episodes(&self) -> Result<Episodes, TrainError> {
        Episodes::new(&self.problem, self.training.seed, self.batch)
    }

    /// Starts from fresh weights, in `f32`.
    ///
    /// # Errors
    ///
    /// As [`Recipe::config`].
    pub fn trainer(&self, device: &Device) -> Result<Trainer, TrainError> {
        let config = self.config()?;
        let initial = random_parameters(&config, self.training.seed, device, FloatType::F32);
        Trainer::new(&self.training, &config, &initial)
    }

    /// Goes on where a snapshot was taken.
    ///
    /// # Errors
    ///
    /// As [`Trainer::resume`].
    pub fn resume(&self, snapshot: &Snapshot, device: &Device) -> Result<Trainer, TrainError> {
        Trainer::resume(&self.training, &self.config()?, snapshot, device)
    }
}
