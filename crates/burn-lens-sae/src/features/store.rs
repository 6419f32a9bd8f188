//! Where activations are kept between the one run over the tokens and what is computed of them.
//!
//! This crate opens no file. What it needs of a disk is the trait [`TensorStore`]; in memory that
//! is [`MemoryStore`], and [`TieredStore`] moves what exceeds a budget into another.

use std::{collections::BTreeMap, error::Error};

use burn_lens_tensor::burn::tensor::TensorData;

/// An error of a store, whatever it is.
pub type StoreError = Box<dyn Error + Send + Sync>;

/// Named sets of tensors, and named texts. An entry that was put is there whole or not at all.
pub trait TensorStore {
    /// Keeps tensors under a name, in place of what was there.
    ///
    /// # Errors
    ///
    /// If they cannot be kept.
    fn put(&mut self, name: &str, tensors: Vec<(String, TensorData)>) -> Result<(), StoreError>;

    /// The tensors under a name.
    ///
    /// # Errors
    ///
    /// If there are none, or they cannot be read.
    fn get(&self, name: &str) -> Result<BTreeMap<String, TensorData>, StoreError>;

    /// Forgets the tensors under a name, if there are any.
    ///
    /// # Errors
    ///
    /// If they cannot be removed.
    fn remove(&mut self, name: &str) -> Result<(), StoreError>;

    /// Keeps a text under a name, in place of what was there. What was put before it is durable
    /// once this returns.
    ///
    /// # Errors
    ///
    /// If it cannot be kept.
    fn put_text(&mut self, name: &str, text: &str) -> Result<(), StoreError>;

    /// The text under a name, if there is one.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn get_text(&self, name: &str) -> Result<Option<String>, StoreError>;
}

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tensors: BTreeMap<String, Vec<(String, TensorData)>>,
    texts: BTreeMap<String, String>,
}

impl TensorStore for MemoryStore {
    fn put(&mut self, name: &str, tensors: Vec<(String, TensorData)>) -> Result<(), StoreError> {
        self.tensors.insert(name.to_owned(), tensors);
        Ok(())
    }

    fn get(&self, name: &str) -> Result<BTreeMap<String, TensorData>, StoreError> {
        let tensors = self.tensors.get(name).ok_or_else(|| format!("there is no entry `{name}`"))?;
        Ok(tensors.iter().cloned().collect())
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.tensors.remove(name);
        Ok(())
    }

    fn put_text(&mut self, name: &str, text: &str) -> Result<(), StoreError> {
        self.texts.insert(name.to_owned(), text.to_owned());
        Ok(())
    }

    fn get_text(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.texts.get(name).cloned())
    }
}

/// A store in memory up to a budget; what comes after goes into another store.
#[derive(Debug)]
pub struct TieredStore<S> {
    memory: MemoryStore,
    budget: u64,
    used: u64,
    below: S,
}

impl<S: TensorStore> TieredStore<S> {
    /// A store that keeps up to `budget` bytes in memory and the rest in `below`.
    pub fn new(budget: u64, below: S) -> Self {
        Self { memory: MemoryStore::default(), budget, used: 0, below }
    }
}

impl<S: TensorStore> TensorStore for TieredStore<S> {
    fn put(&mut self, name: &str, tensors: Vec<(String, TensorData)>) -> Result<(), StoreError> {
        self.remove(name)?;
        let new = size(&tensors);
        if self.used + new > self.budget {
            return self.below.put(name, tensors);
        }
        self.used += new;
        self.memory.put(name, tensors)
    }

    fn get(&self, name: &str) -> Result<BTreeMap<String, TensorData>, StoreError> {
        if self.memory.tensors.contains_key(name) { self.memory.get(name) } else { self.below.get(name) }
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        match self.memory.tensors.remove(name) {
            Some(old) => self.used -= size(&old),
            None => self.below.remove(name)?,
        }
        Ok(())
    }

    fn put_text(&mut self, name: &str, text: &str) -> Result<(), StoreError> {
        self.memory.put_text(name, text)
    }

    fn get_text(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.memory.get_text(name)
    }
}

fn size(tensors: &[(String, TensorData)]) -> u64 {
    tensors.iter().map(|(_, data)| data.bytes().len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_the_budget_goes_below_and_comes_back() {
        let mut store = TieredStore::new(8, MemoryStore::default());
        let one = |x: f32| vec![("x".to_owned(), TensorData::new(vec![x], [1]))];
        for (name, x) in [("a", 1.0), ("b", 2.0), ("c", 3.0), ("a", 4.0)] {
            store.put(name, one(x)).unwrap();
        }
        assert_eq!((store.memory.tensors.len(), store.below.tensors.len()), (2, 1));
        for (name, x) in [("a", 4.0), ("b", 2.0), ("c", 3.0)] {
            assert_eq!(store.get(name).unwrap()["x"], one(x)[0].1);
        }
        assert!(store.get("d").unwrap_err().to_string().contains("`d`"));
    }
}
