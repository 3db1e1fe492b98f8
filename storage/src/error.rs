//! What can go wrong, told so that a person knows the thing, the place and the fix.

use std::io;
use std::path::PathBuf;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bytes that are not what was written, or not where they were written (invariant 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The damaged file.
    pub file: PathBuf,
    /// Byte offset in the file where the damaged unit (block, header, footer) starts.
    pub offset: u64,
    /// What stands there: `"log block"`, `"run block"`, `"manifest"`, …
    pub what: &'static str,
    /// What a sound unit would hold, e.g. `"checksum 1234abcd…"`.
    pub expected: String,
    /// What was found.
    pub got: String,
}

/// The failure after which nothing is written any more.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    text: String,
    no_space: bool,
}

impl Cause {
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<&Error> for Cause {
    fn from(first: &Error) -> Self {
        Self { text: first.to_string(), no_space: first.is_no_space() }
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self { text, no_space: false }
    }
}

impl From<&Cause> for Error {
    fn from(cause: &Cause) -> Self {
        Error::Poisoned { cause: cause.text.clone(), no_space: cause.no_space }
    }
}

/// An error of the storage engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// The operation: `"open"`, `"write"`, `"sync"`, …
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The device or the quota is full. The store must be reopened once there is room.
    #[error("no space left while writing {} ({detail}); make room and start again: nothing durable is lost", path.display())]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
        /// Which limit was hit.
        detail: String,
    },
    /// Damage outside the log's in-flight tail.
    #[error("damaged {} at {}, offset {}: expected {}, got {}", .0.what, .0.file.display(), .0.offset, .0.expected, .0.got)]
    Damaged(Box<Damage>),
    /// A write or sync failed before: the store is read-only for ever (invariant 6). Reopen it.
    #[error("the store is poisoned by an earlier failure ({cause}); reopen it to recover what is durable")]
    Poisoned {
        /// The first failure.
        cause: String,
        /// Whether that was a device or quota that is full.
        no_space: bool,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process{}; stop it, or choose another directory", path.display(), holder.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The other process, where it could be found.
        holder: Option<u32>,
    },
    /// A file of a version or feature that this build does not read.
    #[error("{} has {what} {got}, this version reads {expected}; use the version that wrote it", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What differs: `"format version"`, …
        what: &'static str,
        /// What this build reads.
        expected: String,
        /// What the file has.
        got: String,
    },
    /// The caller asked for something that cannot be: the message says what and why.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Whether it is a full device or quota: met now, or by the failure that poisoned the store.
    ///
    /// ```
    /// use backstay_storage::Error;
    /// let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    /// assert!(Error::io("write", "/x", full()).is_no_space());
    /// assert!(!Error::Invalid("no".into()).is_no_space());
    /// ```
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::Poisoned { no_space: true, .. })
    }

    /// The failure of a thread that panicked while it did something.
    pub(crate) fn panicked(what: impl std::fmt::Display) -> Self {
        Self::Poisoned { cause: format!("a thread panicked while it {what}"), no_space: false }
    }

    /// An I/O error with its operation and path; a full disk becomes [`Error::NoSpace`].
    ///
    /// ```
    /// use backstay_storage::Error;
    /// let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    /// assert!(matches!(Error::io("write", "/x", full), Error::NoSpace { .. }));
    /// ```
    pub fn io(op: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::NoSpace { path, detail: source.to_string() }
            }
            _ => Error::Io { op, path, source },
        }
    }

    /// Damage found in `file` at `offset`.
    ///
    /// ```
    /// let e = backstay_storage::Error::damaged("/s/1.run", 4096, "run block", "checksum 1", "2");
    /// assert_eq!(e.to_string(), "damaged run block at /s/1.run, offset 4096: expected checksum 1, got 2");
    /// ```
    pub fn damaged(
        file: impl Into<PathBuf>,
        offset: u64,
        what: &'static str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Error::Damaged(Box::new(Damage { file: file.into(), offset, what, expected: expected.into(), got: got.into() }))
    }
}
