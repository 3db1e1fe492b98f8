//! Memory for direct I/O.
//!
//! Invariants:
//! 1. The first byte's address is a multiple of [`ALIGN`], and so is the length.
//! 2. The memory is initialised and does not move for the life of the buffer, wherever the value itself moves: the
//!    kernel may be given its address.
//! 3. A buffer owns its bytes alone. They are an allocation of its own, or a range of a [`Slab`] that it keeps alive.
//! 4. What a buffer shows (and a queue reads or writes) is a range of the whole, with both ends on multiples of [`ALIGN`].
//!
//! A buffer may be filled through a raw pointer while its value is parked somewhere, also by several threads at once in
//! disjoint ranges: the bytes do not move (2) and nobody else reaches them (3). There are two such pointers:
//! - [`AlignedBuf::whole_ptr`] comes from the allocation itself. It stays good for the life of the buffer; it must not be used
//!   while a reference that overlaps the same bytes lives.
//! - `as_mut_ptr` of the slice that `DerefMut` gives comes from a reference. It is good until the buffer is next looked at
//!   through `Deref` or `DerefMut` (`len()` and `is_empty()` of the slice do that too), not longer. Moving the value does
//!   not end it: the buffer holds a raw pointer, not a reference or a `Box`.
//!
//! Either way the bytes are handed back through a happens-before edge (a lock, or release and acquire) before the buffer is
//! looked at again.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use super::{ALIGN, Slab};
use crate::{Error, Result};

/// Bytes whose address and length are multiples of [`ALIGN`], as direct I/O wants them.
///
/// ```
/// use backstay_storage::disk::{ALIGN, AlignedBuf};
/// let buf = AlignedBuf::from_slice(b"abc");
/// assert_eq!(buf.len(), ALIGN);
/// assert_eq!(&buf[..4], b"abc\0");
/// ```
pub struct AlignedBuf {
    /// The whole.
    ptr: NonNull<u8>,
    capacity: usize,
    /// What is shown: `start + len <= capacity`, both multiples of `ALIGN`.
    start: usize,
    len: usize,
    /// Whose memory it is, if not its own.
    slab: Option<Arc<Slab>>,
}

