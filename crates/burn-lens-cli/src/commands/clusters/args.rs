//! The command line of `burn-lens attention-clusters`.

use std::{ops::RangeInclusive, path::PathBuf, str::FromStr};

use burn_lens::analysis::clusters::ClusterOptions;
use clap::Args;

use crate::args::ModelArgs;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ClustersArgs {
    /// A folder that `burn-lens train` or `burn-lens convert` wrote
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    /// The layers to look at; all if not given
    #[arg(long, value_name = "L", num_args = 1..)]
    pub(crate) layer: Vec<usize>,
    /// The heads to look at; all if not given
    #[arg(long, value_name = "H", num_args = 1..)]
    pub(crate) head: Vec<usize>,
    /// The sequences to look at, by number: of those that training never saw, or of --examples
    #[arg(long, value_name = "N", num_args = 1.., default_values_t = [0])]
    pub(crate) sample: Vec<usize>,
    /// Look at each checkpoint of the training in place of the model
    #[arg(long)]
    pub(crate) checkpoints: bool,
    /// Examples of your own: tensors `x` [sample, example, width] and `y` [sample, example]; and `vectors`
    /// [sample, pos, d_in] where the model does not take (x, 0) and (0, y) in turn
    #[arg(verbatim_doc_comment, long, value_name = "FILE.safetensors")]
    pub(crate) examples: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) clusters: ClusterArgs,
    #[command(flatten)]
    pub(crate) out: PictureArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// How clusters are found.
#[derive(Debug, Args)]
#[command(next_help_heading = "Clusters")]
pub(crate) struct ClusterArgs {
    /// The numbers of clusters to choose from, by silhouette
    #[arg(long, default_value = "2-9", value_name = "MIN-MAX")]
    k: Range,
    /// Starts of k-means; --seed says where from
    #[arg(long, default_value_t = ClusterOptions::default().n_init, value_name = "N")]
    n_init: usize,
    /// The share of a cluster's members from which a sign that they share is named
    #[arg(long, default_value_t = ClusterOptions::default().threshold, value_name = "SHARE")]
    share: f64,
}

/// Where pictures go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct PictureArgs {
    /// The figure, and beside it the sweep over k as FILE-k
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) svg: Option<PathBuf>,
    /// The same as PNG
    #[arg(long, value_name = "FILE.png")]
    pub(crate) png: Option<PathBuf>,
    /// A page with everything, which opens offline
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

const HELP: &str = "\
A sequence x₁ y₁ x₂ y₂ … has two kinds of queries. The rows of a head's pattern are put into clusters
by k-means, x and y queries apart; k is the one of the highest silhouette. A linear classifier says what
of the inputs tells the clusters apart, literals are signs that the members of a cluster share, and
pathways are the mean attention between the clusters in every layer.

Where there is more than one place to look at, pictures are named FILE-PLACE, and the terminal shows a
line for each; --json and --html have everything.";

/// `2-9`, or one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range(RangeInclusive<usize>);

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        match (least.trim().parse::<usize>(), most.trim().parse::<usize>()) {
            (Ok(least), Ok(most)) if 2 <= least && least <= most => Ok(Self(least..=most)),
            _ => Err(format!("`{text}` is no range of numbers of clusters, as in 2-9: at least 2")),
        }
    }
}

impl ClusterArgs {
    /// As the library takes it.
    pub(crate) fn options(&self, seed: u64) -> ClusterOptions {
        ClusterOptions { k: self.k.0.clone(), n_init: self.n_init, seed, threshold: self.share }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_k() {
        assert_eq!("2-9".parse(), Ok(Range(2..=9)));
        assert_eq!("3".parse(), Ok(Range(3..=3)));
        for text in ["1-3", "5-2", "a", "", "2-", "-3"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }
}
