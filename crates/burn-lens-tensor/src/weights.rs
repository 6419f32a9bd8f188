//! Named weights, from wherever they come.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::TensorData;

/// A table of named tensors that a model is built from.
///
/// `burn-lens-io` implements it over checkpoint files; [`MemoryWeights`] over a map, for
/// tests and for weights that a program computed.
pub trait Weights {
    /// Every name in the table, sorted.
    fn names(&self) -> Vec<String>;

    /// The shape of `name`, if it is in the table.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// The tensor `name`, which must have `shape`. It may be asked for more than once.
    ///
    /// # Errors
    ///
    /// If it is missing, has another shape, cannot be read, or holds a NaN.
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<TensorData, WeightError>;

    /// The names that were never asked for, sorted.
    fn unread(&self) -> Vec<String>;

    /// Where the weights come from, for messages: a file, a folder, a hub name.
    fn origin(&self) -> String;
}

/// Why a weight could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// No tensor has that name.
    #[error("tensor `{name}` is missing from {origin}{}", hint(nearest))]
    Missing {
        /// The name asked for.
        name: String,
        /// The file or folder searched.
        origin: String,
        /// The closest names that are there.
        nearest: Vec<String>,
    },
    /// The tensor has another shape than the configuration implies.
    #[error("tensor `{name}` in {origin} has shape {found:?}, but the configuration implies {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its file.
        origin: String,
        /// The shape that the model needs.
        expected: Vec<usize>,
        /// The shape that the file holds.
        found: Vec<usize>,
    },
    /// The tensor's dtype is not one that weights can have.
    #[error("tensor `{name}` in {origin} has dtype {found}; weights must be f64, f32, bf16 or f16")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its file.
        origin: String,
        /// The dtype found.
        found: String,
    },
    /// The tensor holds a NaN.
    #[error("tensor `{name}` in {origin} holds NaN (first at flat index {index})")]
    NotANumber {
        /// The tensor.
        name: String,
        /// Its file.
        origin: String,
        /// Flat index of the first NaN.
        index: usize,
    },
    /// The file holds tensors that the model has no place for.
    #[error("{origin} holds {} tensor(s) that this architecture does not use: {}", names.len(), listed(names))]
    Surplus {
        /// The file or folder.
        origin: String,
        /// The names left over.
        names: Vec<String>,
    },
    /// The tensor's bytes could not be read.
    #[error("tensor `{name}` could not be read from {origin}")]
    Read {
        /// The tensor.
        name: String,
        /// Its file.
        origin: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn hint(nearest: &[String]) -> String {
    if nearest.is_empty() {
        String::new()
    } else {
        format!("; the nearest names there are: {}", nearest.join(", "))
    }
}

fn listed(names: &[String]) -> String {
    const MOST: usize = 8;
    let shown = names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{shown}, …") } else { shown }
}

/// Weights held in memory.
#[derive(Debug, Default, Clone)]
pub struct MemoryWeights {
    tensors: BTreeMap<String, TensorData>,
    read: BTreeSet<String>,
}

impl MemoryWeights {
    /// A table of `tensors` by name.
    pub fn new(tensors: impl IntoIterator<Item = (String, TensorData)>) -> Self {
        Self { tensors: tensors.into_iter().collect(), read: BTreeSet::new() }
    }
}

impl Weights for MemoryWeights {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|data| data.shape().to_vec())
    }

    fn get(&mut self, name: &str, shape: &[usize]) -> Result<TensorData, WeightError> {
        let Some(data) = self.tensors.get(name) else {
            return Err(WeightError::Missing {
                name: name.to_owned(),
                origin: self.origin(),
                nearest: crate::nearest(name, self.tensors.keys()),
            });
        };
        if data.shape().to_vec() != shape {
            return Err(WeightError::Shape {
                name: name.to_owned(),
                origin: self.origin(),
                expected: shape.to_vec(),
                found: data.shape().to_vec(),
            });
        }
        self.read.insert(name.to_owned());
        Ok(data.clone())
    }

    fn unread(&self) -> Vec<String> {
        self.tensors.keys().filter(|name| !self.read.contains(*name)).cloned().collect()
    }

    fn origin(&self) -> String {
        "memory".to_owned()
    }
}
