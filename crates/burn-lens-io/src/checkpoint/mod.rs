//! Checkpoints: a folder as the Hugging Face hub lays it out, or a single weights file.

mod layout;
mod mapped;
mod nan;
mod npz;
mod pickle;
mod safetensors;
mod torch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::TensorData;
use burn_lens_tensor::{WeightError, Weights, nearest};

use crate::IoError;
use layout::Layout;
use npz::NpzFile;
use torch::TorchFile;

pub(crate) use layout::ShardIndex;
#[cfg(feature = "hub")]
pub(crate) use layout::WEIGHTS;
pub use mapped::Access;
pub(crate) use safetensors::{SafetensorsFile, burn_dtype, safetensors_dtype};
pub use torch::torch_values;

/// The weights of a model on disk, with its `config.json`.
///
/// Headers are read and checked when the checkpoint is opened; tensors when they are asked for,
/// through [`Weights`]. A tensor of a safetensors file is not copied: its
/// [`TensorData`] is a window into the mapped file, and once the last one over a window is
/// dropped its pages are handed back, so converting a model to another dtype or device needs
/// no more memory than the result and one tensor.
///
/// The weights of a folder are, in this order: `model.safetensors`,
/// `model.safetensors.index.json` and its shards, `pytorch_model.bin`,
/// `pytorch_model.bin.index.json` and its shards, or the only other `*.safetensors`, `*.pt`,
/// `*.pth` or `*.bin` there.
///
/// ```no_run
/// use burn_lens_io::Checkpoint;
/// use burn_lens_tensor::Weights;
///
/// let mut checkpoint = Checkpoint::open("models/gpt2")?;
/// let config: &str = checkpoint.config()?;
/// # let _ = config;
/// let w_e = checkpoint.get("wte.weight", &[50257, 768])?;
/// assert_eq!(w_e.shape().to_vec(), [50257, 768]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    origin: PathBuf,
    config: Option<String>,
    files: Vec<WeightFile>,
    /// Which of `files` each tensor is in.
    owners: BTreeMap<String, usize>,
    read: BTreeSet<String>,
}

impl Checkpoint {
    /// Opens a folder, mapping its safetensors.
    ///
    /// # Errors
    ///
    /// If it holds no weights, or files that are malformed, truncated or contradict each other.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, IoError> {
        Self::open_with(folder, Access::Map)
    }

    /// As [`open`](Self::open), with a choice of how the files are read.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(folder: impl AsRef<Path>, access: Access) -> Result<Self, IoError> {
        let folder = folder.as_ref();
        if folder.is_file() {
            return Err(IoError::NotAFolder { path: folder.to_owned() });
        }
        let config = match fs::read_to_string(folder.join(CONFIG)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(IoError::os("read", &folder.join(CONFIG))(error)),
        };
        let (files, owners) = match Layout::find(folder)? {
            Layout::Single(path) => single(&path, access)?,
            Layout::Sharded(index) => sharded(folder, &ShardIndex::read(&index)?, access)?,
        };
        Ok(Self { origin: folder.to_owned(), config, files, owners, read: BTreeSet::new() })
    }

    /// Opens a single weights file: safetensors, a NumPy archive (`.npz`), or any container that
    /// `torch.save` writes.
    ///
    /// ```no_run
    /// # use burn_lens_io::Checkpoint;
    /// let sae = Checkpoint::open_file("sae/sae_weights.safetensors")?;
    /// # Ok::<(), burn_lens_io::IoError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is malformed or truncated.
    pub fn open_file(path: impl AsRef<Path>) -> Result<Self, IoError> {
        let path = path.as_ref();
        let (files, owners) = single(path, Access::Map)?;
        Ok(Self { origin: path.to_owned(), config: None, files, owners, read: BTreeSet::new() })
    }

    /// Opens every safetensors file of a folder as one table, for what is published in many files
    /// without an index.
    ///
    /// # Errors
    ///
    /// If there is none, one is malformed, or two hold a tensor of one name.
    pub fn open_all(folder: impl AsRef<Path>) -> Result<Self, IoError> {
        let folder = folder.as_ref();
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(IoError::os("read", folder))? {
            let path = entry.map_err(IoError::os("read", folder))?.path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                paths.push(path);
            }
        }
        paths.sort();
        if paths.is_empty() {
            return Err(IoError::NoFile { folder: folder.to_owned(), file: "*.safetensors".to_owned() });
        }
        let (mut files, mut owners) = (Vec::new(), BTreeMap::new());
        for path in paths {
            let file = WeightFile::open(&path, Access::Map)?;
            for name in file.names() {
                if owners.insert(name.clone(), files.len()).is_some() {
                    return Err(IoError::DuplicateTensor { path, tensor: name });
                }
            }
            files.push(file);
        }
        Ok(Self { origin: folder.to_owned(), config: None, files, owners, read: BTreeSet::new() })
    }

    /// The text of the folder's `config.json`.
    ///
    /// # Errors
    ///
    /// If the folder has none, or this is a single file.
    pub fn config(&self) -> Result<&str, IoError> {
        self.config
            .as_deref()
            .ok_or_else(|| IoError::NoFile { folder: self.origin.clone(), file: CONFIG.to_owned() })
    }

    /// The folder or file that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.origin
    }

    /// Where messages say that `name` comes from: its file.
    fn file_of(&self, name: &str) -> String {
        self.owners
            .get(name)
            .map_or_else(|| self.origin(), |&file| self.files[file].path().display().to_string())
    }
}

