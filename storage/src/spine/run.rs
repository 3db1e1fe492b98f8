//! A sorted, immutable run on disk, opened: its index in memory, its blocks and filter pages read when needed.
//!
//! Invariant: every byte that enters a result was checked against its checksum and its place, and every block against
//! what the index says of it. What fails is [`Error::Damaged`](crate::Error::Damaged) with file and offset.

use std::ops::Range;
use std::sync::Arc;

use super::context::{Pool, RunHandle, SpineContext, Want, lost};
use super::extent::Encoded;
use super::filter;
use super::format::Malformed;
use super::format::block::Block;
use super::format::footer::{self, Footer, decode_footer};
use super::format::frame::{self, Kind};
use super::format::index::{Index, Place, decode_index};
use super::{RunMeta, SpineMeta, cut_key};
use crate::sabotage::{Check, checked};
use crate::{Error, Result};

mod verify;

pub use verify::verify_run;

/// Frames near to each other are read as one operation up to this many bytes.
const READ_TOGETHER: u64 = 256 << 10;
/// So near: reading two blocks for nothing takes about as long as an operation of its own.
const GAP: u64 = 32 << 10;

/// Blocks that are looked at to tell whether a run is in the cache.
const SAMPLE: usize = 64;

/// An open run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) handle: Arc<RunHandle>,
    pub(super) meta: RunMeta,
    pub(super) footer: Footer,
    pub(super) index: Index,
}

impl Run {
    /// A run that was just written.
    pub(super) fn new(handle: Arc<RunHandle>, encoded: Encoded) -> Self {
        let Encoded { meta, footer, index } = encoded;
        Self { handle, meta, footer, index }
    }

    /// Opens a run of a spine: reads and checks footer and index.
    pub(super) fn open(context: &SpineContext, spine: &SpineMeta, meta: RunMeta) -> Result<Self> {
        let handle = context.open_file(&meta.file)?;
        let end = meta.offset.checked_add(meta.len).filter(|_| meta.len >= footer::LEN as u64);
        let Some(end) = end else {
            let wrong = Malformed::new("an extent inside its file", format!("{} bytes", meta.len));
            return Err(wrong.at(&handle.path, meta.offset, "run"));
        };
        let footer_at = end - footer::LEN as u64;
        let in_footer = |wrong: Malformed| wrong.at(&handle.path, footer_at, "run footer");
        let piece = one(context, &handle, (footer_at, footer::LEN as u64))?;
        let (footer, checksum) = decode_footer(piece.bytes(), handle.ident, footer_at).map_err(in_footer)?;
        check_footer(&footer, checksum, spine, &meta).map_err(in_footer)?;

        let index_at = meta.offset.saturating_add(footer.data_len);
        let piece = one(context, &handle, (index_at, footer.index_len))?;
        let index = frame::decode(piece.bytes(), Kind::Index, handle.ident, index_at)
            .and_then(|frame| decode_index(&frame.raw, frame.count, footer.pages))
            .and_then(|index| check_index(&index, &footer, &meta).map(|()| index))
            .map_err(|wrong| wrong.at(&handle.path, index_at, "run index"))?;
        Ok(Self { handle, meta, footer, index })
    }

    /// Unpacks block `i` of the bytes of its frame.
    fn block(&self, context: &SpineContext, i: usize, bytes: &[u8]) -> Result<(Block, u64)> {
        let (at, _) = self.place(i);
        self.block_at(context.pool(), i, bytes, at).map_err(|wrong| wrong.at(&self.handle.path, at, "run block"))
    }

    fn block_at(&self, pool: &Arc<Pool>, i: usize, bytes: &[u8], at: u64) -> Result<(Block, u64), Malformed> {
        let frame = frame::decode_into(bytes, Kind::Block, self.handle.ident, at, |len| pool.take(len))?;
        let block = Block::sound(frame.raw, frame.count, self.footer.discipline)?;
        let (first, last) = (self.index.first_key(i), self.index.last_key(i));
        let named = frame.count == self.index.rows(i) && block.first_key() == first && block.last_key() == last;
        if !named && checked(Check::RunBlockBounds) {
            return Err(Malformed::new("the rows that the index names", "others"));
        }
        Ok((block, frame.checksum))
    }

    /// Unpacks block `i`, which was read for somebody who goes through the run.
    pub(super) fn keep_block(&self, context: &SpineContext, i: usize, bytes: &[u8], keep: Keep) -> Result<Arc<Block>> {
        let block = Arc::new(self.block(context, i, bytes)?.0);
        if keep == Keep::Cached {
            context.cache().put_block(&self.handle, self.place(i).0, &block);
        }
        Ok(block)
    }

