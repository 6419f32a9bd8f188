//! How to train.

use std::f64::consts::PI;

use burn::optim::{AdamW, AdamWConfig};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// What becomes of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls in a line to `final_fraction`.
    Linear,
    /// It falls as half a cosine to `final_fraction`.
    #[default]
    Cosine,
}

impl Schedule {
    /// How much of the way down is left, after `done` (from 0 to 1) of the steps.
    fn left(self, done: f64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - done,
            Self::Cosine => f64::midpoint(1.0, (PI * done).cos()),
        }
    }
}

/// How to train: the schedule and the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimizer steps, one batch each.
    pub steps: usize,
    /// The highest learning rate, which warm-up reaches.
    pub learning_rate: f64,
    /// Steps over which the rate grows linearly from near 0.
    pub warmup_steps: usize,
    /// What becomes of the rate after that.
    pub schedule: Schedule,
    /// What decay ends at, as a fraction of `learning_rate`.
    pub final_fraction: f64,
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay. It acts on matrices; biases and norm weights have none.
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm over all parameters together.
    pub clip_norm: Option<f64>,
    /// Where fresh weights come from.
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            learning_rate: 1e-3,
            warmup_steps: 50,
            schedule: Schedule::Cosine,
            final_fraction: 0.1,
            beta_1: 0.9,
            beta_2: 0.98,
            epsilon: 1e-8,
            weight_decay: 0.01,
            clip_norm: Some(1.0),
            seed: 0,
        }
    }
}

impl TrainConfig {
    /// The learning rate of a step, from 0: linear up to `warmup_steps`, then by its
    /// [`Schedule`]. A pure function of the step.
    ///
    /// ```
    /// # use burn_lens_train::TrainConfig;
    /// let config = TrainConfig { steps: 100, warmup_steps: 10, learning_rate: 1.0, ..TrainConfig::default() };
    /// assert_eq!(config.rate(4), 0.5);
    /// assert_eq!(config.rate(10), 1.0);
    /// assert!((config.rate(55) - 0.55).abs() < 1e-12);
    /// assert!((config.rate(100) - 0.1).abs() < 1e-12);
    /// ```
    #[must_use]
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let decay_steps = self.steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / decay_steps as f64).min(1.0);
        let left = self.schedule.left(done);
        self.learning_rate * (self.final_fraction + (1.0 - self.final_fraction) * left)
    }

    /// Checks that every setting is one that can be trained with.
    ///
    /// # Errors
    ///
    /// Names the first setting that is not.
    pub fn check(&self) -> Result<(), TrainError> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let fraction = |x: f64| (0.0..1.0).contains(&x);
        let settings = [
            ("learning_rate", positive(self.learning_rate), "a positive number", self.learning_rate),
            (
                "final_fraction",
                (0.0..=1.0).contains(&self.final_fraction),
                "from 0 to 1",
                self.final_fraction,
            ),
            ("beta_1", fraction(self.beta_1), "from 0 to below 1", self.beta_1),
            ("beta_2", fraction(self.beta_2), "from 0 to below 1", self.beta_2),
            ("epsilon", positive(self.epsilon), "a positive number", self.epsilon),
            ("weight_decay", self.weight_decay >= 0.0, "0 or a positive number", self.weight_decay),
            (
                "clip_norm",
                self.clip_norm.is_none_or(positive),
                "a positive number",
                self.clip_norm.unwrap_or(0.0),
            ),
        ];
        match settings.into_iter().find(|&(_, valid, ..)| !valid) {
            None => Ok(()),
            Some((key, _, expected, found)) => Err(TrainError::Config { key, expected, found }),
        }
    }

    /// burn's `AdamW` for vectors, which do not decay, and for matrices, which do.
    pub(crate) fn optimizers(&self) -> [AdamW; 2] {
        let adamw = AdamWConfig::new()
            .with_beta_1(self.beta_1 as f32)
            .with_beta_2(self.beta_2 as f32)
            .with_epsilon(self.epsilon as f32)
            .with_weight_decay(0.0);
        let decayed = adamw.clone().with_weight_decay(self.weight_decay as f32);
        [adamw.build(), decayed.build()]
    }
}
