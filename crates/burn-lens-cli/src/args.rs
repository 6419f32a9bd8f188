//! The command line.

use std::path::PathBuf;

use burn_lens::{
    Process,
    models::Control,
    tensor::{DeviceSpec, FloatType, Slice, kernels::Products},
};
use clap::{
    ArgAction, ArgGroup, Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use clap_complete::Shell;

use crate::{
    commands::{
        AblateArgs, AttributeArgs, CircuitsArgs, ClustersArgs, ConvertArgs, EdgesArgs, FeaturesArgs,
        HeadsArgs, LensArgs, PatchArgs, SaeArgs, SteerArgs, TrainArgs,
    },
    edits::{Ablation, Addition, Scaling},
};

/// Mechanistic interpretability of transformers: load a model, look at every activation, change any.
#[derive(Debug, Parser)]
#[command(name = "burn-lens", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no notes on standard error
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  burn-lens demo
  burn-lens hooks demo --names 'blocks.0.attn.*'
  burn-lens run demo --prompt 'When Mary and John went to the store , John gave a drink to'
  burn-lens run gpt2 --prompt 'The cat sat' --save cache.safetensors --names 'blocks.*.attn.hook_pattern'
  burn-lens generate gpt2 --prompt 'The cat sat' --ablate z5:head=1
  burn-lens attribute demo --prompt 'When Mary and John went to the store , John gave a drink to' --answer ' Mary' --against ' John' --by head
  burn-lens circuits demo --show composition --html circuits.html

MODEL is a folder (Hugging Face or TransformerLens format), a name on the Hugging Face hub, or
`demo`, the bundled model.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Analyse the bundled model: next tokens, an induction head, what ablating it does; writes a web page
    Demo(DemoArgs),
    /// What a model is made of: sizes, parameters, norms, positions, attention, valid processing steps
    Info(InfoArgs),
    /// Every activation of a model that can be read or changed, in firing order
    Hooks(HooksArgs),
    /// Continue prompts, with interventions if wanted
    Generate(GenerateArgs),
    /// Run a model once: print the likely next tokens, or save its activations
    Run(RunArgs),
    /// Which parts of a model write its answer: direct logit attribution
    Attribute(AttributeArgs),
    /// What a model would say if it stopped after each layer: the logit lens
    Lens(LensArgs),
    /// Which activations carry the answer: activation patching, from a clean into a corrupt run
    Patch(PatchArgs),
    /// Which connections between parts carry the answer: circuits by edge attribution, or by pruning
    Edges(EdgesArgs),
    /// What each part of a model does for its answer: ablation of heads, attention, MLPs, neurons
    Ablate(AblateArgs),
    /// A direction that leads from one kind of text to another: fit it, add it, save it
    Steer(SteerArgs),
    /// Which heads attend to the token before, to earlier ones, behind earlier ones; which copy
    Heads(HeadsArgs),
    /// What heads and MLPs read and write, from the weights alone: copying, composition, singular vectors
    Circuits(CircuitsArgs),
    /// What the features of a dictionary mean: where they are active, what they do to predictions
    Features(FeaturesArgs),
    /// What a dictionary of features is, and how well it stands in for an activation
    Sae(SaeArgs),
    /// Train a model that learns a task from examples in its context
    Train(Box<TrainArgs>),
    /// What heads do on sequences of examples: their attention clustered and explained
    AttentionClusters(Box<ClustersArgs>),
    /// Read a checkpoint of another program by a table of rules, or write one
    Convert(ConvertArgs),
    /// The devices that models can run on
    Devices,
    /// A completion script for a shell
    Completions(CompletionsArgs),
}

