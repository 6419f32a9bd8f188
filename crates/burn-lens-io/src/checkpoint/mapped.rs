//! A read-only file as shared bytes: memory-mapped, or read piece by piece.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    sync::Arc,
};

use burn::tensor::{AllocationProperty, Bytes};
use memmap2::Mmap;

use crate::IoError;

/// How weights files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Map safetensors into memory and hand tensors out without copying them. Where a file
    /// cannot be mapped it is read. The file must not be changed while its tensors are in use.
    #[default]
    Map,
    /// Read each tensor into memory of its own, when it is asked for. For files that other
    /// programs may truncate or overwrite, and for network file systems.
    Copy,
}

/// An open file whose bytes are taken by range.
#[derive(Debug)]
pub(super) enum Source {
    Mapped(Arc<Mmap>),
    File(File, u64),
}

impl Source {
    pub(super) fn open(path: &Path, access: Access) -> Result<Self, IoError> {
        let file = File::open(path).map_err(IoError::os("open", path))?;
        let meta = file.metadata().map_err(IoError::os("read", path))?;
        if !meta.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(IoError::Os { action: "read", path: path.to_owned(), source });
        }
        if access == Access::Map
            && let Ok(map) = map(&file)
        {
            return Ok(Self::Mapped(Arc::new(map)));
        }
        Ok(Self::File(file, meta.len()))
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Mapped(map) => map.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    /// The bytes of `range`, starting at a multiple of `align`. Mapped bytes are not copied,
    /// unless the file misaligns them.
    pub(super) fn bytes(&self, range: Range<usize>, align: usize) -> io::Result<Bytes> {
        match self {
            Self::Mapped(map) => {
                if map.get(range.clone()).is_none() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let window = Window { map: Arc::clone(map), range };
                let slice = window.as_ref();
                if slice.is_empty() || slice.as_ptr().addr() % align != 0 {
                    // The window ends here, and with it the pages that were copied.
                    return Ok(Bytes::from_bytes_vec(slice.to_vec()));
                }
                Ok(Bytes::from_shared(bytes::Bytes::from_owner(window), AllocationProperty::File))
            }
            Self::File(file, len) => {
                if range.end as u64 > *len {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let mut bytes = vec![0; range.len()];
                let mut file: &File = file;
                file.seek(SeekFrom::Start(range.start as u64))?;
                file.read_exact(&mut bytes)?;
                Ok(Bytes::from_bytes_vec(bytes))
            }
        }
    }
}

/// Maps `file` read-only.
///
/// The only memory-unsafe promise of this workspace's file handling is made here.
#[expect(
    unsafe_code,
    reason = "a file mapping is unsafe in Rust because other processes can change the file"
)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is private and read-only, and nothing in this process writes to
    // weights files in place (`write_atomically` replaces them by renaming). If another process
    // rewrites the file the bytes change under us, and if it truncates the file a read raises
    // SIGBUS: `Access::Map` says so, and `Access::Copy` is the alternative.
    unsafe { Mmap::map(file) }
}

/// A part of a mapping, whose pages are given back when the last tensor over it is dropped.
struct Window {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl Drop for Window {
    /// Tells the system that the pages wholly inside the window are no longer needed, so that
    /// a model converted tensor by tensor never has more than one source tensor resident.
    fn drop(&mut self) {
        #[cfg(unix)]
        {
            /// At least the page size everywhere but on a few 64 KiB-page systems, where the
            /// advice is refused for misaligned ranges and nothing is lost but the saving.
            const PAGE: usize = 16 << 10;
            let start = self.range.start.next_multiple_of(PAGE);
            let end = self.range.end / PAGE * PAGE;
            if start < end {
                drop_pages(&self.map, start..end);
            }
        }
    }
}

/// Lets the system forget the pages of `range`; they are read from the file again if touched.
#[cfg(unix)]
#[expect(
    unsafe_code,
    reason = "memmap2 marks MADV_DONTNEED unsafe because it discards writes; there are none"
)]
fn drop_pages(map: &Mmap, range: Range<usize>) {
    // SAFETY: `MADV_DONTNEED` on a read-only file mapping discards no data: a later access
    // faults the same bytes in from the file. Other windows over the pages stay valid.
    let advised =
        unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
    // It is advice: on failure the pages merely stay resident.
    drop(advised);
}
