//! The bytes of a file as memory, for readers that want a slice and not calls ([`Disk::map`](super::Disk::map)).
//!
//! Invariants:
//! 1. A map needs neither the handle that it was made from nor the file's name: the bytes stay until it is dropped.
//! 2. It is as long as was asked for, and was inside the file when it was made.
//!
//! Known limits:
//! - Who maps bytes sees to it that nobody changes them while the map lives: this crate maps what is written once and then
//!   kept. If another process cuts off the file (the directory's lock keeps well-behaved ones away), a touch behind its new
//!   end kills the process with SIGBUS; so does a device that cannot read. A heap copy (the simulated disk's) cannot.
//! - A map is read through the page cache, whose errors are not those of a read: check sums before you believe bytes.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use super::File;
use crate::{Error, Result};

/// The first bytes of a file, read-only. Cheap to move, and unmapped when dropped.
///
/// ```
/// use backstay_storage::disk::{Create, Disk, OpenOptions, PosixDisk};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("a");
/// let disk = PosixDisk::new();
/// let file = disk.open(&path, OpenOptions { write: true, create: Create::New, direct: false })?;
/// file.write_at(b"hello", 0)?;
/// let map = disk.map(&file, 4)?;
/// assert_eq!(&map[..], b"hell");
/// assert_eq!(bytes::Bytes::from_owner(map).slice(1..), b"ell"[..]);
/// # Ok::<(), backstay_storage::Error>(())
/// ```
pub struct Map {
    bytes: Bytes,
}

enum Bytes {
    Heap(Vec<u8>),
    #[cfg(unix)]
    Mapped(memmap2::Mmap),
}

impl Map {
    /// A copy on the heap, by blocking reads.
    pub(super) fn copy(file: &Arc<dyn File>, len: u64) -> Result<Self> {
        check_len(&**file, len)?;
        let mut bytes = vec![0; as_index(&**file, len)?];
        let read = file.read_at(&mut bytes, 0)?;
        if read < bytes.len() {
            return Err(too_short(&**file, read as u64, len));
        }
        Ok(Self { bytes: Bytes::Heap(bytes) })
    }

    /// The pages of the file themselves; a copy if it has no descriptor.
    #[cfg(unix)]
    pub(super) fn pages(file: &Arc<dyn File>, len: u64) -> Result<Self> {
        let Some(fd) = file.raw_fd().filter(|_| len > 0) else { return Self::copy(file, len) };
        check_len(&**file, len)?;
        let size = as_index(&**file, len)?;
        // SAFETY: 1. the descriptor is open: the file is borrowed for the call, and a mapping needs none later. 2. the bytes lie inside the
        // file and are not changed while the map lives: by the rule of the module's head for us and for other processes,
        // which the directory's lock keeps away. What that cannot exclude is a limit named there.
        let map = unsafe { memmap2::MmapOptions::new().len(size).map(fd) };
        let map = map.map_err(|e| Error::io("map", file.path(), e))?;
        Ok(Self { bytes: Bytes::Mapped(map) })
    }
}

fn check_len(file: &dyn File, len: u64) -> Result<()> {
    let have = file.len()?;
    if have < len { Err(too_short(file, have, len)) } else { Ok(()) }
}

fn too_short(file: &dyn File, have: u64, len: u64) -> Error {
    let why = format!("the file is {have} bytes long, {len} were asked for");
    Error::io("map", file.path(), io::Error::new(io::ErrorKind::UnexpectedEof, why))
}

fn as_index(file: &dyn File, len: u64) -> Result<usize> {
    // Allocations and maps end at isize::MAX.
    isize::try_from(len)
        .map(isize::unsigned_abs)
        .map_err(|_| Error::io("map", file.path(), io::Error::from(io::ErrorKind::FileTooLarge)))
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Heap(bytes) => bytes,
            #[cfg(unix)]
            Bytes::Mapped(map) => map,
        }
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match &self.bytes {
            Bytes::Heap(_) => "copied",
            #[cfg(unix)]
            Bytes::Mapped(_) => "mapped",
        };
        write!(f, "Map({} bytes, {how})", self.len())
    }
}
