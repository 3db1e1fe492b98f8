//! One allocation that is cut into equal buffers, so that a ring can register all of them at once
//! ([`IoQueue::register`](super::IoQueue::register)).
//!
//! Invariants:
//! 1. The memory is initialised, does not move, and is freed when the slab is dropped: after its last buffer, each of
//!    which holds the slab, and after the last queue that registered it.
//! 2. Each byte belongs to at most one [`AlignedBuf`]. Ranges are handed out once, by [`Slab::new`]; the slab itself never
//!    reads or writes them.
//!
//! A slab of 2 MiB or more lies in huge pages where the system has them: a device takes a write in pieces of memory, of which
//! it has a limit (254 for many), and one of 1 MiB is 256 small pages, hence two writes.
//!
//! Known limit: a buffer that is dropped is lost to its slab; who wants it again keeps it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

use super::buffer::layout;
use super::{ALIGN, AlignedBuf};

/// The memory of many [`AlignedBuf`]s.
///
/// ```
/// use backstay_storage::disk::{ALIGN, Slab};
/// let (slab, buffers) = Slab::new(2 * ALIGN, 3);
/// assert_eq!(slab.len(), 6 * ALIGN);
/// assert!(buffers.iter().all(|b| b.len() == 2 * ALIGN && b.iter().all(|byte| *byte == 0)));
/// ```
pub struct Slab {
    ptr: NonNull<u8>,
    len: usize,
    /// What the memory is a part of, if it is not an allocation of its own.
    map: Option<MmapMut>,
}

/// The size and alignment of a huge page, in bytes.
const HUGE: usize = 2 << 20;

// SAFETY: 1. the slab owns an allocation, which has no thread affinity, and gives no access to its bytes; its drop is the
// last use of them (invariant 1).
unsafe impl Send for Slab {}
// SAFETY: 2. a shared reference tells the address and length, which never change, and nothing else.
unsafe impl Sync for Slab {}

impl Slab {
    /// A slab of zeros, and the `n` buffers of `buffer_bytes` bytes each (rounded up to a multiple of [`ALIGN`]) that it
    /// consists of, by ascending address. They keep the slab alive. 0 of either makes an empty slab.
    ///
    /// ```
    /// use backstay_storage::disk::Slab;
    /// let (slab, mut buffers) = Slab::new(5000, 2);
    /// drop(slab); // the buffers stay good
    /// buffers[1][8191] = 7;
    /// assert_eq!((buffers.len(), buffers[0].len()), (2, 8192));
    /// ```
    pub fn new(buffer_bytes: usize, n: usize) -> (Arc<Self>, Vec<AlignedBuf>) {
        // What does not fit a usize does not fit an address space either: no layout will be found for it.
        let each = buffer_bytes.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX);
        let len = each.saturating_mul(n);
        if len == 0 {
            let slab = Arc::new(Self { ptr: NonNull::dangling(), len, map: None });
            return (slab, (0..n).map(|_| AlignedBuf::default()).collect());
        }
        let (ptr, map) = match len >= HUGE {
            true => mapped(len),
            false => {
                let layout: Layout = layout(len);
                // SAFETY: 3. the layout's size is not zero: checked above.
                let Some(ptr) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
                (ptr, None)
            }
        };
        let slab = Arc::new(Self { ptr, len, map });
        let buffer = |i: usize| {
            // SAFETY: 4. `i < n`, so `i * each + each <= len`: the range lies in the allocation or map, and ranges of two `i`
            // are disjoint. 5. `each` is a multiple of ALIGN, and the allocation starts at one. 6. this is the only place
            // that makes buffers of this slab, once for every `i` (invariant 2).
            unsafe { AlignedBuf::in_slab(ptr.add(i * each), each, Arc::clone(&slab)) }
        };
        let buffers = (0..n).map(buffer).collect();
        (slab, buffers)
    }

    /// Its length in bytes: that of all its buffers.
    ///
    /// ```
    /// use backstay_storage::disk::Slab;
    /// assert_eq!(Slab::new(4096, 4).0.len(), 16_384);
    /// ```
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no bytes.
    ///
    /// ```
    /// use backstay_storage::disk::Slab;
    /// assert!(Slab::new(4096, 0).0.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address and length, for a ring to register. Gives no right to touch the bytes: they are the buffers'.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only rings register slabs"))]
    pub(crate) fn range(&self) -> (NonNull<u8>, usize) {
        (self.ptr, self.len)
    }
}

