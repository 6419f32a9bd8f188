//! Analyses of a transformer, written against [`HookedModel`](burn_lens_hooks::HookedModel) and
//! [`ActivationCache`](burn_lens_hooks::ActivationCache) alone: they run on any model that
//! implements the trait.
//!
//! - [`Residuals`]: the residual stream taken apart (TransformerLens's `ActivationCache` methods)
//! - [`direct_logit_attribution`]: which parts of a model write its answer
//! - [`logit_lens`]: what a model would say if it stopped after each layer
//! - [`Circuits`], [`SvdInterpreter`]: what heads and MLPs read and write, from the weights alone
//! - [`interventions`]: sweeps that compute only what an intervention can change, and what is built
//!   on them
//! - [`clusters`]: attention over examples in the context, clustered and explained
//! - [`attention_summaries`]: what each head attends to, in a few numbers

mod attention;
mod attribution;
mod circuits;
pub mod clusters;
mod error;
pub mod interventions;
mod lens;
mod resid;

pub use attention::{HeadSummary, attention_summaries};
pub use attribution::{AttributionOptions, Unit, attribution_hooks, direct_logit_attribution};
pub use circuits::{
    Circuits, Composition, CompositionPair, Folding, QkScores, SingularVectors, Space, SvdInterpreter,
    VectorTokens, VectorType, all_head_labels, effective_embedding,
};
pub use error::AnalysisError;
pub use lens::{LensCell, LensOptions, LensToken, LogitLens, TunedLens, logit_lens};
pub use resid::{
    Answers, Component, LogitAttrs, NeuronOptions, Normalize, ResidStack, Residuals, StackOptions, Sublayers,
};
