//! The bytes of a manifest (`docs/format.md` has the diagram). Decoding is a pure function that accepts any bytes.
//!
//! Invariants:
//! 1. Encoding is a function of the manifest alone: equal manifests have equal bytes.
//! 2. Every bit of the file is under one of the two checksums: the header's own, and that of the whole file.
//! 3. Decoding either gives back what was encoded, or an error that names offset, expected and got. It allocates no more
//!    than a small multiple of its input.

use std::path::Path;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{Reader, Writer};
use super::name::savepoint_is_valid;
use crate::log::Seq;
use crate::spine::{Discipline, RunMeta, SpineMeta};
use crate::{Error, Result};

/// The version of the manifest's format that this crate writes and reads.
pub const FORMAT: u32 = 1;

/// The most bytes that a manifest may have. A longer file is not read into memory.
pub(crate) const MAX_BYTES: u64 = 1 << 30;

const MAGIC: &[u8; 8] = b"BSTYMANI";
/// Magic, version, flags, store id, epoch, number, body length: what the header's checksum covers.
const HEADER: usize = 56;
/// The flag of a savepoint's manifest: its name stands behind the blob.
const SAVEPOINT: u32 = 1;
const WHAT: &str = "manifest";

/// What one checkpoint consists of.
///
/// ```
/// use backstay_storage::checkpoint::Manifest;
/// let manifest = Manifest { store_id: 1, epoch: 2, number: 3, log_from: 1, ..Manifest::default() };
/// let bytes = manifest.encode();
/// assert_eq!(Manifest::decode(&bytes, "x.manifest".as_ref())?, manifest);
/// # Ok::<(), backstay_storage::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The store that it belongs to.
    pub store_id: u128,
    /// The epoch that wrote it.
    pub epoch: u64,
    /// The checkpoint's number: 1, 2, 3 … for the life of the store.
    pub number: u64,
    /// The first log record that is still needed after it.
    pub log_from: Seq,
    /// The last log record that was durable when it was committed: a log that ends earlier has lost some.
    pub log_durable: Seq,
    /// The embedder's extra files.
    pub extras: Vec<ExtraMeta>,
    /// The spines, sorted by name, no name twice.
    pub spines: Vec<SpineMeta>,
    /// The embedder's own bytes.
    pub blob: Bytes,
    /// The savepoint that keeps the checkpoint, or that the store was copied from; `None` for a checkpoint that was taken
    /// where it lies.
    pub savepoint: Option<String>,
}

/// An extra file that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraMeta {
    /// Its name in the folder `queue`.
    pub name: String,
    /// Its length in bytes, header included.
    pub len: u64,
    /// The xxh3-64 of its payload.
    pub checksum: u64,
}