    /// Unpacks the filter page whose frame is at `at` of the file.
    fn page(&self, kind: Kind, at: u64, bytes: &[u8]) -> Result<(Arc<[u8]>, u64)> {
        let page = frame::decode(bytes, kind, self.handle.ident, at).and_then(|frame| {
            let expected = filter::page_bytes(frame.count as usize);
            if frame.raw.len() != expected && checked(Check::RunPageSize) {
                let got = frame.raw.len().to_string();
                return Err(Malformed::new(format!("a page of {expected} bytes for {} entries", frame.count), got));
            }
            Ok((Arc::from(frame.raw), frame.checksum))
        });
        page.map_err(|wrong| wrong.at(&self.handle.path, at, "run filter"))
    }

    /// Where the frame of block `i` is in the file, and its length.
    pub(super) fn place(&self, i: usize) -> Place {
        self.in_file(self.index.place(i).unwrap_or((0, 0)))
    }

    /// Where a filter page is in the file, and its length; 0 if there is none.
    fn page_place(&self, page: usize, kind: Kind) -> Place {
        let place = self.index.pages().get(page).map_or((0, 0), |p| if kind == Kind::Rows { p.rows } else { p.keys });
        self.in_file(place)
    }

    fn in_file(&self, (offset, len): Place) -> Place {
        (self.meta.offset.saturating_add(offset), len)
    }

    /// The kind of filter that tells the rows of a group apart best.
    pub(super) fn row_filter(&self, page: usize) -> Kind {
        if self.page_place(page, Kind::Rows).1 > 0 { Kind::Rows } else { Kind::Keys }
    }

    /// Whether most of its blocks are in the cache, by a sample of them.
    pub(super) fn is_warm(&self, context: &SpineContext) -> bool {
        let every = (self.index.len() / SAMPLE).max(1);
        let sample = (0..self.index.len()).step_by(every);
        let (asked, cached) = sample.fold((0, 0), |(asked, cached), i| {
            (asked + 1, cached + usize::from(context.cache().has_block(&self.handle, self.place(i).0)))
        });
        2 * cached > asked
    }

    /// Takes its blocks and filter pages out of the cache: another run took its place. Who still reads it may bring some back.
    pub(super) fn cool(&self, context: &SpineContext) {
        let blocks = (0..self.index.len()).map(|i| self.place(i).0);
        let kinds = [Kind::Keys, Kind::Rows];
        let pages = (0..self.index.pages().len()).flat_map(|page| kinds.map(|kind| self.page_place(page, kind)));
        let pages = pages.filter(|(_, len)| *len > 0).map(|(at, _)| at);
        blocks.chain(pages).for_each(|at| context.cache().remove(&self.handle, at));
    }

    /// Memory that it holds while open, in bytes.
    pub(super) fn resident_bytes(&self) -> usize {
        self.index.bytes()
    }
}

/// Reads one range of a file.
fn one(context: &SpineContext, handle: &RunHandle, (offset, len): Place) -> Result<super::context::Piece> {
    context.read(&[Want { handle, offset, len }])?.pop().ok_or_else(lost)
}

fn check_footer(footer: &Footer, checksum: u64, spine: &SpineMeta, meta: &RunMeta) -> Result<(), Malformed> {
    if checksum != meta.checksum && checked(Check::RunFooterNamed) {
        return Err(Malformed::new(
            format!("checksum {:016x}, which the manifest names", meta.checksum),
            format!("{checksum:016x}"),
        ));
    }
    let len =
        [footer.data_len, footer.index_len, footer::LEN as u64].iter().try_fold(0u64, |sum, &n| sum.checked_add(n));
    let got = (footer.discipline, footer.format, footer.extent, len, footer.rows, footer.raw_bytes);
    let want = (spine.discipline, spine.format, meta.offset, Some(meta.len), meta.rows, meta.raw_bytes);
    if got != want && checked(Check::RunFooterFields) {
        return Err(Malformed::new(format!("{want:?}, which the manifest names"), format!("{got:?}")));
    }
    Ok(())
}

