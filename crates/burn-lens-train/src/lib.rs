//! Training through burn's autodiff and optimizers.
//!
//! A model is a pure function of its [`ModelConfig`] and [`Parameters`], so training needs no
//! second definition of it: [`Trainable`] holds the tensors as leaves of a graph, each step
//! builds a [`HookedTransformer`] that shares them, and burn differentiates the same forward
//! pass that every analysis runs.
//!
//! - [`train`], [`train_from`]: a loop with warm-up, cosine decay, clipping and `AdamW`
//! - [`Trainer`]: the same, one step at a time
//! - [`Snapshot`]: a run interrupted, to go on to the same bits; [`History`]: what it measured
//! - [`Batches`]: where batches come from; [`Objective`]: what one costs. [`Batch`] is of tokens,
//!   [`VectorBatch`] for models without a vocabulary
//! - [`in_context`]: tasks to be learnt from examples in the context, and their baselines
//! - [`sae`]: sparse autoencoders, standard and topk
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
pub mod in_context;
pub mod language;
mod leaf;
mod metrics;
pub mod sae;
mod trainable;
mod trainer;
mod vectors;

pub use config::{Schedule, TrainConfig};
pub use data::{Batch, Batches, Objective};
pub use error::TrainError;
pub use metrics::{History, Metrics};
pub use trainable::Trainable;
pub use trainer::{Progress, Snapshot, Trainer, train, train_from};
pub use vectors::{Targets, VectorBatch};
