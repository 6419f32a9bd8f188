//! What can go wrong between this process and the outside world.

use std::{
    io,
    path::{Path, PathBuf},
};

/// An error of another crate, kept as the source of ours.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a file, a download or a tokenizer did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IoError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Os {
        /// What was tried: `read`, `write`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A folder lacks a file that is needed.
    #[error("{} has no {file}", folder.display())]
    NoFile {
        /// The folder.
        folder: PathBuf,
        /// The missing file, or the alternatives.
        file: String,
    },
    /// A JSON file is not JSON, or not of the expected form.
    #[error("{} is not the JSON that was expected", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Source,
    },

    /// A TOML file is not TOML, or not of the expected form.
    #[error("{} is not the TOML that was expected", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Source,
    },
    /// A YAML file is not YAML, or not of the expected form.
    #[error("{} is not the YAML that was expected", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Source,
    },
    /// A settings file is neither TOML nor JSON by its name.
    #[error("{} should end in .toml or .json", path.display())]
    SettingsFormat {
        /// The file.
        path: PathBuf,
    },
    /// A safetensors header is malformed: not JSON, overlapping or missing bytes, a shape that
    /// does not fit its bytes.
    #[error("{} is not a valid safetensors file", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with the header.
        source: Source,
    },
    /// A file is shorter or longer than its header says: usually an interrupted download.
    #[error("{} should be {expected} bytes long by its header, but has {found}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// The length that the header implies.
        expected: u64,
        /// The length of the file.
        found: u64,
    },
    /// A `PyTorch` file is malformed, or of a kind that is not read.
    #[error("{} is not a PyTorch checkpoint that can be read", path.display())]
    Torch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Source,
    },
    /// A NumPy archive is malformed.
    #[error("{} is not an archive of NumPy arrays that can be read", path.display())]
    Npz {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Source,
    },
    /// A pickle refers to Python code that tensors do not need. Nothing of it was executed.
    #[error(
        "{} refers to the Python object `{global}`, which no tensor needs; the file is refused (nothing in it was executed)",
        path.display()
    )]
    PickleGlobal {
        /// The file.
        path: PathBuf,
        /// The object, as `module.name`.
        global: String,
    },
    /// A tensor has a dtype that burn has no counterpart for.
    #[error("tensor `{tensor}` in {} has dtype {found}, which cannot be represented", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        found: String,
    },
    /// The bytes of one tensor could not be read.
    #[error("cannot read tensor `{tensor}` from {}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Why.
        source: io::Error,
    },
    /// Two tensors of the same name were to be saved.
    #[error("two tensors named `{tensor}` were to be written to {}", path.display())]
    DuplicateTensor {
        /// The file.
        path: PathBuf,
        /// The name.
        tensor: String,
    },

    /// A shard that the index names is not in the folder.
    #[error("{} places `{tensor}` (and {others} more) in {shard}, which is not there", index.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The missing shard.
        shard: String,
        /// One of its tensors.
        tensor: String,
        /// How many more it should hold.
        others: usize,
    },
    /// A shard lacks a tensor that the index places there.
    #[error("{} places `{tensor}` in {shard}, which does not hold it{}", index.display(), hint(nearest))]
    MissingFromShard {
        /// The index file.
        index: PathBuf,
        /// The shard.
        shard: String,
        /// The tensor.
        tensor: String,
        /// The closest names that the shard holds.
        nearest: Vec<String>,
    },
    /// An index points outside its folder.
    #[error("{} places `{tensor}` in `{shard}`, which is not a file name inside the folder", index.display())]
    ShardPath {
        /// The index file.
        index: PathBuf,
        /// The path found.
        shard: String,
        /// The tensor.
        tensor: String,
    },

    /// What was given is neither a folder nor the name of a model on the hub.
    #[error("`{name}` is neither a folder nor a model name on the hub{}", hint(nearest))]
    UnknownModel {
        /// What was given.
        name: String,
        /// Folders with a similar name, next to where it was looked for.
        nearest: Vec<String>,
    },
    /// What was given is neither a path nor a place on the hub where a dictionary can be.
    #[error(
        "`{name}` is neither a folder, nor a weights file, nor a dictionary on the hub (OWNER/REPO/PATH){}",
        hint(nearest)
    )]
    UnknownDictionary {
        /// What was given.
        name: String,
        /// Paths with a similar name, next to where it was looked for.
        nearest: Vec<String>,
    },
    /// A folder was expected, but it is a file.
    #[error("{} is a file, not a model folder; a single weights file is opened with `Checkpoint::open_file`", path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// The crate was built without the feature `hub`.
    #[error("`{name}` is not a folder, and this build cannot download: it lacks the feature `hub`")]
    NoHub {
        /// What was given.
        name: String,
    },
    /// The hub has no such repository, revision or file.
    #[error("the hub has no {file} in `{repo}` at revision `{revision}`")]
    NotOnHub {
        /// The repository.
        repo: String,
        /// The revision asked for.
        revision: String,
        /// The file, or the alternatives.
        file: String,
    },
    /// The hub wants a token, or refused the one that it got.
    #[error("the hub refused {file} of `{repo}`: {}", if *had_token { "the token given has no access to it" } else { "it is private, gated or does not exist; set HF_TOKEN or HubOptions::token to a token with access to it" })]
    TokenNeeded {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// Whether a token was sent.
        had_token: bool,
    },
    /// Downloads are off and the file is not in the cache.
    #[error("{file} of `{repo}` is not in the cache {}, and downloads are off", cache.display())]
    Offline {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// The cache searched.
        cache: PathBuf,
    },
    /// A download failed.
    #[error("cannot download {file} of `{repo}`")]
    Download {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// Why.
        source: Source,
    },
    /// A download ended early. The partial file was removed.
    #[error("the download of {file} of `{repo}` ended after {found} of {expected} bytes; try again")]
    PartialDownload {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// The length that the hub announced.
        expected: u64,
        /// The length received.
        found: u64,
    },

    /// A tokenizer file is malformed.
    #[error("{} is not a tokenizer that can be read", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Source,
    },
    /// The tokenizer failed on a text.
    #[error("the tokenizer of {origin} failed on {text:?}")]
    Tokenize {
        /// The tokenizer's folder.
        origin: String,
        /// The text.
        text: String,
        /// Why.
        source: Source,
    },
    /// A special token was asked for that the tokenizer does not have.
    #[error("the tokenizer of {origin} has no {role} token{}", if *role == "BOS" { ", so none can be prepended: tokenize with `prepend_bos` false" } else { "" })]
    NoSpecialToken {
        /// The tokenizer's folder.
        origin: String,
        /// `BOS`, `EOS`, `padding`.
        role: &'static str,
    },
    /// An id that no token has.
    #[error("token id {id} is outside the vocabulary of {vocab_size} tokens")]
    TokenId {
        /// The id.
        id: i64,
        /// The size of the vocabulary.
        vocab_size: usize,
    },
    /// A string that should be one token is several, or none.
    #[error("{text:?} is not a single token but {}: {pieces:?}", pieces.len())]
    NotOneToken {
        /// The string.
        text: String,
        /// What it is split into.
        pieces: Vec<String>,
    },
    /// A token does not occur in the input.
    #[error("token {token:?} does not occur in the input {pieces:?}")]
    TokenAbsent {
        /// The token.
        token: String,
        /// The input, token by token.
        pieces: Vec<String>,
    },
    /// A prompt has no tokens at all.
    #[error("prompt {index} is empty and no BOS token is prepended, so there is nothing to run on")]
    EmptyPrompt {
        /// Which prompt of the batch.
        index: usize,
    },
}

impl IoError {
    /// For `map_err` on file operations.
    pub(crate) fn os(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Os { action, path: path.to_owned(), source }
    }

    /// For `map_err` on JSON parsing.
    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { path: path.to_owned(), source: source.into() }
    }
}

fn hint(nearest: &[String]) -> String {
    if nearest.is_empty() {
        String::new()
    } else {
        format!("; the nearest names there are: {}", nearest.join(", "))
    }
}