// SAFETY: 1. the buffer owns its memory alone (invariant 3), and bytes have no thread affinity; a slab is Send and Sync.
unsafe impl Send for AlignedBuf {}
// SAFETY: 2. a shared reference gives shared access to bytes only; there is no interior mutability.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A buffer of zeros of at least `len` bytes: `len` is rounded up to a multiple of [`ALIGN`]. 0 makes an empty one.
    ///
    /// ```
    /// use backstay_storage::disk::AlignedBuf;
    /// assert_eq!(AlignedBuf::zeroed(5000).len(), 8192);
    /// assert!(AlignedBuf::zeroed(0).is_empty());
    /// ```
    pub fn zeroed(len: usize) -> Self {
        let len = len.next_multiple_of(ALIGN);
        if len == 0 {
            return Self { ptr: NonNull::dangling(), capacity: 0, start: 0, len: 0, slab: None };
        }
        let layout = layout(len);
        // SAFETY: 3. the layout's size is not zero: checked above.
        let ptr = unsafe { alloc_zeroed(layout) };
        match NonNull::new(ptr) {
            Some(ptr) => Self { ptr, capacity: len, start: 0, len, slab: None },
            None => handle_alloc_error(layout),
        }
    }

    /// A buffer that starts with `bytes` and is padded with zeros.
    ///
    /// ```
    /// use backstay_storage::disk::AlignedBuf;
    /// assert!(AlignedBuf::from_slice(&[7; 4097]).iter().skip(4097).all(|b| *b == 0));
    /// ```
    pub fn from_slice(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len());
        if let Some(head) = buf.get_mut(..bytes.len()) {
            head.copy_from_slice(bytes);
        }
        buf
    }

    /// A buffer of `capacity` bytes at `ptr`, which are the slab's.
    ///
    /// # Safety
    /// Both are multiples of [`ALIGN`], the bytes lie in the slab's allocation and are initialised, and no other buffer owns
    /// any of them.
    pub(super) unsafe fn in_slab(ptr: NonNull<u8>, capacity: usize, slab: Arc<Slab>) -> Self {
        Self { ptr, capacity, start: 0, len: capacity, slab: Some(slab) }
    }

    /// The slab that it is part of, if any.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only rings register slabs"))]
    pub(crate) fn slab(&self) -> Option<&Arc<Slab>> {
        self.slab.as_ref()
    }

    /// The length of the whole, in bytes, whatever part is shown.
    ///
    /// ```
    /// use backstay_storage::disk::AlignedBuf;
    /// let mut buf = AlignedBuf::zeroed(16_384);
    /// buf.narrow(0..4096)?;
    /// assert_eq!((buf.len(), buf.capacity()), (4096, 16_384));
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Shows only `range`, in bytes of the whole buffer (not of what was shown before): slices, and queue operations, see
    /// no more than that. Fails with [`Error::Invalid`], and changes nothing, if the range does not lie in the buffer or an
    /// end of it is no multiple of [`ALIGN`].
    ///
    /// ```
    /// use backstay_storage::disk::AlignedBuf;
    /// let mut buf = AlignedBuf::zeroed(3 * 4096);
    /// buf.narrow(4096..8192)?;
    /// buf.fill(1);
    /// buf.widen();
    /// assert_eq!((buf[4095], buf[4096], buf[8191], buf[8192]), (0, 1, 1, 0));
    /// assert!(buf.narrow(0..512).is_err() && buf.narrow(0..16_384).is_err());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn narrow(&mut self, range: Range<usize>) -> Result<()> {
        let Range { start, end } = range;
        if start > end || end > self.capacity || !start.is_multiple_of(ALIGN) || !end.is_multiple_of(ALIGN) {
            return Err(Error::Invalid(format!(
                "bytes {start}..{end} of a buffer of {}: both ends must lie in it and be multiples of {ALIGN}",
                self.capacity
            )));
        }
        (self.start, self.len) = (start, end - start);
        Ok(())
    }

    /// Shows the whole again.
    ///
    /// ```
    /// use backstay_storage::disk::AlignedBuf;
    /// let mut buf = AlignedBuf::zeroed(8192);
    /// buf.narrow(4096..4096)?;
    /// assert!(buf.is_empty());
    /// buf.widen();
    /// assert_eq!(buf.len(), 8192);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn widen(&mut self) {
        (self.start, self.len) = (0, self.capacity);
    }

    /// The address of the whole, whatever part is shown: for [`AlignedBuf::capacity`] initialised bytes. It stays good while
    /// the buffer lives, also when the value moves; the module's head says when it may be used. Dangling if the capacity is 0.
    ///
    /// ```
    /// use backstay_storage::disk::AlignedBuf;
    /// let mut buf = AlignedBuf::zeroed(8192);
    /// buf.narrow(4096..8192)?;
    /// assert_eq!(buf.whole_ptr() as usize + 4096, buf.as_ptr() as usize);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn whole_ptr(&mut self) -> *mut u8 {
        self.ptr.as_ptr()
    }
}

