//! Many threads gather numbered records in one buffer, and one thread seals it: the lock-free hand-over of a group
//! commit.
//!
//! A thread reserves its numbers and its place by one compare-and-swap, and copies its bytes there while others copy
//! theirs. The [`Sealer`] ends the buffer by one compare-and-swap, which opens the next one at once, waits for those who
//! still copy, and takes the buffer: nothing is copied a second time, and no thread waits for a lock. (Reservation by
//! fetch-and-add in a log buffer: Johnson et al., "Aether: A Scalable Approach to Logging", VLDB 2010.)
//!
//! `state` is one word: the next record's number (its low 35 bits), which of two slots is open (1 bit), and how many
//! bytes of it are reserved (28 bits). Invariants, on which the SAFETY arguments rest:
//!
//! 1. Only the one [`Sealer`] flips the slot bit. It fills the closed slot with an empty buffer before, and takes the
//!    full buffer out of the other one only once `filled` says that every reserved byte of it was written.
//! 2. A thread that reserved in a slot counts its bytes in `filled` when it has written them, and not before: so from
//!    the reservation on until then, the buffer stays in its slot.
//! 3. Reservations of one slot are disjoint: each begins where the one before ends.
//! 4. Each reservation has a record at least, so `state` comes back to an old value only after 2^35 records: a
//!    compare-and-swap that succeeds saw the latest state, unless its thread slept through that many.

use super::sync::{Arc, AtomicU64, Ordering, Patience, UnsafeCell};

const BYTES: u32 = 28;
const SLOT: u64 = 1 << BYTES;
const SEQ: u32 = BYTES + 1;
/// The part of a record's number that the state holds.
const SEQ_MASK: u64 = u64::MAX >> SEQ;
/// The most bytes that one buffer can gather.
pub(crate) const MOST_BYTES: usize = (1 << BYTES) - 1;

/// Memory that many threads write at once, each a part of its own.
pub(crate) trait Fill {
    /// Writes `bytes` at `at`.
    ///
    /// # Safety
    /// Nobody else reads or writes that part meanwhile.
    unsafe fn fill(&self, at: usize, bytes: &[u8]);
    /// How many bytes fit.
    fn room(&self) -> usize;
}

struct Slot<B> {
    buffer: UnsafeCell<Option<B>>,
    /// Bytes that were written, in whatever order.
    filled: AtomicU64,
}

struct Shared<B> {
    state: AtomicU64,
    /// The number of the first record that was not sealed yet when this was stored: never ahead of `state`.
    sealed: AtomicU64,
    /// How often a buffer was sealed.
    seals: AtomicU64,
    slots: [Slot<B>; 2],
    room: usize,
}

// SAFETY: (1) buffers move in by `seal` and out of it, and are shared between the threads that fill them only through
// `Fill::fill`, whose parts are disjoint by invariant 3; `B: Sync` allows the shared reference, `B: Send` the moves.
// (2) All else is atomic.
unsafe impl<B: Send + Sync> Sync for Shared<B> {}
// SAFETY: as above.
unsafe impl<B: Send + Sync> Send for Shared<B> {}

/// Where records are put. Shared between threads.
pub(crate) struct Gather<B>(Arc<Shared<B>>);

/// The one who takes what was gathered.
pub(crate) struct Sealer<B> {
    shared: Arc<Shared<B>>,
    /// The first record of the open buffer.
    first: u64,
}

/// A full buffer.
pub(crate) struct Sealed<B> {
    pub(crate) buffer: B,
    pub(crate) first_seq: u64,
    pub(crate) records: u64,
    pub(crate) bytes: usize,
}

/// What there is no room for. `seals` is a number of seals: the room may be there once [`Gather::seals`] is above it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) seals: u64,
}

/// A gathering that begins with record `first` in `buffer`. All later buffers have the same room.
pub(crate) fn gather<B: Fill>(first: u64, buffer: B) -> (Gather<B>, Sealer<B>) {
    let room = buffer.room().min(MOST_BYTES);
    let slot = |buffer| Slot { buffer: UnsafeCell::new(buffer), filled: AtomicU64::new(0) };
    let shared = Arc::new(Shared {
        state: AtomicU64::new(first << SEQ),
        sealed: AtomicU64::new(first),
        seals: AtomicU64::new(0),
        slots: [slot(Some(buffer)), slot(None)],
        room,
    });
    (Gather(shared.clone()), Sealer { shared, first })
}

