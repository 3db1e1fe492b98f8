//! The marker: which step a topic was delivered last, by whom, as a consumer group's committed offset.
//!
//! The offset is the step; its metadata are `<incarnation>/<epoch>`.

use std::fmt;

use uuid::Uuid;

/// A marker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marker {
    /// The last step that was delivered.
    pub(super) step: u64,
    /// Whose.
    pub(super) incarnation: Uuid,
    /// In which epoch of the store.
    pub(super) epoch: u64,
}

impl Marker {
    /// The metadata of its offset.
    pub(super) fn metadata(&self) -> String {
        format!("{}/{}", self.incarnation, self.epoch)
    }

    /// Reads a committed offset.
    pub(super) fn parse(offset: i64, metadata: &str) -> Option<Self> {
        let (incarnation, epoch) = metadata.split_once('/')?;
        Some(Self { step: offset.try_into().ok()?, incarnation: incarnation.parse().ok()?, epoch: epoch.parse().ok()? })
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "incarnation {} in epoch {}", self.incarnation, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_metadata() {
        let marker = Marker { step: 7, incarnation: Uuid::from_u128(1), epoch: 3 };
        assert_eq!(marker.metadata(), "00000000-0000-0000-0000-000000000001/3");
        assert_eq!(Marker::parse(7, &marker.metadata()), Some(marker));
        for (offset, metadata) in [(7, ""), (7, "x/1"), (7, "00000000-0000-0000-0000-000000000001/"), (-1, "1/1")] {
            assert_eq!(Marker::parse(offset, metadata), None);
        }
    }
}
