//! Why an analysis failed.

use burn_lens_hooks::{HookPoint, RunError};
use burn_lens_linalg::LinalgError;
use burn_lens_tensor::{
    SliceError,
    burn::tensor::{ExecutionError, Tensor},
};

/// Why an analysis failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// The model or the cache.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A decomposition, or matrices that do not fit.
    #[error(transparent)]
    Linalg(#[from] LinalgError),
    /// Activations that were not kept, and that cannot be derived from others that were.
    #[error(
        "{what} needs activations that the cache does not hold: ask run_with_cache for {}",
        names(missing)
    )]
    MissingHooks {
        /// What was asked for.
        what: String,
        /// The hooks to ask for.
        missing: Vec<HookPoint>,
    },
    /// What this model's layout does not have, or what is not linear in it.
    #[error("{what}: {reason}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Why it is refused.
        reason: String,
    },
    /// A stack without components.
    #[error("{what} is empty: {reason}")]
    Empty {
        /// What was asked for.
        what: &'static str,
        /// Why there is nothing in it.
        reason: String,
    },
    /// A layer outside of what a method takes.
    #[error(
        "layer {layer} is outside 0..={n_layers} (-1 or none stands for {n_layers}, the end of the model)"
    )]
    Layer {
        /// The layer asked for.
        layer: isize,
        /// How many there are.
        n_layers: usize,
    },
    /// A head outside the model.
    #[error("head {head} is outside 0..{n_heads}")]
    Head {
        /// The head asked for.
        head: usize,
        /// How many there are.
        n_heads: usize,
    },
    /// A slice that does not fit its axis.
    #[error("{axis}: {source}")]
    Slice {
        /// Which axis, in the glossary's words.
        axis: &'static str,
        /// What is wrong with it.
        source: SliceError,
    },
    /// A tensor or list of the wrong shape.
    #[error("{what} has shape {found:?}, expected {expected}")]
    Shape {
        /// Which one.
        what: &'static str,
        /// In axis words.
        expected: String,
        /// What was given.
        found: Vec<usize>,
    },
    /// A cell of a sweep that a whole run gives another value.
    #[error(
        "cell {cell} of the sweep is {reused}, but a whole run gives {full}: this is a bug, please report it"
    )]
    Verify {
        /// Which, in row-major order.
        cell: usize,
        /// What the sweep computed.
        reused: f64,
        /// What a whole run gives.
        full: f64,
    },
    /// A token outside the output vocabulary.
    #[error("token {token} is outside the output vocabulary of {d_vocab_out}")]
    Token {
        /// The id.
        token: usize,
        /// The vocabulary's size.
        d_vocab_out: usize,
    },
}

fn names(points: &[HookPoint]) -> String {
    let mut names: Vec<String> = points.iter().take(8).map(|point| format!("`{point}`")).collect();
    if points.len() > names.len() {
        names.push(format!("and {} more", points.len() - names.len()));
    }
    names.join(", ")
}

impl From<ExecutionError> for AnalysisError {
    fn from(error: ExecutionError) -> Self {
        Self::Run(error.into())
    }
}

/// Reads a tensor back to the host, row by row.
pub(crate) fn to_host<const D: usize>(x: Tensor<D>) -> Result<Vec<f64>, AnalysisError> {
    x.try_into_vec_as().map_err(|error| RunError::Device(format!("{error:?}")).into())
}
