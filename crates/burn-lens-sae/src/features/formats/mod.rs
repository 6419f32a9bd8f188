//! The formats of other tools, written and read back. None of them is a pickle.
//!
//! - [`sae_vis`]: the JSON of sae_vis 0.2 (`SaeVisData.save_json`)
//! - [`neuronpedia`]: `batch-N.json` of SAEDashboard's runner, and the bulk import's lines of JSON
//! - [`delphi`]: the cache of sparse activations that Delphi explains features from
//!
//! Texts and tensors only: `burn-lens-io` writes them to files.

pub mod delphi;
pub mod neuronpedia;
pub mod sae_vis;

use super::FeatureError;

fn wrong(format: &'static str, error: &serde_json::Error) -> FeatureError {
    FeatureError::Format { format, what: error.to_string() }
}
