//! What a sparse autoencoder is trained to be.

use serde::{Deserialize, Serialize};

use crate::{TrainConfig, TrainError};

/// What makes activations sparse.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sparsity {
    /// The standard autoencoder: `relu`, and a penalty on the sum of activations.
    L1 {
        /// `λ`
        coefficient: f64,
        /// Steps over which `λ` rises from 0.
        warmup_steps: usize,
    },
    /// The topk autoencoder.
    TopK {
        /// How many features may be active.
        k: usize,
        /// What the loss of the dead features counts.
        auxiliary: f64,
    },
}

/// How a sparse autoencoder is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SaeConfig {
    /// The length of the vectors.
    pub d_in: usize,
    /// How many features.
    pub d_sae: usize,
    /// What makes activations sparse.
    pub sparsity: Sparsity,
    /// A feature is dead if it was not active for so many steps.
    pub dead_after: usize,
    /// Steps, rates and the seed. Weight decay is not used.
    pub training: TrainConfig,
}

impl SaeConfig {
    /// Checks that every setting is one that can be trained with.
    ///
    /// # Errors
    ///
    /// Names the first setting that is not.
    pub fn check(&self) -> Result<(), TrainError> {
        self.training.check()?;
        let wrong = |key, expected, found| Err(TrainError::Config { key, expected, found });
        if self.d_in == 0 || self.d_sae == 0 {
            return wrong("d_sae", "vectors and features, at least one entry each", 0.0);
        }
        match self.sparsity {
            Sparsity::L1 { coefficient, .. } if !(coefficient.is_finite() && coefficient >= 0.0) => {
                wrong("coefficient", "0 or a positive number", coefficient)
            }
            Sparsity::TopK { k, .. } if k == 0 || k > self.d_sae => {
                wrong("k", "from 1 to the number of features", k as f64)
            }
            Sparsity::TopK { auxiliary, .. } if !(auxiliary.is_finite() && auxiliary >= 0.0) => {
                wrong("auxiliary", "0 or a positive number", auxiliary)
            }
            _ => Ok(()),
        }
    }
}
