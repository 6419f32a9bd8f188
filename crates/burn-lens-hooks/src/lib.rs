//! The waist of burn-lens: what a model promises and what an analysis may ask.
//!
//! - [`HookPoint`]: one typed value for each of TransformerLens's hook names
//! - [`Hook`] and [`Selector`]: read or edit an activation or its gradient, at names, globs or predicates
//! - [`Hooks`]: the hooks of one run, called by a model at each point
//! - [`ActivationCache`]: what a run kept
//! - [`Param`] and [`Wiring`]: a model's weights by name, and how it is put together
//! - [`PartialPass`]: blocks run from the middle, on what an earlier run gave
//! - [`HookedModel`]: the trait that ties them together; implement it for a model of your own
//!
//! Nothing here knows a concrete model, and nothing here opens a file.

mod act_name;
mod axis;
mod cache;
mod error;
mod hook;
mod hook_point;
mod hooks;
mod kept;
mod model;
mod param;
mod partial;
mod registry;
mod run;
mod sae_hook;
mod selector;
mod wiring;

pub use act_name::{get_act_name, parse_act_name};
pub use axis::Axis;
pub use cache::{ActivationCache, CacheKey};
pub use error::RunError;
pub use hook::{ContextValues, Hook, HookContext};
pub use hook_point::{HookPoint, UnknownHook};
pub use hooks::Hooks;
pub use model::HookedModel;
pub use param::{Param, UnknownParam};
pub use partial::{BlockEntry, Frame, KeyValues, PartialPass};
pub use registry::{HookId, HookRegistry, HookScope};
pub use run::{CacheOptions, Input, Metric, ModelDims, Output, ReturnType, RunOptions};
pub use sae_hook::{SaeHook, SaeHost};
pub use selector::{Firing, Selector};
pub use wiring::{BlockLayout, ModelWeights, NormPlacement, NormSite, Wiring};
