//! The command line of `burn-lens features`.

use std::{collections::BTreeSet, path::PathBuf, str::FromStr};

use burn_lens::sae::features::{
    Correlate, FeatureChoice, FeatureOptions, Intervals, SequenceOptions, Window,
};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use crate::args::{CorpusArgs, ModelArgs};

#[derive(Debug, Args)]
pub(crate) struct FeaturesArgs {
    #[command(subcommand)]
    pub(crate) command: FeaturesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FeaturesCommand {
    /// Run a model and a dictionary over tokens, and write what each feature means
    Run(Box<RunArgs>),
    /// Make the features of several shards
    Merge(MergeArgs),
    /// Print one feature, or write its page
    Show(ShowArgs),
    /// Rank the features at each token of a prompt
    Prompt(PromptArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = RUN_HELP,
    group = ArgGroup::new("source").args(["sae", "vectors"]).required(true)
)]
pub(crate) struct RunArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(long = "model", value_name = "MODEL")]
    pub(crate) name: String,
    /// The dictionary: a folder, or a weights file beside its configuration; one of either on the hub,
    /// as OWNER/REPO/PATH; or `demo`
    #[arg(verbatim_doc_comment, long, value_name = "SAE")]
    pub(crate) sae: Option<String>,
    /// Plain vectors in its place: a tensor `vectors` [vector, d] of a file
    #[arg(long, value_name = "FILE.safetensors", requires = "hook")]
    pub(crate) vectors: Option<PathBuf>,
    /// What the vectors read and write, such as blocks.1.hook_resid_post or resid_post1; or the
    /// dictionary, in place of what its files say
    #[arg(long, value_name = "NAME")]
    pub(crate) hook: Option<String>,
    /// A second dictionary, whose features the first ones are correlated with
    #[arg(long, value_name = "SAE")]
    pub(crate) sae_b: Option<String>,
    #[command(flatten)]
    pub(crate) corpus: CorpusArgs,
    /// Run only one of several parts of the prompts; `burn-lens features merge` puts them together
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Shard>,
    #[command(flatten)]
    pub(crate) what: WhatArgs,
    #[command(flatten)]
    pub(crate) out: OutArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

const RUN_HELP: &str = "\
The model and the dictionary are run once; what is kept of it goes to OUT/activations. A run that was
interrupted goes on where it was when it is started again. OUT/data then holds one JSON file for each
feature, which docs/feature-data.md describes. The result does not depend on --batch, --threads,
--memory or --shard.";

/// What to compute.
#[derive(Debug, Args)]
#[command(next_help_heading = "What to compute")]
pub(crate) struct WhatArgs {
    /// Which features: all, 0..64, or 3,17,250
    #[arg(long, default_value = "all", value_name = "LIST")]
    pub(crate) features: Features,
    /// Which features of the dictionary the chosen ones are correlated with: all, for which the whole
    /// dictionary is run; the chosen ones; or none
    #[arg(long, default_value = "all", value_name = "WITH")]
    pub(crate) correlate: With,
    /// Count tokens that mark a beginning, an end or padding as well
    #[arg(long)]
    pub(crate) count_special: bool,
    /// Tokens shown before and after the one that a sequence was chosen for
    #[arg(long, default_value = "5,5", value_name = "B,A", conflicts_with = "whole_prompts")]
    pub(crate) window: Buffer,
    /// Show whole prompts
    #[arg(long)]
    pub(crate) whole_prompts: bool,
    /// Sequences with the largest activations
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) top: usize,
    /// Intervals of activations
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) intervals: usize,
    /// Sequences drawn from each interval
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) per_interval: usize,
    /// Whether intervals are equally wide, or hold equally many active tokens
    #[arg(long, default_value = "width", value_name = "BY")]
    pub(crate) intervals_by: By,
    /// Prompts run at once
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(crate) batch: usize,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
}

