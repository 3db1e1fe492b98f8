//! What the disks share: counters, a mutex that ignores poisoning, plain paths, and the execution of a queue's operation by
//! blocking calls.

use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{ALIGN, Completion, DiskStats, File, Op};
use crate::{Error, Result};

/// [`DiskStats`] that many threads add to. The counters are independent: a snapshot need not be of one instant.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    durable_writes: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
    dir_syncs: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn write(&self, bytes: usize, durable: bool) {
        let count = if durable { &self.durable_writes } else { &self.writes };
        count.fetch_add(1, Ordering::Relaxed);
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn dir_sync(&self) {
        self.dir_syncs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> DiskStats {
        DiskStats {
            reads: self.reads.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            durable_writes: self.durable_writes.load(Ordering::Relaxed),
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            dir_syncs: self.dir_syncs.load(Ordering::Relaxed),
        }
    }
}

/// Locks a mutex whose data stays consistent at every point where a panic could happen.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses a queue operation whose offset is not aligned (buffers are by their type), on every disk alike, so that a
/// mistake shows in a test on a file system that would have let it pass.
pub(crate) fn check_aligned(op: &Op) -> Result<()> {
    let (file, offset, len): (&dyn File, u64, usize) = match op {
        Op::Read { file, offset, buf } => (&**file, *offset, buf.len()),
        Op::Write { file, offset, buf, .. } => (&**file, *offset, buf.len()),
        Op::Sync { .. } => return Ok(()),
    };
    if offset.is_multiple_of(ALIGN as u64) && offset.checked_add(len as u64).is_some_and(|end| end <= i64::MAX as u64) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "queue operation on {} at offset {offset}, length {len}: the offset must be a multiple of {ALIGN} and the end fit a file",
        file.path().display()
    )))
}

/// Does a queue's operation with the file's blocking calls.
pub(crate) fn execute(token: u64, op: Op) -> Completion {
    match op {
        Op::Read { file, offset, mut buf } => {
            let result = file.read_at(&mut buf, offset);
            Completion { token, buf: Some(buf), result }
        }
        Op::Write { file, offset, buf, durable } => {
            let written = if durable { file.write_durable(&buf, offset) } else { file.write_at(&buf, offset) };
            Completion { token, result: written.map(|()| buf.len()), buf: Some(buf) }
        }
        Op::Sync { file } => Completion { token, buf: None, result: file.sync().map(|()| 0) },
    }
}

/// The path without `.` and with `..` resolved by text, so that one name has one key.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}
