//! Why feature data could not be had.

use burn_lens_hooks::{HookPoint, RunError};

use super::StoreError;

/// Why feature data could not be computed, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeatureError {
    /// The model.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The dictionary could not encode or decode.
    #[error("the dictionary `{name}` failed")]
    Dictionary {
        /// Which.
        name: String,
        /// Why.
        source: StoreError,
    },
    /// A feature that the dictionary does not have.
    #[error("there is no feature {feature}: the dictionary `{name}` has {n_features}, 0 to {}", n_features.saturating_sub(1))]
    NoFeature {
        /// The feature asked for.
        feature: usize,
        /// The dictionary.
        name: String,
        /// How many it has.
        n_features: usize,
    },
    /// The dictionary reads vectors of another length than the hook has.
    #[error("`{point}` holds vectors of {found} entries, but the dictionary `{name}` reads {expected}")]
    Width {
        /// The hook.
        point: HookPoint,
        /// The dictionary.
        name: String,
        /// What it reads.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// There is nothing to run on.
    #[error("there are no tokens: `tokens` has {n_prompts} prompts of {n_positions} positions")]
    NoTokens {
        /// How many prompts.
        n_prompts: usize,
        /// How long they are.
        n_positions: usize,
    },
    /// Tokens and mask do not fit together, or a token is negative.
    #[error("{0}")]
    Tokens(String),
    /// A shard that does not exist.
    #[error("there is no shard {index} of {count}: they are 1/{count} to {count}/{count}")]
    NoShard {
        /// The shard asked for, from 1.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The store failed.
    #[error("the store of activations failed at `{name}`")]
    Store {
        /// The entry.
        name: String,
        /// Why.
        source: StoreError,
    },
    /// The store holds something else than was put there.
    #[error("`{name}` in the store of activations is damaged: {what}")]
    Damaged {
        /// The entry.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// Two shards, or a run and its resumption, do not belong together.
    #[error("these parts do not belong together: {what} is {left} in one and {right} in another")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// In one part.
        left: String,
        /// In another.
        right: String,
    },
    /// Shards leave prompts out or hold some twice.
    #[error("the parts do not make a whole: {what}")]
    Incomplete {
        /// What is missing or there twice.
        what: String,
    },
    /// A file of feature data could not be read.
    #[error("this is no {format} that can be read: {what}")]
    Format {
        /// The format.
        format: &'static str,
        /// What is wrong, and where.
        what: String,
    },
    /// A file of feature data is of another version.
    #[error("this feature data has schema {found}, and this version of burn-lens reads schema {expected}")]
    Schema {
        /// The version found.
        found: u64,
        /// The version known.
        expected: u32,
    },
}
