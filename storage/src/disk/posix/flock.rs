//! The exclusive lock of a directory (invariant 5 of the design).
//!
//! Invariant: the lock ends when the [`LockedDir`] is dropped, that is when neither the guard nor a queue with an
//! operation in flight holds it any more. It is freed by an explicit unlock, because a ring that has the descriptor
//! registered keeps the open file, and with it the lock, for its own life. If the process dies, that is what is wanted:
//! the kernel frees the lock after the ring's last write.
#![expect(clippy::disallowed_methods, reason = "this is the Disk that reaches the real file system")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::{Error, Result};

/// How often the lock is tried, and the pause between two tries: 5 s in all.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// A directory whose lock this process holds.
#[derive(Debug)]
pub(crate) struct LockedDir {
    dir: fs::File,
}

impl LockedDir {
    /// Takes the lock, waiting up to 5 s for a dying process to let it go.
    pub(super) fn take(path: &Path) -> Result<Self> {
        Self::take_within(path, TRIES)
    }

    pub(super) fn take_within(path: &Path, tries: u32) -> Result<Self> {
        let dir = fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
        for attempt in 0..tries {
            if attempt > 0 {
                std::thread::sleep(PAUSE);
            }
            match flock(&dir, libc::LOCK_EX | libc::LOCK_NB) {
                Ok(()) => return Ok(Self { dir }),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(Error::io("lock", path, e)),
            }
        }
        let holder = dir.metadata().ok().and_then(|m| holder(m.dev(), m.ino()));
        Err(Error::Locked { path: path.to_path_buf(), holder })
    }

    /// The descriptor, for a ring to register.
    pub(crate) fn fd(&self) -> RawFd {
        self.dir.as_raw_fd()
    }
}

impl Drop for LockedDir {
    fn drop(&mut self) {
        // It cannot fail on an open descriptor that holds the lock; if it did, closing frees the lock all the same
        // unless a ring still has it.
        let _ = flock(&self.dir, libc::LOCK_UN);
    }
}

fn flock(file: &fs::File, operation: i32) -> io::Result<()> {
    // SAFETY: 1. the descriptor is open for the length of the borrow; the call takes no pointer.
    match unsafe { libc::flock(file.as_raw_fd(), operation) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The process that holds the lock, if the kernel tells.
fn holder(dev: u64, ino: u64) -> Option<u32> {
    find_holder(&fs::read_to_string("/proc/locks").ok()?, dev, ino)
}

/// Finds the holder in lines like `1: FLOCK  ADVISORY  WRITE 4711 08:01:123456 0 EOF`.
fn find_holder(locks: &str, dev: u64, ino: u64) -> Option<u32> {
    let place = format!("{:02x}:{:02x}:{ino}", libc::major(dev), libc::minor(dev));
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, _, _, pid, at) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
        (kind == "FLOCK" && at == place).then(|| pid.parse().ok().filter(|pid| *pid != 0))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 10 08:01:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4711 08:01:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 4712 08:01:77 0 EOF\n";
        let dev = libc::makedev(8, 1);
        assert_eq!(find_holder(locks, dev, 77), Some(4711));
        assert_eq!(find_holder(locks, dev, 78), None);
        assert_eq!(find_holder(locks, libc::makedev(8, 2), 77), None);
    }

    #[test]
    fn second_taker_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = LockedDir::take_within(dir.path(), 1).unwrap();
        let e = LockedDir::take_within(dir.path(), 2).unwrap_err();
        assert!(matches!(&e, Error::Locked { path, .. } if path == dir.path()), "{e}");
        drop(first);
        LockedDir::take_within(dir.path(), 1).unwrap();
    }

    #[test]
    fn a_registered_descriptor_does_not_outlive_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let first = LockedDir::take_within(dir.path(), 1).unwrap();
        let registered = first.dir.try_clone().unwrap(); // as a ring would keep it
        drop(first);
        LockedDir::take_within(dir.path(), 1).unwrap();
        drop(registered);
    }
}
