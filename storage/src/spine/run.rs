//! A sorted, immutable run on disk, opened: its index and filter in memory, its blocks read when needed.
//!
//! Invariant: every byte that enters a result was checked against its checksum and its place, and every block against
//! what the index says of it. What fails is [`Error::Damaged`](crate::Error::Damaged) with file and offset.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Default;

use super::context::{RunHandle, SpineContext, Want};
use super::filter::Filter;
use super::format::footer::{self, Footer, decode_footer};
use super::format::frame::{self, Kind};
use super::format::index::{Index, decode_index};
use super::format::{Malformed, block};
use super::{RowBatch, RunMeta, SpineMeta};
use crate::{Error, Result};

/// Neighbouring blocks are read as one operation up to this many bytes.
const READ_TOGETHER: u64 = 256 << 10;

/// An open run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) handle: Arc<RunHandle>,
    pub(super) meta: RunMeta,
    pub(super) footer: Footer,
    pub(super) index: Index,
    pub(super) filter: Filter,
}

impl Run {
    /// Opens a run of a spine: reads and checks footer, index and filter.
    pub(super) fn open(context: &SpineContext, spine: &SpineMeta, meta: RunMeta) -> Result<Self> {
        let handle = context.open_file(&meta.file)?;
        let end = meta.offset.checked_add(meta.len).filter(|_| meta.len >= footer::LEN as u64);
        let Some(end) = end else {
            let wrong = Malformed::new("an extent inside its file", format!("{} bytes", meta.len));
            return Err(wrong.at(&handle.path, meta.offset, "run"));
        };
        let footer_at = end - footer::LEN as u64;
        let damaged = |offset, what, wrong: Malformed| wrong.at(&handle.path, offset, what);
        let wants = [Want { handle: &handle, offset: footer_at, len: footer::LEN as u64 }];
        let pieces = context.read(&wants)?;
        let bytes = pieces.first().map_or(&[][..], |p| p.bytes());
        let in_footer = |wrong| damaged(footer_at, "run footer", wrong);
        let (footer, checksum) = decode_footer(bytes, handle.ident, footer_at).map_err(in_footer)?;
        check_footer(&footer, checksum, spine, &meta).map_err(in_footer)?;

        let index_at = meta.offset + footer.data_len;
        let filter_at = index_at + footer.index_len;
        let wants = [
            Want { handle: &handle, offset: index_at, len: footer.index_len },
            Want { handle: &handle, offset: filter_at, len: footer.filter_len },
        ];
        let pieces = context.read(&wants)?;
        let [index_piece, filter_piece] = pieces.as_slice() else {
            return Err(Error::Invalid("an I/O queue lost a read: a bug in the disk".into()));
        };
        let index = frame::decode(index_piece.bytes(), Kind::Index, handle.ident, index_at)
            .and_then(|frame| decode_index(&frame.raw, frame.count))
            .and_then(|index| check_index(&index, &footer, &meta).map(|()| index))
            .map_err(|wrong| damaged(index_at, "run index", wrong))?;
        let filter = frame::decode(filter_piece.bytes(), Kind::Filter, handle.ident, filter_at)
            .and_then(|frame| {
                Filter::decode(&frame.raw).ok_or_else(|| Malformed::new("whole filter blocks", "a part of one"))
            })
            .map_err(|wrong| damaged(filter_at, "run filter", wrong))?;
        Ok(Self { handle, meta, footer, index, filter })
    }

    /// Decodes block `i` from its frame.
    fn decode(&self, i: usize, frame_bytes: &[u8]) -> Result<(RowBatch, u64)> {
        let (at, _) = self.place(i);
        self.decode_at(i, frame_bytes, at).map_err(|wrong| wrong.at(&self.handle.path, at, "run block"))
    }

    fn decode_at(&self, i: usize, bytes: &[u8], at: u64) -> Result<(RowBatch, u64), Malformed> {
        let frame = frame::decode(bytes, Kind::Block, self.handle.ident, at)?;
        let rows = block::decode_block(&frame.raw, frame.count, self.footer.discipline)?;
        let (first, last) = (self.index.first_key(i), self.index.last_key(i));
        if frame.count != self.index.rows(i) || rows.key(0) != first || rows.key(rows.len() - 1) != last {
            return Err(Malformed::new("the rows that the index names", "others"));
        }
        Ok((rows, frame.checksum))
    }

    /// Where the frame of block `i` is in the file, and its length.
    fn place(&self, i: usize) -> (u64, u64) {
        let (offset, len) = self.index.place(i).unwrap_or((0, 0));
        (self.meta.offset.saturating_add(offset), len)
    }

    /// Memory that it holds while open, in bytes.
    pub(super) fn resident_bytes(&self) -> usize {
        self.index.bytes() + self.filter.bytes()
    }

    /// Reads every block and checks it, and all of them against the footer.
    fn verify(&self, context: &SpineContext) -> Result<()> {
        let mut content = Xxh3Default::new();
        for i in 0..self.index.len() {
            let (offset, len) = self.place(i);
            for piece in context.read(&[Want { handle: &self.handle, offset, len }])? {
                let (_, checksum) = self.decode(i, piece.bytes())?;
                content.update(&checksum.to_le_bytes());
            }
        }
        for (kind, offset, len) in [
            (Kind::Index, self.meta.offset + self.footer.data_len, self.footer.index_len),
            (Kind::Filter, self.meta.offset + self.footer.data_len + self.footer.index_len, self.footer.filter_len),
        ] {
            for piece in context.read(&[Want { handle: &self.handle, offset, len }])? {
                let frame = frame::decode(piece.bytes(), kind, self.handle.ident, offset)
                    .map_err(|wrong| wrong.at(&self.handle.path, offset, "run frame"))?;
                content.update(&frame.checksum.to_le_bytes());
            }
        }
        if content.digest() != self.footer.content {
            let (expected, got) = (format!("{:016x}", self.footer.content), format!("{:016x}", content.digest()));
            return Err(Malformed::new(format!("content checksum {expected}"), got).at(
                &self.handle.path,
                self.meta.offset,
                "run",
            ));
        }
        Ok(())
    }
}

