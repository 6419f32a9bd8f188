//! What to compute.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Which features.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureChoice {
    /// Every feature of the dictionary.
    #[default]
    All,
    /// These, in this order.
    Some(Vec<usize>),
}

impl FeatureChoice {
    /// The features, of `n` that there are; a feature that is named twice comes once. The first
    /// one that is not there, if any is not.
    pub(super) fn resolve(&self, n: usize) -> Result<Vec<usize>, usize> {
        match self {
            Self::All => Ok((0..n).collect()),
            Self::Some(features) => {
                let mut seen = BTreeSet::new();
                match features.iter().find(|&&feature| feature >= n) {
                    Some(&feature) => Err(feature),
                    None => Ok(features.iter().copied().filter(|&feature| seen.insert(feature)).collect()),
                }
            }
        }
    }
}

/// How much of a prompt a sequence shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// Up to this many tokens before and after the one that it was chosen for, fewer at the ends
    /// of the prompt.
    Around {
        /// Tokens before.
        before: usize,
        /// Tokens after.
        after: usize,
    },
    /// As [`Window::Around`], but only tokens are chosen that have all of them, and one more
    /// before: what the original and sae_vis do.
    Inside {
        /// Tokens before.
        before: usize,
        /// Tokens after.
        after: usize,
    },
    /// The whole prompt.
    Prompt,
}

/// How the active tokens are divided into intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intervals {
    /// Intervals of equal width, from 0 (or the smallest activation, if that is negative) to the
    /// largest activation.
    EqualWidth,
    /// Intervals with equally many active tokens.
    Quantiles,
}

/// Which features of the dictionary each is correlated with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correlate {
    /// All of them, so all are computed.
    #[default]
    All,
    /// Those that data is made of, as the original and sae_vis do. The others are not computed, if the kind of
    /// dictionary allows that.
    Chosen,
    /// None.
    None,
}

/// What to compute for each feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureOptions {
    /// Which features.
    pub features: FeatureChoice,
    /// How many prompts are run at once. The result does not depend on it.
    pub batch_prompts: usize,
    /// Tokens that are never counted, such as BOS.
    pub ignore_tokens: BTreeSet<u32>,
    /// Positions that are never counted, such as 0.
    pub ignore_positions: BTreeSet<usize>,
    /// Rows of each table of neurons and features; 0 computes none.
    pub n_table_rows: usize,
    /// Which features of the dictionary each is correlated with.
    pub correlate: Correlate,
    /// Rows of the tables of logits.
    pub n_logit_rows: usize,
    /// Bins of each histogram.
    pub n_bins: usize,
    /// How sequences are chosen and shown.
    pub sequences: SequenceOptions,
    /// How much memory to use for intermediate results, in bytes.
    pub memory: u64,
    /// How many threads to use; 0: as many as there are cores. The result does not depend on it.
    pub threads: usize,
}

/// How sequences are chosen and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceOptions {
    /// How much of a prompt a sequence shows.
    pub window: Window,
    /// How many sequences with the largest activations.
    pub n_top: usize,
    /// How many intervals.
    pub n_intervals: usize,
    /// How they are cut.
    pub intervals: Intervals,
    /// How many sequences for each interval.
    pub n_per_interval: usize,
    /// Whether sequences of the same tokens, or that show the token of a stronger one, are left
    /// out of the top group.
    pub distinct: bool,
    /// Rows of each hover table; 0 leaves out the effects on logits and loss.
    pub n_hover: usize,
    /// The seed of the samples from intervals.
    pub seed: u64,
}

impl Default for FeatureOptions {
    fn default() -> Self {
        Self {
            features: FeatureChoice::All,
            batch_prompts: 8,
            ignore_tokens: BTreeSet::new(),
            ignore_positions: BTreeSet::new(),
            n_table_rows: 3,
            correlate: Correlate::All,
            n_logit_rows: 10,
            n_bins: 40,
            sequences: SequenceOptions::default(),
            memory: 2 << 30,
            threads: 0,
        }
    }
}

impl Default for SequenceOptions {
    fn default() -> Self {
        Self {
            window: Window::Around { before: 5, after: 5 },
            n_top: 20,
            n_intervals: 10,
            intervals: Intervals::EqualWidth,
            n_per_interval: 5,
            distinct: true,
            n_hover: 5,
            seed: 0,
        }
    }
}

impl FeatureOptions {
    /// How many tokens are shown of a feature, at most, with about a quarter of them active.
    pub(super) fn shown_per_feature(&self) -> u64 {
        let SequenceOptions { window, n_top, n_intervals, n_per_interval, .. } = self.sequences;
        let length = match window {
            Window::Around { before, after } | Window::Inside { before, after } => before + after + 1,
            Window::Prompt => 128,
        };
        ((n_top + n_intervals * n_per_interval) * length).div_ceil(4) as u64
    }

    /// How many threads to use.
    pub(super) fn n_threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}
