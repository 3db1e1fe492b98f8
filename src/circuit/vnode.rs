//! Which worker a row belongs to.
//!
//! Invariants: the vnode is a function of the distribution key's bytes alone (256 of them, for ever: it is the first byte of
//! every key in a pipeline's state), and a worker owns a contiguous range of vnodes. So state written by any number of
//! workers can be opened by any other number, by [`reshard`](super::reshard()).

use xxhash_rust::xxh3::xxh3_64;

/// Number of vnodes, and so the largest number of workers.
pub const VNODES: usize = 256;

/// The vnode of a distribution key.
///
/// ```
/// assert_eq!(backstay::circuit::vnode::vnode(b""), 0xc2);
/// ```
#[inline]
pub fn vnode(key: &[u8]) -> u8 {
    (xxh3_64(key) & 0xff) as u8
}

/// The worker that owns a vnode.
#[inline]
pub fn worker_of(vnode: u8, workers: usize) -> usize {
    usize::from(vnode) * workers / VNODES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These values are part of the format of stored state: a change of them loses rows.
    #[test]
    fn vnodes_are_fixed() {
        let golden = [(&b""[..], 194), (b"a", 31), (b"\x00\x01", 87), (b"backstay", 38)];
        for (key, expected) in golden {
            assert_eq!(vnode(key), expected, "vnode of {key:?}");
        }
    }

    #[test]
    fn each_worker_owns_a_contiguous_range() {
        for workers in 1..=VNODES {
            let owners: Vec<usize> = (0..=255).map(|v| worker_of(v, workers)).collect();
            assert!(owners.is_sorted(), "{workers} workers");
            assert_eq!((owners[0], owners[255]), (0, workers - 1), "{workers} workers");
            let mut distinct = owners.clone();
            distinct.dedup();
            assert_eq!(distinct.len(), workers, "every worker owns something");
        }
    }
}