impl Weights for Checkpoint {
    fn names(&self) -> Vec<String> {
        self.owners.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.files[*self.owners.get(name)?].shape(name).map(<[usize]>::to_vec)
    }

    /// The tensor in the file's own dtype: f64, f32, bf16 or f16.
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<TensorData, WeightError> {
        let Some(&owner) = self.owners.get(name) else {
            let nearest = nearest(name, self.owners.keys());
            return Err(WeightError::Missing { name: name.to_owned(), origin: self.origin(), nearest });
        };
        let (file, name, origin) = (&self.files[owner], name.to_owned(), self.file_of(name));
        let found = file.shape(&name).unwrap_or_default();
        if found != shape {
            return Err(WeightError::Shape { name, origin, expected: shape.to_vec(), found: found.to_vec() });
        }
        let data = match file.read(&name) {
            Some(Ok(data)) => data,
            Some(Err(IoError::Dtype { found, .. })) => {
                return Err(WeightError::Dtype { name, origin, found });
            }
            Some(Err(error)) => return Err(WeightError::Read { name, origin, source: error.into() }),
            None => return Err(WeightError::Missing { name, origin, nearest: Vec::new() }),
        };
        if !data.dtype().is_float() {
            return Err(WeightError::Dtype { name, origin, found: format!("{:?}", data.dtype()) });
        }
        if let Some(index) = nan::first_nan(data.as_bytes(), data.dtype()) {
            return Err(WeightError::NotANumber { name, origin, index });
        }
        self.read.insert(name);
        Ok(data)
    }

    fn unread(&self) -> Vec<String> {
        self.owners.keys().filter(|name| !self.read.contains(*name)).cloned().collect()
    }

    fn origin(&self) -> String {
        self.origin.display().to_string()
    }
}

const CONFIG: &str = "config.json";

type Files = (Vec<WeightFile>, BTreeMap<String, usize>);

fn single(path: &Path, access: Access) -> Result<Files, IoError> {
    let file = WeightFile::open(path, access)?;
    let owners = file.names().into_iter().map(|name| (name, 0)).collect();
    Ok((vec![file], owners))
}

/// Opens every shard, and checks the index against what they hold. A tensor that a shard holds
/// and the index forgets is kept: whoever reads the checkpoint can then say that it is surplus.
fn sharded(folder: &Path, index: &ShardIndex, access: Access) -> Result<Files, IoError> {
    let mut files = Vec::new();
    let mut numbers = BTreeMap::new();
    let mut owners = BTreeMap::new();
    for shard in index.shards() {
        let path = folder.join(shard);
        if !path.is_file() {
            return Err(index.missing(shard));
        }
        let file = WeightFile::open(&path, access)?;
        owners.extend(file.names().into_iter().map(|name| (name, files.len())));
        numbers.insert(shard.to_owned(), files.len());
        files.push(file);
    }
    for (tensor, shard) in index.tensors() {
        let number = numbers[shard];
        if files[number].shape(tensor).is_none() {
            let nearest = nearest(tensor, files[number].names());
            let (index, shard, tensor) = (index.path().to_owned(), shard.to_owned(), tensor.to_owned());
            return Err(IoError::MissingFromShard { index, shard, tensor, nearest });
        }
        owners.insert(tensor.to_owned(), number);
    }
    Ok((files, owners))
}

/// A weights file of either format.
#[derive(Debug)]
enum WeightFile {
    Safetensors(SafetensorsFile),
    Torch(TorchFile),
    Npz(NpzFile),
}

impl WeightFile {
    fn open(path: &Path, access: Access) -> Result<Self, IoError> {
        let is = |extension: &str| path.extension().is_some_and(|found| found == extension);
        if is("safetensors") {
            SafetensorsFile::open(path, access).map(Self::Safetensors)
        } else if is("npz") {
            NpzFile::open(path).map(Self::Npz)
        } else {
            TorchFile::open(path).map(Self::Torch)
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Safetensors(file) => file.path(),
            Self::Torch(file) => file.path(),
            Self::Npz(file) => file.path(),
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Safetensors(file) => file.names().map(str::to_owned).collect(),
            Self::Torch(file) => file.names().map(str::to_owned).collect(),
            Self::Npz(file) => file.names().map(str::to_owned).collect(),
        }
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        match self {
            Self::Safetensors(file) => file.shape(name),
            Self::Torch(file) => file.shape(name),
            Self::Npz(file) => file.shape(name),
        }
    }

    fn read(&self, name: &str) -> Option<Result<TensorData, IoError>> {
        match self {
            Self::Safetensors(file) => file.read(name),
            Self::Torch(file) => file.read(name),
            Self::Npz(file) => file.read(name),
        }
    }
}
