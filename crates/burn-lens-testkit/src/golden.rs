//! Golden files: what an oracle computed, as named tensors.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

/// The tensors of one golden file.
#[derive(Clone, Debug)]
pub struct Golden {
    tensors: BTreeMap<String, TensorData>,
    path: String,
}

impl Golden {
    /// Reads a safetensors file of f64, f32, i64 or i32 tensors.
    ///
    /// # Panics
    ///
    /// If the file is missing, malformed or holds another dtype.
    #[must_use]
    pub fn open(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().display().to_string();
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
        let tensors = file.iter().map(|(name, view)| {
            let (shape, bytes) = (view.shape().to_vec(), view.data());
            let data = match view.dtype() {
                Dtype::F64 => TensorData::new(values(bytes, f64::from_le_bytes), shape),
                Dtype::F32 => TensorData::new(values(bytes, f32::from_le_bytes), shape),
                Dtype::I64 => TensorData::new(values(bytes, i64::from_le_bytes), shape),
                Dtype::I32 => TensorData::new(values(bytes, i32::from_le_bytes), shape),
                other => panic!("{path}: {name} has dtype {other:?}"),
            };
            (name.to_owned(), data)
        });
        let tensors = tensors.collect();
        Self { tensors, path }
    }

    /// The tensor `name`.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> &TensorData {
        self.tensors.get(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.path))
    }

    /// Whether there is a tensor `name`.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The integers `name` as `[batch, pos]` on a device.
    ///
    /// # Panics
    ///
    /// If they are not of rank 2.
    #[must_use]
    pub fn ints(&self, name: &str, device: &Device) -> Tensor<2, Int> {
        Tensor::from_data(self.get(name).clone(), device)
    }

    /// The values `name` as `f64`.
    ///
    /// # Panics
    ///
    /// If there is no such tensor.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<f64> {
        self.get(name).iter::<f64>().collect()
    }
}

fn values<T, const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    assert!(rest.is_empty(), "a truncated tensor");
    chunks.iter().map(|&chunk| from(chunk)).collect()
}
