//! Sparse autoencoders: dictionaries of features, run in a model, and what their features mean.
//!
//! - [`SparseAutoencoder`]: what every kind does; [`SAE_KINDS`] lists them
//! - [`read_sae`]: one in any of [`SAE_FORMATS`]
//! - [`Crosscoder`] and [`CrossLayerTranscoder`]: features of several activations
//! - [`fold_w_dec_norm`] and its like: the same dictionary with other weights
//! - [`SaeModel`]: dictionaries spliced into a run of any model
//! - [`SaeEvaluation`]: how well a dictionary stands in for an activation
//! - [`features`]: what each feature means
//!
//! Nothing here knows a concrete model, and nothing here opens a file.

mod affine;
mod autoencoder;
mod base;
mod clt;
mod config;
mod crosscoder;
mod draft;
mod error;
pub mod features;
mod fold;
mod formats;
mod kinds;
mod metrics;
mod reader;
mod rows;
mod saelens;
mod settings;
mod splice;

pub use autoencoder::{Codes, SparseAutoencoder, Tap};
pub use base::{Base, Prepared};
pub use clt::CrossLayerTranscoder;
pub use config::{Normalization, SaeConfig};
pub use crosscoder::Crosscoder;
pub use error::SaeError;
pub use fold::{Whitening, fold_scaling_factor, fold_w_dec_norm, fold_whitening};
pub use formats::{SAE_FORMATS, SaeFiles, SaeFormat, read_sae, recognised};
pub use kinds::{SAE_KINDS, SaeKind};
pub use metrics::{SaeEvaluation, SaeMetrics};
pub use reader::{Place, Reader, SaeOptions};
pub use saelens::{read_sae_lens, sae_lens_config, sae_lens_tensors};
pub use settings::Settings;
pub use splice::{SaeModel, SplicedSae, sae_hooks};
