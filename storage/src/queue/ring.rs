//! The lock-free core: a ring of slots between one [`Producer`] and one [`Consumer`].
//!
//! `head` counts the items ever taken, `tail` the items ever put; both only grow (wrapping). Slot `i & mask` holds
//! item `i`. Invariants, on which the SAFETY arguments rest:
//!
//! 1. `tail - head <= capacity <= slots` at all times, in wrapping arithmetic.
//! 2. Only the producer writes `tail`, only the consumer writes `head`; each half is one value that is not `Clone`
//!    and whose methods take `&mut self`, so each counter has one writer at a time.
//! 3. Slots `head..tail` are initialised, all others are not (or are being moved in or out by their owner below).
//! 4. A slot in `head..tail` belongs to the consumer, any other to the producer. It changes hands by the Release
//!    store of `tail` (producer to consumer) or `head` (back), and the other side's Acquire load of it.

use std::mem::MaybeUninit;

use crossbeam::utils::CachePadded;

use super::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};

/// What both halves share.
struct Ring<T> {
    /// Items taken. On its own cache line, so that the halves do not slow each other.
    head: CachePadded<AtomicUsize>,
    /// Items put.
    tail: CachePadded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    mask: usize,
    capacity: usize,
}

// SAFETY: (1) a `Ring` hands out `T`s by value only, and by invariant 4 each slot is touched by one thread at a time
// with a happens-before edge between owners, so sharing the ring moves `T`s between threads and never shares one:
// `T: Send` is enough. (2) The counters are atomics.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: a `Ring` owns its `T`s; moving it to (and dropping it on) another thread moves them: `T: Send`.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> Ring<T> {
    /// The slot of item `index`.
    #[inline]
    fn slot(&self, index: usize) -> &UnsafeCell<MaybeUninit<T>> {
        // SAFETY: (1) `mask` is `slots.len() - 1` and `slots.len()` is a power of two (see `ring`), never 0, so
        // `index & mask < slots.len()`. (2) Neither changes after construction.
        unsafe { self.slots.get_unchecked(index & self.mask) }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // Both halves are gone: the last Arc's drop happens after all their accesses.
        let (mut head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        while head != tail {
            self.slot(head).with_mut(|slot| {
                // SAFETY: (1) `head..tail` is initialised (invariant 3). (2) `&mut self`: nobody else has access.
                // (3) Each index is visited once, and the slot is never read again.
                unsafe { (*slot).assume_init_drop() }
            });
            head = head.wrapping_add(1);
        }
    }
}

/// The half that puts.
pub(super) struct Producer<T> {
    ring: Arc<Ring<T>>,
    /// Our own `tail` (nobody else writes it).
    tail: usize,
    /// `head` as last seen: it can only have grown since, so a full-looking ring is looked at again.
    head_seen: usize,
}

/// The half that takes.
pub(super) struct Consumer<T> {
    ring: Arc<Ring<T>>,
    /// Our own `head` (nobody else writes it).
    head: usize,
    /// `tail` as last seen: it can only have grown since.
    tail_seen: usize,
}

/// A ring for up to `capacity` items (at least 1).
pub(super) fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1);
    let size = capacity.next_power_of_two();
    let slots = (0..size).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let ring = Arc::new(Ring {
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        slots,
        mask: size - 1,
        capacity,
    });
    (Producer { ring: ring.clone(), tail: 0, head_seen: 0 }, Consumer { ring, head: 0, tail_seen: 0 })
}

impl<T> Producer<T> {
    /// Puts an item, or gives it back if the ring is full.
    #[inline]
    pub(super) fn push(&mut self, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        self.ring.slot(self.tail).with_mut(|slot| {
            // SAFETY: (1) `tail - head_seen < capacity` and `head >= head_seen`, so slot `tail` lies outside
            // `head..tail` and no item `tail - slots` is still in it: it is ours (invariant 4). (2) The Acquire load
            // of `head` in `is_full` orders the consumer's move out of the slot before this write. (3) It is
            // uninitialised (invariant 3), so overwriting leaks nothing.
            unsafe { (*slot).write(item) };
        });
        self.tail = self.tail.wrapping_add(1);
        self.ring.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether a push would be refused now.
    #[inline]
    pub(super) fn is_full(&mut self) -> bool {
        if self.tail.wrapping_sub(self.head_seen) < self.ring.capacity {
            return false;
        }
        self.head_seen = self.ring.head.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.head_seen) >= self.ring.capacity
    }

    /// Items in the ring; the consumer may be taking some.
    pub(super) fn len(&self) -> usize {
        self.tail.wrapping_sub(self.ring.head.load(Ordering::Acquire))
    }