impl<B> Shared<B> {
    fn slot(&self, state: u64) -> &Slot<B> {
        let [first, second] = &self.slots;
        if state & SLOT == 0 { first } else { second }
    }
}

fn bytes(state: u64) -> usize {
    (state & (SLOT - 1)) as usize
}

/// The whole number whose low bits are in `state`, of those from `from` on.
fn whole(state: u64, from: u64) -> u64 {
    from.wrapping_add((state >> SEQ).wrapping_sub(from) & SEQ_MASK)
}

impl<B: Fill> Gather<B> {
    /// Reserves `records` numbers and `len` bytes, both at least 1.
    pub(crate) fn reserve(&self, records: u64, len: usize) -> Result<Reservation<'_, B>, Full> {
        let shared = &*self.0;
        // Before the state: whoever then sees a full buffer waits for a seal that comes after that.
        let seals = shared.seals.load(Ordering::Acquire);
        // Before the state as well: a number is never behind it.
        let from = shared.sealed.load(Ordering::Acquire);
        let mut state = shared.state.load(Ordering::Acquire);
        loop {
            let at = bytes(state);
            if len == 0 || len > shared.room - at {
                return Err(Full { seals });
            }
            let seq = (state >> SEQ).wrapping_add(records) << SEQ;
            let next = seq | (state & SLOT) | (at + len) as u64;
            match shared.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let slot = shared.slot(state);
                    return Ok(Reservation { slot, first_seq: whole(state, from), len, at, end: at + len });
                }
                Err(now) => state = now,
            }
        }
    }

    /// The number that the next record gets.
    pub(crate) fn next_seq(&self) -> u64 {
        let from = self.0.sealed.load(Ordering::Acquire);
        whole(self.0.state.load(Ordering::Acquire), from)
    }

    /// Whether the open buffer holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        bytes(self.0.state.load(Ordering::Acquire)) == 0
    }

    /// How many bytes an empty buffer holds.
    pub(crate) fn room(&self) -> usize {
        self.0.room
    }

    /// How often a buffer was sealed.
    pub(crate) fn seals(&self) -> u64 {
        self.0.seals.load(Ordering::Acquire)
    }
}

/// A part of the open buffer. Write it soon: the sealer waits for it.
pub(crate) struct Reservation<'a, B: Fill> {
    slot: &'a Slot<B>,
    /// The first of its records.
    pub(crate) first_seq: u64,
    len: usize,
    at: usize,
    end: usize,
}

impl<B: Fill> Reservation<'_, B> {
    /// Writes the next bytes. What would not fit is cut off: the caller has reserved too little.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.end - self.at, "more was written than was reserved");
        let bytes = bytes.get(..self.end - self.at).unwrap_or(bytes);
        self.slot.buffer.with(|buffer| {
            // SAFETY: (1) the buffer stays in its slot until this reservation is counted (invariants 1 and 2), which its
            // drop does, so nobody moves it or holds it exclusively. (2) A slot that is open or not yet taken holds one.
            if let Some(buffer) = unsafe { &*buffer } {
                // SAFETY: (3) `at..at + bytes.len()` lies in this reservation, which nobody else has (invariant 3), and
                // the sealer reads only after the count.
                unsafe { buffer.fill(self.at, bytes) };
            }
        });
        self.at += bytes.len();
    }
}

impl<B: Fill> Drop for Reservation<'_, B> {
    fn drop(&mut self) {
        // What the buffer held before must not show, whatever the caller forgot.
        const ZEROS: [u8; 256] = [0; 256];
        while self.at < self.end {
            self.write(ZEROS.get(..self.end - self.at).unwrap_or(&ZEROS));
        }
        // Release: the sealer that reads the count sees the bytes.
        self.slot.filled.fetch_add(self.len as u64, Ordering::Release);
    }
}

