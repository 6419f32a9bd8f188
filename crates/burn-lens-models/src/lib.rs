//! What a transformer computes.
//!
//! - [`HookedTransformer`]: one transformer built from components, with a hook on every activation
//! - [`ModelConfig`]: what it is made of; each axis of variation is an enum with its own fields
//! - [`ARCHITECTURES`]: the checkpoints that can be loaded, one file each in `families`
//! - [`Parameters`]: the weights, by [`Param`]; [`processing`] turns them into others that
//!   compute the same
//! - [`convert`](mod@convert): checkpoints of other programs, by a table of rules
//! - [`HookedTransformer::plan`]: what a run will compute and keep, before it runs
//! - [`generate`]: text from a model, with a [`KvCache`]
//!
//! Nothing here opens a file: weights come through [`burn_lens_tensor::Weights`] and
//! configurations as text.

mod block;
pub mod components;
mod config;
mod controls;
pub mod convert;
mod error;
mod families;
mod forward;
mod generate;
mod hf_config;
mod hf_rope;
mod kv_cache;
mod loss;
mod params;
mod partial;
mod plan;
pub mod processing;
mod sampling;
mod source;
mod stacked;
mod tail;
mod transformer;

pub use burn_lens_hooks::Param;
pub use config::{
    AttentionConfig, BlockLayout, Interface, MlpBias, MlpConfig, MlpKind, ModelConfig, NormConfig,
    NormPlacement, Readers,
};
pub use controls::{Control, UnknownControl, random_parameters};
pub use error::ModelError;
pub use families::{ARCHITECTURES, Architecture, architecture_config, export, to_config_json};
pub use generate::{FinishReason, GenerateOptions, Generated, StopCheck, generate};
pub use hf_config::HfConfig;
pub use kv_cache::KvCache;
pub use params::Parameters;
pub use plan::{AttentionPath, Plan, PlannedKeep, PlannedPart, PlannedRun};
pub use sampling::Sampling;
pub use source::{Layout, Source, load_parameters};
pub use transformer::HookedTransformer;
