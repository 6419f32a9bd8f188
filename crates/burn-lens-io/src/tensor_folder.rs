//! A folder of named sets of tensors and texts, each written whole or not at all.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use burn::tensor::TensorData;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

use crate::{IoError, read_safetensors, save_safetensors, write_atomically};

/// A folder that holds intermediate results: `NAME.safetensors` and `NAME.json`.
#[derive(Clone, Debug)]
pub struct TensorFolder {
    path: PathBuf,
}

impl TensorFolder {
    /// The folder at `path`, made if it is not there.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, IoError> {
        let path = path.into();
        create_folder(&path)?;
        Ok(Self { path })
    }

    /// The folder at `path`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, IoError> {
        let path = path.into();
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Ok(Self { path }),
            Ok(_) => Err(IoError::os("open", &path)(io::ErrorKind::NotADirectory.into())),
            Err(error) => Err(IoError::os("open", &path)(error)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn tensors(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.safetensors"))
    }

    fn text(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.json"))
    }

    /// Writes tensors, in place of what was there.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn put(&self, name: &str, tensors: Vec<(String, TensorData)>) -> Result<(), IoError> {
        save_safetensors(self.tensors(name), tensors, BTreeMap::new())
    }

    /// Reads tensors; the file is mapped, not copied.
    ///
    /// # Errors
    ///
    /// If there are none, or the file is malformed.
    pub fn get(&self, name: &str) -> Result<BTreeMap<String, TensorData>, IoError> {
        read_safetensors(self.tensors(name))
    }

    /// Removes tensors, if they are there.
    ///
    /// # Errors
    ///
    /// If the file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), IoError> {
        let path = self.tensors(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(IoError::os("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Writes a text, in place of what was there.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn put_text(&self, name: &str, text: &str) -> Result<(), IoError> {
        write_atomically(self.text(name), |file| file.write_all(text.as_bytes()))
    }

    /// Reads a text; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn get_text(&self, name: &str) -> Result<Option<String>, IoError> {
        let path = self.text(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(IoError::os("read", &path)(error)),
        }
    }
}

/// Makes a folder, and those that it lies in, unless they are there.
///
/// # Errors
///
/// If it cannot be made.
pub fn create_folder(path: impl AsRef<Path>) -> Result<(), IoError> {
    let path = path.as_ref();
    fs::create_dir_all(path).map_err(IoError::os("create the folder", path))
}

/// Reads a text file.
///
/// # Errors
///
/// If it cannot be read, or is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String, IoError> {
    let path = path.as_ref();
    fs::read_to_string(path).map_err(IoError::os("read", path))
}

/// Writes a text compressed with gzip, [atomically](write_atomically); equal texts give equal files.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write_gzip(path: impl AsRef<Path>, text: &str) -> Result<(), IoError> {
    write_atomically(path, |file| {
        let mut encoder = GzEncoder::new(file, Compression::new(5));
        encoder.write_all(text.as_bytes())?;
        encoder.finish().map(drop)
    })
}

/// Reads a text compressed with gzip, of at most `max_bytes`.
///
/// # Errors
///
/// If it cannot be read, is damaged or not UTF-8, or is longer: a small file can hold very much.
pub fn read_gzip(path: impl AsRef<Path>, max_bytes: u64) -> Result<String, IoError> {
    let path = path.as_ref();
    let file = fs::File::open(path).map_err(IoError::os("open", path))?;
    let mut text = String::new();
    let read = MultiGzDecoder::new(file).take(max_bytes + 1).read_to_string(&mut text);
    let read = read.map_err(IoError::os("decompress", path))?;
    if read as u64 > max_bytes {
        let source =
            io::Error::new(io::ErrorKind::InvalidData, format!("it holds more than {max_bytes} bytes"));
        return Err(IoError::os("decompress", path)(source));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_comes_back_and_what_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = TensorFolder::create(folder.path().join("a.dotted").join("folder")).unwrap();
        let tensors = vec![("x".to_owned(), TensorData::new(vec![1_u32, 2], [2]))];
        store.put("codes-1", tensors.clone()).unwrap();
        assert_eq!(store.get("codes-1").unwrap()["x"], tensors[0].1);
        store.remove("codes-1").unwrap();
        store.remove("codes-1").unwrap();
        assert!(store.get("codes-1").unwrap_err().to_string().contains("codes-1"));
        assert_eq!(store.get_text("manifest").unwrap(), None);
        store.put_text("manifest", "{}").unwrap();
        assert_eq!(store.get_text("manifest").unwrap().as_deref(), Some("{}"));
        assert!(TensorFolder::open(folder.path().join("none")).is_err());
    }

    #[test]
    fn gzip_comes_back_and_bombs_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.jsonl.gz");
        write_gzip(&path, &"line\n".repeat(1000)).unwrap();
        assert_eq!(read_gzip(&path, 5000).unwrap().lines().count(), 1000);
        assert!(read_gzip(&path, 4999).is_err());
        fs::write(&path, b"not gzip").unwrap();
        assert!(read_gzip(&path, 5000).is_err());
    }
}
