//! A buffer of blocks whose bytes are a stream with a gap at the start of each block: the gaps are filled in when the
//! stream is whole, and the front is room for something else.
//!
//! ```text
//! 0      front   +head              +block +head
//! ┌───────┬──────┬───────────────────┬──────┬──────────────
//! │ front │ gap  │ stream 0 …        │ gap  │ … stream
//! └───────┴──────┴───────────────────┴──────┴──────────────
//! ```

use std::ptr::{self, NonNull};

use super::gather::Fill;
use crate::disk::AlignedBuf;

/// Where in the buffer the stream lies, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stripes {
    pub(crate) front: usize,
    pub(crate) block: usize,
    /// The gap at the start of each block; less than `block`.
    pub(crate) head: usize,
}

impl Stripes {
    /// How much stream a buffer of so many bytes holds.
    pub(crate) fn room(&self, buffer: usize) -> usize {
        buffer.saturating_sub(self.front) / self.block * (self.block - self.head)
    }

    /// The buffer that holds so much stream.
    pub(crate) fn buffer(&self, stream: usize) -> usize {
        self.front + stream.div_ceil(self.block - self.head) * self.block
    }
}

/// The buffer, while it is being filled.
pub(crate) struct Striped {
    buf: AlignedBuf,
    /// Its first byte.
    start: NonNull<u8>,
    stripes: Stripes,
    room: usize,
}

// SAFETY: (1) the pointer is into the buffer that the value owns, which is Send.
unsafe impl Send for Striped {}
// SAFETY: (2) a shared reference writes by `fill` only, whose callers keep their parts disjoint.
unsafe impl Sync for Striped {}

impl Striped {
    pub(crate) fn new(mut buf: AlignedBuf, stripes: Stripes) -> Self {
        let start = NonNull::new(buf.whole_ptr()).unwrap_or(NonNull::dangling());
        let room = stripes.room(buf.capacity());
        Self { buf, start, stripes, room }
    }

    /// Writes a part of the stream while nobody else can.
    pub(crate) fn fill_alone(&mut self, at: usize, bytes: &[u8]) {
        // SAFETY: (3) `&mut self` keeps everybody else away.
        unsafe { self.fill(at, bytes) };
    }

    pub(crate) fn into_buf(self) -> AlignedBuf {
        self.buf
    }
}

impl Fill for Striped {
    unsafe fn fill(&self, at: usize, bytes: &[u8]) {
        let Stripes { front, block, head } = self.stripes;
        let (mut at, mut bytes) = (at, bytes.get(..self.room.saturating_sub(at)).unwrap_or(bytes));
        while !bytes.is_empty() {
            let (stripe, inside) = (at / (block - head), at % (block - head));
            let (piece, rest) = bytes.split_at_checked(block - head - inside).unwrap_or((bytes, &[]));
            let offset = front + stripe * block + head + inside;
            // SAFETY: (1) the cut above keeps `at + bytes.len() <= room`, so the last byte lies in the last whole block of
            // the buffer. (2) `start` came from `whole_ptr`, whose memory does not move, and nobody holds a reference to
            // it while `self.buf` is not given out. (3) By the caller's promise nobody else touches these stream bytes,
            // and two stream bytes never share a buffer byte. (4) `bytes` is not in the buffer: nothing of that is lent.
            unsafe { ptr::copy_nonoverlapping(piece.as_ptr(), self.start.as_ptr().add(offset), piece.len()) };
            at += piece.len();
            bytes = rest;
        }
    }

    fn room(&self) -> usize {
        self.room
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Fill, Striped, Stripes};
    use crate::disk::{ALIGN, AlignedBuf};

    const STRIPES: Stripes = Stripes { front: ALIGN, block: ALIGN, head: 40 };

    #[test]
    fn the_stream_passes_over_the_gaps() {
        let striped = Striped::new(AlignedBuf::zeroed(3 * ALIGN), STRIPES);
        assert_eq!(striped.room(), 2 * (ALIGN - 40));
        assert_eq!(STRIPES.buffer(striped.room()), 3 * ALIGN);
        assert_eq!((STRIPES.buffer(1), STRIPES.buffer(0)), (2 * ALIGN, ALIGN));
        let at = ALIGN - 40 - 3;
        // SAFETY: nobody else is here.
        unsafe {
            striped.fill(at, b"abcdef");
            striped.fill(striped.room() - 1, b"zyx");
        }
        let buf = striped.into_buf();
        assert_eq!(&buf[2 * ALIGN - 3..2 * ALIGN], b"abc");
        assert_eq!(&buf[2 * ALIGN..2 * ALIGN + 43], [&[0; 40][..], b"def"].concat());
        assert_eq!(buf[3 * ALIGN - 1], b'z', "what does not fit is cut off");
        assert!(buf[..ALIGN].iter().all(|b| *b == 0));
    }
}
