//! The bytes of a simulated file: what readers see, what is durable, and what lies between.
//!
//! Invariants:
//! 1. `live` is `durable` with every change of `pending` applied in order, except for what a failed sync lost or an
//!    injected damage touched.
//! 2. A pending change lies within one sector, so that a crash may keep any subset of a write's sectors.

use super::rng::Rng;

/// The unit that a device writes whole or not at all, in bytes.
pub(super) const SECTOR: usize = 512;

/// A change that is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Bytes inside one sector.
    Bytes { at: usize, bytes: Vec<u8> },
    /// The file became at least this long.
    Grow(usize),
    /// The file was cut off.
    Cut(usize),
}

/// What a crash does to one pending change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Kept,
    /// The sector holds neither the old nor the new bytes.
    Garbage,
    /// The length was written, the bytes were not.
    LengthOnly,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Change>,
    /// Open handles.
    pub(super) handles: usize,
}

impl Content {
    /// A file after a restart: what is there is durable.
    pub(super) fn settled(bytes: Vec<u8>) -> Self {
        Self { live: bytes.clone(), durable: bytes, ..Self::default() }
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.live, offset, bytes);
        self.add_pending(offset, bytes);
    }

    /// Adds the sectors of a write, without readers seeing them: a write that was in flight at a crash.
    pub(super) fn add_pending(&mut self, offset: usize, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let room = SECTOR - at % SECTOR;
            let (piece, tail) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.pending.push(Change::Bytes { at, bytes: piece.to_vec() });
            at += piece.len();
            rest = tail;
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len < self.live.len() {
            self.pending.push(Change::Cut(len));
        } else if len > self.live.len() {
            self.pending.push(Change::Grow(len));
        }
        self.live.resize(len, 0);
    }

    /// Everything so far becomes durable.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// The sectors of `len` bytes at `offset` become durable, nothing else, except that a cut becomes durable with all
    /// before it: a later change of the length must not be undone by an earlier one.
    pub(super) fn sync_range(&mut self, offset: usize, len: usize) {
        let cut = self.pending.iter().rposition(|c| matches!(c, Change::Cut(_))).map_or(0, |at| at + 1);
        let start = offset - offset % SECTOR;
        let end = (offset + len).next_multiple_of(SECTOR);
        let mut rest = Vec::new();
        for (i, change) in self.pending.drain(..).enumerate() {
            let inside = matches!(&change, Change::Bytes { at, .. } if (start..end).contains(at));
            if i < cut || inside {
                apply(&mut self.durable, &change);
            } else {
                rest.push(change);
            }
        }
        self.pending = rest;
    }

    /// A sync failed: the system calls the pages clean, readers go on seeing them, the device never got them.
    pub(super) fn lose_pending(&mut self) {
        self.pending.clear();
    }

    /// What is there after a power loss in which each pending change met its fate.
    pub(super) fn after_crash(&self, mut fate: impl FnMut(&Change) -> Fate, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.pending {
            match fate(change) {
                Fate::Lost => {}
                Fate::Kept => apply(&mut bytes, change),
                Fate::LengthOnly => grow(&mut bytes, change.end()),
                Fate::Garbage => {
                    grow(&mut bytes, change.end());
                    if let Change::Bytes { at, .. } = change {
                        let sector = at - at % SECTOR;
                        for byte in bytes.iter_mut().skip(sector).take(SECTOR) {
                            *byte = rng.next() as u8;
                        }
                    }
                }
            }
        }
        bytes
    }

    /// Reads up to `buf.len()` bytes; fewer at the end.
    pub(super) fn read(&self, buf: &mut [u8], offset: usize) -> usize {
        let found = self.live.get(offset..).unwrap_or_default();
        let n = found.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), found.get(..n)) {
            to.copy_from_slice(from);
        }
        n
    }
}

impl Change {
    /// The least length that the change gives the file.
    fn end(&self) -> usize {
        match self {
            Change::Bytes { at, bytes } => at + bytes.len(),
            Change::Grow(len) => *len,
            Change::Cut(_) => 0,
        }
    }

    /// Whether a crash can garble it: only bytes can.
    pub(super) fn is_bytes(&self) -> bool {
        matches!(self, Change::Bytes { .. })
    }
}

fn grow(bytes: &mut Vec<u8>, len: usize) {
    if bytes.len() < len {
        bytes.resize(len, 0);
    }
}

/// Writes into a byte vector as into a file: a gap is filled with zeros.
pub(super) fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    grow(file, offset + bytes.len());
    if let Some(to) = file.get_mut(offset..offset + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

fn apply(file: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Bytes { at, bytes } => put(file, *at, bytes),
        Change::Grow(len) => grow(file, *len),
        Change::Cut(len) => file.truncate(*len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durable_write_leaves_other_sectors_pending() {
        let mut c = Content::default();
        c.write(0, &[1; 1024]);
        c.write(512, &[2; 512]);
        c.sync_range(512, 512);
        assert_eq!(c.durable, [[0; 512], [2; 512]].concat());
        assert_eq!(c.pending.len(), 1);
        let mut rng = Rng::new(1);
        assert_eq!(c.after_crash(|_| Fate::Kept, &mut rng), [[1; 512], [2; 512]].concat());
    }

    #[test]
    fn a_cut_never_undoes_a_later_durable_write() {
        let mut c = Content::settled(vec![7; 2048]);
        c.set_len(0);
        c.write(512, &[3; 512]);
        c.sync_range(512, 512);
        let mut rng = Rng::new(1);
        assert_eq!(c.after_crash(|_| Fate::Kept, &mut rng), [[0; 512], [3; 512]].concat());
    }
}