impl<B: Fill> Sealer<B> {
    /// Whether the open buffer holds anything.
    pub(crate) fn is_empty(&self) -> bool {
        bytes(self.shared.state.load(Ordering::Relaxed)) == 0
    }

    /// Ends the open buffer, goes on in `next`, and gives back the full one once all of it is written. `extra` numbers
    /// are left out in between, for records that are written otherwise.
    pub(crate) fn seal(&mut self, next: B, extra: u64) -> Sealed<B> {
        let shared = &*self.shared;
        let mut state = shared.state.load(Ordering::Acquire);
        let (open, closed) = (shared.slot(state), shared.slot(state ^ SLOT));
        closed.filled.store(0, Ordering::Relaxed);
        closed.buffer.with_mut(|slot| {
            // SAFETY: (1) the closed slot's buffer was taken when it was sealed, after all who had reserved in it were
            // counted (invariants 1, 2), and nobody reserves in it before the swap below: we are alone.
            unsafe { *slot = Some(next) };
        });
        loop {
            // Release: whoever reserves in the new slot sees its buffer and its count.
            let sealed = (state >> SEQ).wrapping_add(extra) << SEQ | ((state & SLOT) ^ SLOT);
            match shared.state.compare_exchange_weak(state, sealed, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        let end = whole(state, self.first);
        shared.sealed.store(end + extra, Ordering::Release);
        shared.seals.fetch_add(1, Ordering::Release);
        let patience = Patience::new();
        while open.filled.load(Ordering::Acquire) != bytes(state) as u64 {
            patience.wait();
        }
        let buffer = open.buffer.with_mut(|slot| {
            // SAFETY: (2) every reservation of the slot is counted, with Release before our Acquire, and no new one can
            // come: we are alone.
            unsafe { (*slot).take() }
        });
        let first_seq = std::mem::replace(&mut self.first, end + extra);
        // Every open slot holds a buffer: `gather` and this function put it there.
        let Some(buffer) = buffer else { unreachable!("an open slot without a buffer") };
        Sealed { buffer, first_seq, records: end - first_seq, bytes: bytes(state) }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::thread;

    use super::super::sync::{Arc, UnsafeCell};
    use super::{Fill, gather};

    /// Bytes whose every access loom watches.
    struct Watched(Vec<UnsafeCell<u8>>);

    impl Watched {
        fn new(room: usize) -> Self {
            Self((0..room).map(|_| UnsafeCell::new(0)).collect())
        }

        fn read(&self, len: usize) -> Vec<u8> {
            self.0.iter().take(len).map(|c| c.with(|b| unsafe { *b })).collect()
        }
    }

    impl Fill for Watched {
        unsafe fn fill(&self, at: usize, bytes: &[u8]) {
            for (cell, byte) in self.0.iter().skip(at).zip(bytes) {
                cell.with_mut(|b| unsafe { *b = *byte });
            }
        }

        fn room(&self) -> usize {
            self.0.len()
        }
    }

    #[test]
    fn what_is_reserved_is_sealed_once_and_in_the_order_of_its_numbers() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let (gather, mut sealer) = gather(7, Watched::new(2));
            let gather = Arc::new(gather);
            let appenders: Vec<_> = (0..2)
                .map(|_| {
                    let gather = gather.clone();
                    thread::spawn(move || {
                        let mut r = gather.reserve(1, 1).unwrap_or_else(|_| panic!("there is room for two"));
                        r.write(&[r.first_seq as u8]);
                    })
                })
                .collect();
            let first = sealer.seal(Watched::new(2), 0);
            appenders.into_iter().for_each(|a| a.join().unwrap());
            let second = sealer.seal(Watched::new(2), 0);
            let mut all = first.buffer.read(first.bytes);
            all.extend(second.buffer.read(second.bytes));
            assert_eq!(all, [7, 8]);
            assert_eq!((first.first_seq, second.first_seq), (7, 7 + first.records));
            assert_eq!(gather.next_seq(), 9);
        });
    }

