//! From what a user typed, a folder or a name on the Hugging Face hub, to a local folder.

#[cfg(feature = "hub")]
mod download;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn_lens_tensor::nearest;

use crate::IoError;

/// How far the download of one file is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DownloadProgress<'a> {
    /// The repository.
    pub repo: &'a str,
    /// The file in it.
    pub file: &'a str,
    /// Bytes received.
    pub done: u64,
    /// Bytes in all; 0 where the hub did not say.
    pub total: u64,
    /// Whether the file is complete.
    pub finished: bool,
}

/// Called as a download advances, from another thread; it must not block.
type OnProgress = Arc<dyn Fn(DownloadProgress<'_>) + Send + Sync>;

/// How to download; the default takes everything from the environment.
///
/// ```
/// use std::sync::Arc;
///
/// use burn_lens_io::HubOptions;
///
/// let options = HubOptions {
///     revision: Some("step3000".to_owned()),
///     progress: Some(Arc::new(|at| eprintln!("{} {}/{}", at.file, at.done, at.total))),
///     ..HubOptions::default()
/// };
/// # let _ = options;
/// ```
#[derive(Clone, Default)]
pub struct HubOptions {
    /// A branch, tag or commit; `main` if not given.
    pub revision: Option<String>,
    /// An access token; `HF_TOKEN`, or what `hf auth login` stored, if not given.
    pub token: Option<String>,
    /// The hub; `HF_ENDPOINT`, or the public one, if not given.
    pub endpoint: Option<String>,
    /// Where downloads are kept; `HF_HUB_CACHE`, or `hub` in `HF_HOME`, if not given.
    pub cache: Option<PathBuf>,
    /// Whether to use the cache only; if not given, whether `HF_HUB_OFFLINE` is set.
    pub offline: Option<bool>,
    /// Told how downloads advance.
    pub progress: Option<OnProgress>,
}

impl fmt::Debug for HubOptions {
    /// Leaves the token out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("revision", &self.revision)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}

/// The folder of a model, given that folder or the model's name on the hub.
///
/// A folder that exists is taken as it is. Otherwise `config.json`, the tokenizer's files and
/// the weights are downloaded, safetensors if there are any, unless they are in the cache,
/// which is the one that the Python library uses.
///
/// ```no_run
/// use burn_lens_io::{Checkpoint, HubOptions, resolve};
///
/// let folder = resolve("EleutherAI/pythia-70m", &HubOptions::default())?;
/// let checkpoint = Checkpoint::open(folder)?;
/// # Ok::<(), burn_lens_io::IoError>(())
/// ```
///
/// # Errors
///
/// If it is neither a folder nor a model name, or the download fails.
pub fn resolve(name_or_folder: &str, options: &HubOptions) -> Result<PathBuf, IoError> {
    let path = Path::new(name_or_folder);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    if path.is_file() {
        return Err(IoError::NotAFolder { path: path.to_owned() });
    }
    let nearest = folders_like(path);
    let unknown = IoError::UnknownModel { name: name_or_folder.to_owned(), nearest };
    if !is_hub_name(name_or_folder) {
        return Err(unknown);
    }
    match download(name_or_folder, options) {
        // More likely a misspelt folder than a model that the hub does not have.
        Err(
            IoError::NotOnHub { .. }
            | IoError::TokenNeeded { had_token: false, .. }
            | IoError::Offline { .. },
        ) if matches!(&unknown, IoError::UnknownModel { nearest, .. } if !nearest.is_empty()) => Err(unknown),
        result => result,
    }
}

#[cfg(feature = "hub")]
fn download(name: &str, options: &HubOptions) -> Result<PathBuf, IoError> {
    download::download(name, options)
}

#[cfg(not(feature = "hub"))]
fn download(name: &str, _options: &HubOptions) -> Result<PathBuf, IoError> {
    Err(IoError::NoHub { name: name.to_owned() })
}

/// Whether a repository can have this name: `gpt2`, `EleutherAI/pythia-70m`.
fn is_hub_name(name: &str) -> bool {
    /// The hub's own limit.
    const LONGEST: usize = 96;
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.len() <= LONGEST && name.split('/').count() <= 2 && name.split('/').all(is_part)
}

/// Folders next to where `path` would be whose names are close to its own.
fn folders_like(path: &Path) -> Vec<String> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let parent = path.parent().unwrap_or(Path::new(""));
    let listed = if parent == Path::new("") { Path::new(".") } else { parent };
    let names: Vec<String> = fs::read_dir(listed)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().filter(|entry| entry.path().is_dir())?.file_name().into_string().ok())
        .collect();
    nearest(name, names).into_iter().map(|near| parent.join(near).display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories() {
        for name in ["gpt2", "EleutherAI/pythia-70m", "meta-llama/Llama-3.2-1B", "roneneldan/TinyStories_1M"]
        {
            assert!(is_hub_name(name), "{name}");
        }
        for name in
            ["", "/gpt2", "./gpt2", "../gpt2", "a/b/c", "models/", "gpt 2", "a/../b", "C:\\gpt2", "~/gpt2"]
        {
            assert!(!is_hub_name(name), "{name}");
        }
    }

    #[test]
    fn the_token_is_not_printed() {
        let options = HubOptions { token: Some("hf_secret".to_owned()), ..HubOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
