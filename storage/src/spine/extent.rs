//! A run while it is encoded: rows in, frames out, from the first block to the footer.
//!
//! Invariants:
//! 1. Rows are pushed in ascending order, each once.
//! 2. Every byte that an extent appends to its [`Tape`] is part of a frame or the footer.

use std::{fmt, mem};

use xxhash_rust::xxh3::Xxh3Default;

use super::filter::{Filter, key_hash};
use super::format::block::BlockBuilder;
use super::format::footer::{self, Footer};
use super::format::frame::{self, Kind};
use super::format::{self, index::Index};
use super::{Discipline, RowBatch, RunMeta};
use crate::Result;
use crate::disk::ALIGN;

/// Bytes of a file that are made and not yet written.
#[derive(Debug, Default)]
pub(super) struct Tape {
    /// They start at `start` in the file, a multiple of [`ALIGN`].
    pub(super) pending: Vec<u8>,
    pub(super) start: u64,
}

impl Tape {
    /// Where the next byte goes.
    pub(super) fn offset(&self) -> u64 {
        self.start + self.pending.len() as u64
    }

    /// Goes on at a multiple of [`ALIGN`].
    pub(super) fn pad(&mut self) {
        self.pending.resize(self.pending.len().next_multiple_of(ALIGN), 0);
    }
}

/// How its blocks are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// For a run that is soon merged: in little time.
    Fast,
    /// For one that stays: in little space.
    Small,
}

/// What is known of a run once it is encoded.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) meta: RunMeta,
    pub(super) footer: Footer,
    pub(super) index: Index,
    pub(super) filter: Filter,
}

/// See the module's head.
pub(super) struct Extent {
    /// The file's identity.
    ident: u64,
    discipline: Discipline,
    format: u32,
    packing: Packing,
    start: u64,
    block: BlockBuilder,
    /// The first row of the block.
    first: RowBatch,
    index: Index,
    hashes: Vec<u64>,
    content: Xxh3Default,
    rows: u64,
    raw_bytes: u64,
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extent").field("start", &self.start).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Extent {
    /// Begins where the tape is, at a multiple of [`ALIGN`].
    pub(super) fn new(tape: &mut Tape, ident: u64, discipline: Discipline, format: u32, packing: Packing) -> Self {
        tape.pad();
        Self {
            ident,
            discipline,
            format,
            packing,
            start: tape.offset(),
            block: BlockBuilder::default(),
            first: RowBatch::new(),
            index: Index::default(),
            hashes: Vec::new(),
            content: Xxh3Default::new(),
            rows: 0,
            raw_bytes: 0,
        }
    }

    /// Appends a row greater than the last one.
    pub(super) fn push(&mut self, tape: &mut Tape, key: &[u8], value: &[u8], weight: i64) -> Result<()> {
        let last = if self.block.rows() > 0 { self.block.last_key() } else { self.index.max_key() };
        if self.rows == 0 || last != key {
            self.hashes.push(key_hash(key));
        }
        if self.block.rows() == 0 {
            let value = if self.discipline == Discipline::Weighted { value } else { &[] };
            self.first.push(key, value, 0);
        }
        self.block.push(key, value, weight);
        self.rows += 1;
        self.raw_bytes += raw_bytes(key, value);
        if self.block.is_full() { self.close_block(tape) } else { Ok(()) }
    }

    fn close_block(&mut self, tape: &mut Tape) -> Result<()> {
        let rows = self.block.rows();
        let before = tape.offset();
        let last = self.block.last_key().to_vec();
        let payload = self.block.finish();
        let compress = matches!(self.packing, Packing::Fast | Packing::Small);
        let sum = frame::encode(&mut tape.pending, Kind::Block, self.ident, before, rows, payload, compress)?;
        self.content.update(&sum.to_le_bytes());
        let len = tape.offset() - before;
        let rows = format::to_u32(rows, "the rows of a block")?;
        self.index.push(len, rows, self.first.key(0), self.first.value(0), &last);
        self.first.clear();
        self.block.clear();
        Ok(())
    }

    /// Appends an index or filter frame; returns its length.
    fn frame(&mut self, tape: &mut Tape, kind: Kind, count: usize, payload: &[u8], compress: bool) -> Result<u64> {
        let before = tape.offset();
        let sum = frame::encode(&mut tape.pending, kind, self.ident, before, count, payload, compress)?;
        self.content.update(&sum.to_le_bytes());
        Ok(tape.offset() - before)
    }

    /// Appends index, filter and footer. `file` is the file's name.
    pub(super) fn finish(mut self, tape: &mut Tape, file: String) -> Result<Encoded> {
        if self.block.rows() > 0 {
            self.close_block(tape)?;
        }
        let data_len = tape.offset() - self.start;
        let filter = Filter::build(&self.hashes);
        let index = mem::take(&mut self.index);
        let index_len = self.frame(tape, Kind::Index, index.len(), &index.encode(), true)?;
        let filter_len = self.frame(tape, Kind::Filter, self.hashes.len(), &filter.encode(), false)?;
        let footer = Footer {
            version: format::VERSION,
            discipline: self.discipline,
            format: self.format,
            blocks: format::to_u32(index.len(), "the blocks of a run")?,
            rows: self.rows,
            raw_bytes: self.raw_bytes,
            extent: self.start,
            data_len,
            index_len,
            filter_len,
            content: self.content.digest(),
            keys: self.hashes.len() as u64,
        };
        let (bytes, checksum) = footer.encode(self.ident, tape.offset());
        tape.pending.extend_from_slice(&bytes);
        let meta = RunMeta {
            file,
            offset: self.start,
            len: data_len + index_len + filter_len + footer::LEN as u64,
            checksum,
            rows: self.rows,
            raw_bytes: self.raw_bytes,
            min_key: index.min_key().to_vec(),
            max_key: index.max_key().to_vec(),
        };
        Ok(Encoded { meta, footer, index, filter })
    }
}

/// What a row weighs for the merge policy.
pub(super) fn raw_bytes(key: &[u8], value: &[u8]) -> u64 {
    key.len() as u64 + value.len() as u64 + 8
}
