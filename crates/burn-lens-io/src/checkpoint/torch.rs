//! One `PyTorch` file (`.pt`, `.pth`, `.bin`), through the crate `pytorch-reader`.
//!
//! `pytorch-reader` interprets the pickle's data opcodes and never calls what they name, bounds
//! every allocation, and gathers strided views. Two things are added here: the file is refused
//! if its pickle names a Python object that tensors do not need ([`super::pickle`]), where
//! `pytorch-reader` alone would skip that object; and errors name the file.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use burn::tensor::{BoolStore, DType, TensorData};
use pytorch_reader::{FileFormat, MAX_PICKLE_SIZE, PickleValue, PytorchReader, Tensor};
use serde_json::{Map, Value};

use super::pickle;
use crate::IoError;

/// An open `PyTorch` file; tensors are read when asked for.
#[derive(Debug)]
pub(super) struct TorchFile {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl TorchFile {
    pub(super) fn open(path: &Path) -> Result<Self, IoError> {
        // Told apart from a malformed file, for the message.
        File::open(path).map_err(IoError::os("open", path))?;
        let torch = |source| IoError::Torch { path: path.to_owned(), source };
        let reader = PytorchReader::new(path).map_err(|error| torch(error.into()))?;
        let globals = globals(path, &reader.metadata().format_type).map_err(|error| torch(error.into()))?;
        if let Some(global) = globals.into_iter().find(|global| !pickle::is_allowed(global)) {
            return Err(IoError::PickleGlobal { path: path.to_owned(), global });
        }
        Ok(Self { path: path.to_owned(), tensors: reader.into_tensors().into_iter().collect() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(Tensor::shape)
    }

    /// The tensor `name`, contiguous, in its own dtype; `None` where there is no such tensor.
    pub(super) fn read(&self, name: &str) -> Option<Result<TensorData, IoError>> {
        self.tensors.get(name).map(|tensor| {
            let failed =
                |source| IoError::Tensor { path: self.path.clone(), tensor: name.to_owned(), source };
            let bytes = tensor.read().map_err(failed)?;
            TensorData::try_from_bytes_vec(bytes, tensor.shape().to_vec(), burn_dtype(tensor.dtype()))
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error.to_string())))
        })
    }
}

/// What a `PyTorch` file holds beside tensors: numbers, texts, lists and dictionaries of them. Tensors,
/// and whatever else, are left out; nothing is executed.
///
/// # Errors
///
/// If the file cannot be read, is malformed, or names a Python object that tensors do not need.
pub fn torch_values(path: impl AsRef<Path>) -> Result<Map<String, Value>, IoError> {
    let path = path.as_ref();
    drop(TorchFile::open(path)?); // refuses what is not allowed
    let read = PytorchReader::read_pickle_data(path, None);
    match read.map_err(|error| IoError::Torch { path: path.to_owned(), source: error.into() })? {
        PickleValue::Dict(values) => {
            Ok(values.into_iter().filter_map(|(key, value)| Some((key, plain(value)?))).collect())
        }
        _ => Ok(Map::new()),
    }
}

fn plain(value: PickleValue) -> Option<Value> {
    Some(match value {
        PickleValue::None => Value::Null,
        PickleValue::Bool(value) => value.into(),
        PickleValue::Int(value) => value.into(),
        PickleValue::Float(value) => value.into(),
        PickleValue::String(value) => value.into(),
        PickleValue::List(values) => Value::Array(values.into_iter().filter_map(plain).collect()),
        PickleValue::Dict(values) => {
            Value::Object(values.into_iter().filter_map(|(key, value)| Some((key, plain(value)?))).collect())
        }
        _ => return None,
    })
}

/// Every Python object that the pickles of a file name.
fn globals(path: &Path, format: &FileFormat) -> io::Result<pickle::Globals> {
    let mut globals = pickle::Globals::new();
    let mut file = BufReader::new(File::open(path)?);
    match format {
        FileFormat::Zip => {
            let mut archive = zip::ZipArchive::new(file)?;
            for index in 0..archive.len() {
                let entry = archive.by_index(index)?;
                if entry.name()?.ends_with(".pkl") {
                    pickle::scan(&mut BufReader::new(entry.take(MAX_PICKLE_SIZE)), &mut globals)?;
                }
            }
        }
        FileFormat::Tar => {
            let mut archive = tar::Archive::new(file);
            for entry in archive.entries()? {
                let entry = entry?;
                if entry.path()?.ends_with("pickle") {
                    pickle::scan(&mut BufReader::new(entry), &mut globals)?;
                }
            }
        }
        FileFormat::Legacy => {
            /// Magic number, protocol version, system information, the object, storage keys.
            const PICKLES: usize = 5;
            for _ in 0..PICKLES {
                pickle::scan(&mut file, &mut globals)?;
            }
        }
        FileFormat::Pickle => pickle::scan(&mut file, &mut globals)?,
    }
    Ok(globals)
}

fn burn_dtype(dtype: pytorch_reader::DType) -> DType {
    use pytorch_reader::DType as Torch;
    match dtype {
        Torch::F64 => DType::F64,
        Torch::F32 => DType::F32,
        Torch::F16 => DType::F16,
        Torch::BF16 => DType::BF16,
        Torch::I64 => DType::I64,
        Torch::I32 => DType::I32,
        Torch::I16 => DType::I16,
        Torch::I8 => DType::I8,
        Torch::U64 => DType::U64,
        Torch::U32 => DType::U32,
        Torch::U16 => DType::U16,
        Torch::U8 => DType::U8,
        Torch::Bool => DType::Bool(BoolStore::Native),
    }
}
