//! Rows that nobody wants any more: hidden from reads at once, and left out when runs are merged.
//!
//! Runs that are hidden whole go without being read.
//!
//! Invariant: a merge leaves out only what every state hides that can still be read or checkpointed: the spine's own, and each
//! snapshot's that lives. (Else a restart from a checkpoint would miss rows that its own floor still shows.)

use crate::{Error, Result};

/// Hides keys below a bound, such as a watermark: those whose bytes from `skip` on are less than `below`. Keys shorter than `skip` are
/// not hidden.
///
/// ```
/// use backstay_storage::spine::Floor;
/// // A first byte that says which worker, then a time.
/// let floor = Floor { skip: 1, below: 100u32.to_be_bytes().to_vec() };
/// assert!(floor.hides(&[7, 0, 0, 0, 99]));
/// assert!(!floor.hides(&[7, 0, 0, 0, 100]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// So many bytes at a key's front play no part.
    pub skip: usize,
    /// The least that is kept.
    pub below: Vec<u8>,
}

impl Floor {
    /// Whether a key is hidden.
    ///
    /// ```
    /// # use backstay_storage::spine::Floor;
    /// assert!(Floor { skip: 0, below: b"m".to_vec() }.hides(b"a"));
    /// ```
    pub fn hides(&self, key: &[u8]) -> bool {
        key.get(self.skip..).is_some_and(|rest| rest < self.below.as_slice())
    }

    /// The least key with the same front as `key` that is not hidden.
    pub(super) fn first_after(&self, key: &[u8]) -> Vec<u8> {
        [key.get(..self.skip).unwrap_or(key), &self.below].concat()
    }

    /// Whether a run of these keys is hidden whole.
    pub(super) fn hides_all(&self, least: &[u8], greatest: &[u8]) -> bool {
        // Between two keys of the same front all have it.
        least.get(..self.skip).is_some_and(|front| greatest.starts_with(front)) && self.hides(greatest)
    }

    /// Refuses one that would show again what this one hides.
    pub(super) fn check_raised(&self, to: &Floor) -> Result<()> {
        if to.skip != self.skip || to.below < self.below {
            return Err(Error::Invalid(format!(
                "a floor of {:02x?} behind {} bytes does not hide all that the one before does: {:02x?} behind {}",
                to.below, to.skip, self.below, self.skip
            )));
        }
        Ok(())
    }
}
