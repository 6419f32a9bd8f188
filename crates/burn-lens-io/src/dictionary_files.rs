//! Which files of a folder are a sparse autoencoder: its weights, its configuration, what goes with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::IoError;

/// The names that weights go by in the formats that have fixed ones, most wanted first.
pub(crate) const WEIGHTS: [&str; 6] = [
    "sae_weights.safetensors",
    "sae.safetensors",
    "params.npz",
    "params.safetensors",
    "ae.pt",
    "checkpoints/final.safetensors",
];

/// The names of configurations, most wanted first.
const CONFIGS: [&str; 3] = ["cfg.json", "config.json", "hyperparams.json"];

/// How the names of weights end.
const ENDINGS: [&str; 4] = ["safetensors", "npz", "pt", "pth"];

const WHITENING: &str = "activation_whitening.safetensors";
const SCALER: &str = "activation_scaler.json";

/// The folder that checkpoints of a training run are in, below the run's configuration.
const CHECKPOINTS: &str = "checkpoints";

/// What is no weights file although it ends like one.
const OTHERS: [&str; 4] =
    ["sparsity.safetensors", WHITENING, "activations_store_state.safetensors", "trainer_state.pt"];

/// The files of a sparse autoencoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DictionaryFiles {
    /// Its weights.
    pub weights: PathBuf,
    /// Its configuration, where there is one.
    pub config: Option<PathBuf>,
    /// How activations were whitened for it (`mean`, `matrix`, `inverse_matrix`).
    pub whitening: Option<PathBuf>,
    /// How activations were scaled for it (`scaling_factor`).
    pub scaler: Option<PathBuf>,
}

impl DictionaryFiles {
    /// Finds them in a folder, or around a weights file.
    ///
    /// # Errors
    ///
    /// If there is no such path, or no weights or several files that could be them in the folder.
    pub fn find(path: impl AsRef<Path>) -> Result<Self, IoError> {
        let path = path.as_ref();
        let found = fs::metadata(path).map_err(IoError::os("open", path))?;
        let weights = if found.is_dir() { weights_in(path)? } else { path.to_owned() };
        let folder = if found.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let at = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        let name = weights.file_name().unwrap_or_default().to_string_lossy();
        let config = configs(&name, folder.file_name().is_some_and(|name| name == CHECKPOINTS));
        Ok(Self {
            config: config.iter().find_map(|name| at(name)),
            whitening: at(WHITENING),
            scaler: at(SCALER),
            weights,
        })
    }
}

/// What configurations of a weights file are called, seen from its folder, most wanted first.
fn configs(weights: &str, is_checkpoint: bool) -> Vec<String> {
    let stem = weights.rsplit_once('.').map_or(weights, |(stem, _)| stem);
    let mut names = vec![format!("{stem}_cfg.json"), format!("{stem}.json")];
    names.extend(CONFIGS.map(str::to_owned));
    if is_checkpoint {
        names.extend(CONFIGS.map(|name| format!("../{name}")));
    }
    names
}

/// What can lie around a weights file, in the words of a repository: paths with `/`.
pub(crate) fn companions(weights: &str) -> Vec<String> {
    let (folder, name) = weights.rsplit_once('/').unwrap_or(("", weights));
    let is_checkpoint = folder.rsplit('/').next() == Some(CHECKPOINTS);
    let names = configs(name, is_checkpoint).into_iter().chain([WHITENING, SCALER].map(str::to_owned));
    let at = |name: String| match name.strip_prefix("../") {
        Some(name) => join(folder.rsplit_once('/').map_or("", |(above, _)| above), name),
        None => join(folder, &name),
    };
    names.map(at).collect()
}

/// A path in a repository.
pub(crate) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Whether a path is that of a weights file by its name.
pub(crate) fn names_weights(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

fn weights_in(folder: &Path) -> Result<PathBuf, IoError> {
    if let Some(path) = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        return Ok(path);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(IoError::os("read", folder))? {
        let path = entry.map_err(IoError::os("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if names_weights(&name) && !OTHERS.contains(&&*name) {
            files.push(path.clone());
        }
    }
    files.sort();
    match &files[..] {
        [only] => Ok(only.clone()),
        several => {
            let what = if several.is_empty() { "" } else { "single " };
            let file = format!(
                "{what}weights file of a dictionary: looked for {} and a single *.safetensors, *.npz, *.pt or *.pth",
                WEIGHTS.join(", ")
            );
            Err(IoError::NoFile { folder: folder.to_owned(), file })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_name_or_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let none = DictionaryFiles::find(folder.path()).unwrap_err().to_string();
        assert!(none.contains("sae_weights.safetensors"), "{none}");
        for name in ["25.pt", "25_cfg.json", "sparsity.safetensors"] {
            fs::write(at(name), "").unwrap();
        }
        let found = DictionaryFiles::find(folder.path()).unwrap();
        assert_eq!((found.weights, found.config), (at("25.pt"), Some(at("25_cfg.json"))));
        fs::write(at("47.pt"), "").unwrap();
        let several = DictionaryFiles::find(folder.path()).unwrap_err().to_string();
        assert!(several.contains("single weights file"), "{several}");
        assert_eq!(DictionaryFiles::find(at("25.pt")).unwrap().config, Some(at("25_cfg.json")));
        fs::write(at("sae_weights.safetensors"), "").unwrap();
        fs::write(at("cfg.json"), "").unwrap();
        let found = DictionaryFiles::find(folder.path()).unwrap();
        assert_eq!((found.weights, found.config), (at("sae_weights.safetensors"), Some(at("cfg.json"))));
        assert!(DictionaryFiles::find(at("none")).is_err());
    }

    #[test]
    fn a_checkpoint_has_its_configuration_above() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoints").join("ae_10.pt");
        fs::create_dir(checkpoint.parent().unwrap()).unwrap();
        fs::write(&checkpoint, "").unwrap();
        fs::write(folder.path().join("config.json"), "").unwrap();
        let config = DictionaryFiles::find(&checkpoint).unwrap().config.unwrap();
        assert_eq!(
            fs::canonicalize(config).unwrap(),
            fs::canonicalize(folder.path().join("config.json")).unwrap()
        );
        let around = companions("run/checkpoints/ae_10.pt");
        for name in
            ["run/checkpoints/ae_10_cfg.json", "run/config.json", "run/checkpoints/activation_scaler.json"]
        {
            assert!(around.iter().any(|found| found == name), "{around:?}");
        }
        assert!(companions("ae.pt").iter().all(|name| !name.contains('/')));
    }
}