    /// How many items fit.
    pub(super) fn capacity(&self) -> usize {
        self.ring.capacity
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest item.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let item = self.ring.slot(self.head).with_mut(|slot| {
            // SAFETY: (1) `head != tail_seen` and `tail >= tail_seen`, so slot `head` lies in `head..tail`: it is
            // initialised and ours (invariants 3, 4). (2) The Acquire load of `tail` in `is_empty` orders the
            // producer's write before this read. (3) `head` is raised below before anything can read the slot again,
            // so the item is moved out once.
            unsafe { (*slot).assume_init_read() }
        });
        self.head = self.head.wrapping_add(1);
        self.ring.head.store(self.head, Ordering::Release);
        Some(item)
    }

    /// Whether there is nothing to take now.
    #[inline]
    pub(super) fn is_empty(&mut self) -> bool {
        if self.head != self.tail_seen {
            return false;
        }
        self.tail_seen = self.ring.tail.load(Ordering::Acquire);
        self.head == self.tail_seen
    }

    /// Items in the ring; the producer may be putting more.
    pub(super) fn len(&self) -> usize {
        self.ring.tail.load(Ordering::Acquire).wrapping_sub(self.head)
    }
}

#[cfg(all(test, loom))]
mod loom {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    use super::ring;

    /// An item on the heap (loom reports leaks of its Arcs), counting its drops.
    struct Counted(usize, Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn items_arrive_in_order_and_once_over_a_wrapping_ring() {
        loom::model(|| {
            let (mut tx, mut rx) = ring(1);
            let producer = thread::spawn(move || {
                let mut next = 0;
                while next < 3 {
                    match tx.push(Box::new(next)) {
                        Ok(()) => next += 1,
                        Err(_) => thread::yield_now(),
                    }
                }
            });
            let mut expected = 0;
            while expected < 3 {
                match rx.pop() {
                    Some(got) => {
                        assert_eq!(*got, expected);
                        expected += 1;
                    }
                    None => thread::yield_now(),
                }
            }
            assert!(rx.pop().is_none());
            producer.join().unwrap();
        });
    }

    #[test]
    fn a_ring_of_three_in_four_slots_never_holds_more_than_its_capacity() {
        loom::model(|| {
            let (mut tx, mut rx) = ring(3);
            let producer = thread::spawn(move || {
                let mut put = 0;
                for i in 0..4 {
                    put += usize::from(tx.push(i).is_ok());
                    assert!(tx.len() <= 3);
                }
                put
            });
            let mut taken = Vec::new();
            for _ in 0..2 {
                taken.extend(rx.pop());
            }
            let put = producer.join().unwrap();
            while let Some(i) = rx.pop() {
                taken.push(i);
            }
            assert_eq!(taken, (0..put).collect::<Vec<_>>());
        });
    }

    #[test]
    fn leftovers_are_dropped_once() {
        loom::model(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            let (mut tx, mut rx) = ring(2);
            let counter = drops.clone();
            let producer = thread::spawn(move || {
                let mut refused = 0;
                for i in 0..3 {
                    refused += usize::from(tx.push(Counted(i, counter.clone())).is_err());
                }
                refused
            });
            if let Some(item) = rx.pop() {
                assert_eq!(item.0, 0);
            }
            drop(rx);
            producer.join().unwrap();
            assert_eq!(drops.load(Ordering::Relaxed), 3);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::ring;

    #[test]
    fn holds_exactly_its_capacity() {
        let (mut tx, mut rx) = ring(3);
        assert_eq!([0, 1, 2].map(|i| tx.push(i)), [Ok(()), Ok(()), Ok(())]);
        assert_eq!(tx.push(3), Err(3));
        assert_eq!((tx.len(), rx.len(), tx.capacity()), (3, 3, 3));
        assert_eq!(rx.pop(), Some(0));
        assert_eq!(tx.push(3), Ok(()));
        assert_eq!([rx.pop(), rx.pop(), rx.pop(), rx.pop()], [Some(1), Some(2), Some(3), None]);
    }

    #[test]
    fn counters_wrap() {
        let (mut tx, mut rx) = ring(2);
        // As after usize::MAX items.
        for counter in [&tx.ring.head, &tx.ring.tail] {
            counter.store(usize::MAX, super::Ordering::Relaxed);
        }
        (tx.tail, tx.head_seen, rx.head, rx.tail_seen) = (usize::MAX, usize::MAX, usize::MAX, usize::MAX);
        for round in 0..5 {
            assert_eq!((tx.push(round), tx.push(round + 10), tx.push(99)), (Ok(()), Ok(()), Err(99)));
            assert_eq!((rx.pop(), rx.pop(), rx.pop()), (Some(round), Some(round + 10), None));
        }
    }
}
