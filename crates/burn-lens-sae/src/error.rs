//! What can go wrong with a dictionary.

use burn_lens_hooks::{HookPoint, RunError, UnknownHook};
use burn_lens_tensor::{
    WeightError,
    burn::tensor::{ExecutionError, TensorReadError},
};

/// Why a dictionary could not be read, changed or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaeError {
    /// A weight is missing, mis-shaped or damaged, or there are too many.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A configuration that is not JSON, or not an object.
    #[error("{origin} is not a JSON object")]
    Json {
        /// The file.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// A configuration without a key that is needed.
    #[error("{origin} has no `{key}`{}", if nearest.is_empty() { String::new() } else { format!("; the nearest keys there are: {}", nearest.join(", ")) })]
    MissingKey {
        /// The file.
        origin: String,
        /// The key.
        key: String,
        /// The closest keys that are there.
        nearest: Vec<String>,
    },
    /// A configuration whose value makes no sense.
    #[error("{origin}: `{key}` is {found}, expected {expected}")]
    Value {
        /// The file.
        origin: String,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it can be.
        expected: String,
    },
    /// A kind of dictionary that is not known.
    #[error("{origin}: unknown architecture `{name}`{}", if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) })]
    UnknownKind {
        /// The file.
        origin: String,
        /// The kind.
        name: String,
        /// The closest kinds that are known.
        nearest: Vec<String>,
    },
    /// Files that no format fits.
    #[error("{origin} is in no format that is known ({}); it holds the tensors {}", formats.join(", "), if tensors.is_empty() { "none".to_owned() } else { tensors.join(", ") })]
    UnknownFormat {
        /// The folder or file.
        origin: String,
        /// The formats that are known.
        formats: Vec<String>,
        /// The first tensors there.
        tensors: Vec<String>,
    },
    /// Something that only the user can say.
    #[error("{origin} does not say {what}: {how}")]
    Untold {
        /// The folder or file.
        origin: String,
        /// What is not there.
        what: &'static str,
        /// How to say it.
        how: &'static str,
    },
    /// Inputs are to be scaled or whitened by what the files do not hold.
    #[error(
        "{name} reads activations normalised by `{normalization}`, whose statistics are not in its files: {how}"
    )]
    NotFolded {
        /// The dictionary.
        name: String,
        /// The normalisation.
        normalization: &'static str,
        /// How to give them.
        how: &'static str,
    },
    /// A change that would make it another dictionary.
    #[error("{change} is refused for a dictionary of kind {kind}: {reason}")]
    Refused {
        /// The change.
        change: &'static str,
        /// The kind.
        kind: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A format that has no place for this dictionary.
    #[error("{format} has no dictionaries of kind {kind}")]
    NotInFormat {
        /// The format.
        format: &'static str,
        /// The kind.
        kind: &'static str,
    },
    /// A hook that does not exist.
    #[error("{name} reads or writes a hook that does not exist")]
    Hook {
        /// The dictionary.
        name: String,
        /// The name, and those that are near.
        #[source]
        source: UnknownHook,
    },
    /// Vectors of another length than the dictionary's.
    #[error("{name} has vectors of length {expected}, but {what} has {found}")]
    Width {
        /// The dictionary.
        name: String,
        /// What was given.
        what: String,
        /// The dictionary's length.
        expected: usize,
        /// The length given.
        found: usize,
    },
    /// A head that the activation does not have.
    #[error("{name} reads head {head} of `{point}`, which has {}", match n_heads { 0 => "no heads".to_owned(), n => format!("heads 0 to {}", n - 1) })]
    Head {
        /// The dictionary.
        name: String,
        /// The head.
        head: usize,
        /// The activation.
        point: HookPoint,
        /// How many heads it has; 0 where it has none.
        n_heads: usize,
    },
    /// The model failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

impl From<ExecutionError> for SaeError {
    fn from(error: ExecutionError) -> Self {
        Self::Device(format!("{error:?}"))
    }
}

impl From<TensorReadError> for SaeError {
    fn from(error: TensorReadError) -> Self {
        Self::Device(format!("{error:?}"))
    }
}
