//! Errors as a user reads them: what failed, why, and what to do about it.

use std::{
    error::Error as _,
    io,
    panic::PanicHookInfo,
    path::{Path, PathBuf},
};

use burn_lens::{
    DEMO, Error as LensError,
    analysis::AnalysisError,
    hooks::RunError,
    io::IoError,
    linalg::LinalgError,
    models::{ModelError, convert::ConvertError},
    sae::{SaeError, features::FeatureError},
    tensor::nearest,
};
use burn_lens_train::TrainError;
use burn_lens_viz::VizError;

use crate::{
    edits::EditError,
    report::{ERROR, HINT},
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Loading or running a model.
    #[error(transparent)]
    Lens(Box<LensError>),
    /// An intervention that does not fit the model.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// A picture.
    #[error(transparent)]
    Viz(#[from] VizError),
    /// An analysis.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// A file without a text.
    #[error("there is no text in {}", path.display())]
    EmptyText {
        /// The file.
        path: PathBuf,
    },
    /// Prompts of a length that the model does not take.
    #[error("--context {context} is not from 2 to {n_ctx}, the context of the model")]
    Context {
        /// What was asked for.
        context: usize,
        /// What the model takes.
        n_ctx: usize,
    },
    /// A token given as text or id that is not one.
    #[error("--{flag} {text:?} is not a token of this model: {reason}")]
    NotAToken {
        /// The flag.
        flag: &'static str,
        /// What was given.
        text: String,
        /// Why it is none.
        reason: String,
    },
    /// As many answers as prompts, or one.
    #[error("--{flag} was given {found} times for {prompts} prompts: give it once, or once for each prompt")]
    AnswerCount {
        /// The flag.
        flag: &'static str,
        /// How many were given.
        found: usize,
        /// How many prompts there are.
        prompts: usize,
    },
    /// Clean and corrupt prompts that do not lie position on position.
    #[error(
        "clean and corrupt prompts differ in length: {clean:?} tokens against {corrupt:?}; patching puts position on position"
    )]
    PairLengths {
        /// Tokens of each clean prompt.
        clean: Vec<usize>,
        /// Tokens of each corrupt prompt.
        corrupt: Vec<usize>,
    },
    /// A saved state of a sweep that is none.
    #[error("{} does not hold the state of a sweep", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: serde_json::Error,
    },
    /// A layer or head that the model does not have.
    #[error("--{what} {value} is outside 0..{count}")]
    OutOfRange {
        /// The flag.
        what: &'static str,
        /// What was given.
        value: usize,
        /// How many there are.
        count: usize,
    },
    /// A matrix that cannot be shown this way.
    #[error("--of {of:?} makes no sense here: expected {choices}")]
    NoSuchMatrix {
        /// What was given.
        of: String,
        /// What can be given.
        choices: &'static str,
    },
    /// A flag that something else needs.
    #[error("{what} needs {flag}")]
    Needs {
        /// What.
        what: &'static str,
        /// The flag.
        flag: &'static str,
    },
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A checkpoint of another program.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// What a folder says of its training.
    #[error("{} does not describe a run of training", path.display())]
    TrainingFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A new run in the folder of another.
    #[error("{} already holds a run of training", path.display())]
    RunThere {
        /// The folder.
        path: PathBuf,
    },
    /// Nothing to go on with.
    #[error("{} holds no run of training: it has no training.json", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// A model without the checkpoints of its training.
    #[error("there are no checkpoints in {}", path.display())]
    NoCheckpoints {
        /// The folder.
        path: PathBuf,
    },
    /// A model that does not take examples.
    #[error("{model} cannot be run on examples: {reason}")]
    NoExamples {
        /// The model.
        model: String,
        /// Why not.
        reason: String,
    },
    /// A head whose rows make no clusters.
    #[error("{place}: {reason}")]
    NotClustered {
        /// Which head, on what.
        place: String,
        /// Why not.
        reason: String,
    },
    /// A tensor of examples is of another kind.
    #[error("`{tensor}` in {} is {dtype} of shape {shape:?}, expected floats of shape {expected}", path.display())]
    ExamplesShape {
        /// The file.
        path: PathBuf,
        /// Which tensor.
        tensor: &'static str,
        /// Its dtype.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The shape wanted.
        expected: String,
    },
    /// Standard output.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// A file of tokens lacks the tensor.
    #[error("{} has no tensor `{tensor}`; it holds {}", path.display(), list(found))]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// What is missing.
        tensor: &'static str,
        /// What it holds.
        found: Vec<String>,
    },
    /// A tensor of tokens is of another kind.
    #[error("`{tensor}` in {} is {dtype} of shape {shape:?}, expected i32 or i64 of shape {expected}", path.display())]
    TokensShape {
        /// The file.
        path: PathBuf,
        /// Which tensor.
        tensor: &'static str,
        /// Its dtype.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The shape wanted.
        expected: String,
    },
    /// A tensor of vectors is of another kind.
    #[error("`vectors` in {} is {dtype} of shape {shape:?}, expected floats of shape [vector, d]", path.display())]
    VectorsShape {
        /// The file.
        path: PathBuf,
        /// Its dtype.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// What a run of features was started with cannot be kept or read.
    #[error("cannot keep or read what the run of features was started with")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There are more shards than prompts.
    #[error("this shard holds no prompt: there are only {n_prompts}")]
    EmptyShard {
        /// How many prompts there are.
        n_prompts: usize,
    },
    /// A folder of features, without the number of one.
    #[error("{} holds many features: --feature N says which", path.display())]
    WhichFeature {
        /// The folder.
        path: PathBuf,
    },
    /// A feature that a file does not hold.
    #[error("{} holds no feature {}; it holds {found:?}", path.display(), feature.map_or_else(String::new, |feature| feature.to_string()))]
    NoFeature {
        /// The file.
        path: PathBuf,
        /// The feature.
        feature: Option<usize>,
        /// What it holds.
        found: Vec<usize>,
    },
    /// Activations were asked for of which the shortened run reaches none.
    #[error("`{name}` names nothing that a run with --stop-at-layer {stop} reaches")]
    NotReached {
        /// The activation, or the glob that selects only such.
        name: String,
        /// The layer.
        stop: isize,
        /// What the model said.
        source: Box<RunError>,
    },
    /// The folder of a result is missing; said before anything is computed.
    #[error("cannot write {}: there is no folder {}", path.display(), folder.display())]
    NoFolder {
        /// The file to write.
        path: PathBuf,
        /// Where it should go.
        folder: PathBuf,
    },
    /// The bundled model's context is too short.
    #[error("the model's context of {n_ctx} tokens is too short for the demonstration, which needs {needed}")]
    DemoContext {
        /// What it has.
        n_ctx: usize,
        /// What is needed.
        needed: usize,
    },
}

