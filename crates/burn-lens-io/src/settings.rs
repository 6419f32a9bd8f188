//! What a user wrote in TOML or JSON: tables of rules, training settings.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

use crate::IoError;

/// Reads a `.toml` or `.json` file.
///
/// ```no_run
/// use std::collections::BTreeMap;
/// let sizes: BTreeMap<String, usize> = burn_lens_io::read_settings("sizes.toml")?;
/// # Ok::<(), burn_lens_io::IoError>(())
/// ```
///
/// # Errors
///
/// If the file cannot be read, or does not hold what is expected; says where.
pub fn read_settings<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T, IoError> {
    let path = path.as_ref();
    let text = || fs::read_to_string(path).map_err(IoError::os("read", path));
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => toml::from_str(&text()?)
            .map_err(|error| IoError::Toml { path: path.to_owned(), source: error.into() }),
        Some("json") => serde_json::from_str(&text()?)
            .map_err(|error| IoError::Json { path: path.to_owned(), source: error.into() }),
        _ => Err(IoError::SettingsFormat { path: path.to_owned() }),
    }
}
