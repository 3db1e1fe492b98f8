//! Listing a log's chain, blocks and records without changing it or taking its lock, damage and all.
//!
//! Damage is told where it is met, and does not end the dump: behind it records go on with the next commit that begins
//! with a sound block.
//!
//! Known limits: on a log that another process writes, the newest records may be missing, and a segment that is trimmed
//! meanwhile makes the call fail: try again. A read that the device refuses ends the dump.

mod line;

use std::path::Path;

pub use line::{BlockState, Dump, DumpBlock, DumpFree, DumpLine, DumpLink, DumpRecord, DumpSegment};

use super::Seq;
use super::format::{
    BLOCK, BLOCK_BYTES, Block, DATA_START, Fault, Header, Identity, LINK_AT, Link, decode_block, sound_block,
};
use super::reader::SegmentReader;
use super::segment::{self, Front, Head, Kept, Name};
use super::source::{READ_AHEAD, ReadAhead, Source};
use super::tail::{Tail, find_tail, proof_of};
use crate::disk::{Disk, OpenOptions};
use crate::{Error, Result};

/// Payload bytes that a dump shows.
const SHOWN: usize = 32;

/// Lists the log in `dir`: segment by segment, oldest first, each with its blocks and then its records, as far as `what`
/// asks for them. A directory that is not there has nothing to list.
///
/// # Errors
/// What is not damage: a directory or file that cannot be read, another format version.
///
/// ```
/// use backstay_storage::log::{Dump, dump};
/// # use backstay_storage::log::{Log, LogOptions};
/// # let dir = tempfile::tempdir()?;
/// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
/// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
/// log.append_batch(&[b"a", b"b"])?;
/// log.commit()?;
/// let mut lines = Vec::new();
/// let what = Dump { records: true, ..Dump::default() };
/// dump(&*backstay_storage::disk::system(), dir.path(), what, &mut |line| lines.push(line.to_string()))?;
/// assert!(lines[1].starts_with("  record 2, ") && lines[1].ends_with(": 1 bytes: \"b\""));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn dump(disk: &dyn Disk, dir: &Path, what: Dump, sink: &mut dyn FnMut(DumpLine)) -> Result<()> {
    if disk.metadata(dir)?.is_none() {
        return Ok(());
    }
    let Some(listing) = tell(segment::list(disk, dir), sink)? else { return Ok(()) };
    tell(listing.check_numbers(dir), sink)?;
    let newest = listing.segments.last().map(|s| s.id);
    let mut dumper = Dumper { disk, what, sink };
    let mut names = listing.segments.into_iter();
    // The segments before and after say where one starts and ends.
    let mut before: Option<Found> = None;
    let mut read = || names.next().map(|name| Found::read(disk, name, newest));
    let mut next = read();
    while let Some(this) = next {
        next = read();
        let Some(mut found) = tell(this, dumper.sink)? else {
            before = None;
            continue;
        };
        if let State::Damaged(fault) = &found.state {
            tell::<()>(Err(fault.clone().at(&found.kept.path, LINK_AT)), dumper.sink)?;
        }
        if let (Some(before), Some(head)) = (&before, found.head())
            && let Some(old) = before.head().filter(|_| before.kept.id + 1 == found.kept.id)
        {
            tell(segment::check_link(&old, &before.kept, &head, &found.kept), dumper.sink)?;
        }
        let successor = next.as_ref().and_then(|n| n.as_ref().ok()).filter(|n| n.kept.id == found.kept.id + 1);
        found.tail = match (&found.state, successor.map(|n| &n.state)) {
            (State::Ahead, _) => Some(Tail { end: DATA_START, last_seq: 0 }),
            (_, Some(State::Begun(next))) => Some(Tail { end: next.prev_len, last_seq: next.first_seq - 1 }),
            (_, Some(State::Damaged(_))) => None,
            // It is the newest that has begun.
            (State::Begun(link), Some(State::Ahead)) | (State::Begun(link), None)
                if successor.is_some() || newest == Some(found.kept.id) =>
            {
                let head = Head { header: found.header.clone(), link: *link };
                tell(find_tail(disk, &found.kept.path, &head), dumper.sink)?
            }
            _ => None,
        };
        dumper.segment(&found)?;
        before = Some(found);
    }
    for Name { path: file, file_len: bytes, .. } in listing.free.into_iter().filter(|_| what.chain) {
        (dumper.sink)(DumpLine::Free(DumpFree { file, bytes }));
    }
    Ok(())
}