/// Refuses a file whose folder is missing, before the work that it is to hold is done.
pub(crate) fn check_folder(path: &Path) -> Result<(), CliError> {
    match path.parent() {
        Some(folder) if folder != Path::new("") && !folder.is_dir() => {
            Err(CliError::NoFolder { path: path.to_owned(), folder: folder.to_owned() })
        }
        _ => Ok(()),
    }
}

fn list(names: &[String]) -> String {
    const MOST: usize = 8;
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<String> = names.iter().take(MOST).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > MOST { format!(" and {} more", names.len() - MOST) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

impl From<LensError> for CliError {
    fn from(error: LensError) -> Self {
        Self::Lens(Box::new(error))
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        LensError::from(error).into()
    }
}

impl From<LinalgError> for CliError {
    fn from(error: LinalgError) -> Self {
        AnalysisError::from(error).into()
    }
}

impl From<IoError> for CliError {
    fn from(error: IoError) -> Self {
        LensError::from(error).into()
    }
}

impl From<FeatureError> for CliError {
    fn from(error: FeatureError) -> Self {
        LensError::from(error).into()
    }
}

impl From<SaeError> for CliError {
    fn from(error: SaeError) -> Self {
        LensError::from(error).into()
    }
}

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> Self {
        LensError::from(error).into()
    }
}

impl CliError {
    /// The error, its causes and a hint, a line each.
    pub(crate) fn report(&self) -> String {
        let mut said = self.to_string();
        let mut text = format!("{ERROR}error:{ERROR:#} {said}\n");
        let mut source = self.source();
        while let Some(cause) = source {
            let message = cause.to_string();
            // Some messages hold that of their cause.
            if !said.contains(&message) {
                text = format!("{text}  caused by: {message}\n");
                said.push_str(&message);
            }
            source = cause.source();
        }
        if let Some(hint) = self.hint() {
            text = format!("{text}{HINT}hint:{HINT:#} {hint}\n");
        }
        text
    }

    fn hint(&self) -> Option<String> {
        if let Self::Lens(error) = self
            && let LensError::Io(IoError::Download { repo, .. }) = &**error
            && let Some(near) = nearest(repo, [DEMO]).first()
        {
            return Some(format!("did you mean `{near}`, the bundled model?"));
        }
        self.fixed_hint().map(str::to_owned)
    }

    fn fixed_hint(&self) -> Option<&'static str> {
        match self {
            Self::Lens(error) => lens_hint(error),
            Self::Edit(error) => error.run_error().and_then(run_hint),
            Self::NoTensor { .. } | Self::TokensShape { .. } => Some(
                "--tokens reads the token ids from a tensor `tokens` [batch, pos] and, if it is there, `attention_mask` of the same shape",
            ),
            Self::RunThere { .. } => Some(
                "`burn-lens train resume DIR` goes on with it; for a new one give another folder as --out",
            ),
            Self::NoExamples { .. } => Some(
                "`burn-lens train icl-regression` makes a model that says what it was trained on; for others give --examples FILE.safetensors",
            ),
            _ => None,
        }
    }
}

