//! Everything that can go wrong in training.

use burn_lens_hooks::RunError;
use burn_lens_linalg::LinalgError;
use burn_lens_models::{ModelError, Param};

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The model could not be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A setting that makes no sense.
    #[error("training setting `{key}` is {found}, expected {expected}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: f64,
    },
    /// A parameter that is given beyond those that the configuration implies.
    #[error("parameter `{0}` is not part of this model's configuration, so it cannot be trained")]
    NotTrainable(Param),
    /// A list of a batch whose length is not `batch · pos`.
    #[error("a batch of {batch} rows of {pos} tokens needs {} {what}, found {found}", batch * pos)]
    BatchLength {
        /// Which list.
        what: &'static str,
        /// Rows.
        batch: usize,
        /// Tokens in a row.
        pos: usize,
        /// The list's length.
        found: usize,
    },
    /// A batch whose weights cannot be averaged over.
    #[error(
        "the loss weights of a batch must be finite, not negative, and not all 0 (of tokens, behind the first position)"
    )]
    BatchWeights,
    /// A list of a batch of vectors of the wrong length.
    #[error(
        "a batch of {batch} rows of {pos} positions needs {expected} {what} for this model, found {found}"
    )]
    VectorLength {
        /// Which list.
        what: &'static str,
        /// Rows.
        batch: usize,
        /// Positions in a row.
        pos: usize,
        /// The length that the model implies.
        expected: usize,
        /// The list's length.
        found: usize,
    },
    /// A target class that the model has no output for.
    #[error("class {class} is a target, but the model tells {d_out} classes apart, from 0")]
    Class {
        /// The class.
        class: i64,
        /// The width of the read-out.
        d_out: usize,
    },
    /// A snapshot of another model, or a damaged one.
    #[error("the snapshot's `{tensor}` does not fit this model: {reason}")]
    Snapshot {
        /// The tensor.
        tensor: String,
        /// Why not.
        reason: String,
    },
    /// Measurements that are no JSON lines.
    #[error("the measurements are not the JSON lines that were expected")]
    Json(#[from] serde_json::Error),
    /// A baseline could not be fitted.
    #[error("a baseline: {0}")]
    Linalg(#[from] LinalgError),
    /// The loss is no longer a number.
    #[error("the loss is {loss} at step {step}: lower the learning rate or clip gradients")]
    Diverged {
        /// The step, from 0.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// A value could not be read from the device.
    #[error("the device failed: {0}")]
    Device(String),
}