/// A segment whose header is sound.
struct Found {
    kept: Kept,
    header: Header,
    state: State,
    /// What counts of it, if that is known.
    tail: Option<Tail>,
}

/// What is known of a segment's link.
enum State {
    Begun(Link),
    Damaged(Fault),
    /// It was made ahead and has none.
    Ahead,
}

impl Found {
    fn read(disk: &dyn Disk, name: Name, newest: Option<u64>) -> Result<Self> {
        let Front { header, link } = segment::read_front(disk, &name, true)?;
        let state = match link {
            Ok(link) => State::Begun(link),
            Err(fault) if newest == Some(name.id) => match proof_of(disk, &name.path, &header)? {
                Some(proof) => State::Damaged(Fault { got: format!("{} ({proof})", fault.got), ..fault }),
                None => State::Ahead,
            },
            Err(fault) => State::Damaged(fault),
        };
        Ok(Self { kept: Kept::new(name, None), header, state, tail: None })
    }

    fn head(&self) -> Option<Head> {
        let State::Begun(link) = self.state else { return None };
        Some(Head { header: self.header.clone(), link })
    }

    /// Bytes of the file that are whole blocks.
    fn whole_blocks(&self) -> u64 {
        self.kept.file_len / BLOCK_BYTES * BLOCK_BYTES
    }

    /// Its first record; 1 if that is not known.
    fn first_seq(&self) -> Seq {
        if let State::Begun(link) = self.state { link.first_seq } else { 1 }
    }
}

/// Tells damage; any other error stays one.
fn tell<T>(result: Result<T>, sink: &mut dyn FnMut(DumpLine)) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Damaged(damage)) => {
            sink(DumpLine::Damage(*damage));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

struct Dumper<'a> {
    disk: &'a dyn Disk,
    what: Dump,
    sink: &'a mut dyn FnMut(DumpLine),
}

