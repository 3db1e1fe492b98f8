//! The bytes of a simulated file: what readers see, what is durable, and what lies between.
//!
//! Invariants:
//! 1. `live` is `durable` with every change of `pending` applied in order, unless the file is `hiding` something: what a
//!    failed sync or a lost write left in the page cache only, or damage below a pending change.
//! 2. A pending change is one operation, or what is left of it after a durable write to a part of its sectors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::image::{Data, Image, PAGE, Page, SECTOR};

/// A change that is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write {
        at: usize,
        data: Data,
    },
    /// The file became at least this long.
    Grow(usize),
    /// The file was cut off.
    Cut(usize),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) live: Image,
    pub(super) durable: Image,
    pub(super) pending: Vec<Change>,
    /// Whether the page cache shows readers something that the device does not have.
    pub(super) hiding: bool,
    /// What pages held before they were last written, for a read that returns it.
    pub(super) older: Arc<BTreeMap<usize, Page>>,
    /// Sectors of the device that cannot be read until they are written.
    pub(super) unreadable: BTreeSet<usize>,
    /// Open handles.
    pub(super) handles: usize,
}

impl Content {
    /// A file after a restart: what is there is durable.
    pub(super) fn settled(bytes: Image, older: Arc<BTreeMap<usize, Page>>, unreadable: BTreeSet<usize>) -> Self {
        Self { live: bytes.clone(), durable: bytes, older, unreadable, ..Self::default() }
    }

    /// Writes, and makes the bytes durable if asked to.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8], durable: bool) {
        let data = Data::copy(bytes);
        self.show(at, &data);
        if durable {
            self.sync_range(at, data.len());
            self.make_durable(&Change::Write { at, data });
        } else if data.len() > 0 {
            self.pending.push(Change::Write { at, data });
        }
    }

    /// A write that the device says it has done and has not: only the length comes there. A page cache hides it.
    pub(super) fn lose_write(&mut self, at: usize, bytes: &[u8], direct: bool) {
        let end = if bytes.is_empty() { 0 } else { at + bytes.len() };
        if end > self.live.len() {
            self.pending.push(Change::Grow(end));
        }
        if direct {
            self.live.grow(end);
        } else {
            self.show(at, &Data::copy(bytes));
            self.hiding = true;
        }
    }

    /// Lets readers see a write.
    fn show(&mut self, at: usize, data: &Data) {
        let len = self.live.len();
        if at < len {
            let older = Arc::make_mut(&mut self.older);
            for page in at / PAGE..(at + data.len()).min(len).div_ceil(PAGE) {
                older.insert(page, self.live.page(page).clone());
            }
        }
        self.live.write(at, data);
    }

    /// Adds a write without readers seeing it: it was in flight at a crash.
    pub(super) fn add_pending(&mut self, at: usize, bytes: &[u8]) {
        self.pending.push(Change::Write { at, data: Data::copy(bytes) });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len < self.live.len() {
            self.pending.push(Change::Cut(len));
        } else if len > self.live.len() {
            self.pending.push(Change::Grow(len));
        }
        self.live.set_len(len);
    }

    /// Everything so far becomes durable.
    pub(super) fn sync(&mut self) {
        if !self.hiding && self.unreadable.is_empty() {
            self.pending.clear();
            self.durable = self.live.clone();
            return;
        }
        for change in std::mem::take(&mut self.pending) {
            self.make_durable(&change);
        }
    }

    fn make_durable(&mut self, change: &Change) {
        apply(&mut self.durable, change);
        mend(&mut self.unreadable, change);
    }

    /// The sectors of `len` bytes at `offset` become durable, nothing else, except that a cut becomes durable with all
    /// before it: a later change of the length must not be undone by an earlier one.
    pub(super) fn sync_range(&mut self, offset: usize, len: usize) {
        if self.pending.is_empty() {
            return;
        }
        let cut = self.pending.iter().rposition(|c| matches!(c, Change::Cut(_))).map_or(0, |at| at + 1);
        let (start, end) = (offset - offset % SECTOR, (offset + len).next_multiple_of(SECTOR));
        for (i, change) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            match change {
                change if i < cut => self.make_durable(&change),
                Change::Write { at, data } if at < end && at + data.len() > start => {
                    let (from, to) = (start.saturating_sub(at), end - at);
                    self.make_durable(&Change::Write { at: at + from, data: data.slice(from, to) });
                    if from > 0 {
                        self.pending.push(Change::Write { at, data: data.slice(0, from) });
                    }
                    if to < data.len() {
                        self.pending.push(Change::Write { at: end, data: data.slice(to, data.len()) });
                    }
                }
                change => self.pending.push(change),
            }
        }
    }

    /// Whether a write ends behind what is durable: then the file's length may come without the bytes.
    pub(super) fn grows(&self, at: usize, len: usize) -> bool {
        at + len > self.durable.len()
    }

    /// A sync failed: the system calls the pages clean, readers go on seeing them, the device never got them.
    pub(super) fn lose_pending(&mut self) {
        self.hiding |= !self.pending.is_empty();
        self.pending.clear();
    }

    /// What a reader sees that asks the device itself: what is durable and what was written since, but nothing that only
    /// the page cache has. As long as the file is.
    pub(super) fn device(&self) -> Image {
        if !self.hiding {
            return self.live.clone();
        }
        let mut bytes = self.durable.clone();
        self.pending.iter().for_each(|change| apply(&mut bytes, change));
        bytes.set_len(self.live.len());
        bytes
    }

    /// The page cache is emptied: readers see the device.
    pub(super) fn drop_cache(&mut self) {
        self.live = self.device();
        self.hiding = false;
        // Of a length that only the cache had, the durable image knows nothing.
        if self.pending.is_empty() && self.durable.len() != self.live.len() {
            self.pending.push(Change::Grow(self.live.len()));
        }
    }

    /// What a stale read sees: pages as they were before they were last written.
    pub(super) fn stale(&self) -> Image {
        let mut bytes = self.live.clone();
        self.older.iter().for_each(|(index, page)| bytes.set_page(*index, page.clone()));
        bytes
    }

    /// The first sector of the range that a read fails at.
    pub(super) fn unreadable_in(&self, at: usize, len: usize) -> Option<usize> {
        let end = at.saturating_add(len).min(self.live.len()).div_ceil(SECTOR);
        let start = (at / SECTOR).min(end);
        let written = |sector: usize| {
            let from = sector * SECTOR;
            let whole = |c: &Change| match c {
                Change::Write { at, data } => *at <= from && at + data.len() >= from + SECTOR,
                Change::Cut(len) => *len <= from,
                Change::Grow(_) => false,
            };
            self.pending.iter().any(whole)
        };
        self.unreadable.range(start..end).copied().find(|sector| !written(*sector))
    }
}

