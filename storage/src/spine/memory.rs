//! The books of what memtables hold, over all spines of a store.
//!
//! Invariants:
//! 1. A [`Held`] is in the books with its bytes as long as it lives.
//! 2. Where one ends, the [`Bell`] is rung: somebody may wait for room, and a reader may have been the last to have the table.
//!
//! A spine freezes its memtable when all active ones together have two fifths of the bound, and its own at least half of their
//! average: so the large ones go first, and a frozen one leaves room for the next until it is on disk. The rest is for the sorted
//! copy that is made of a latest spine's table when it is written.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::bell::Bell;

/// The books.
#[derive(Debug)]
pub(super) struct Memory {
    /// What memtables may hold, frozen ones included.
    limit: u64,
    active: AtomicU64,
    all: AtomicU64,
    spines: AtomicU64,
    bell: Arc<Bell>,
}

/// How full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressure {
    None,
    /// Writing does not keep up: whoever inserts helps with it.
    Some,
    /// Whoever inserts waits for it.
    Full,
}

impl Memory {
    pub(super) fn new(limit: u64, bell: &Arc<Bell>) -> Arc<Self> {
        let (active, all, spines) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { limit, active, all, spines, bell: Arc::clone(bell) })
    }

    pub(super) fn pressure(&self) -> Pressure {
        match self.all.load(Relaxed) {
            all if all > self.limit => Pressure::Full,
            all if all > self.limit - self.limit / 4 => Pressure::Some,
            _ => Pressure::None,
        }
    }

    /// Bytes in memtables, frozen ones included.
    pub(super) fn all(&self) -> u64 {
        self.all.load(Relaxed)
    }
}

/// Bytes in the books.
#[derive(Debug)]
pub(super) struct Held {
    memory: Arc<Memory>,
    bytes: u64,
    /// Of an active table.
    active: bool,
}

impl Held {
    /// A new spine's.
    pub(super) fn new(memory: &Arc<Memory>) -> Self {
        memory.spines.fetch_add(1, Relaxed);
        Self { memory: Arc::clone(memory), bytes: 0, active: true }
    }

    /// Now it has so many.
    pub(super) fn set(&mut self, bytes: u64) {
        let memory = &self.memory;
        for count in [&memory.all, &memory.active] {
            // Wraps to a subtraction where there are less.
            count.fetch_add(bytes.wrapping_sub(self.bytes), Relaxed);
        }
        self.bytes = bytes;
    }

    /// Whether this table is to be frozen.
    pub(super) fn is_due(&self) -> bool {
        let active = self.memory.active.load(Relaxed);
        let spines = self.memory.spines.load(Relaxed).max(1);
        active > self.memory.limit / 5 * 2 && self.bytes >= active / (2 * spines) && self.bytes > 0
    }

    /// What it has goes to a frozen table; it begins anew.
    pub(super) fn split(&mut self) -> Held {
        self.memory.active.fetch_sub(self.bytes, Relaxed);
        Held { memory: Arc::clone(&self.memory), bytes: std::mem::take(&mut self.bytes), active: false }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.all.fetch_sub(self.bytes, Relaxed);
        if self.active {
            self.memory.active.fetch_sub(self.bytes, Relaxed);
            self.memory.spines.fetch_sub(1, Relaxed);
        }
        self.memory.bell.ring();
    }
}
