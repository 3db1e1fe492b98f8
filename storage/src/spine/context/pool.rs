//! Buffers of unpacked blocks, which come round from one block to the next, whichever threads have them.
//!
//! An allocator keeps what is freed for the threads that share an arena with the one that had it. Blocks that one thread reads, another merges
//! and a third one's cache evicts would have a store hold several times what it uses: the most that each thread ever had.
//!
//! Invariant: buffers that are used and buffers that wait have at most `most` bytes together, or none waits. With as much as the cache may have, those
//! that wait are within its budget.
//!
//! Known limit: a buffer waits for a block of its own size, rounded up to a KiB; those of larger blocks than 64 KiB, which have rows that are
//! large themselves, do not wait at all.

use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::queue::SegQueue;

/// Buffers are so much larger from one class to the next.
const CLASS: usize = 1 << 10;
const CLASSES: usize = 64;

/// See the module's head.
pub(crate) struct Pool {
    /// Those that wait: of so many classes, and one.
    waiting: Vec<SegQueue<Vec<u8>>>,
    /// Bytes of all buffers.
    held: AtomicUsize,
    most: usize,
}

impl Pool {
    pub(crate) fn new(most: u64) -> Arc<Self> {
        let waiting = (0..CLASSES).map(|_| SegQueue::new()).collect();
        Arc::new(Self { waiting, held: AtomicUsize::new(0), most: usize::try_from(most).unwrap_or(usize::MAX) })
    }

    /// An empty buffer with room for `len` bytes.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let class = len.saturating_sub(1) / CLASS;
        let Some(waiting) = self.waiting.get(class) else { return Vec::with_capacity(len).into() };
        let bytes = waiting.pop().unwrap_or_else(|| {
            let bytes = Vec::with_capacity((class + 1) * CLASS);
            self.held.fetch_add(bytes.capacity(), Ordering::Relaxed);
            self.make_room();
            bytes
        });
        Buffer { home: Some((Arc::clone(self), bytes.capacity())), bytes }
    }

    /// A buffer with these bytes.
    pub(crate) fn copy(self: &Arc<Self>, bytes: &[u8]) -> Buffer {
        let mut buffer = self.take(bytes.len());
        buffer.bytes.extend_from_slice(bytes);
        buffer
    }

    /// Frees buffers that wait, of any size, while there are too many.
    fn make_room(&self) {
        while self.held.load(Ordering::Relaxed) > self.most
            && let Some(bytes) = self.waiting.iter().rev().find_map(SegQueue::pop)
        {
            self.held.fetch_sub(bytes.capacity(), Ordering::Relaxed);
        }
    }

    /// One of `capacity` bytes when it was taken.
    fn give_back(&self, mut bytes: Vec<u8>, capacity: usize) {
        let class = (capacity / CLASS).checked_sub(1).and_then(|class| self.waiting.get(class));
        match class {
            Some(waiting) if bytes.capacity() == capacity && self.held.load(Ordering::Relaxed) <= self.most => {
                bytes.clear();
                waiting.push(bytes);
            }
            _ => {
                self.held.fetch_sub(capacity, Ordering::Relaxed);
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("held", &self.held).field("most", &self.most).finish_non_exhaustive()
    }
}

/// Bytes that go back to a pool, if they are of one.
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
    /// With the capacity that it had there.
    home: Option<(Arc<Pool>, usize)>,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, home: None }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some((pool, capacity)) = self.home.take() {
            pool.give_back(mem::take(&mut self.bytes), capacity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(pool: &Pool) -> usize {
        pool.waiting.iter().map(SegQueue::len).sum()
    }

    #[test]
    fn buffers_come_round() {
        let pool = Pool::new(1 << 20);
        let first = pool.copy(&[7; 33_000]);
        let at = first.as_ptr();
        assert_eq!((&first[..], first.bytes.capacity()), (&[7; 33_000][..], 33 << 10));
        std::thread::scope(|scope| scope.spawn(move || drop(first)).join().unwrap());
        let second = pool.take(33 << 10);
        assert!(second.is_empty() && second.as_ptr() == at, "the same, from another thread");
        assert_ne!(pool.take((33 << 10) + 1).as_ptr(), at, "another size");
        assert_ne!(pool.take(33 << 10).as_ptr(), at, "it is used");
    }

    #[test]
    fn no_more_waits_than_is_allowed() {
        let pool = Pool::new(100 << 10);
        drop((0..5).map(|_| pool.take(32 << 10)).collect::<Vec<_>>());
        assert_eq!(waiting(&pool), 3, "two went while there were more than 100 KiB");
        assert_eq!(pool.held.load(Ordering::Relaxed), 96 << 10);
        let used: Vec<_> = (0..3).map(|_| pool.take(32 << 10)).collect();
        assert_eq!((waiting(&pool), pool.held.load(Ordering::Relaxed)), (0, 96 << 10));
        drop(used);
        // Larger ones, and ones that have grown, do not wait.
        drop(pool.take(65 << 10));
        let mut grown = pool.take(32 << 10);
        grown.bytes.resize(40 << 10, 0);
        drop(grown);
        assert_eq!((waiting(&pool), pool.held.load(Ordering::Relaxed)), (2, 64 << 10));
    }

    #[test]
    fn buffers_of_another_size_make_room() {
        let pool = Pool::new(100 << 10);
        drop((0..3).map(|_| pool.take(32 << 10)).collect::<Vec<_>>());
        assert_eq!((waiting(&pool), pool.held.load(Ordering::Relaxed)), (3, 96 << 10));
        let used: Vec<_> = (0..2).map(|_| pool.take(40 << 10)).collect();
        assert_eq!((waiting(&pool), pool.held.load(Ordering::Relaxed)), (0, 80 << 10));
        drop(used);
        assert_eq!((waiting(&pool), pool.held.load(Ordering::Relaxed)), (2, 80 << 10));
    }
}