/// How many sectors a write touches.
pub(super) fn sectors(at: usize, len: usize) -> usize {
    (at + len).div_ceil(SECTOR) - at / SECTOR
}

pub(super) fn apply(bytes: &mut Image, change: &Change) {
    match change {
        Change::Write { at, data } => bytes.write(*at, data),
        Change::Grow(len) => bytes.grow(*len),
        Change::Cut(len) if *len < bytes.len() => bytes.set_len(*len),
        Change::Cut(_) => {}
    }
}

/// A sector that is written whole, or cut off, can be read again.
pub(super) fn mend(unreadable: &mut BTreeSet<usize>, change: &Change) {
    if unreadable.is_empty() {
        return;
    }
    let (from, to) = match change {
        Change::Write { at, data } => (at.div_ceil(SECTOR), (at + data.len()) / SECTOR),
        Change::Cut(len) => (len.div_ceil(SECTOR), usize::MAX),
        Change::Grow(_) => return,
    };
    unreadable.retain(|sector| !(from..to).contains(sector));
}

#[cfg(test)]
mod tests {
    use super::super::crash::CrashPlan;
    use super::super::dice::Dice;
    use super::*;

    fn crashed(content: &Content, plan: CrashPlan) -> Vec<u8> {
        content.after_crash(&mut Dice::new(plan, &[])).durable.bytes(0, usize::MAX)
    }

    #[test]
    fn a_durable_write_leaves_other_sectors_pending() {
        let mut c = Content::default();
        c.write(0, &[1; 2048], false);
        c.write(512, &[2; 512], true);
        assert_eq!(crashed(&c, CrashPlan::KeepNone), [[0; 512], [2; 512]].concat());
        assert_eq!(c.pending.len(), 2, "the sectors before and behind");
        assert_eq!(crashed(&c, CrashPlan::KeepAll), [[1; 512], [2; 512], [1; 512], [1; 512]].concat());
    }

    #[test]
    fn a_cut_never_undoes_a_later_durable_write() {
        let mut c = Content::default();
        c.write(0, &[7; 2048], true);
        c.set_len(0);
        c.write(512, &[3; 512], true);
        assert_eq!(crashed(&c, CrashPlan::KeepAll), [[0; 512], [3; 512]].concat());
    }

    #[test]
    fn a_sync_makes_durable_what_readers_see_and_not_what_the_cache_hides() {
        let mut c = Content::default();
        c.write(0, &[1; 1024], true);
        c.write(0, &[2; 512], false);
        c.lose_pending();
        c.write(512, &[3; 512], false);
        c.sync();
        assert_eq!(c.live.bytes(0, 1024), [[2; 512], [3; 512]].concat());
        assert_eq!(c.durable.bytes(0, 1024), [[1; 512], [3; 512]].concat());
        c.drop_cache();
        assert_eq!(c.live.bytes(0, 1024), [[1; 512], [3; 512]].concat());
    }
}