fn check_footer(footer: &Footer, checksum: u64, spine: &SpineMeta, meta: &RunMeta) -> Result<(), Malformed> {
    if checksum != meta.checksum {
        return Err(Malformed::new(
            format!("checksum {:016x}, which the manifest names", meta.checksum),
            format!("{checksum:016x}"),
        ));
    }
    let len = [footer.data_len, footer.index_len, footer.filter_len, footer::LEN as u64]
        .iter()
        .try_fold(0u64, |sum, &n| sum.checked_add(n));
    let got = (footer.discipline, footer.format, footer.extent, len, footer.rows, footer.raw_bytes);
    let want = (spine.discipline, spine.format, meta.offset, Some(meta.len), meta.rows, meta.raw_bytes);
    if got != want {
        return Err(Malformed::new(format!("{want:?}, which the manifest names"), format!("{got:?}")));
    }
    Ok(())
}

fn check_index(index: &Index, footer: &Footer, meta: &RunMeta) -> Result<(), Malformed> {
    let rows: u64 = (0..index.len()).map(|i| u64::from(index.rows(i))).sum();
    let got = (index.len() as u64, index.end(), rows, index.min_key(), index.max_key());
    let want = (u64::from(footer.blocks), footer.data_len, meta.rows, meta.min_key.as_slice(), meta.max_key.as_slice());
    if got != want {
        return Err(Malformed::new(format!("{want:?}, which footer and manifest name"), format!("{got:?}")));
    }
    Ok(())
}

/// Whether blocks that were read are kept for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// They enter the cache.
    Cached,
    /// They do not: a merge reads each block once, and must not push out what the owner needs.
    Once,
}

/// Loads blocks, given as `(run, block)`: from the cache, else all the others with one batch of reads. The answers are
/// in the order asked.
pub(super) fn load(context: &SpineContext, blocks: &[(&Run, usize)], keep: Keep) -> Result<Vec<Arc<RowBatch>>> {
    let mut found: Vec<Option<Arc<RowBatch>>> =
        blocks.iter().map(|(run, i)| context.cached(&run.handle, run.place(*i).0)).collect();
    // Neighbours become one read: (its bytes, the slots of `found` that it fills).
    let mut wants: Vec<(Want<'_>, std::ops::Range<usize>)> = Vec::new();
    for (slot, (run, i)) in blocks.iter().enumerate() {
        if found.get(slot).is_none_or(|f| f.is_some()) {
            continue;
        }
        let (offset, len) = run.place(*i);
        match wants.last_mut() {
            Some((want, slots))
                if slots.end == slot
                    && std::ptr::eq(want.handle, run.handle.as_ref())
                    && want.offset.saturating_add(want.len) == offset
                    && want.len.saturating_add(len) <= READ_TOGETHER =>
            {
                want.len += len;
                slots.end += 1;
            }
            _ => wants.push((Want { handle: &run.handle, offset, len }, slot..slot + 1)),
        }
    }
    let (reads, slots): (Vec<_>, Vec<_>) = wants.into_iter().unzip();
    for (piece, slots) in context.read(&reads)?.iter().zip(slots) {
        let mut rest = piece.bytes();
        for slot in slots {
            let (Some((run, i)), Some(place)) = (blocks.get(slot), found.get_mut(slot)) else { continue };
            let (offset, len) = run.place(*i);
            let (bytes, after) = rest.split_at_checked(usize::try_from(len).unwrap_or(0)).unwrap_or((rest, &[]));
            rest = after;
            let rows = Arc::new(run.decode(*i, bytes)?.0);
            if keep == Keep::Cached {
                context.cache(&run.handle, offset, &rows);
            }
            *place = Some(rows);
        }
    }
    let all: Option<Vec<_>> = found.into_iter().collect();
    all.ok_or_else(|| Error::Invalid("a block was asked for that its run does not have: a bug in the spine".into()))
}

/// Reads every byte of a run of `spine` and checks it: against its checksums, its order, and what `spine` (from a
/// manifest) says of it.
///
/// # Errors
/// [`Error::Damaged`] with the file and the first damaged unit's offset.
///
/// ```
/// # use backstay_storage::spine::{Discipline, RowBatch, RunFileWriter, Spine, SpineContext, SpineMeta, verify_run};
/// # let dir = tempfile::tempdir().unwrap();
/// # let disk = std::sync::Arc::new(backstay_storage::disk::PosixDisk::new());
/// # let context = SpineContext::new(disk, dir.path(), 42, 1 << 20);
/// # let mut spine = Spine::open(context.clone(), SpineMeta::empty("s", Discipline::Weighted, 1))?;
/// # let mut rows = RowBatch::new();
/// # rows.push(b"k", b"v", 1);
/// # spine.insert_batch(&rows)?;
/// # let mut writer = RunFileWriter::new(&context, 1, 1);
/// # let flushed = writer.flush(&spine.snapshot())?;
/// # writer.finish()?;
/// # let meta = flushed.meta().clone();
/// for run in &meta.runs {
///     verify_run(&context, &meta, run)?;
/// }
/// # Ok::<(), backstay_storage::Error>(())
/// ```
pub fn verify_run(context: &SpineContext, spine: &SpineMeta, run: &RunMeta) -> Result<()> {
    Run::open(context, spine, run.clone())?.verify(context)
}
