//! Fetching what a model needs from the hub, through the crate `hf-hub`.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hf_hub::{
    HFClient, HFClientSync, HFError, HFRepositorySync,
    progress::{DownloadEvent, FileStatus, ProgressEvent, ProgressHandler},
    repository::RepoTypeModel,
    split_id,
};

use super::{DownloadProgress, HubOptions, OnProgress};
use crate::{
    IoError,
    checkpoint::{ShardIndex, WEIGHTS},
    dictionary_files::{self, companions, join, names_weights},
};

/// Downloads a dictionary from a folder of a repository, or a weights file there and what belongs to
/// it, or finds them in the cache; gives the path of that folder or file in the snapshot.
pub(super) fn dictionary(repo: &str, path: &str, options: &HubOptions) -> Result<PathBuf, IoError> {
    let mut session = Session::new(repo, options)?;
    let names = if names_weights(path) {
        vec![path.to_owned()]
    } else {
        dictionary_files::WEIGHTS.map(|name| join(path, name)).to_vec()
    };
    let mut found = None;
    for name in &names {
        found = session.want(name)?.map(|file| (name, file));
        if found.is_some() {
            break;
        }
    }
    let Some((name, file)) = found else { return Err(session.absent(&names.join(", "))) };
    let root = file.ancestors().nth(name.split('/').count()).unwrap_or(Path::new("")).to_owned();
    session.pin(&root);
    for companion in companions(name) {
        session.want(&companion)?;
    }
    Ok(root.join(path))
}

/// Downloads a model, or finds it in the cache, and gives the folder of that snapshot.
pub(super) fn model(repo: &str, options: &HubOptions) -> Result<PathBuf, IoError> {
    let mut session = Session::new(repo, options)?;
    let config = session.need("config.json")?;
    let folder = config.parent().unwrap_or(Path::new("")).to_owned();
    session.pin(&folder);
    for file in ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"] {
        session.want(file)?;
    }
    if session.want("tokenizer.json")?.is_none() {
        session.want("vocab.json")?;
        session.want("merges.txt")?;
    }
    session.weights()?;
    Ok(folder)
}

/// One model or dictionary being fetched.
struct Session<'a> {
    repo: &'a str,
    files: HFRepositorySync<RepoTypeModel>,
    revision: String,
    cache: PathBuf,
    had_token: bool,
    /// From the start, or since the network failed.
    offline: bool,
    /// How the network failed, if it did.
    failure: Option<HFError>,
    handler: Arc<Handler>,
}

impl<'a> Session<'a> {
    fn new(repo: &'a str, options: &HubOptions) -> Result<Self, IoError> {
        /// After the first; each waits twice as long as the one before, from 0.1 s.
        const RETRIES: usize = 2;
        let failed = |source: HFError| download_error(repo, "anything", source);
        let mut builder = HFClient::builder().retry_max_attempts(RETRIES);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(token) = &options.token {
            builder = builder.token(token);
        }
        if let Some(cache) = &options.cache {
            builder = builder.cache_dir(cache);
        }
        let client = builder.build().map_err(failed)?;
        let cache = client.cache_dir().to_owned();
        let (owner, name) = split_id(repo);
        let files = HFClientSync::from_inner(client).map_err(failed)?.model(owner, name);
        let handler =
            Handler { repo: repo.to_owned(), tell: options.progress.clone(), totals: Mutex::default() };
        Ok(Self {
            repo,
            files,
            revision: options.revision.clone().unwrap_or_else(|| "main".to_owned()),
            cache,
            had_token: options.token.is_some() || stored_token(),
            offline: options.offline.unwrap_or_else(|| is_set("HF_HUB_OFFLINE")),
            failure: None,
            handler: Arc::new(handler),
        })
    }

    /// From here on, takes everything from the commit that `folder` is named after, so that
    /// files of two commits are never mixed and what is cached costs no request.
    fn pin(&mut self, folder: &Path) {
        if let Some(commit) = folder.file_name().and_then(|name| name.to_str()) {
            commit.clone_into(&mut self.revision);
        }
    }

    /// A file that the model cannot do without.
    fn need(&mut self, file: &str) -> Result<PathBuf, IoError> {
        match self.want(file)? {
            Some(path) => Ok(path),
            None => Err(self.absent(file)),
        }
    }