/// How a model is loaded.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// Where to run: cpu, wgpu, vulkan, metal, cuda (with an index, as in vulkan:1) or auto
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    pub(crate) device: DeviceSpec,
    /// The float type to hold and run the model in: f32, f64, bf16 or f16
    #[arg(long, default_value = "f32", value_name = "TYPE")]
    pub(crate) dtype: FloatType,
    /// How f32 is multiplied with weights: in f32, or in three products of bf16, which is faster where the
    /// processor has AMX, with errors of about 1e-5
    #[arg(long, default_value = "f32", value_name = "HOW", value_parser = products())]
    pub(crate) products: Products,
    /// Weight processing: none, default (TransformerLens's steps, those that are valid), or steps
    /// such as `fold_ln,center_unembed`
    #[arg(verbatim_doc_comment, long, default_value = "none", value_name = "STEPS")]
    pub(crate) process: Process,
    /// Replace the weights by ones that learnt nothing, to compare with
    #[arg(long, default_value = "trained", value_name = "KIND", value_parser = control())]
    pub(crate) control: Control,
    /// The seed of --control and of sampling
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// The branch, tag or commit to download from the hub
    #[arg(long, value_name = "NAME")]
    pub(crate) revision: Option<String>,
}

fn products() -> impl clap::builder::TypedValueParser<Value = Products> {
    PossibleValuesParser::new(["f32", "bf16x3"]).try_map(|name| name.parse::<Products>())
}

fn control() -> impl clap::builder::TypedValueParser<Value = Control> {
    PossibleValuesParser::new(["trained", "random", "shuffled"]).try_map(|name| name.parse::<Control>())
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where to write the web page
    #[arg(long, short, default_value = "demo.html", value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct HooksArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    /// Only hooks whose names match; short names (pattern3) and globs (`'blocks.*.attn.*'`)
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    pub(crate) shell: Shell,
}

/// What many prompts are taken from.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").args(["tokens", "text"]).required(true))]
pub(crate) struct CorpusArgs {
    /// Token ids: a tensor `tokens` [batch, pos] and, if it is there, `attention_mask`
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) tokens: Option<PathBuf>,
    /// A text, which is cut into prompts of one length
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// How long prompts of --text are; as long as the model allows, but at most 128, if not given
    #[arg(long, value_name = "N")]
    pub(crate) context: Option<usize>,
}

/// Changes to activations, repeatable; ablations come first, then scalings, then additions.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Interventions")]
pub(crate) struct EditArgs {
    /// Set an activation to zero, or to its mean over prompts and positions of this very run
    /// (padding left out; in `generate`, of the prompts)
    ///
    /// NAME is a hook's name, short (z3) or long, or a glob. `head`, `pos` and `neuron` take an
    /// index (3, -1), a range (2:7, -3:) or a list (1,4). For scores and pattern, `pos` is the
    /// destination.
    #[arg(long, value_name = "NAME[:head=,pos=,neuron=][=zero|mean]", verbatim_doc_comment)]
    pub(crate) ablate: Vec<Ablation>,
    /// Multiply an activation: `post2:neuron=7=0.5`
    #[arg(long, value_name = "NAME[:head=,pos=,neuron=]=FACTOR")]
    pub(crate) scale: Vec<Scaling>,
    /// Add a vector from a file: `resid_post5:pos=-1=steer.safetensors:direction*4`
    ///
    /// The tensor is as long as the activation's last axis, and is added at every place chosen; or
    /// it has the shape of what was chosen, where axes on the left may be left out or have length
    /// 1. TENSOR may be left out where the file holds only one.
    #[arg(
        verbatim_doc_comment,
        long,
        value_name = "NAME[:head=,pos=,neuron=]=FILE.safetensors[:TENSOR][*FACTOR]"
    )]
    pub(crate) add: Vec<Addition>,
    /// Put a dictionary in the run, whose features interventions can then name:
    /// `--sae SAE --ablate blocks.1.hook_resid_post.hook_sae_acts_post:neuron=7`
    ///
    /// SAE is a folder, or a weights file beside its configuration; one of either on the hub, as
    /// OWNER/REPO/PATH; or `demo`. What the reconstruction lacks is added, so that without
    /// interventions nothing changes.
    #[arg(verbatim_doc_comment, long, value_name = "SAE")]
    pub(crate) sae: Vec<PathBuf>,
    /// Do not add it: reconstructions take the activations' place
    #[arg(long, requires = "sae")]
    pub(crate) no_error_term: bool,
    /// Let activations at tokens that mark a beginning, an end or padding pass by dictionaries
    #[arg(long, requires = "sae")]
    pub(crate) exclude_special: bool,
}

