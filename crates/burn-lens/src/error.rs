//! One error for the whole facade.

use burn_lens_hooks::RunError;
use burn_lens_io::IoError;
use burn_lens_models::ModelError;
use burn_lens_sae::{SaeError, features::FeatureError};
use burn_lens_tensor::{DeviceError, FloatType};

/// Why something failed: the error of the layer where it happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, the network or a tokenizer.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A configuration, weights or their processing.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Feature data.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// A dictionary.
    #[error(transparent)]
    Sae(#[from] SaeError),
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device does not compute in the float type asked for.
    #[error("device `{device}` does not support {dtype}")]
    UnsupportedDtype {
        /// The float type.
        dtype: FloatType,
        /// The device.
        device: String,
    },
    /// Text was given to a model that has no tokenizer.
    #[error("{model} has no tokenizer, so it takes token ids only")]
    NoTokenizer {
        /// The model.
        model: String,
    },
}
