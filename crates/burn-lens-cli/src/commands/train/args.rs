//! The command line of `burn-lens train`.

use std::path::PathBuf;

use burn_lens::tensor::DeviceSpec;
use burn_lens_train::{
    Schedule, TrainConfig,
    in_context::{
        Boolean, Classification, Function, Layout, ModelSize, Problem, Recipe, Regression, Selection,
    },
};
use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(subcommand)]
    pub(crate) command: TrainCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrainCommand {
    /// Linear regression in context: y = w·x + noise
    IclRegression(RegressionArgs),
    /// Model selection in context: which of several ridge regressions to trust
    IclSelection(SelectionArgs),
    /// Classification in context: labels of a logistic model
    IclClassification(ClassificationArgs),
    /// Boolean functions in context: of a few signs among many
    IclBoolean(BooleanArgs),
    /// Go on with a run that was interrupted, to the same weights as if it had not been
    Resume(ResumeArgs),
}

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct RegressionArgs {
    /// How long x is
    #[arg(long, default_value_t = Regression::default().dimensions, value_name = "N")]
    dimensions: usize,
    /// Examples in a sequence
    #[arg(long, default_value_t = Regression::default().examples, value_name = "N")]
    examples: usize,
    /// The standard deviation of the noise
    #[arg(long, default_value_t = Regression::default().noise, value_name = "X")]
    noise: f64,
    #[command(flatten)]
    run: NewRunArgs,
}

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct SelectionArgs {
    /// The penalties of the regressions, which are the scales of noise as well
    #[arg(long, default_values_t = Selection::default().alphas, value_delimiter = ',', value_name = "X,X")]
    alphas: Vec<f64>,
    /// How long a point is
    #[arg(long, default_value_t = Selection::default().dimensions, value_name = "N")]
    dimensions: usize,
    /// Points that the regressions are fitted on
    #[arg(long, default_value_t = Selection::default().fitted, value_name = "N")]
    fitted: usize,
    /// Examples in a sequence
    #[arg(long, default_value_t = Selection::default().examples, value_name = "N")]
    examples: usize,
    /// Inputs and targets in turn (`attention-clusters` needs that), or side by side with one
    /// question at the end
    #[arg(long, default_value = "rows", value_name = "LAYOUT")]
    layout: LayoutArg,
    #[command(flatten)]
    run: NewRunArgs,
}

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ClassificationArgs {
    /// How long x is
    #[arg(long, default_value_t = Classification::default().dimensions, value_name = "N")]
    dimensions: usize,
    /// Examples in a sequence
    #[arg(long, default_value_t = Classification::default().examples, value_name = "N")]
    examples: usize,
    /// How sure labels are: 1 with probability 1 / (1 + exp(-sharpness · w·x))
    #[arg(long, default_value_t = Classification::default().sharpness, value_name = "X")]
    sharpness: f64,
    #[command(flatten)]
    run: NewRunArgs,
}

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct BooleanArgs {
    /// How many signs x has
    #[arg(long, default_value_t = Boolean::default().dimensions, value_name = "N")]
    dimensions: usize,
    /// Examples in a sequence
    #[arg(long, default_value_t = Boolean::default().examples, value_name = "N")]
    examples: usize,
    /// The kind of function
    #[arg(long, default_value = "majority", value_name = "KIND")]
    function: FunctionArg,
    /// How many signs it looks at
    #[arg(long, default_value_t = Boolean::default().terms, value_name = "N")]
    terms: usize,
    #[command(flatten)]
    run: NewRunArgs,
}

/// How examples stand in a sequence.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutArg {
    Rows,
    Interleaved,
}

/// A kind of boolean function.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FunctionArg {
    Conjunction,
    Disjunction,
    Majority,
    Parity,
}

/// What becomes of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScheduleArg {
    Constant,
    Linear,
    Cosine,
}

/// What every new run takes.
#[derive(Debug, Args)]
pub(crate) struct NewRunArgs {
    /// The folder to write to; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Where weights and sequences come from
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Checkpoints along the way; from the last one `burn-lens train resume` goes on
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) checkpoints: usize,
    /// Unseen sequences that the trained model is compared with the baselines on
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub(crate) test: usize,
    /// Say what it would cost, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    size: SizeArgs,
    #[command(flatten)]
    optimizer: OptimizerArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
