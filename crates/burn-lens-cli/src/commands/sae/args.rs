//! The command line of `burn-lens sae`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::{CorpusArgs, ModelArgs};

#[derive(Debug, Args)]
pub(crate) struct SaeArgs {
    #[command(subcommand)]
    pub(crate) command: SaeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SaeCommand {
    /// What a dictionary is: kind, sizes, hooks, normalisation
    Info(InfoArgs),
    /// How well a dictionary stands in for an activation: loss recovered, L0, explained variance …
    Eval(Box<EvalArgs>),
}

/// What the files of a dictionary do not say.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Dictionary")]
pub(crate) struct FileArgs {
    /// The hook that the dictionary reads, in place of what its files say
    #[arg(long, value_name = "NAME")]
    pub(crate) hook: Option<String>,
    /// The hook that a transcoder writes, in place of what its files say
    #[arg(long, value_name = "NAME")]
    pub(crate) hook_out: Option<String>,
    /// What activations are multiplied by so that their mean norm is √d_in, where the files ask for
    /// it and do not say it; 1 if it is folded into the weights
    #[arg(verbatim_doc_comment, long, value_name = "X")]
    pub(crate) scaling_factor: Option<f64>,
    /// How many features are active, where the files do not say it
    #[arg(long, value_name = "N")]
    pub(crate) k: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// A folder, or a weights file beside its configuration; one of either on the hub, as
    /// OWNER/REPO/PATH; or `demo`
    #[arg(value_name = "SAE")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

#[derive(Debug, Args)]
#[command(after_help = EVAL_HELP)]
pub(crate) struct EvalArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(long = "model", value_name = "MODEL")]
    pub(crate) name: String,
    /// The dictionary: a folder, or a weights file beside its configuration; one of either on the hub,
    /// as OWNER/REPO/PATH; or `demo`
    #[arg(verbatim_doc_comment, long, value_name = "SAE")]
    pub(crate) sae: PathBuf,
    #[command(flatten)]
    pub(crate) corpus: CorpusArgs,
    /// Prompts run at once
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(crate) batch: usize,
    /// Let activations at tokens that mark a beginning, an end or padding pass by the dictionary, and do
    /// not count them
    #[arg(verbatim_doc_comment, long)]
    pub(crate) exclude_special: bool,
    #[command(flatten)]
    pub(crate) files: FileArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

const EVAL_HELP: &str = "\
docs/sae.md has the formulas. Losses and divergences are in nats, means over predictions; the rest are
means over tokens. Sums are in f64, so nothing depends on --batch.";