fn lens_hint(error: &LensError) -> Option<&'static str> {
    match error {
        LensError::Io(error) => io_hint(error),
        LensError::NoTokenizer { .. } => {
            Some("`burn-lens run MODEL --tokens FILE.safetensors` takes token ids instead of text")
        }
        LensError::Model(ModelError::Processing { .. }) => Some(
            "`--process default` takes the steps that are valid for the model; `burn-lens info` lists them",
        ),
        LensError::Run(error) => run_hint(error),
        _ => None,
    }
}

fn io_hint(error: &IoError) -> Option<&'static str> {
    match error {
        IoError::UnknownModel { .. } => Some(
            "MODEL is a folder that holds config.json, a name on the hub such as `gpt2`, or `demo` for the bundled model",
        ),
        IoError::UnknownDictionary { .. } => Some(
            "SAE is a folder that holds its weights, a weights file, a place on the hub such as `google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71`, or `demo` for the bundled dictionary",
        ),
        IoError::NotAFolder { .. } => Some("give the folder that holds the file and its config.json"),
        IoError::Download { .. } | IoError::PartialDownload { .. } => Some(
            "check the name and the network; a model that is already downloaded also loads with HF_HUB_OFFLINE=1, and a folder needs no network",
        ),
        IoError::NoSpecialToken { role: "padding", .. } => {
            Some("prompts of different lengths are padded; without a padding token, run them one at a time")
        }
        _ => None,
    }
}

fn run_hint(error: &RunError) -> Option<&'static str> {
    match error {
        RunError::UnknownHook(_) | RunError::CannotFire { .. } => {
            Some("`burn-lens hooks MODEL` lists every hook of a model")
        }
        RunError::TooLong { .. } => Some("shorten the prompt"),
        _ => None,
    }
}

/// What a panic says: always a bug.
pub(crate) fn internal(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("no message");
    let place =
        info.location().map_or_else(String::new, |place| format!(" ({}:{})", place.file(), place.line()));
    format!(
        "{ERROR}error:{ERROR:#} internal error: {message}{place}\nThis is a bug of burn-lens; please report it with the command that you ran."
    )
}
