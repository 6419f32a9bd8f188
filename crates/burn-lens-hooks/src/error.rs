//! Everything that can go wrong while a model runs.

use burn_lens_tensor::{RankError, SliceError, burn::tensor::ExecutionError};

use crate::{HookPoint, Param, UnknownHook};

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A hook name that does not exist.
    #[error(transparent)]
    UnknownHook(#[from] UnknownHook),
    /// A hook that exists, but that this model (or this run) cannot fire.
    #[error("hook `{point}` cannot fire here: {reason}{}", if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) })]
    CannotFire {
        /// The hook asked for.
        point: HookPoint,
        /// Why not.
        reason: String,
        /// The closest names that this model does fire.
        nearest: Vec<String>,
    },
    /// A pattern that no hook of this model matches.
    #[error("`{pattern}` matches no hook of this model; `burn-lens hooks MODEL` lists them")]
    NoMatch {
        /// The pattern, or what describes the predicate.
        pattern: String,
    },
    /// A pattern that does not parse.
    #[error("`{pattern}` is not a valid pattern: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A hook took or returned a tensor of another rank or kind.
    #[error("hook at `{point}`: {source}")]
    HookRank {
        /// Where.
        point: HookPoint,
        /// What was expected and found.
        source: RankError,
    },
    /// A hook returned a tensor of another shape.
    #[error("hook at `{point}` returned shape {found:?}, but the activation has shape {expected:?}")]
    HookShape {
        /// Where.
        point: HookPoint,
        /// The activation's shape.
        expected: Vec<usize>,
        /// The replacement's shape.
        found: Vec<usize>,
    },
    /// A hook returned a tensor of another dtype or on another device.
    #[error("hook at `{point}` returned a tensor of {found}, but the activation is of {expected}")]
    HookDtype {
        /// Where.
        point: HookPoint,
        /// The activation's dtype or device.
        expected: String,
        /// The replacement's dtype or device.
        found: String,
    },
    /// A hook's own failure.
    #[error("hook at `{point}` failed: {source}")]
    HookFailed {
        /// Where.
        point: HookPoint,
        /// What the hook said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A slice that does not fit an activation.
    #[error("slicing `{point}`: {source}")]
    Slice {
        /// The activation.
        point: HookPoint,
        /// What is wrong with the slice.
        source: SliceError,
    },
    /// A cache lookup of something that was not kept.
    #[error("the cache does not hold `{name}`{}; ask for it with the names filter of run_with_cache", if nearest.is_empty() { String::new() } else { format!(" (it holds {}, …)", nearest.join(", ")) })]
    NotCached {
        /// What was looked up.
        name: String,
        /// The closest names that it holds.
        nearest: Vec<String>,
    },
    /// The batch axis was to be removed from more than one prompt.
    #[error("remove_batch_dim needs a batch of 1, but this one has {batch} prompts")]
    BatchNotOne {
        /// The batch size.
        batch: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token {token} at row {row}, position {pos} is outside the vocabulary of {d_vocab}")]
    TokenOutOfRange {
        /// The id.
        token: i64,
        /// Its prompt.
        row: usize,
        /// Its position.
        pos: usize,
        /// The vocabulary's size.
        d_vocab: usize,
    },
    /// Nothing to run on.
    #[error("the input is empty: shape {shape:?}")]
    EmptyInput {
        /// The input's shape.
        shape: Vec<usize>,
    },
    /// More positions than the model has.
    #[error("the input has {pos} positions, but the model's context is {n_ctx}")]
    TooLong {
        /// Positions asked for, those in a key-value cache included.
        pos: usize,
        /// The model's context length.
        n_ctx: usize,
    },
    /// An input of the wrong shape.
    #[error("{what} has shape {found:?}, expected {expected}")]
    InputShape {
        /// Which input.
        what: &'static str,
        /// What was expected, in axis words.
        expected: String,
        /// What was given.
        found: Vec<usize>,
    },
    /// A layer outside the model.
    #[error("{what} = {layer} is outside a model of {n_layers} layers")]
    LayerOutOfRange {
        /// Which argument.
        what: &'static str,
        /// Its value.
        layer: isize,
        /// How many layers there are.
        n_layers: usize,
    },
    /// A weight that the model does not have, or does not give.
    #[error("this model has no weight `{param}`")]
    NoWeight {
        /// Which.
        param: Param,
    },
    /// A combination of options that makes no sense.
    #[error("{0}")]
    Options(String),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

impl From<ExecutionError> for RunError {
    fn from(error: ExecutionError) -> Self {
        Self::Device(format!("{error:?}"))
    }
}
