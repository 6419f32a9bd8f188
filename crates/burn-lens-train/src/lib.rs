//! Training through burn's autodiff and optimizers.
//!
//! A model is a pure function of its [`ModelConfig`] and [`Parameters`], so training needs no
//! second definition of it: [`Trainable`] holds the tensors as burn parameters, each step
//! builds a [`HookedTransformer`] that shares them, and burn differentiates the same forward
//! pass that every analysis runs.
//!
//! - [`train`], [`train_from`]: a loop with warm-up, cosine decay, clipping and `AdamW`
//! - [`Trainer`]: the same, one step at a time
//! - [`Batches`]: where token sequences come from, and which of their tokens count
//! - [`language`]: the synthetic language of the bundled demonstration model
//!
//! Results depend on the seed alone: the same seed gives the same bits on the same machine
//! with the same number of threads.
//!
//! [`HookedTransformer`]: burn_lens_models::HookedTransformer
//! [`ModelConfig`]: burn_lens_models::ModelConfig
//! [`Parameters`]: burn_lens_models::Parameters

mod config;
mod data;
mod error;
pub mod language;
mod trainable;
mod trainer;

pub use config::TrainConfig;
pub use data::{Batch, Batches};
pub use error::TrainError;
pub use trainable::Trainable;
pub use trainer::{Progress, Trainer, train, train_from};
