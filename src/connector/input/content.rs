//! The content of a file or of something like it, plain or decompressed, and the proof that it is still the same.
//!
//! The *identity* of a file up to an offset is two xxh3 hashes: of its first [`PROBE`] bytes, and of the last [`PROBE`] bytes before the
//! offset (of fewer, where it has fewer before the offset). It does not change when the file grows, and it finds every replacement and truncation that
//! is not made to deceive; a change in the middle of a file is found at replay by the rows' hash (invariant 3 of the design).

use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use super::gzip::Gzip;
use crate::connector::{ConnectorError, Identity, Result};

/// Bytes that can be read at any place.
pub(crate) trait Blob: Debug + Send + Sync {
    /// Its name in messages: a path, a URL.
    fn name(&self) -> String;
    /// Reads what fits into `buf`, less only at the end.
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize>;
    /// How many bytes there are.
    fn len(&self) -> Result<u64>;
    /// What tells this content from another one at the same place; empty if there is no such thing.
    fn version(&self) -> &str {
        ""
    }
}

/// The piece of something far away that was read last.
#[derive(Default)]
pub(crate) struct Piece {
    /// Where it begins, and the bytes.
    last: Mutex<(u64, Vec<u8>)>,
    has_failed: AtomicBool,
}

impl Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Piece")
    }
}

impl Piece {
    pub(crate) fn new(start: u64, bytes: Vec<u8>) -> Self {
        Self { last: Mutex::new((start, bytes)), has_failed: AtomicBool::new(false) }
    }

    /// Whether every piece came.
    pub(crate) fn is_good(&self) -> bool {
        !self.has_failed.load(Ordering::Relaxed)
    }

    /// As [`Blob::read_at`] of what has `len` bytes; `fetch` gives a piece that has the byte that it is asked for.
    pub(crate) fn read_at(
        &self,
        buf: &mut [u8],
        at: u64,
        len: u64,
        fetch: impl Fn(u64) -> Result<(u64, Vec<u8>)>,
    ) -> Result<usize> {
        let mut piece = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let from = at.saturating_add(filled as u64);
            if from >= len {
                break;
            }
            let in_piece = from.checked_sub(piece.0).and_then(|skip| usize::try_from(skip).ok());
            match in_piece.and_then(|skip| piece.1.get(skip..)).filter(|there| !there.is_empty()) {
                Some(there) => {
                    let n = there.len().min(rest.len());
                    if let (Some(to), Some(there)) = (rest.get_mut(..n), there.get(..n)) {
                        to.copy_from_slice(there);
                    }
                    filled += n;
                }
                None => *piece = fetch(from).inspect_err(|_| self.has_failed.store(true, Ordering::Relaxed))?,
            }
        }
        Ok(filled)
    }
}

/// How many bytes each half of an identity hashes.
pub(crate) const PROBE: usize = 4096;

/// The identity of content that begins with `head` and has `tail` before its offset.
fn identity(version: &str, head: &[u8], tail: &[u8]) -> String {
    let space = if version.is_empty() { "" } else { " " };
    format!("{:016x}-{:016x}{space}{version}", xxh3_64(head), xxh3_64(tail))
}

/// The identity of ranges that end in a block of content.
#[derive(Debug)]
pub(crate) struct BlockIdentity {
    /// The content's version.
    pub(crate) version: String,
    /// The content's first [`PROBE`] bytes, or all before the block's end.
    pub(crate) head: Vec<u8>,
    /// Where `bytes` stand in the content: at its start, or [`PROBE`] bytes or more before the first end that is asked for.
    pub(crate) start: u64,
    /// The block, and what stands before it.
    pub(crate) bytes: Vec<u8>,
}

impl Identity for BlockIdentity {
    fn at(&self, end: u64) -> String {
        let probe = usize::try_from(end).unwrap_or(usize::MAX).min(PROBE);
        let to = usize::try_from(end.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.bytes.len());
        let tail = self.bytes.get(to.saturating_sub(probe)..to).unwrap_or_default();
        identity(&self.version, self.head.get(..probe).unwrap_or(&self.head), tail)
    }
}

/// An open content.
pub(crate) struct Content {
    connector: String,
    blob: Arc<dyn Blob>,
    /// `None`: plain.
    gzip: Option<Gzip>,
    at: u64,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("blob", &self.blob).field("at", &self.at).finish_non_exhaustive()
    }
}

/// What stands around an offset that has been verified.
#[derive(Debug)]
pub(crate) struct Around {
    /// The first [`PROBE`] bytes before the offset.
    pub(crate) head: Vec<u8>,
    /// The last [`PROBE`] bytes before the offset.
    pub(crate) tail: Vec<u8>,
}

