//! Which files of a folder are a sparse autoencoder: its weights, its configuration, what goes with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::IoError;

/// The names that weights go by in the formats that have fixed ones, most wanted first.
const WEIGHTS: [&str; 6] = [
    "sae_weights.safetensors",
    "sae.safetensors",
    "params.npz",
    "params.safetensors",
    "ae.pt",
    "checkpoints/final.safetensors",
];

/// The names of configurations, most wanted first.
const CONFIGS: [&str; 3] = ["cfg.json", "config.json", "hyperparams.json"];

/// What is no weights file although it ends like one.
const OTHERS: [&str; 4] = [
    "sparsity.safetensors",
    "activation_whitening.safetensors",
    "activations_store_state.safetensors",
    "trainer_state.pt",
];

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
        let stem = weights.file_stem().unwrap_or_default().to_string_lossy();
        let own = [format!("{stem}_cfg.json"), format!("{stem}.json")];
        let config = own.iter().map(String::as_str).chain(CONFIGS).find_map(at);
        Ok(Self {
            config,
            whitening: at("activation_whitening.safetensors"),
            scaler: at("activation_scaler.json"),
            weights,
        })
    }
}

fn weights_in(folder: &Path) -> Result<PathBuf, IoError> {
    if let Some(path) = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        return Ok(path);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(IoError::os("read", folder))? {
        let path = entry.map_err(IoError::os("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        if ["safetensors", "npz", "pt", "pth"].contains(&&*extension) && !OTHERS.contains(&&*name) {
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
}
