//! What can be made to go wrong on purpose.

/// What happens to one chosen operation ([`super::SimDisk::fail_at`]). A kind that does not fit the operation (a short
/// read, a misdirected sync) does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails with EIO and changes nothing. A failed sync of a file loses what was pending: readers go on seeing it,
    /// a later sync does not bring it to the device, and after a power loss it is gone.
    Io,
    /// It fails as on a full disk and changes nothing.
    NoSpace,
    /// A write puts half of its sectors down, then fails with EIO.
    ShortWrite,
    /// A write or read succeeds at this byte offset of the file instead of the one asked for.
    Misdirect(u64),
}

/// Which promise a [`Sabotage`] breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncKind {
    /// [`crate::disk::File::sync`] and a queue's sync.
    File,
    /// [`crate::disk::Disk::sync_dir`].
    Dir,
    /// A durable write, which becomes a plain one.
    DurableWrite,
}

/// A sync that answers success and does nothing, to show that a test notices.
///
/// ```
/// use backstay_storage::disk::sim::{Sabotage, SyncKind};
/// // the second sync of any file whose path contains "manifest"
/// let one = Sabotage { kind: SyncKind::File, path: "manifest".into(), nth: Some(2) };
/// assert_eq!(one.nth, Some(2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sabotage {
    /// The kind of sync.
    pub kind: SyncKind,
    /// Only paths that contain this text; empty for all.
    pub path: String,
    /// Only the nth that matches, from 1; `None` for all.
    pub nth: Option<u64>,
}
