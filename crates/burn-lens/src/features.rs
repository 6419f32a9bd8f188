//! Feature data on disk: the store of a run, the texts of its tokens, its files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use burn::tensor::TensorData;
use burn_lens_io::{IoError, TensorFolder, Tokenizer};
use burn_lens_sae::features::{StoreError, TensorStore, TokenText};

/// A folder as the store of a run's activations: it can be larger than memory, is left behind for
/// [`build`](burn_lens_sae::features::build()), and lets an interrupted run go on.
#[derive(Clone, Debug)]
pub struct FeatureFolder(TensorFolder);

impl FeatureFolder {
    /// The folder at `path`, made if it is not there.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, IoError> {
        TensorFolder::create(path).map(Self)
    }

    /// The folder at `path`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, IoError> {
        TensorFolder::open(path).map(Self)
    }
}

impl TensorStore for FeatureFolder {
    fn put(&mut self, name: &str, tensors: Vec<(String, TensorData)>) -> Result<(), StoreError> {
        Ok(self.0.put(name, tensors)?)
    }

    fn get(&self, name: &str) -> Result<BTreeMap<String, TensorData>, StoreError> {
        Ok(self.0.get(name)?)
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        Ok(self.0.remove(name)?)
    }

    fn put_text(&mut self, name: &str, text: &str) -> Result<(), StoreError> {
        Ok(self.0.put_text(name, text)?)
    }

    fn get_text(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.0.get_text(name)?)
    }
}

/// The texts of tokens, byte for byte. Ids that the tokenizer does not have are left out: a model
/// can have more embeddings than tokens.
#[must_use]
pub fn token_texts(tokenizer: &Tokenizer, ids: &BTreeSet<u32>) -> BTreeMap<u32, TokenText> {
    let text = |&id: &u32| {
        let token = tokenizer.to_single_str_token(i64::from(id)).ok()?;
        Some((id, TokenText::of(&token.bytes)))
    };
    ids.iter().filter_map(text).collect()
}
