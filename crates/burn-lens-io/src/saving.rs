//! Writing files so that a reader never sees half of one, and reading tensors back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufWriter, Write},
    path::Path,
};

use burn::tensor::TensorData;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::{
    IoError,
    checkpoint::{Access, SafetensorsFile, burn_dtype, safetensors_dtype},
};

/// Writes a file through a temporary one in the same folder, renamed over `path` at the end.
///
/// If `write` fails, or the process dies, `path` is as it was before. A file that is already
/// there keeps its permissions; a new one has those of any new file.
///
/// ```
/// # let folder = std::env::temp_dir().join(format!("burn-lens-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("scores.csv");
/// use std::io::Write as _;
/// burn_lens_io::write_atomically(&path, |file| writeln!(file, "layer,score"))?;
/// assert_eq!(std::fs::read_to_string(&path)?, "layer,score\n");
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// If `write` fails, or the file cannot be created, written or renamed.
pub fn write_atomically<W>(path: impl AsRef<Path>, write: W) -> Result<(), IoError>
where
    W: FnOnce(&mut dyn Write) -> io::Result<()>,
{
    let path = path.as_ref();
    persist(path, write).map_err(IoError::os("write", path))
}

fn persist(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    /// Tensors are written whole; this is for text written in small pieces.
    const BUFFER: usize = 1 << 16;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".burn-lens-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // As any new file; the umask applies. The default of tempfile is 0600.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(folder)?;
    let mut writer = BufWriter::with_capacity(BUFFER, temporary.as_file());
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    if let Ok(present) = fs::metadata(path) {
        temporary.as_file().set_permissions(present.permissions())?;
    }
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Saves named tensors and a few strings as a safetensors file, [atomically](write_atomically).
///
/// Each tensor keeps its dtype. The bytes are laid out widest dtype first and then by name, so
/// every tensor is aligned and equal input gives an equal file.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use burn::tensor::TensorData;
/// # let folder = std::env::temp_dir().join(format!("burn-lens-doc-save-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("cache.safetensors");
/// let resid = TensorData::new(vec![0.5_f32, 1.5], [1, 2]);
/// let about = BTreeMap::from([("model".to_owned(), "gpt2".to_owned())]);
/// burn_lens_io::save_safetensors(&path, [("ln_final.hook_scale".to_owned(), resid)], about)?;
/// assert_eq!(burn_lens_io::read_safetensors(&path)?["ln_final.hook_scale"].shape().to_vec(), [1, 2]);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// If a dtype has no safetensors name, a name occurs twice, or the file cannot be written.
pub fn save_safetensors(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (String, TensorData)>,
    metadata: BTreeMap<String, String>,
) -> Result<(), IoError> {
    let path = path.as_ref();
    let mut tensors: Vec<(String, TensorData)> = tensors.into_iter().collect();
    tensors.sort_by(|(a, x), (b, y)| y.dtype().size().cmp(&x.dtype().size()).then_with(|| a.cmp(b)));
    let header = header(path, &tensors, metadata)?;
    write_atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(_, data)| file.write_all(data.as_bytes()))
    })
}

/// The header's entry for strings; no tensor can have this name.
const METADATA: &str = "__metadata__";

/// The JSON header for tensors written one after the other, padded to 8 bytes.
fn header(
    path: &Path,
    tensors: &[(String, TensorData)],
    metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>, IoError> {
    let mut infos = Vec::with_capacity(tensors.len());
    let mut names = BTreeSet::from([METADATA]);
    let mut offset = 0;
    for (name, data) in tensors {
        if !names.insert(name.as_str()) {
            return Err(IoError::DuplicateTensor { path: path.to_owned(), tensor: name.clone() });
        }
        let dtype = safetensors_dtype(data.dtype()).ok_or_else(|| IoError::Dtype {
            path: path.to_owned(),
            tensor: name.clone(),
            found: format!("{:?}", data.dtype()),
        })?;
        let data_offsets = (offset, offset + data.bytes().len());
        offset = data_offsets.1;
        infos.push((name.clone(), TensorInfo { dtype, shape: data.shape().to_vec(), data_offsets }));
    }
    let validated = Metadata::new(None, infos)
        .map_err(|error| IoError::Header { path: path.to_owned(), source: error.into() })?;
    let mut json = serde_json::to_value(&validated).map_err(IoError::json(path))?;
    if !metadata.is_empty() {
        json[METADATA] = metadata.into_iter().collect();
    }
    let mut json = serde_json::to_vec(&json).map_err(IoError::json(path))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok(json)
}

/// Every tensor of a safetensors file, in its own dtype, integers and booleans included.
///
/// The file is [mapped](Access::Map), so it must not be changed while the tensors are in use;
/// [`save_safetensors`] replaces it safely.
///
/// # Errors
///
/// If the file cannot be read, is malformed, or holds a dtype that burn lacks.
pub fn read_safetensors(path: impl AsRef<Path>) -> Result<BTreeMap<String, TensorData>, IoError> {
    let file = SafetensorsFile::open(path.as_ref(), Access::Map)?;
    file.names().filter_map(|name| file.read(name).map(|data| Ok((name.to_owned(), data?)))).collect()
}

/// Every tensor of a safetensors file that is in memory already, copied out of it.
///
/// # Errors
///
/// If the bytes are malformed, or hold a dtype that burn lacks.
pub fn safetensors_from_bytes(bytes: &[u8]) -> Result<BTreeMap<String, TensorData>, IoError> {
    let path = Path::new("memory");
    let file = safetensors::SafeTensors::deserialize(bytes)
        .map_err(|error| IoError::Header { path: path.to_owned(), source: error.into() })?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let dtype = burn_dtype(view.dtype()).ok_or_else(|| IoError::Dtype {
            path: path.to_owned(),
            tensor: name.to_owned(),
            found: format!("{:?}", view.dtype()),
        })?;
        let bytes = burn::tensor::Bytes::from_bytes_vec(view.data().to_vec());
        let data = TensorData::try_from_bytes(bytes, view.shape().to_vec(), dtype)
            .map_err(|error| IoError::Header { path: path.to_owned(), source: error.to_string().into() })?;
        tensors.insert(name.to_owned(), data);
    }
    Ok(tensors)
}