impl Dumper<'_> {
    fn segment(&mut self, found: &Found) -> Result<()> {
        let header = &found.header;
        if self.what.chain {
            (self.sink)(DumpLine::Segment(DumpSegment {
                id: header.segment,
                file: found.kept.path.clone(),
                bytes: found.kept.file_len,
                store_id: header.store_id,
                epoch: header.epoch,
                segment_bytes: header.segment_bytes,
                window: header.window,
                link: match found.state {
                    State::Begun(Link { first_seq, prev_len }) => DumpLink::Sound { first_seq, prev_len },
                    State::Damaged(_) => DumpLink::Unsound,
                    State::Ahead => DumpLink::Missing,
                },
                end: found.tail.map(|t| (t.end, t.last_seq)),
            }));
        }
        if self.what.blocks {
            self.blocks(found)?;
        }
        if self.what.records && !matches!(found.state, State::Ahead) {
            let tail = match found.tail {
                Some(tail) => tail,
                None => self.last_sound(found)?,
            };
            self.records(found, tail)?;
        }
        Ok(())
    }

    fn source(&self, found: &Found, from: u64, to: u64) -> Result<Source> {
        let file = self.disk.open(&found.kept.path, OpenOptions::READ_DIRECT)?;
        Ok(Source::ahead(ReadAhead::new(self.disk, READ_AHEAD)?, file, &found.kept.path, from..to))
    }

    /// Calls `each` with the file's whole blocks from `from` to `to` and their offsets, until it returns false.
    fn each_block(&self, found: &Found, from: u64, to: u64, mut each: impl FnMut(u64, &[u8]) -> bool) -> Result<()> {
        let mut source = self.source(found, from, to.min(found.whole_blocks()))?;
        while let Some(chunk) = source.next()? {
            let mut offset = chunk.offset;
            for block in chunk.memory.bytes().chunks_exact(BLOCK) {
                if !each(offset, block) {
                    return Ok(());
                }
                offset += BLOCK_BYTES;
            }
        }
        Ok(())
    }

    fn blocks(&mut self, found: &Found) -> Result<()> {
        let (identity, segment) = (Identity::of(&found.header), found.header.segment);
        let end = found.tail.map_or(u64::MAX, |t| t.end);
        let line = |offset, state| DumpLine::Block(DumpBlock { segment, offset, void: offset >= end, state });
        // Blocks of zeros are told together: where they start, how many. Not over the end: before it they are damage.
        let mut zeros: Option<(u64, u64)> = None;
        let mut source = self.source(found, DATA_START, found.whole_blocks())?;
        while let Some(chunk) = source.next()? {
            let mut offset = chunk.offset;
            for block in chunk.memory.bytes().chunks_exact(BLOCK) {
                let state = match decode_block(block, &identity, offset) {
                    Ok(Block { commit, index, payload }) => {
                        Some(BlockState::Sound { commit, index, used: payload.len() })
                    }
                    Err(_) if block.iter().all(|b| *b == 0) => None,
                    Err(fault) => Some(BlockState::Unsound { expected: fault.expected, got: fault.got }),
                };
                if (state.is_some() || offset == end)
                    && let Some((offset, blocks)) = zeros.take()
                {
                    (self.sink)(line(offset, BlockState::Zeros { blocks }));
                }
                match state {
                    Some(state) => (self.sink)(line(offset, state)),
                    None => zeros.get_or_insert((offset, 0)).1 += 1,
                }
                offset += BLOCK_BYTES;
            }
        }
        if let Some((offset, blocks)) = zeros {
            (self.sink)(line(offset, BlockState::Zeros { blocks }));
        }
        Ok(())
    }

    /// What a segment whose end nobody tells may hold: all up to the last commit that has a sound block.
    fn last_sound(&self, found: &Found) -> Result<Tail> {
        let identity = Identity::of(&found.header);
        let mut tail = Tail { end: DATA_START, last_seq: found.first_seq() - 1 };
        self.each_block(found, DATA_START, u64::MAX, |offset, block| {
            if let Some(Block { commit, .. }) = sound_block(block, &identity, offset) {
                tail = Tail { end: commit.end(), last_seq: commit.last_seq() };
            }
            true
        })?;
        Ok(tail)
    }

    fn records(&mut self, found: &Found, tail: Tail) -> Result<()> {
        let header = &found.header;
        let (mut start, mut next) = (DATA_START, found.first_seq());
        if !matches!(found.state, State::Begun(_)) {
            let Some(first) = self.next_commit(found, start, tail.end, next)? else { return Ok(()) };
            (start, next) = first;
        }
        loop {
            // No more is asked for than there is: what a record claims is believed as far as the source goes.
            let source = self.source(found, start, tail.end.min(found.whole_blocks()))?;
            let mut reader = SegmentReader::from_commit(source, header, tail, start, next);
            let damage = loop {
                match reader.next_stored(0) {
                    Ok(None) => return Ok(()),
                    Ok(Some(stored)) => {
                        next = stored.head.seq + 1;
                        let payload = tell(reader.payload(&stored), self.sink)?.unwrap_or_default();
                        (self.sink)(DumpLine::Record(DumpRecord {
                            segment: header.segment,
                            block: stored.block,
                            seq: stored.head.seq,
                            stored: stored.head.stored,
                            raw: stored.head.raw,
                            compressed: stored.head.zstd,
                            first: payload.get(..SHOWN).unwrap_or(&payload).to_vec(),
                        }));
                    }
                    Err(Error::Damaged(damage)) => break *damage,
                    Err(e) => return Err(e),
                }
            };
            let behind = damage.offset.max(start) / BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES;
            (self.sink)(DumpLine::Damage(damage));
            match self.next_commit(found, behind, tail.end, next)? {
                Some((at, seq)) => (start, next) = (at, seq),
                None => return Ok(()),
            }
        }
    }

    /// The first sound block from `from` on that begins a commit of records from `next` on: its offset and first record.
    fn next_commit(&self, found: &Found, from: u64, to: u64, next: Seq) -> Result<Option<(u64, Seq)>> {
        if from >= to {
            return Ok(None);
        }
        let identity = Identity::of(&found.header);
        let mut commit = None;
        self.each_block(found, from, to, |offset, block| {
            let first = sound_block(block, &identity, offset).filter(|b| b.index == 0 && b.commit.first_seq >= next);
            commit = first.map(|b| (offset, b.commit.first_seq));
            commit.is_none()
        })?;
        Ok(commit)
    }
}

#[cfg(test)]
mod tests;