/// Zeroed memory of `len` bytes at the start of a huge page, and the map that it is a part of.
fn mapped(len: usize) -> (NonNull<u8>, Option<MmapMut>) {
    let map = len.checked_add(HUGE).and_then(|len| MmapMut::map_anon(len).ok());
    let Some(mut map) = map else { handle_alloc_error(layout(len)) };
    // Where it is refused, small pages do.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let start = map.as_mut_ptr();
    // At most HUGE - 1: the map is longer by HUGE. Wrapping, since the sum is inside the map.
    let skip = start.align_offset(HUGE) % HUGE;
    match NonNull::new(start.wrapping_add(skip)) {
        Some(ptr) => (ptr, Some(map)),
        None => handle_alloc_error(layout(len)),
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // A map frees its memory itself, after this.
        if self.len != 0 && self.map.is_none() {
            // SAFETY: 7. a non-empty slab without a map: its pointer came from `alloc_zeroed` with this same layout. 8. no buffer is left:
            // each holds an Arc of the slab (invariant 1).
            unsafe { dealloc(self.ptr.as_ptr(), layout(self.len)) }
        }
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slab({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_slab_begins_with_a_huge_page() {
        let (slab, mut buffers) = Slab::new(HUGE / 2, 3);
        assert_eq!((slab.len(), buffers.len()), (3 * HUGE / 2, 3));
        assert!((slab.range().0.as_ptr() as usize).is_multiple_of(HUGE));
        assert!(buffers.iter().all(|b| b.iter().all(|byte| *byte == 0)));
        drop(slab);
        let last = buffers[2].len() - 1;
        buffers[2][last] = 7;
        assert_eq!((buffers[2][last], buffers[1][0]), (7, 0));
    }

    #[test]
    fn buffers_tile_the_slab() {
        let (slab, buffers) = Slab::new(ALIGN + 1, 5);
        let (start, len) = slab.range();
        assert_eq!((buffers.len(), len), (5, 10 * ALIGN));
        assert!((start.as_ptr() as usize).is_multiple_of(ALIGN));
        for (i, buf) in buffers.iter().enumerate() {
            assert_eq!((buf.len(), buf.capacity()), (2 * ALIGN, 2 * ALIGN));
            assert_eq!(buf.as_ptr() as usize, start.as_ptr() as usize + i * 2 * ALIGN);
            assert!(buf.slab().is_some_and(|s| Arc::ptr_eq(s, &slab)));
            assert!(buf.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn writing_one_buffer_leaves_the_others() {
        let (_, mut buffers) = Slab::new(ALIGN, 3);
        for (i, buf) in buffers.iter_mut().enumerate() {
            buf.fill(i as u8 + 1);
        }
        for (i, buf) in buffers.iter().enumerate() {
            assert!(buf.iter().all(|b| *b == i as u8 + 1), "buffer {i}");
        }
    }

    #[test]
    fn the_last_buffer_keeps_the_slab() {
        let (slab, mut buffers) = Slab::new(ALIGN, 2);
        let weak = Arc::downgrade(&slab);
        drop(slab);
        let last = buffers.pop().unwrap();
        drop(buffers);
        assert!(weak.upgrade().is_some());
        let last = std::thread::scope(|s| s.spawn(move || last).join().unwrap());
        assert_eq!(last.len(), ALIGN);
        drop(last);
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn empty_slabs() {
        for (bytes, n) in [(0, 3), (ALIGN, 0), (0, 0)] {
            let (slab, buffers) = Slab::new(bytes, n);
            assert!(slab.is_empty() && buffers.len() == n && buffers.iter().all(|b| b.is_empty()));
        }
    }
}
