//! One safetensors file: an 8-byte length, a JSON header, the tensors' bytes.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use burn::tensor::{BoolStore, DType, TensorData};
use safetensors::{Dtype, tensor::Metadata};

use super::mapped::{Access, Source};
use crate::IoError;

/// The bytes before the JSON: its length, as a little-endian `u64`.
const LENGTH: usize = 8;

/// The longest JSON header accepted, as in the reference implementation.
const MAX_HEADER: usize = 100_000_000;

/// An open safetensors file with its header checked.
#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    path: PathBuf,
    source: Source,
    entries: BTreeMap<String, Entry>,
}

/// What the header says of one tensor.
#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl SafetensorsFile {
    /// Opens a file and checks its whole header: after this, every range lies in the file,
    /// ranges do not overlap, and every shape fits its range.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self, IoError> {
        let source = Source::open(path, access)?;
        let header = Header::read(&source, path)?;
        let entries = header
            .metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let (start, end) = info.data_offsets;
                let range = header.data_start + start..header.data_start + end;
                (name, Entry { dtype: info.dtype, shape: info.shape.clone(), range })
            })
            .collect();
        Ok(Self { path: path.to_owned(), source, entries })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The tensor `name` in its own dtype; `None` where the file has no such tensor.
    pub(crate) fn read(&self, name: &str) -> Option<Result<TensorData, IoError>> {
        self.entries.get(name).map(|entry| self.read_entry(name, entry))
    }

    fn read_entry(&self, name: &str, entry: &Entry) -> Result<TensorData, IoError> {
        let Some(dtype) = burn_dtype(entry.dtype) else {
            return Err(IoError::Dtype {
                path: self.path.clone(),
                tensor: name.to_owned(),
                found: format!("{:?}", entry.dtype),
            });
        };
        let bytes = self
            .source
            .bytes(entry.range.clone(), dtype.size())
            .map_err(|source| IoError::Tensor { path: self.path.clone(), tensor: name.to_owned(), source })?;
        TensorData::try_from_bytes(bytes, entry.shape.clone(), dtype)
            .map_err(|error| IoError::Header { path: self.path.clone(), source: error.to_string().into() })
    }
}

/// The parsed header, and where the tensors' bytes begin.
struct Header {
    metadata: Metadata,
    data_start: usize,
}

impl Header {
    fn read(source: &Source, path: &Path) -> Result<Self, IoError> {
        let invalid = |reason: String| IoError::Header { path: path.to_owned(), source: reason.into() };
        let file_len =
            usize::try_from(source.len()).map_err(|_| invalid("it is too large for this system".into()))?;
        if file_len < LENGTH {
            return Err(invalid(format!(
                "it is {file_len} bytes long, shorter than the header's length field"
            )));
        }
        let take = |range| source.bytes(range, 1).map_err(IoError::os("read", path));

        let length: [u8; LENGTH] =
            take(0..LENGTH)?[..].try_into().map_err(|_| invalid("its length field cannot be read".into()))?;
        let header_len = u64::from_le_bytes(length);
        let data_start = usize::try_from(header_len)
            .ok()
            .filter(|&len| len <= MAX_HEADER)
            .map(|len| LENGTH + len)
            .filter(|&end| end <= file_len)
            .ok_or_else(|| {
                invalid(format!("its header claims {header_len} bytes, the file has {file_len}"))
            })?;

        let json = take(LENGTH..data_start)?;
        // Deserialising `Metadata` also validates it: offsets contiguous, shapes that fit, no overflow.
        let metadata: Metadata = serde_json::from_slice(&json).map_err(|error| invalid(error.to_string()))?;
        let expected = (data_start as u64).saturating_add(metadata.data_len() as u64);
        if expected != source.len() {
            return Err(IoError::Length { path: path.to_owned(), expected, found: source.len() });
        }
        Ok(Self { metadata, data_start })
    }
}

/// burn's name for a safetensors dtype, if it has one.
pub(crate) fn burn_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}

/// The safetensors name for a burn dtype, if it has one.
pub(crate) fn safetensors_dtype(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool(BoolStore::Native | BoolStore::U8) => Dtype::BOOL,
        _ => return None,
    })
}