#[derive(Debug, Args)]
#[command(after_help = GENERATE_HELP, override_usage = GENERATE_USAGE)]
pub(crate) struct GenerateArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    /// The texts to continue
    #[arg(long, short, value_name = "TEXT", num_args = 1.., required = true)]
    pub(crate) prompt: Vec<String>,
    /// How many tokens to add at most
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) max_new_tokens: usize,
    /// Divide logits by this and draw; 0 takes the most likely token
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub(crate) temperature: f64,
    /// Draw from the K most likely tokens
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Draw from the most likely tokens that together exceed probability P
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f64>,
    /// Subtract this from a token's logit for each time that it occurred
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: f64,
    /// Divide positive, multiply negative logits of tokens that occurred
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    pub(crate) repetition_penalty: f64,
    /// Stop where one of these texts appears
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    pub(crate) stop: Vec<String>,
    /// Run the whole text again for each token
    #[arg(long)]
    pub(crate) no_kv_cache: bool,
    /// Do not stop at the end token
    #[arg(long)]
    pub(crate) no_eos: bool,
    /// Whether each prompt starts with the beginning-of-sequence token; the model's rule if not given
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) prepend_bos: Option<bool>,
    #[command(flatten)]
    pub(crate) edits: EditArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

const GENERATE_HELP: &str = "\
Positions of interventions count from the first token of each prompt (the BOS token, if there is
one), and go on into the new tokens: with a prompt of 5 tokens, pos=5 is the first new one. Negative
positions count from the end of the prompt, so pos=-1 is its last token, and an open range such as
pos=-1: goes on into everything new. Without pos, an intervention applies to prompt and new tokens.";

/// What a model is run on.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").args(["prompt", "tokens"]).required(true))]
pub(crate) struct PromptArgs {
    /// The texts to run on
    #[arg(long, short, value_name = "TEXT", num_args = 1..)]
    pub(crate) prompt: Vec<String>,
    /// Token ids to run on: a tensor `tokens` [batch, pos] and, if it is there, `attention_mask`
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) tokens: Option<PathBuf>,
    /// Whether each prompt starts with the beginning-of-sequence token; the model's rule if not given
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) prepend_bos: Option<bool>,
}

#[derive(Debug, Args)]
#[command(after_help = RUN_HELP, override_usage = RUN_USAGE)]
pub(crate) struct RunArgs {
    /// A folder, a name on the hub, or `demo`
    #[arg(value_name = "MODEL")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) input: PromptArgs,
    /// Save tokens, logits and activations here instead of printing the likely next tokens
    #[arg(long, short, value_name = "OUT.safetensors")]
    pub(crate) save: Option<PathBuf>,
    /// Which activations to save; all that always fire if not given. Short names (pattern3) and
    /// globs (`'blocks.*.attn.hook_z'`)
    #[arg(verbatim_doc_comment, long, value_name = "GLOB", num_args = 1.., requires = "save")]
    pub(crate) names: Vec<String>,
    /// Run this many blocks only (0: the embedding); negative from the end. No logits then
    #[arg(long, value_name = "N", allow_negative_numbers = true, requires = "save")]
    pub(crate) stop_at_layer: Option<isize>,
    /// Save these positions only: -1, 2:7 or 0,4; destinations for scores and pattern. Tokens and
    /// logits are saved in full
    #[arg(verbatim_doc_comment, long, value_name = "SLICE", allow_hyphen_values = true, requires = "save")]
    pub(crate) pos: Option<Slice>,
    /// Say what this run would compute, keep and take in memory, and do not run it
    #[arg(long, conflicts_with = "sae")]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) edits: EditArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

// MODEL first: behind `--prompt TEXT…` it would be one more text.
const RUN_USAGE: &str = "burn-lens run <MODEL> <--prompt <TEXT>...|--tokens <FILE.safetensors>> [OPTIONS]";
const GENERATE_USAGE: &str = "burn-lens generate <MODEL> --prompt <TEXT>... [OPTIONS]";

const RUN_HELP: &str = "\
The file holds `tokens` (i32 [batch, pos]), `attention_mask` where prompts were padded, `logits`, and
each activation under its TransformerLens name and in its shape and dtype. Positions, of
interventions and of --pos, are columns of `tokens`: 0 is the first (the BOS token, if there is one),
-1 the last (padding, for a prompt that is shorter than others).";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
