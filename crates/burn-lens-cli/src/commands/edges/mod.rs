//! `burn-lens edges`

mod output;

use std::{ops::ControlFlow, path::PathBuf};

use burn_lens::{
    Pretrained, Tokens,
    analysis::interventions::{CircuitSweep, EdgeGradients, EdgeRuns, EdgeScores, Engine, EngineOptions},
    hooks::HookedModel as _,
};
use clap::{Args, ValueEnum};

use crate::{
    args::ModelArgs,
    error::{CliError, check_folder},
    load::load,
    measure::{Measure, MetricArgs, PairArgs},
    progress::Progress,
    report::Report,
};

#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = HELP)]
pub(crate) struct EdgesArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) pair: PairArgs,
    #[command(flatten)]
    pub(crate) metric: MetricArgs,
    /// Score all edges by gradients, on the clean run or on the way to the corrupt one; or test one
    /// after the other
    #[arg(long, default_value = "eap-ig", value_name = "METHOD", verbatim_doc_comment)]
    pub(crate) method: Method,
    /// Of how many gradients eap-ig takes the mean
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) steps: usize,
    /// Keep edges whose cut moves the metric by at least this much, in its own unit; a circuit for each
    /// of several
    #[arg(
        long,
        required = true,
        value_name = "T[,T…]",
        value_delimiter = ',',
        num_args = 1..,
        value_parser = threshold,
        verbatim_doc_comment
    )]
    pub(crate) threshold: Vec<f64>,
    /// How many edges to list of each circuit, the largest effects first; all with --json
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) top: usize,
    #[command(flatten)]
    pub(crate) out: OutArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// What is written. Drawings of several circuits have their thresholds in their names.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutArgs {
    /// What --json prints
    #[arg(long, value_name = "FILE.json")]
    pub(crate) save: Option<PathBuf>,
    /// A drawing of each circuit, as FILE-T of several
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) svg: Option<PathBuf>,
    /// The same for Graphviz
    #[arg(long, value_name = "FILE.dot")]
    pub(crate) dot: Option<PathBuf>,
    /// A page with everything, which opens offline
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

// MODEL first: behind `--clean TEXT…` it would be one more text.
const USAGE: &str = "burn-lens edges <MODEL> --clean <TEXT>... --corrupt <TEXT>... --answer <TOKEN>... \
                     [--against <TOKEN>...] --threshold <T>[,<T>…] [--method <METHOD>] [OPTIONS]";

const HELP: &str = "\
The model runs on the clean prompts; an edge that is cut carries what it carries in the corrupt run.
Methods: eap (edge attribution patching), eap-ig (the same with integrated gradients), acdc (cut one
edge after the other, from the logits back; a run for each). Faithfulness is the circuit's share of
the way from a model with every edge cut (0) to the whole model (1). Edges that lie on no path from
the embedding to the logits are left out.";

/// How edges are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Gradients of the clean run
    Eap,
    /// Gradients on the way from the clean to the corrupt embedding
    EapIg,
    /// One cut after the other
    Acdc,
}

fn threshold(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0);
    value.ok_or_else(|| "expected a number of at least 0".to_owned())
}

/// What was found.
struct Found {
    measure: Measure,
    sweep: CircuitSweep,
    /// What the edges were chosen by, but for pruning.
    scores: Option<EdgeScores>,
    /// The rows of a drawing.
    rows: Vec<(String, Vec<String>)>,
    clean: Tokens,
    corrupt: Tokens,
}

/// Finds circuits.
pub(crate) fn edges(args: &EdgesArgs, progress: &Progress) -> Result<Report, CliError> {
    let OutArgs { save, svg, dot, html } = &args.out;
    for path in [save, svg, dot, html].into_iter().flatten() {
        check_folder(path)?;
    }
    let lens = load(&args.name, &args.model, progress)?;
    let found = found(args, &lens, progress)?;
    output::report(args, &lens, &found)
}

fn found(args: &EdgesArgs, lens: &Pretrained, progress: &Progress) -> Result<Found, CliError> {
    let mut thresholds = args.threshold.clone();
    thresholds.sort_by(f64::total_cmp);
    thresholds.dedup();
    let [clean, corrupt] = args.pair.tokens(lens)?;
    let reference = || {
        let output = lens.model.run_with_hooks(&clean.input(), &clean.options(), Vec::new())?;
        Ok(output.into_logits()?)
    };
    let measure = args.metric.measure(lens, clean.batch.ids.len(), reference)?;
    let engine =
        Engine::new(&lens.model, &clean.ids, &clean.options(), &measure.metric, EngineOptions::default())?;
    let runs = EdgeRuns::new(&engine, &corrupt.input())?;
    let gradients = match args.method {
        Method::Eap => Some(EdgeGradients::Base),
        Method::EapIg => Some(EdgeGradients::Integrated(args.steps)),
        Method::Acdc => None,
    };
    let (scores, sweep) = if let Some(at) = gradients {
        let scores = engine.edge_attribution(&corrupt.input(), at)?;
        let sweep = runs.select(&scores, &thresholds)?;
        (Some(scores), sweep)
    } else {
        let counter = progress.counter("pruning", runs.nodes().edges().len());
        let sweep = runs.prune(&thresholds, &mut |tested, _| {
            counter.at(tested);
            ControlFlow::Continue(())
        })?;
        (None, sweep)
    };
    let rows = runs.nodes().rows();
    Ok(Found { measure, sweep, scores, rows, clean, corrupt })
}
