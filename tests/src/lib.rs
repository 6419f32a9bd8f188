//! Parity with Hugging Face and TransformerLens, and invariants, on every backend.
//!
//! The device is the one that `BURN_LENS_DEVICE` names; see `burn-lens-testkit`.

#![cfg(test)]

mod activation_cache;
mod activation_cache_golden;
mod activation_cache_models;
mod attribution_models;
mod causal;
mod circuit_search;
mod circuits;
mod circuits_models;
mod clusters;
mod common;
mod feature_interventions;
mod formats;
mod generation;
mod gradients;
mod hooks;
mod in_context;
mod in_context_training;
mod intervention_layouts;
mod interventions;
mod invariants;
mod parity_hf;
mod parity_tl;
mod patching;
mod processing;
mod refusals;
mod sae_formats;
mod shared_models;
mod trained_circuits;
