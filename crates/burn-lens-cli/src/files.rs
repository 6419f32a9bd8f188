//! Files that commands write.

use std::path::{Path, PathBuf};

use burn_lens::io::write_atomically;

use crate::error::CliError;

/// `figure.svg` with something before its extension.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    if suffix.is_empty() {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or_else(String::new, |e| format!(".{}", e.to_string_lossy()));
    path.with_file_name(format!("{stem}{suffix}{extension}"))
}

/// Writes a whole file, or leaves the one that is there.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    Ok(write_atomically(path, |file| file.write_all(bytes))?)
}