/// What it may take; the result does not depend on it.
#[derive(Debug, Args)]
pub(crate) struct ResourceArgs {
    /// Memory for intermediate results, in MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    memory: u64,
    /// Threads; as many as there are cores if 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

impl ResourceArgs {
    /// The same options with what it may take.
    pub(crate) fn of(&self, options: FeatureOptions) -> FeatureOptions {
        FeatureOptions { memory: self.memory.max(1) << 20, threads: self.threads, ..options }
    }
}

/// Where results go, and in which formats.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
#[expect(clippy::struct_excessive_bools, reason = "a flag for each format")]
pub(crate) struct OutArgs {
    /// The folder to write to; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Also OUT/index.html, to look through the features without a server
    #[arg(long)]
    pub(crate) html: bool,
    /// Also OUT/neuronpedia: batch-0.json and the bulk import's lines
    #[arg(long)]
    pub(crate) neuronpedia: bool,
    /// Also OUT/sae_vis.json, as sae_vis 0.2 loads it
    #[arg(long)]
    pub(crate) sae_vis: bool,
    /// Also OUT/delphi: the sparse activations, as Delphi loads them
    #[arg(long)]
    pub(crate) delphi: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The OUT folders of all shards
    #[arg(value_name = "DIR", required = true)]
    pub(crate) shards: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) out: OutArgs,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The OUT folder of a run, or one of its JSON files
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Which feature of a folder
    #[arg(long, value_name = "N")]
    pub(crate) feature: Option<usize>,
    /// Write the feature's page to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PromptArgs {
    /// The OUT folder of a run
    #[arg(value_name = "DIR")]
    pub(crate) path: PathBuf,
    /// The text
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) prompt: String,
    /// By what features are ranked: activation, how rare so large a one is, or how much it helps to
    /// predict the next token
    #[arg(long, default_value = "activation", value_name = "BY")]
    pub(crate) by: Metric,
    /// Features at each token
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) top: usize,
}

/// By what features are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Metric {
    Activation,
    Quantile,
    Loss,
}

/// `all`, `0..64` or `3,17,250`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Features(pub(crate) FeatureChoice);

impl FromStr for Features {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(FeatureChoice::All));
        }
        let number = |text: &str| text.trim().parse::<usize>();
        let wrong =
            |_| format!("`{text}` is neither `all`, nor a range as in 0..64, nor a list as in 3,17,250");
        let mut features = Vec::new();
        for part in text.split(',') {
            match part.split_once("..") {
                Some((start, end)) => {
                    features.extend(number(start).map_err(wrong)?..number(end).map_err(wrong)?);
                }
                None => features.push(number(part).map_err(wrong)?),
            }
        }
        if features.is_empty() {
            return Err(format!("`{text}` names no feature"));
        }
        Ok(Self(FeatureChoice::Some(features)))
    }
}

/// `5,5`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer(usize, usize);

impl FromStr for Buffer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once(',')
            .and_then(|(before, after)| Some((before.parse().ok()?, after.parse().ok()?)));
        parts
            .map(|(before, after)| Self(before, after))
            .ok_or_else(|| format!("`{text}` is not two numbers, as in 5,5"))
    }
}

/// `2/8`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) count: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match parts {
            Some((index, count)) if 0 < index && index <= count => Ok(Self { index, count }),
            _ => Err(format!("`{text}` is no shard: they are 1/N to N/N")),
        }
    }
}

/// How intervals are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    Width,
    Quantiles,
}

/// What the chosen features are correlated with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum With {
    All,
    Chosen,
    None,
}

impl WhatArgs {
    /// As the library takes it.
    pub(crate) fn options(&self, special: impl IntoIterator<Item = u32>, seed: u64) -> FeatureOptions {
        let Buffer(before, after) = self.window;
        self.resources.of(FeatureOptions {
            features: self.features.0.clone(),
            correlate: match self.correlate {
                With::All => Correlate::All,
                With::Chosen => Correlate::Chosen,
                With::None => Correlate::None,
            },
            batch_prompts: self.batch.max(1),
            ignore_tokens: if self.count_special {
                BTreeSet::default()
            } else {
                special.into_iter().collect()
            },
            sequences: SequenceOptions {
                window: if self.whole_prompts { Window::Prompt } else { Window::Around { before, after } },
                n_top: self.top,
                n_intervals: self.intervals,
                intervals: match self.intervals_by {
                    By::Width => Intervals::EqualWidth,
                    By::Quantiles => Intervals::Quantiles,
                },
                n_per_interval: self.per_interval,
                seed,
                ..SequenceOptions::default()
            },
            ..FeatureOptions::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_features() {
        let some = |text: &str| text.parse::<Features>().map(|features| features.0);
        assert_eq!(some("all"), Ok(FeatureChoice::All));
        assert_eq!(some("0..3,7"), Ok(FeatureChoice::Some(vec![0, 1, 2, 7])));
        for text in ["", "x", "1..", "3..3", "-1"] {
            assert!(some(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shards_count_from_one() {
        assert_eq!("2/8".parse(), Ok(Shard { index: 2, count: 8 }));
        for text in ["0/8", "9/8", "8", "a/b", "1/0"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