fn check_index(index: &Index, footer: &Footer, meta: &RunMeta) -> Result<(), Malformed> {
    let rows: u64 = (0..index.len()).map(|i| u64::from(index.rows(i))).sum();
    let got = (index.len() as u64, index.end(), rows, cut_key(index.min_key()), cut_key(index.max_key()));
    let want = (u64::from(footer.blocks), footer.data_len, meta.rows, meta.min_key.as_slice(), meta.max_key.as_slice());
    if got != want && checked(Check::RunIndexFields) {
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
pub(super) fn load(context: &SpineContext, blocks: &[(&Run, usize)], keep: Keep) -> Result<Vec<Arc<Block>>> {
    let cached = |(run, i): &(&Run, usize)| context.cache().block(&run.handle, run.place(*i).0);
    let found = blocks.iter().map(cached).collect();
    let frames = |slot: usize| blocks.get(slot).map(|(run, i)| (run.handle.as_ref(), run.place(*i)));
    fetch(context, found, frames, |slot, bytes| match blocks.get(slot) {
        Some((run, i)) => run.keep_block(context, *i, bytes, keep),
        None => Err(lost()),
    })
}

/// Loads filter pages, given as `(run, page, kind)`, as [`load`] does blocks. They always enter the cache.
pub(super) fn load_pages(context: &SpineContext, pages: &[(&Run, usize, Kind)]) -> Result<Vec<Arc<[u8]>>> {
    let cached =
        |(run, page, kind): &(&Run, usize, Kind)| context.cache().page(&run.handle, run.page_place(*page, *kind).0);
    let found = pages.iter().map(cached).collect();
    let frames = |slot: usize| pages.get(slot).map(|(run, page, k)| (run.handle.as_ref(), run.page_place(*page, *k)));
    fetch(context, found, frames, |slot, bytes| {
        let (run, page, kind) = pages.get(slot).ok_or_else(lost)?;
        let (at, _) = run.page_place(*page, *kind);
        let page = run.page(*kind, at, bytes)?.0;
        context.cache().put_page(&run.handle, at, &page);
        Ok(page)
    })
}

/// A frame to be read, and the slot that it is for.
struct Missing<'a> {
    handle: &'a RunHandle,
    place: Place,
    slot: usize,
}

/// Fills the slots of `found` that are empty: reads what `frames` names, what is near to each other in a file together, all in one
/// batch, and lets `unpack` do its work as the bytes arrive.
fn fetch<'a, T>(
    context: &SpineContext,
    mut found: Vec<Option<T>>,
    frames: impl Fn(usize) -> Option<(&'a RunHandle, Place)>,
    unpack: impl Fn(usize, &[u8]) -> Result<T>,
) -> Result<Vec<T>> {
    let empty = found.iter().enumerate().filter(|(_, found)| found.is_none());
    let named = empty.filter_map(|(slot, _)| frames(slot).map(|(handle, place)| Missing { handle, place, slot }));
    let mut missing: Vec<Missing<'_>> = named.collect();
    missing.sort_unstable_by_key(|Missing { handle, place, .. }| (handle.header.epoch, handle.header.number, place.0));
    let mut wants: Vec<Want<'_>> = Vec::new();
    // What each of them is read for.
    let mut parts: Vec<Range<usize>> = Vec::new();
    for (at, Missing { handle, place: (offset, len), .. }) in missing.iter().enumerate() {
        let end = offset.saturating_add(*len);
        match (wants.last_mut(), parts.last_mut()) {
            (Some(want), Some(parts))
                if std::ptr::eq(want.handle, *handle)
                    && *offset <= want.offset.saturating_add(want.len).saturating_add(GAP)
                    && end.saturating_sub(want.offset) <= READ_TOGETHER =>
            {
                want.len = want.len.max(end - want.offset);
                parts.end = at + 1;
            }
            _ => {
                wants.push(Want { handle, offset: *offset, len: *len });
                parts.push(at..at + 1);
            }
        }
    }
    context.read_each(&wants, |i, piece| {
        let start = wants.get(i).map_or(0, |want| want.offset);
        for Missing { place: (offset, len), slot, .. } in
            parts.get(i).and_then(|parts| missing.get(parts.clone())).unwrap_or(&[])
        {
            let from = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
            let to = from.saturating_add(usize::try_from(*len).unwrap_or(usize::MAX));
            let unpacked = unpack(*slot, piece.bytes().get(from..to).ok_or_else(lost)?)?;
            if let Some(place) = found.get_mut(*slot) {
                *place = Some(unpacked);
            }
        }
        Ok(())
    })?;
    let all: Option<Vec<_>> = found.into_iter().collect();
    all.ok_or_else(|| Error::Invalid("a frame was asked for that its run does not have: a bug in the spine".into()))
}
