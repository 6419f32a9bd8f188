//! Which files of a folder hold the weights, and what a shard index says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use serde_json::Value;

use crate::IoError;

/// The names that weights go by, most wanted first. The hub download follows the same order.
pub(crate) const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Where the weights are.
#[derive(Debug, PartialEq)]
pub(super) enum Layout {
    Single(PathBuf),
    Sharded(PathBuf),
}

impl Layout {
    /// Finds the weights of `folder`: one of [`WEIGHTS`], or else the only file that could be
    /// weights.
    pub(super) fn find(folder: &Path) -> Result<Self, IoError> {
        for name in WEIGHTS {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(if name.ends_with("index.json") {
                    Self::Sharded(path)
                } else {
                    Self::Single(path)
                });
            }
        }
        only_file(folder).map(Self::Single)
    }
}

/// The only `*.safetensors`, `*.pt`, `*.pth` or `*.bin` of the folder, in that order.
fn only_file(folder: &Path) -> Result<PathBuf, IoError> {
    let none = || IoError::NoFile { folder: folder.to_owned(), file: alternatives("weights file") };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(IoError::os("read", folder))? {
        files.push(entry.map_err(IoError::os("read", folder))?.path());
    }
    for extension in ["safetensors", "pt", "pth", "bin"] {
        let mut found =
            files.iter().filter(|path| path.extension().is_some_and(|e| e == extension) && path.is_file());
        match (found.next(), found.next()) {
            (Some(path), None) => return Ok(path.clone()),
            (Some(_), Some(_)) => {
                let file = alternatives(&format!("single weights file (there are several *.{extension})"));
                return Err(IoError::NoFile { folder: folder.to_owned(), file });
            }
            (None, _) => {}
        }
    }
    Err(none())
}

fn alternatives(what: &str) -> String {
    format!("{what}: looked for {} and a single *.safetensors, *.pt, *.pth or *.bin", WEIGHTS.join(", "))
}

/// A shard index: which file each tensor is in.
#[derive(Debug)]
pub(crate) struct ShardIndex {
    path: PathBuf,
    /// Tensor to file name.
    files: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads an index and checks that each file name stays inside the folder.
    pub(crate) fn read(path: &Path) -> Result<Self, IoError> {
        let text = fs::read_to_string(path).map_err(IoError::os("read", path))?;
        let json: Value = serde_json::from_str(&text).map_err(IoError::json(path))?;
        let malformed = |reason: &str| IoError::Json { path: path.to_owned(), source: reason.into() };
        let map = json
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| malformed("it has no `weight_map` object"))?;
        let mut files = BTreeMap::new();
        for (tensor, shard) in map {
            let shard =
                shard.as_str().ok_or_else(|| malformed("a value of `weight_map` is not a file name"))?;
            if !stays_inside(shard) {
                let (tensor, shard) = (tensor.clone(), shard.to_owned());
                return Err(IoError::ShardPath { index: path.to_owned(), shard, tensor });
            }
            files.insert(tensor.clone(), shard.to_owned());
        }
        if files.is_empty() {
            return Err(malformed("its `weight_map` is empty"));
        }
        Ok(Self { path: path.to_owned(), files })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tensor and file name, by tensor.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(tensor, shard)| (tensor.as_str(), shard.as_str()))
    }

    /// The file names, each once.
    pub(crate) fn shards(&self) -> BTreeSet<&str> {
        self.files.values().map(String::as_str).collect()
    }

    /// The error for a shard that is not there.
    pub(super) fn missing(&self, shard: &str) -> IoError {
        let mut tensors = self.tensors().filter(|(_, file)| *file == shard).map(|(tensor, _)| tensor);
        let tensor = tensors.next().unwrap_or_default().to_owned();
        IoError::MissingShard {
            index: self.path.clone(),
            shard: shard.to_owned(),
            tensor,
            others: tensors.count(),
        }
    }
}

/// Whether a path from an index is relative and has no `..`.
fn stays_inside(shard: &str) -> bool {
    let mut parts = Path::new(shard).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_))) && !shard.contains('\\')
}