/// The layout of a buffer of `len` bytes, a multiple of [`ALIGN`].
pub(super) fn layout(len: usize) -> Layout {
    match Layout::from_size_align(len, ALIGN) {
        Ok(layout) => layout,
        // More than isize::MAX bytes: no such memory can exist, which is what this says.
        Err(_) => handle_alloc_error(Layout::new::<[u8; ALIGN]>()),
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // A slab's memory is freed by the slab.
        if self.slab.is_none() && self.capacity != 0 {
            // SAFETY: 4. a non-empty buffer of its own: the pointer came from `alloc_zeroed` with this same layout, and
            // nobody else frees it.
            unsafe { dealloc(self.ptr.as_ptr(), layout(self.capacity)) }
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: 5. `capacity` bytes at `ptr` are allocated and initialised (zeroed at birth), and what is shown lies in
        // them (invariant 4); for len 0 a dangling non-null pointer is allowed. The borrow of self keeps writers away.
        unsafe { std::slice::from_raw_parts(self.ptr.add(self.start).as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: 6. as 5, and the unique borrow of self keeps everyone else away.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(self.start).as_ptr(), self.len) }
    }
}

impl Default for AlignedBuf {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.start, self.len, self.capacity) {
            (0, len, capacity) if len == capacity => write!(f, "AlignedBuf({len} bytes)"),
            (start, len, capacity) => write!(f, "AlignedBuf({start}..{} of {capacity} bytes)", start + len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_length_are_aligned() {
        for len in [0, 1, 511, 4096, 4097, 1 << 20] {
            let buf = AlignedBuf::zeroed(len);
            assert_eq!(buf.len() % ALIGN, 0);
            assert!(buf.len() >= len && buf.len() < len + ALIGN);
            assert!(buf.is_empty() || (buf.as_ptr() as usize).is_multiple_of(ALIGN));
            assert!(buf.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn bytes_stay_when_the_value_moves() {
        let mut buf = AlignedBuf::from_slice(&[9; 5000]);
        let before = buf.as_ptr();
        buf[4999] = 1;
        let moved = Box::new(buf);
        assert_eq!(moved.as_ptr(), before);
        assert_eq!((moved[4998], moved[4999], moved[5000]), (9, 1, 0));
    }
    #[test]
    fn a_narrowed_buffer_shows_its_part_only() {
        let mut buf = AlignedBuf::zeroed(4 * ALIGN);
        let whole = buf.as_ptr();
        buf.narrow(ALIGN..3 * ALIGN).unwrap();
        assert_eq!((buf.len(), buf.capacity()), (2 * ALIGN, 4 * ALIGN));
        assert_eq!(buf.as_ptr() as usize, whole as usize + ALIGN);
        buf.fill(5);
        // The range is of the whole, not of what is shown.
        buf.narrow(0..ALIGN).unwrap();
        assert!(buf.iter().all(|b| *b == 0));
        buf.widen();
        assert!(buf[..ALIGN].iter().chain(&buf[3 * ALIGN..]).all(|b| *b == 0));
        assert!(buf[ALIGN..3 * ALIGN].iter().all(|b| *b == 5));
        assert_eq!(format!("{buf:?}"), "AlignedBuf(16384 bytes)");
    }

    #[test]
    fn a_bad_range_changes_nothing() {
        let mut buf = AlignedBuf::zeroed(2 * ALIGN);
        buf.narrow(ALIGN..2 * ALIGN).unwrap();
        #[expect(clippy::reversed_empty_ranges, reason = "it must be refused")]
        let bad = [0..1, 1..ALIGN, 0..3 * ALIGN, ALIGN..0, usize::MAX..usize::MAX, 3 * ALIGN..3 * ALIGN, 0..usize::MAX];
        for range in bad {
            assert!(matches!(buf.narrow(range.clone()), Err(Error::Invalid(_))), "{range:?}");
            assert_eq!(format!("{buf:?}"), "AlignedBuf(4096..8192 of 8192 bytes)");
        }
        buf.narrow(2 * ALIGN..2 * ALIGN).unwrap();
        assert!(buf.is_empty());
        let mut empty = AlignedBuf::default();
        empty.narrow(0..0).unwrap();
        assert!(empty.narrow(0..ALIGN).is_err());
    }

    #[test]
    fn threads_fill_disjoint_ranges_of_a_parked_buffer() {
        struct Place(*mut u8);
        // SAFETY: a test's: each thread writes to the block at its own pointer only.
        unsafe impl Send for Place {}
        let mut buf = AlignedBuf::zeroed(4 * ALIGN);
        let whole = buf.whole_ptr();
        let parked = std::sync::Mutex::new(Some(buf));
        std::thread::scope(|s| {
            for i in 0..4 {
                let place = Place(whole.wrapping_add(i * ALIGN));
                s.spawn(move || {
                    let Place(at) = { place };
                    // SAFETY: a test's: the block lies in the buffer, which nobody looks at meanwhile.
                    unsafe { at.write_bytes(i as u8 + 1, ALIGN) }
                });
            }
        });
        let buf = parked.into_inner().unwrap().unwrap();
        for (i, block) in buf.chunks_exact(ALIGN).enumerate() {
            assert!(block.iter().all(|b| *b == i as u8 + 1), "block {i}");
        }
    }
}
