//! Memory for direct I/O.
//!
//! Invariants:
//! 1. The first byte's address is a multiple of [`ALIGN`], and so is the length.
//! 2. The memory is initialised and does not move for the life of the buffer, wherever the value itself moves: the
//!    kernel may be given its address.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::ALIGN;

/// Bytes whose address and length are multiples of [`ALIGN`], as direct I/O wants them.
///
/// ```
/// use backstay_storage::disk::{ALIGN, AlignedBuf};
/// let buf = AlignedBuf::from_slice(b"abc");
/// assert_eq!(buf.len(), ALIGN);
/// assert_eq!(&buf[..4], b"abc\0");
/// ```
pub struct AlignedBuf {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: 1. the buffer owns its memory alone, and bytes have no thread affinity.
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
            return Self { ptr: NonNull::dangling(), len };
        }
        let layout = layout(len);
        // SAFETY: 3. the layout's size is not zero: checked above.
        let ptr = unsafe { alloc_zeroed(layout) };
        match NonNull::new(ptr) {
            Some(ptr) => Self { ptr, len },
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
}

/// The layout of a buffer of `len` bytes, a multiple of [`ALIGN`].
fn layout(len: usize) -> Layout {
    match Layout::from_size_align(len, ALIGN) {
        Ok(layout) => layout,
        // More than isize::MAX bytes: no such memory can exist, which is what this says.
        Err(_) => handle_alloc_error(Layout::new::<[u8; ALIGN]>()),
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.len != 0 {
            // SAFETY: 4. a non-empty buffer's pointer came from `alloc_zeroed` with this same layout, and nobody else
            // frees it.
            unsafe { dealloc(self.ptr.as_ptr(), layout(self.len)) }
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: 5. `len` bytes at `ptr` are allocated and initialised (zeroed at birth); for len 0 a dangling
        // non-null pointer is allowed. The borrow of self keeps writers away.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: 6. as 5, and the unique borrow of self keeps everyone else away.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Default for AlignedBuf {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
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
}
