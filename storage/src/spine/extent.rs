//! A run while it is encoded: rows in, frames out, from the first block to the footer.
//!
//! Invariants:
//! 1. Rows are pushed in ascending order, each once.
//! 2. Every byte that an extent appends to its [`Tape`] is part of a frame or the footer.
//! 3. It holds the index and what belongs to one block and one filter page, however long the run becomes.

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Default;

use super::context::{RunHandle, SpineContext};
use super::filter::{self, PAGE_ROWS, ROWS_PER_KEY, key_hash, row_hash};
use super::format::block::{Block, BlockBuilder};
use super::format::footer::{self, Footer};
use super::format::frame::{Codec, Kind, Packer};
use super::format::{self, index::Index};
use super::{Discipline, RowBatch, RunMeta, cut_key};
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
    /// For a run that is soon merged: in little time (LZ4).
    Fast,
    /// For one that stays: in little space (zstd).
    Small,
}

/// What is known of a run once it is encoded.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) meta: RunMeta,
    pub(super) footer: Footer,
    pub(super) index: Index,
}

/// See the module's head.
pub(super) struct Extent {
    /// The file's identity.
    ident: u64,
    codec: Codec,
    packer: Option<Packer>,
    block: BlockBuilder,
    /// The first row of the block.
    first: RowBatch,
    index: Index,
    /// Of the group's keys that begin in it, and of its rows.
    keys: Vec<u64>,
    rows: Vec<u64>,
    content: Xxh3Default,
    /// What is known so far, but for the lengths.
    footer: Footer,
    /// The cache that blocks and filter pages are put into, if readers want them there.
    warm: Option<(Arc<SpineContext>, Arc<RunHandle>)>,
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extent").field("footer", &self.footer).finish_non_exhaustive()
    }
}

impl Extent {
    /// Begins where the tape is, at a multiple of [`ALIGN`].
    pub(super) fn new(tape: &mut Tape, ident: u64, discipline: Discipline, format: u32, packing: Packing) -> Self {
        tape.pad();
        let footer = Footer {
            version: format::VERSION,
            discipline,
            format,
            blocks: 0,
            rows: 0,
            raw_bytes: 0,
            extent: tape.offset(),
            data_len: 0,
            index_len: 0,
            filter_len: 0,
            content: 0,
            keys: 0,
            negative: 0,
            weight: 0,
            pages: 0,
        };
        Self {
            ident,
            codec: match packing {
                Packing::Fast => Codec::Lz4,
                Packing::Small => Codec::Zstd,
            },
            packer: None,
            block: BlockBuilder::default(),
            first: RowBatch::new(),
            index: Index::default(),
            keys: Vec::new(),
            rows: Vec::new(),
            content: Xxh3Default::new(),
            footer,
            warm: None,
        }
    }

    /// Has blocks and filter pages put into the cache as they are written.
    pub(super) fn keep_warm(&mut self, context: &Arc<SpineContext>, handle: &Arc<RunHandle>) {
        self.warm = Some((Arc::clone(context), Arc::clone(handle)));
    }

    /// Appends a row greater than the last one.
    pub(super) fn push(&mut self, tape: &mut Tape, key: &[u8], value: &[u8], weight: i64) -> Result<()> {
        let last = if self.block.rows() > 0 { self.block.last_key() } else { self.index.max_key() };
        let weighted = self.footer.discipline == Discipline::Weighted;
        let new_key = self.footer.rows == 0 || last != key;
        if new_key || weighted {
            let hash = key_hash(key);
            if new_key {
                self.keys.push(hash);
                self.footer.keys += 1;
            }
            self.rows.push(if weighted { row_hash(hash, value) } else { 0 });
        }
        if self.block.rows() == 0 {
            self.first.push(key, if weighted { value } else { &[] }, 0);
        }
        self.block.push(key, value, weight);
        self.footer.rows += 1;
        self.footer.raw_bytes += raw_bytes(key, value);
        self.footer.negative += u64::from(weight < 0);
        self.footer.weight = self.footer.weight.wrapping_add(weight);
        if self.block.is_full() { self.close_block(tape) } else { Ok(()) }
    }

