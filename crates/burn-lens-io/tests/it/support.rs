//! Fixtures, temporary folders, and hand-made safetensors files.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A folder of fixtures; they are part of the repository.
pub(crate) fn fixture(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
    assert!(path.is_dir(), "fixture {name} is missing");
    path
}

/// A model that is not part of the repository; tests over it are skipped where it is missing.
pub(crate) fn shared_model(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models").join(name);
    if !path.is_dir() {
        println!("skipped: {name} is not here");
    }
    path.is_dir().then_some(path)
}

/// A temporary folder with these files.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// A safetensors file of this JSON header and data.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// A file of two little tensors, `a` `[2, 2]` and `b` `[2]`.
pub(crate) fn two_tensors() -> Vec<u8> {
    safetensors(
        r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[2],"data_offsets":[16,24]}}"#,
        &floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    )
}

pub(crate) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The message of an error with those of its sources, as a program would print it.
pub(crate) fn message(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", message(source)),
        None => error.to_string(),
    }
}

/// Fails unless `error` says every one of `parts`.
#[track_caller]
pub(crate) fn assert_says(error: &dyn Error, parts: &[&str]) {
    let message = message(error);
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