impl Content {
    /// Opens it at its start.
    pub(crate) fn open(connector: &str, blob: Arc<dyn Blob>) -> Result<Self> {
        let mut magic = [0; 2];
        let n = blob.read_at(&mut magic, 0)?;
        let named = blob.name().rsplit_once('.').is_some_and(|(_, end)| end.eq_ignore_ascii_case("gz"));
        let gzip = (magic == [0x1f, 0x8b] || (named && n > 0)).then(|| Gzip::new(Arc::clone(&blob)));
        Ok(Self { connector: connector.to_owned(), blob, gzip, at: 0 })
    }

    /// What lies below: not decompressed.
    pub(crate) fn blob(&self) -> &Arc<dyn Blob> {
        &self.blob
    }

    /// What tells it from another content at the same place.
    pub(crate) fn version(&self) -> &str {
        self.blob.version()
    }

    /// Whether it is compressed.
    pub(crate) fn is_gzip(&self) -> bool {
        self.gzip.is_some()
    }

    /// Appends up to `count` bytes to `out` and gives their number, fewer only at the end.
    pub(crate) fn read(&mut self, out: &mut Vec<u8>, count: usize) -> Result<usize> {
        let start = out.len();
        out.resize(start + count, 0);
        let buf = out.get_mut(start..).unwrap_or_default();
        let read = match &mut self.gzip {
            None => self.blob.read_at(buf, self.at),
            Some(gzip) => gzip.read(buf).map_err(|e| {
                // What lies below the decompression speaks for itself.
                if let Some(inner) = e.get_ref().and_then(|e| e.downcast_ref::<ConnectorError>()) {
                    return ConnectorError { retry: inner.retry, ..ConnectorError::new(&self.connector, &*inner.message) };
                }
                let message = format!(
                    "cannot decompress {} near byte {} of the file (byte {} of its content): {e}; check it with gzip -t",
                    self.blob.name(),
                    gzip.compressed_offset(),
                    self.at
                );
                ConnectorError::new(&self.connector, message)
            }),
        };
        let n = match read {
            Ok(n) => n,
            Err(e) => {
                out.truncate(start);
                return Err(e);
            }
        };
        out.truncate(start + n);
        self.at += n as u64;
        Ok(n)
    }

    /// Moves to `offset`; what a compressed file has before it is decompressed. Behind the end, it stands at the end.
    pub(crate) fn seek(&mut self, offset: u64) -> Result<()> {
        if self.gzip.is_none() {
            self.at = offset;
            return Ok(());
        }
        if offset < self.at {
            self.gzip = Some(Gzip::new(Arc::clone(&self.blob)));
            self.at = 0;
        }
        let mut skipped = Vec::new();
        while self.at < offset {
            skipped.clear();
            let count = usize::try_from(offset - self.at).unwrap_or(usize::MAX).min(1 << 20);
            if self.read(&mut skipped, count)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The content's length, as far as it is known without decompressing.
    fn len(&self) -> Result<u64> {
        match self.gzip {
            None => self.blob.len(),
            Some(_) => Ok(self.at),
        }
    }

    /// Moves to `offset` and gives what stands around it; refuses content that ends before.
    pub(crate) fn around(&mut self, offset: u64) -> Result<Around> {
        let probe = usize::try_from(offset).unwrap_or(usize::MAX).min(PROBE);
        let (mut head, mut tail) = (Vec::with_capacity(probe), Vec::with_capacity(probe));
        self.seek(0)?;
        self.read(&mut head, probe)?;
        if offset <= PROBE as u64 {
            tail.clone_from(&head);
        } else {
            self.seek(offset - PROBE as u64)?;
            self.read(&mut tail, probe)?;
        }
        if head.len() < probe || tail.len() < probe {
            let message = format!(
                "{} was truncated: {offset} bytes of it have been read before, now it has {}; put the old content back, or start anew with an empty data directory",
                self.blob.name(),
                self.len()?
            );
            return Err(ConnectorError::new(&self.connector, message));
        }
        Ok(Around { head, tail })
    }

    /// As [`Content::around`], and refuses content whose identity at `offset` is not `expected` (empty: none is known).
    pub(crate) fn verify(&mut self, offset: u64, expected: &str) -> Result<Around> {
        let around = self.around(offset)?;
        let got = identity(self.version(), &around.head, &around.tail);
        if !expected.is_empty() && got != expected {
            let fine = if self.version().is_empty() { " (appending to it is fine)" } else { "" };
            let message = format!(
                "{} was replaced or changed since its first {offset} bytes were read: expected content {expected}, got {got}; \
                 put the old content back{fine}, or start anew with an empty data directory",
                self.blob.name()
            );
            return Err(ConnectorError::new(&self.connector, message));
        }
        Ok(around)
    }
}