    fn close_block(&mut self, tape: &mut Tape) -> Result<()> {
        let rows = self.block.rows();
        let last = self.block.last_key().to_vec();
        let mut block = std::mem::take(&mut self.block);
        let at = tape.offset();
        let payload = block.finish();
        let len = self.frame(tape, Kind::Block, self.codec, rows, payload)?;
        if let Some((context, handle)) = &self.warm
            && let Ok(block) = Block::split(context.pool().copy(payload), rows)
        {
            context.cache().put_block(handle, at, &Arc::new(block));
        }
        block.clear();
        self.block = block;
        let rows = format::to_u32(rows, "the rows of a block")?;
        self.index.push(len, rows, self.first.key(0), self.first.value(0), &last);
        self.first.clear();
        if self.rows.len() >= PAGE_ROWS { self.close_group(tape) } else { Ok(()) }
    }

    /// Appends the filter pages of the blocks since the last ones.
    fn close_group(&mut self, tape: &mut Tape) -> Result<()> {
        let (keys, rows) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.rows));
        let keys_len = self.page(tape, Kind::Keys, &keys)?;
        let several = self.footer.discipline == Discipline::Weighted && rows.len() / ROWS_PER_KEY >= keys.len();
        let rows_len = match several {
            true => self.page(tape, Kind::Rows, &rows)?,
            false => 0,
        };
        self.index.push_page(keys_len, rows_len);
        self.footer.filter_len += keys_len + rows_len;
        (self.keys, self.rows) = (keys, rows);
        self.keys.clear();
        self.rows.clear();
        Ok(())
    }

    /// Appends a filter page; returns its length.
    fn page(&mut self, tape: &mut Tape, kind: Kind, hashes: &[u64]) -> Result<u64> {
        let (at, page) = (tape.offset(), filter::build(hashes));
        if let Some((context, handle)) = &self.warm {
            context.cache().put_page(handle, at, &Arc::from(page.as_slice()));
        }
        self.frame(tape, kind, Codec::None, hashes.len(), &page)
    }

    /// Appends a frame; returns its length.
    fn frame(&mut self, tape: &mut Tape, kind: Kind, codec: Codec, count: usize, payload: &[u8]) -> Result<u64> {
        let packer = match &mut self.packer {
            Some(packer) => packer,
            none => none.insert(Packer::new()?),
        };
        let before = tape.offset();
        let sum = packer.frame(&mut tape.pending, kind, codec, self.ident, before, count, payload)?;
        self.content.update(&sum.to_le_bytes());
        Ok(tape.offset() - before)
    }

    /// Appends the last block and filter pages, index and footer. `file` is the file's name.
    pub(super) fn finish(mut self, tape: &mut Tape, file: String) -> Result<Encoded> {
        if self.block.rows() > 0 {
            self.close_block(tape)?;
        }
        if self.index.pages().last().map_or(0, |page| page.end) < self.index.len() {
            self.close_group(tape)?;
        }
        self.index.seal();
        let payload = self.index.encode();
        let index_len = self.frame(tape, Kind::Index, Codec::Zstd, self.index.len(), &payload)?;
        let Self { index, content, mut footer, ident, .. } = self;
        footer.blocks = format::to_u32(index.len(), "the blocks of a run")?;
        footer.pages = format::to_u32(index.pages().len(), "the filter pages of a run")?;
        footer.data_len = index.end();
        footer.index_len = index_len;
        footer.content = content.digest();
        let (bytes, checksum) = footer.encode(ident, tape.offset());
        tape.pending.extend_from_slice(&bytes);
        let meta = RunMeta {
            file,
            offset: footer.extent,
            len: footer.data_len + index_len + footer::LEN as u64,
            checksum,
            rows: footer.rows,
            raw_bytes: footer.raw_bytes,
            min_key: cut_key(index.min_key()).to_vec(),
            max_key: cut_key(index.max_key()).to_vec(),
        };
        Ok(Encoded { meta, footer, index })
    }
}

/// What a row weighs for the merge policy.
pub(super) fn raw_bytes(key: &[u8], value: &[u8]) -> u64 {
    key.len() as u64 + value.len() as u64 + 8
}