struct SizeArgs {
    /// Blocks
    #[arg(long, default_value_t = ModelSize::default().n_layers, value_name = "N")]
    layers: usize,
    /// Heads in each
    #[arg(long, default_value_t = ModelSize::default().n_heads, value_name = "N")]
    heads: usize,
    /// The width of the residual stream
    #[arg(long, default_value_t = ModelSize::default().d_model, value_name = "N")]
    d_model: usize,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Optimizer")]
struct OptimizerArgs {
    /// Steps, each on a batch of fresh sequences
    #[arg(long, default_value_t = 6000, value_name = "N")]
    steps: usize,
    /// Sequences in a batch
    #[arg(long, default_value_t = 64, value_name = "N")]
    batch: usize,
    /// The highest learning rate
    #[arg(long, default_value_t = 2e-3, value_name = "X")]
    learning_rate: f64,
    /// Steps until it is reached; a tenth of all, but at most 100, if not given
    #[arg(long, value_name = "N")]
    warmup: Option<usize>,
    /// What becomes of the learning rate after that
    #[arg(long, default_value = "cosine", value_name = "KIND")]
    schedule: ScheduleArg,
    /// What it falls to, as a share
    #[arg(long, default_value_t = 0.02, value_name = "X")]
    final_fraction: f64,
    /// Decoupled weight decay, of matrices
    #[arg(long, default_value_t = 0.01, value_name = "X")]
    weight_decay: f64,
    /// Gradients are scaled down to this norm; 0 leaves them
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    clip_norm: f64,
}

#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// Where to run: cpu, wgpu, vulkan, metal, cuda (with an index, as in vulkan:1) or auto
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    pub(crate) device: DeviceSpec,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The --out folder of the run
    #[arg(value_name = "DIR")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

const HELP: &str = "\
OUT is then a MODEL for every other command. It also holds training.json (every setting),
metrics.jsonl (a line for each step), curves.json (errors by the number of examples, beside every
baseline), training.html (the same as pictures) and checkpoints/step-N, each a MODEL too.";

impl TrainCommand {
    /// What is to be learnt, and how the run is set up, unless it is one that goes on.
    pub(crate) fn new_run(&self) -> Option<(Problem, &NewRunArgs)> {
        match self {
            Self::IclRegression(args) => {
                let RegressionArgs { dimensions, examples, noise, .. } = *args;
                Some((Problem::Regression(Regression { dimensions, examples, noise }), &args.run))
            }
            Self::IclSelection(args) => {
                let SelectionArgs { dimensions, fitted, examples, .. } = *args;
                let layout = match args.layout {
                    LayoutArg::Rows => Layout::Rows,
                    LayoutArg::Interleaved => Layout::Interleaved,
                };
                let alphas = args.alphas.clone();
                let selection = Selection { alphas, dimensions, fitted, examples, layout };
                Some((Problem::Selection(selection), &args.run))
            }
            Self::IclClassification(args) => {
                let ClassificationArgs { dimensions, examples, sharpness, .. } = *args;
                Some((Problem::Classification(Classification { dimensions, examples, sharpness }), &args.run))
            }
            Self::IclBoolean(args) => {
                let BooleanArgs { dimensions, examples, terms, .. } = *args;
                let function = match args.function {
                    FunctionArg::Conjunction => Function::Conjunction,
                    FunctionArg::Disjunction => Function::Disjunction,
                    FunctionArg::Majority => Function::Majority,
                    FunctionArg::Parity => Function::Parity,
                };
                Some((Problem::Boolean(Boolean { dimensions, examples, function, terms }), &args.run))
            }
            Self::Resume(_) => None,
        }
    }
}

impl NewRunArgs {
    /// The run as one description.
    pub(crate) fn recipe(&self, problem: Problem) -> Recipe {
        let OptimizerArgs { steps, batch, learning_rate, final_fraction, weight_decay, clip_norm, .. } =
            self.optimizer;
        let training = TrainConfig {
            steps,
            learning_rate,
            warmup_steps: self.optimizer.warmup.unwrap_or_else(|| (steps / 10).min(100)),
            schedule: match self.optimizer.schedule {
                ScheduleArg::Constant => Schedule::Constant,
                ScheduleArg::Linear => Schedule::Linear,
                ScheduleArg::Cosine => Schedule::Cosine,
            },
            final_fraction,
            weight_decay,
            clip_norm: (clip_norm != 0.0).then_some(clip_norm),
            seed: self.seed,
            ..TrainConfig::default()
        };
        let SizeArgs { layers: n_layers, heads: n_heads, d_model } = self.size;
        Recipe { problem, model: ModelSize { n_layers, n_heads, d_model }, training, batch }
    }
}
