//! What can be made to go wrong on purpose.

/// What happens to one chosen operation ([`super::SimDisk::fail_at`]). A kind that does not fit the operation (a short
/// read, a misdirected sync) does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails with EIO and changes nothing. A failed sync of a file loses what was pending: the page cache goes on
    /// showing it, a direct read does not ([`crate::disk::OpenOptions::direct`]), a later sync does not bring it to the
    /// device, and after a power loss it is gone.
    Io,
    /// It fails as on a full disk and changes nothing.
    NoSpace,
    /// A write puts half of its sectors down, then fails with EIO.
    ShortWrite,
    /// A write puts half of its sectors down, then fails as on a full disk.
    ShortNoSpace,
    /// A write or read succeeds at this byte offset of the file instead of the one asked for.
    Misdirect(u64),
    /// A write succeeds, a durable one too, and its bytes never come to the device: only the file's length. The page
    /// cache shows them until it is dropped ([`super::SimDisk::drop_caches`]) or the power goes; a file that was opened
    /// for direct I/O has none.
    LostWrite,
    /// A read gives what each 4096-byte page that it touches held before it was last written, if it was.
    StaleRead,
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
