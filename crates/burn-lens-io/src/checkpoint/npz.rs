//! One NumPy archive (`.npz`): a zip of `.npy` files, each a short text header and an array.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use burn::tensor::{DType, TensorData};
use zip::ZipArchive;

use crate::IoError;

type Archive = ZipArchive<BufReader<File>>;

/// An open archive; arrays are read when asked for.
#[derive(Debug)]
pub(super) struct NpzFile {
    path: PathBuf,
    archive: Mutex<Archive>,
    arrays: BTreeMap<String, Array>,
}

/// What the header of one array says.
#[derive(Debug)]
struct Array {
    index: usize,
    dtype: DType,
    shape: Vec<usize>,
    /// Where its values begin.
    start: u64,
}

impl NpzFile {
    /// Opens an archive and checks every header.
    pub(super) fn open(path: &Path) -> Result<Self, IoError> {
        let file = File::open(path).map_err(IoError::os("open", path))?;
        let bad = |source| IoError::Npz { path: path.to_owned(), source };
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| bad(error.into()))?;
        let mut arrays = BTreeMap::new();
        for index in 0..archive.len() {
            let entry = archive.by_index(index).map_err(|error| bad(error.into()))?;
            let name = entry.name().map_err(|error| bad(error.into()))?.into_owned();
            let Some(name) = name.strip_suffix(".npy").map(str::to_owned) else { continue };
            let size = entry.size();
            let array = header(index, &mut BufReader::new(entry), size)
                .map_err(|error| bad(format!("array `{name}`: {error}").into()))?;
            arrays.insert(name, array);
        }
        Ok(Self { path: path.to_owned(), archive: Mutex::new(archive), arrays })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.keys().map(String::as_str)
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.arrays.get(name).map(|array| array.shape.as_slice())
    }

    /// The array `name`; `None` where there is no such array.
    pub(super) fn read(&self, name: &str) -> Option<Result<TensorData, IoError>> {
        let array = self.arrays.get(name)?;
        let failed = |source| IoError::Tensor { path: self.path.clone(), tensor: name.to_owned(), source };
        Some(self.values(array).map_err(failed))
    }

    fn values(&self, array: &Array) -> io::Result<TensorData> {
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entry = archive.by_index(array.index)?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?; // its size was checked against the header
        bytes.drain(..array.start as usize);
        TensorData::try_from_bytes_vec(bytes, array.shape.clone(), array.dtype)
            .map_err(|error| invalid(error.to_string()))
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Reads a header and checks that the array is as long as it says.
fn header(index: usize, entry: &mut impl Read, size: u64) -> io::Result<Array> {
    const MAGIC: &[u8] = b"\x93NUMPY";
    /// Far longer than that of any array.
    const MOST: u64 = 1 << 16;
    let mut start = [0; 8];
    entry.read_exact(&mut start)?;
    if &start[..6] != MAGIC {
        return Err(invalid("it is no NumPy array"));
    }
    let (length, so_far) = if start[6] == 1 {
        let mut length = [0; 2];
        entry.read_exact(&mut length)?;
        (u64::from(u16::from_le_bytes(length)), 10)
    } else {
        let mut length = [0; 4];
        entry.read_exact(&mut length)?;
        (u64::from(u32::from_le_bytes(length)), 12)
    };
    if length > MOST {
        return Err(invalid(format!("its header is {length} bytes long")));
    }
    let mut text = String::new();
    entry.take(length).read_to_string(&mut text)?;
    let start = so_far + length;
    let (dtype, shape) = parse(&text)?;
    let bytes = shape.iter().try_fold(dtype.size() as u64, |bytes, &len| bytes.checked_mul(len as u64));
    match bytes.and_then(|bytes| bytes.checked_add(start)) {
        Some(expected) if expected == size => Ok(Array { index, dtype, shape, start }),
        _ => Err(invalid(format!("its shape {shape:?} does not fit its {size} bytes"))),
    }
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (2304, 16384), }`
fn parse(text: &str) -> io::Result<(DType, Vec<usize>)> {
    let value = |key: &str| {
        let rest = text.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
        rest.ok_or_else(|| invalid(format!("its header has no `{key}`")))
    };
    let descr = value("descr")?.split('\'').nth(1).unwrap_or_default();
    let dtype = match descr {
        "<f8" => DType::F64,
        "<f4" => DType::F32,
        "<f2" => DType::F16,
        "<i8" => DType::I64,
        "<i4" => DType::I32,
        other => return Err(invalid(format!("its dtype `{other}` is none of <f8, <f4, <f2, <i8, <i4"))),
    };
    if !value("fortran_order")?.starts_with("False") {
        return Err(invalid("its columns come first (fortran_order)"));
    }
    let shape = value("shape")?;
    let inner = shape.strip_prefix('(').and_then(|shape| shape.split_once(')'));
    let (inner, _) = inner.ok_or_else(|| invalid("its shape is no tuple"))?;
    let lens = inner.split(',').map(str::trim).filter(|len| !len.is_empty());
    let shape = lens.map(|len| len.parse().map_err(|_| invalid(format!("`{len}` is no length"))));
    Ok((dtype, shape.collect::<io::Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn npy(descr: &str, order: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(values);
        bytes
    }

    fn opened(array: &[u8]) -> Result<NpzFile, IoError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("params.npz");
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        zip.start_file("w_enc.npy", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(array).unwrap();
        zip.finish().unwrap();
        let file = NpzFile::open(&path);
        // Read while the file is there.
        file.inspect(|file| assert!(file.read("w_enc").unwrap().is_ok()))
    }

    #[test]
    fn arrays_come_back_and_others_are_refused_with_their_name() {
        let values: Vec<u8> =
            [1.5_f32, -2.0, 0.0, 4.0, 5.0, 6.0].into_iter().flat_map(f32::to_le_bytes).collect();
        let file = opened(&npy("<f4", "False", "(2, 3)", &values)).unwrap();
        assert_eq!(file.shape("w_enc"), Some(&[2, 3][..]));
        assert!(file.read("w_dec").is_none());
        for (array, expected) in [
            (npy("<f4", "True", "(2, 3)", &values), "fortran_order"),
            (npy(">f4", "False", "(2, 3)", &values), ">f4"),
            (npy("<f4", "False", "(2, 4)", &values), "[2, 4] does not fit"),
            (npy("<f4", "False", "(2, -3)", &values), "`-3` is no length"),
            (npy("<f4", "False", "(99999999999, 99999999999)", &values), "does not fit"),
            (npy("|O", "False", "()", &values), "|O"),
            (b"\x93NUMPX\x01\x00aa".to_vec(), "no NumPy array"),
        ] {
            let error = opened(&array).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains("`w_enc`") && cause.contains(expected), "{cause}");
        }
    }
}