impl Manifest {
    /// The bytes of the file.
    ///
    /// ```
    /// use backstay_storage::checkpoint::Manifest;
    /// assert!(Manifest::default().encode().starts_with(b"BSTYMANI"));
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        self.encode_body(&mut body);
        let mut file = Writer::default();
        file.bytes.extend_from_slice(MAGIC);
        file.u32(FORMAT);
        file.u32(self.savepoint.as_ref().map_or(0, |_| SAVEPOINT));
        file.u128(self.store_id);
        file.u64(self.epoch);
        file.u64(self.number);
        file.u64(body.bytes.len() as u64);
        file.u64(xxh3_64(&file.bytes));
        file.bytes.extend_from_slice(&body.bytes);
        file.u64(xxh3_64(&file.bytes));
        file.bytes
    }

    fn encode_body(&self, body: &mut Writer) {
        body.u64(self.log_from);
        body.u64(self.log_durable);
        body.u32(self.extras.len() as u32);
        for extra in &self.extras {
            body.counted(extra.name.as_bytes());
            body.u64(extra.len);
            body.u64(extra.checksum);
        }
        body.u32(self.spines.len() as u32);
        for spine in &self.spines {
            body.counted(spine.name.as_bytes());
            body.u8(spine.discipline.as_u8());
            body.u32(spine.format);
            body.u32(spine.runs.len() as u32);
            for run in &spine.runs {
                encode_run(run, body);
            }
        }
        body.counted(&self.blob);
        if let Some(name) = &self.savepoint {
            body.counted(name.as_bytes());
        }
    }

    /// The last log record that must be there if this manifest is: none behind its own state if the store is a savepoint's
    /// copy, whose log goes on from there.
    pub(crate) fn log_holds(&self) -> Seq {
        match self.savepoint {
            Some(_) => self.log_durable.min(self.log_from.saturating_sub(1)),
            None => self.log_durable,
        }
    }

    /// Reads a manifest. `file` is for the error messages only.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the offset of what is wrong; [`Error::Unsupported`] for a sound manifest of another
    /// version.
    ///
    /// ```
    /// use backstay_storage::checkpoint::Manifest;
    /// let e = Manifest::decode(b"nonsense", "x.manifest".as_ref()).unwrap_err();
    /// assert_eq!(e.to_string(), "damaged manifest at x.manifest, offset 0: expected a header of 64 bytes, got a file of 8 bytes");
    /// ```
    pub fn decode(bytes: &[u8], file: &Path) -> Result<Self> {
        let damaged = |offset, expected: String, got: String| Error::damaged(file, offset, WHAT, expected, got);
        let Some((header, _)) = bytes.split_at_checked(HEADER + 8) else {
            return Err(damaged(
                0,
                format!("a header of {} bytes", HEADER + 8),
                format!("a file of {} bytes", bytes.len()),
            ));
        };
        let mut r = Reader::new(header, 0, file, WHAT);
        let magic = r.take(8)?;
        if magic != MAGIC {
            return Err(damaged(0, format!("magic {MAGIC:02x?}"), format!("{magic:02x?}")));
        }
        let version = r.u32()?;
        let flags = r.u32()?;
        let (store_id, epoch, number) = (r.u128()?, r.u64()?, r.u64()?);
        let body_len = r.u64()?;
        let (stated, computed) = (r.u64()?, xxh3_64(header.get(..HEADER).unwrap_or_default()));
        if stated != computed {
            return Err(damaged(0, format!("header checksum {stated:016x}"), format!("{computed:016x}")));
        }
        // Only now may the version be believed: a flipped bit must not read as "written by a newer version".
        if version != FORMAT || flags & !SAVEPOINT != 0 {
            let got = format!("{version} with flags {flags:#x}");
            let (path, expected) = (file.to_path_buf(), format!("{FORMAT} with flags 0x0 or {SAVEPOINT:#x}"));
            return Err(Error::Unsupported { path, what: "format version", expected, got });
        }
        let whole = (HEADER as u64 + 16).saturating_add(body_len);
        if bytes.len() as u64 != whole {
            return Err(damaged(48, format!("a file of {whole} bytes"), format!("{} bytes", bytes.len())));
        }
        let Some((covered, trailer)) = bytes.split_last_chunk::<8>() else {
            return Err(damaged(0, "a trailing checksum".into(), "none".into()));
        };
        let (stated, computed) = (u64::from_le_bytes(*trailer), xxh3_64(covered));
        if stated != computed {
            let at = covered.len() as u64;
            return Err(damaged(at, format!("file checksum {stated:016x}"), format!("{computed:016x}")));
        }
        let body = covered.get(HEADER + 8..).unwrap_or_default();
        let savepoint = (flags & SAVEPOINT != 0).then(String::new);
        let manifest = Self { store_id, epoch, number, savepoint, ..Self::default() };
        manifest.decode_body(&mut Reader::new(body, HEADER as u64 + 8, file, WHAT))
    }

    fn decode_body(mut self, r: &mut Reader<'_>) -> Result<Self> {
        self.log_from = r.u64()?;
        self.log_durable = r.u64()?;
        for _ in 0..r.count(EXTRA_AT_LEAST)? {
            self.extras.push(ExtraMeta { name: r.text()?, len: r.u64()?, checksum: r.u64()? });
        }
        for _ in 0..r.count(SPINE_AT_LEAST)? {
            let start = r.offset();
            let spine = decode_spine(r)?;
            if let Some(last) = self.spines.last().filter(|last| last.name >= spine.name) {
                return Err(r.damaged(
                    start,
                    format!("a spine name after {:?}", last.name),
                    format!("{:?}", spine.name),
                ));
            }
            self.spines.push(spine);
        }
        self.blob = Bytes::copy_from_slice(r.counted()?);
        if let Some(name) = &mut self.savepoint {
            let at = r.offset();
            *name = r.text()?;
            if !savepoint_is_valid(name) {
                return Err(r.damaged(at, "a savepoint's name", format!("{name:?}")));
            }
        }
        match r.remaining() {
            0 => Ok(self),
            n => Err(r.damaged(r.offset(), "the end of the body", format!("{n} more bytes"))),
        }
    }
}

fn decode_spine(r: &mut Reader<'_>) -> Result<SpineMeta> {
    let name = r.text()?;
    let at = r.offset();
    let code = r.u8()?;
    let Some(discipline) = Discipline::from_u8(code) else {
        return Err(r.damaged(at, "a spine discipline", code.to_string()));
    };
    let format = r.u32()?;
    let count = r.count(RUN_AT_LEAST)?;
    let runs = (0..count).map(|_| decode_run(r)).collect::<Result<_>>()?;
    Ok(SpineMeta { name, discipline, format, runs })
}

/// Bytes of an extra file's entry with an empty name.
const EXTRA_AT_LEAST: usize = 24;
/// Bytes of a spine's entry with an empty name and no runs.
const SPINE_AT_LEAST: usize = 17;
/// Bytes of a run with an empty file name and empty keys.
const RUN_AT_LEAST: usize = 64;

fn encode_run(run: &RunMeta, w: &mut Writer) {
    w.counted(run.file.as_bytes());
    w.u64(run.offset);
    w.u64(run.len);
    w.u64(run.checksum);
    w.u64(run.rows);
    w.u64(run.raw_bytes);
    w.counted(&run.min_key);
    w.counted(&run.max_key);
}

fn decode_run(r: &mut Reader<'_>) -> Result<RunMeta> {
    Ok(RunMeta {
        file: r.text()?,
        offset: r.u64()?,
        len: r.u64()?,
        checksum: r.u64()?,
        rows: r.u64()?,
        raw_bytes: r.u64()?,
        min_key: r.counted()?.to_vec(),
        max_key: r.counted()?.to_vec(),
    })
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
