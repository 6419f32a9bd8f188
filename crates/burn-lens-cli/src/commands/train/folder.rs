//! The folder of a run: its settings, its state, its checkpoints.

use std::path::{Path, PathBuf};

use burn_lens::{
    Pretrained,
    io::{TensorFolder, read_text, write_atomically},
    models::{HookedTransformer, Parameters},
};
use burn_lens_train::{History, Progress, Snapshot, TrainError, in_context::Recipe};
use serde::{Deserialize, Serialize};

use crate::error::CliError;

/// Everything that a run was started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setup {
    pub(crate) recipe: Recipe,
    /// Steps between checkpoints; none are kept if not given.
    pub(crate) checkpoint_every: Option<usize>,
    /// Unseen sequences to compare on.
    pub(crate) test: usize,
}

/// The names of its files.
const SETUP: &str = "training";
const STATE: &str = "state";
const METRICS: &str = "metrics.jsonl";
const CHECKPOINTS: &str = "checkpoints";

impl Setup {
    /// Refuses settings that make no sense.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        self.recipe.config()?;
        self.recipe.episodes()?;
        if self.test == 0 {
            return Err(TrainError::Config { key: "test", expected: "at least 1", found: 0.0 }.into());
        }
        Ok(())
    }

    /// What a model's folder says of its training, if anything.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>, CliError> {
        if !folder.is_dir() {
            return Ok(None);
        }
        let Some(text) = TensorFolder::open(folder)?.get_text(SETUP)? else { return Ok(None) };
        parsed(folder, &text).map(Some)
    }
}

fn parsed(folder: &Path, text: &str) -> Result<Setup, CliError> {
    let path = folder.join(format!("{SETUP}.json"));
    let setup: Setup = serde_json::from_str(text)
        .map_err(|source| CliError::TrainingFile { path, source: source.into() })?;
    setup.check()?;
    Ok(setup)
}

/// Where a run keeps everything.
pub(super) struct RunFolder {
    store: TensorFolder,
    setup: Setup,
}

impl RunFolder {
    /// For a new run.
    pub(super) fn create(path: &Path, setup: &Setup) -> Result<Self, CliError> {
        let store = TensorFolder::create(path)?;
        if store.get_text(SETUP)?.is_some() {
            return Err(CliError::RunThere { path: path.to_owned() });
        }
        let folder = Self { store, setup: setup.clone() };
        folder.describe(&folder.store)?;
        Ok(folder)
    }

    /// Of a run that was started before.
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        let no_run = || CliError::NoRun { path: path.to_owned() };
        let setup = Setup::find(path)?.ok_or_else(no_run)?;
        Ok(Self { store: TensorFolder::open(path)?, setup })
    }

    pub(super) fn path(&self) -> &Path {
        self.store.path()
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// What training goes on from, if it came so far.
    pub(super) fn snapshot(&self) -> Result<Option<Snapshot>, CliError> {
        if !self.path().join(format!("{STATE}.safetensors")).is_file() {
            return Ok(None);
        }
        // Copied out of the mapped file, which the next state replaces.
        let tensors = self.store.get(STATE)?;
        let copied = tensors.into_iter().map(|(name, data)| {
            let (shape, dtype) = (data.shape().to_vec(), data.dtype());
            let copy =
                burn_lens::burn::tensor::TensorData::from_bytes_vec(data.as_bytes().to_vec(), shape, dtype);
            (name, copy)
        });
        Ok(Some(Snapshot { tensors: copied.collect() }))
    }

    /// What was measured before `step`.
    pub(super) fn history(&self, step: usize) -> Result<History, CliError> {
        Ok(History::from_json_lines(&read_text(self.path().join(METRICS))?)?.before(step))
    }

    /// Whether a checkpoint is due behind this step.
    pub(super) fn due(&self, progress: &Progress<'_>) -> bool {
        let done = progress.step + 1;
        done == progress.steps || self.setup.checkpoint_every.is_some_and(|every| done.is_multiple_of(every))
    }

    /// Keeps the model and everything to go on from; the state last, so that all before it is there.
    pub(super) fn checkpoint(&self, progress: &Progress<'_>, history: &History) -> Result<(), CliError> {
        if self.setup.checkpoint_every.is_some() {
            let name = format!("step-{:06}", progress.step + 1);
            let folder = TensorFolder::create(self.path().join(CHECKPOINTS).join(name))?;
            self.save_model(&folder, progress.parameters())?;
        }
        write_text(&self.path().join(METRICS), &history.to_json_lines()?)?;
        Ok(self.store.put(STATE, progress.snapshot()?.tensors.into_iter().collect())?)
    }

    /// Saves the trained model.
    pub(super) fn finish(&self, params: Parameters) -> Result<HookedTransformer, CliError> {
        self.save_model(&self.store, params)
    }

    fn save_model(&self, folder: &TensorFolder, params: Parameters) -> Result<HookedTransformer, CliError> {
        let model = HookedTransformer::new(self.setup.recipe.config()?, params)?;
        let name = folder.path().display().to_string();
        let lens = Pretrained { name, model, tokenizer: None, left_out: Vec::new() };
        self.describe(folder)?;
        lens.save(folder.path())?;
        Ok(lens.model)
    }

    fn describe(&self, folder: &TensorFolder) -> Result<(), CliError> {
        let json = serde_json::to_string_pretty(&self.setup).map_err(TrainError::from)?;
        Ok(folder.put_text(SETUP, &format!("{json}\n"))?)
    }
}

/// Writes a text whole.
pub(super) fn write_text(path: &Path, text: &str) -> Result<(), CliError> {
    Ok(write_atomically(path, |file| file.write_all(text.as_bytes()))?)
}

/// The checkpoints of a run, by step.
pub(crate) fn checkpoints(folder: &Path) -> Result<Vec<(String, PathBuf)>, CliError> {
    let all = folder.join(CHECKPOINTS);
    let none = || CliError::NoCheckpoints { path: all.clone() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&all).map_err(|_| none())? {
        let path = entry.map_err(|_| none())?.path();
        // A folder without a configuration was being written when the run ended.
        if path.join("config.json").is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, path));
        }
    }
    if found.is_empty() {
        return Err(none());
    }
    found.sort();
    Ok(found)
}