    #[test]
    fn a_full_buffer_refuses_until_it_is_sealed() {
        loom::model(|| {
            let (gather, mut sealer) = gather(1, Watched::new(1));
            let gather = Arc::new(gather);
            let theirs = gather.clone();
            let appender = thread::spawn(move || {
                let mut done = 0;
                while done < 2 {
                    match theirs.reserve(1, 1) {
                        Ok(mut r) => {
                            r.write(&[r.first_seq as u8]);
                            done += 1;
                        }
                        Err(full) => {
                            while theirs.seals() <= full.seals {
                                thread::yield_now();
                            }
                        }
                    }
                }
            });
            let mut all = Vec::new();
            while all.len() < 2 {
                if sealer.is_empty() {
                    thread::yield_now();
                    continue;
                }
                let sealed = sealer.seal(Watched::new(1), 0);
                all.extend(sealed.buffer.read(sealed.bytes));
            }
            appender.join().unwrap();
            assert_eq!(all, [1, 2]);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::UnsafeCell;

    use super::{Fill, Full, SEQ_MASK, gather};

    struct Plain(Box<[UnsafeCell<u8>]>);

    // SAFETY: `fill`'s callers write disjoint parts.
    unsafe impl Sync for Plain {}

    impl Plain {
        fn new(room: usize) -> Self {
            Self((0..room).map(|_| UnsafeCell::new(0xff)).collect())
        }

        fn read(&mut self, len: usize) -> Vec<u8> {
            self.0.iter_mut().take(len).map(|b| *b.get_mut()).collect()
        }
    }

    impl Fill for Plain {
        unsafe fn fill(&self, at: usize, bytes: &[u8]) {
            for (cell, byte) in self.0[at..].iter().zip(bytes) {
                // SAFETY: the caller's promise.
                unsafe { *cell.get() = *byte };
            }
        }

        fn room(&self) -> usize {
            self.0.len()
        }
    }

    #[test]
    fn numbers_and_places_follow_each_other() {
        let (gather, mut sealer) = gather(5, Plain::new(10));
        assert!(sealer.is_empty());
        gather.reserve(1, 4).ok().unwrap().write(b"abcd");
        let two = gather.reserve(2, 6).ok().unwrap();
        assert_eq!((two.first_seq, gather.next_seq()), (6, 8));
        drop(two); // what was not written is zeros
        assert_eq!(gather.reserve(1, 1).err(), Some(Full { seals: 0 }));
        let mut sealed = sealer.seal(Plain::new(10), 3);
        assert_eq!((sealed.first_seq, sealed.records, sealed.bytes), (5, 3, 10));
        assert_eq!(sealed.buffer.read(10), b"abcd\0\0\0\0\0\0");
        assert_eq!((gather.next_seq(), gather.seals()), (11, 1));
        assert_eq!(gather.reserve(1, 1).ok().unwrap().first_seq, 11);
        assert!(gather.reserve(1, 11).is_err(), "more than any buffer holds");
    }

    #[test]
    fn numbers_go_on_beyond_what_the_state_holds() {
        let first = SEQ_MASK - 1 + (3 << 35);
        let (gather, mut sealer) = gather(first, Plain::new(4));
        for i in 0..8 {
            assert_eq!(gather.reserve(1, 2).ok().unwrap().first_seq, first + i);
            if i % 2 == 1 {
                assert_eq!(sealer.seal(Plain::new(4), 0).first_seq, first + i - 1);
            }
        }
    }

    #[test]
    fn threads_gather_everything_once() {
        const THREADS: u64 = 4;
        const EACH: u64 = if cfg!(miri) { 20 } else { 20_000 };
        let (gather, mut sealer) = gather(0, Plain::new(64));
        let mut seen = 0;
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        loop {
                            if let Ok(mut r) = gather.reserve(1, 8) {
                                r.write(&r.first_seq.to_le_bytes());
                                break;
                            }
                            std::thread::yield_now();
                        }
                    }
                });
            }
            while seen < THREADS * EACH {
                let mut sealed = sealer.seal(Plain::new(64), 0);
                assert_eq!((sealed.first_seq, sealed.bytes as u64), (seen, sealed.records * 8));
                for (i, bytes) in sealed.buffer.read(sealed.bytes).chunks(8).enumerate() {
                    assert_eq!(u64::from_le_bytes(bytes.try_into().unwrap()), seen + i as u64);
                }
                seen += sealed.records;
            }
        });
    }
}
