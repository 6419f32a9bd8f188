//! From what a user typed, a path or a name on the Hugging Face hub, to a local path.

#[cfg(feature = "hub")]
mod download;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn_lens_tensor::nearest;

use crate::{IoError, dictionary_files::names_weights};

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
    let nearest = paths_like(path, Path::is_dir);
    let is_misspelt = !nearest.is_empty();
    let unknown = IoError::UnknownModel { name: name_or_folder.to_owned(), nearest };
    if !is_hub_name(name_or_folder) {
        return Err(unknown);
    }
    or_misspelt(download_model(name_or_folder, options), is_misspelt, unknown)
}

/// A dictionary's folder or weights file, given that path or where it is on the hub: `OWNER/REPO`, or
/// `OWNER/REPO/PATH` for a folder or a weights file in it.
///
/// A path that exists is taken as it is. Otherwise the weights are downloaded, under the first of the
/// usual names that is there, and whatever of configuration, scale and whitening lies beside them.
///
/// ```no_run
/// use burn_lens_io::{DictionaryFiles, HubOptions, resolve_dictionary};
///
/// let name = "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71";
/// let files = DictionaryFiles::find(resolve_dictionary(name, &HubOptions::default())?)?;
/// # Ok::<(), burn_lens_io::IoError>(())
/// ```
///
/// # Errors
///
/// If it is neither a path nor such a name, or the download fails.
pub fn resolve_dictionary(name_or_path: &str, options: &HubOptions) -> Result<PathBuf, IoError> {
    let path = Path::new(name_or_path);
    if path.exists() {
        return Ok(path.to_owned());
    }
    let is_wanted = |path: &Path| path.is_dir() || path.to_str().is_some_and(names_weights);
    let nearest = paths_like(path, is_wanted);
    let is_misspelt = !nearest.is_empty();
    let unknown = IoError::UnknownDictionary { name: name_or_path.to_owned(), nearest };
    let Some((repo, path)) = repo_and_path(name_or_path) else { return Err(unknown) };
    or_misspelt(download_dictionary(name_or_path, repo, path, options), is_misspelt, unknown)
}

/// What a download gave; where nothing can be had under that name and a local path has a similar one,
/// that this was more likely meant.
fn or_misspelt(
    result: Result<PathBuf, IoError>,
    is_misspelt: bool,
    unknown: IoError,
) -> Result<PathBuf, IoError> {
    match result {
        Err(
            IoError::NotOnHub { .. }
            | IoError::TokenNeeded { had_token: false, .. }
            | IoError::Offline { .. },
        ) if is_misspelt => Err(unknown),
        result => result,
    }
}

#[cfg(feature = "hub")]
fn download_model(name: &str, options: &HubOptions) -> Result<PathBuf, IoError> {
    download::model(name, options)
}

#[cfg(not(feature = "hub"))]
fn download_model(name: &str, _options: &HubOptions) -> Result<PathBuf, IoError> {
    Err(IoError::NoHub { name: name.to_owned() })
}

#[cfg(feature = "hub")]
fn download_dictionary(_: &str, repo: &str, path: &str, options: &HubOptions) -> Result<PathBuf, IoError> {
    download::dictionary(repo, path, options)
}

#[cfg(not(feature = "hub"))]
fn download_dictionary(name: &str, _: &str, _: &str, _: &HubOptions) -> Result<PathBuf, IoError> {
    Err(IoError::NoHub { name: name.to_owned() })
}

/// `OWNER/REPO` and `PATH`, which can be empty, of `OWNER/REPO/PATH`.
fn repo_and_path(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_suffix('/').unwrap_or(name);
    let (at, _) = name.match_indices('/').nth(1).unwrap_or((name.len(), ""));
    let (repo, path) = name.split_at(at);
    let path = path.strip_prefix('/').unwrap_or(path);
    let is_inside = |part: &str| !part.is_empty() && part != "." && part != "..";
    let fits = repo.contains('/') && is_hub_name(repo) && (path.is_empty() || path.split('/').all(is_inside));
    fits.then_some((repo, path))
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

/// Paths like the first part of `path` that is not there, next to where it would be.
fn paths_like(path: &Path, is_wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let missing = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).last();
    let Some(path) = missing else { return Vec::new() };
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let parent = path.parent().unwrap_or(Path::new(""));
    let listed = if parent == Path::new("") { Path::new(".") } else { parent };
    let names: Vec<String> = fs::read_dir(listed)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            entry.ok().filter(|entry| is_wanted(&entry.path()))?.file_name().into_string().ok()
        })
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
    fn places_in_repositories() {
        assert_eq!(repo_and_path("a/b"), Some(("a/b", "")));
        assert_eq!(repo_and_path("a/b/c/d.npz"), Some(("a/b", "c/d.npz")));
        assert_eq!(repo_and_path("a/b/c/"), Some(("a/b", "c")));
        for name in ["b", "b/", "a/b/../c", "a/b//c", "/a/b", "./a/b", "../a/b/c"] {
            assert_eq!(repo_and_path(name), None, "{name}");
        }
    }

    #[test]
    fn the_token_is_not_printed() {
        let options = HubOptions { token: Some("hf_secret".to_owned()), ..HubOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