    /// A file that may be missing from the repository, or from the cache when offline.
    fn want(&mut self, file: &str) -> Result<Option<PathBuf>, IoError> {
        let error = match self.fetch(file) {
            Ok(path) => return self.checked(file, path).map(Some),
            Err(error) => error,
        };
        match error {
            HFError::EntryNotFound { .. } | HFError::LocalEntryNotFound { .. } => Ok(None),
            HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } => Err(self.not_on_hub(file)),
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => Err(IoError::TokenNeeded {
                repo: self.repo.to_owned(),
                file: file.to_owned(),
                had_token: self.had_token,
            }),
            // No connection at all: whatever is cached will do.
            HFError::Request { ref source, .. }
                if !self.offline && (source.is_connect() || source.is_timeout()) =>
            {
                self.offline = true;
                self.failure = Some(error);
                self.want(file)
            }
            error => Err(download_error(self.repo, file, error)),
        }
    }

    /// The weights, of the first kind that the repository has.
    fn weights(&mut self) -> Result<(), IoError> {
        for file in WEIGHTS {
            let Some(path) = self.want(file)? else { continue };
            if file.ends_with("index.json") {
                for shard in ShardIndex::read(&path)?.shards() {
                    self.need(shard)?;
                }
            }
            return Ok(());
        }
        Err(self.absent(&WEIGHTS.join(", ")))
    }

    fn fetch(&self, file: &str) -> Result<PathBuf, HFError> {
        self.files
            .download_file()
            .filename(file)
            .revision(&self.revision)
            .local_files_only(self.offline)
            .progress(Arc::clone(&self.handler))
            .send()
    }

    /// Refuses, and removes from the cache, a file that is not as long as the hub said it is:
    /// `hf-hub` keeps whatever it received.
    fn checked(&self, file: &str, path: PathBuf) -> Result<PathBuf, IoError> {
        let Some(expected) = self.handler.total(file) else { return Ok(path) };
        let found = fs::metadata(&path).map_err(IoError::os("read", &path))?.len();
        if found == expected {
            return Ok(path);
        }
        // The snapshot holds a link to the bytes; both go.
        if let Ok(blob) = fs::canonicalize(&path) {
            fs::remove_file(&blob).map_err(IoError::os("remove", &blob))?;
        }
        if path.is_symlink() {
            fs::remove_file(&path).map_err(IoError::os("remove", &path))?;
        }
        Err(IoError::PartialDownload { repo: self.repo.to_owned(), file: file.to_owned(), expected, found })
    }

    /// The error for a file that is needed and not there.
    fn absent(&mut self, file: &str) -> IoError {
        match self.failure.take() {
            Some(error) => download_error(self.repo, file, error),
            None if self.offline => IoError::Offline {
                repo: self.repo.to_owned(),
                file: file.to_owned(),
                cache: self.cache.clone(),
            },
            None => self.not_on_hub(file),
        }
    }

    fn not_on_hub(&self, file: &str) -> IoError {
        IoError::NotOnHub {
            repo: self.repo.to_owned(),
            revision: self.revision.clone(),
            file: file.to_owned(),
        }
    }
}

fn download_error(repo: &str, file: &str, source: HFError) -> IoError {
    IoError::Download { repo: repo.to_owned(), file: file.to_owned(), source: source.into() }
}

/// Whether `hf-hub` finds a token on its own.
fn stored_token() -> bool {
    env::var_os("HF_TOKEN").is_some_and(|token| !token.is_empty())
        || hf_hub::hf_home().join("token").is_file()
}

/// Whether a variable says yes, as the Python library reads it.
fn is_set(variable: &str) -> bool {
    env::var(variable)
        .is_ok_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()))
}

/// Passes on what `hf-hub` reports, and remembers how long each file should be.
struct Handler {
    repo: String,
    tell: Option<OnProgress>,
    totals: Mutex<HashMap<String, u64>>,
}

impl Handler {
    /// The length that the hub announced for a file downloaded just now, if it did.
    fn total(&self, file: &str) -> Option<u64> {
        self.totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(file)
            .copied()
            .filter(|&total| total > 0)
    }
}

impl ProgressHandler for Handler {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(DownloadEvent::Progress { files }) = event else { return };
        for at in files {
            if at.status == FileStatus::Complete {
                let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
                totals.insert(at.filename.clone(), at.total_bytes);
            }
            if let Some(tell) = &self.tell {
                tell(DownloadProgress {
                    repo: &self.repo,
                    file: &at.filename,
                    done: at.bytes_completed,
                    total: at.total_bytes,
                    finished: at.status == FileStatus::Complete,
                });
            }
        }
    }
}
