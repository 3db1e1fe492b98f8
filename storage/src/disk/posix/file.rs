//! A file behind a descriptor, page-cached or direct.
//!
//! Invariant: on a direct file every system call is aligned; what the caller gives unaligned goes through an aligned
//! buffer. Unaligned writes by one handle exclude each other, so that none undoes another's bytes.
//!
//! Known limit: an unaligned write to a direct file rewrites whole blocks, and cuts off its padding at the end. It must not
//! run beside other writes to those blocks (a queue's, another handle's).
#![expect(clippy::disallowed_methods, reason = "this is the Disk that reaches the real file system")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::Shared;
use crate::disk::shared::lock;
use crate::disk::{ALIGN, AlignedBuf, Create, File, OpenOptions};
use crate::{Error, Result};

#[derive(Debug)]
pub(crate) struct PosixFile {
    file: fs::File,
    path: PathBuf,
    direct: bool,
    shared: Arc<Shared>,
    /// Held while blocks are read, changed and written back.
    rewriting: Mutex<()>,
}

impl PosixFile {
    pub(super) fn open(shared: &Arc<Shared>, path: &Path, options: OpenOptions) -> Result<Self> {
        let mut std_options = fs::OpenOptions::new();
        std_options.read(true).write(options.write);
        match options.create {
            Create::Never => {}
            // `write` is needed by the system to create: a caller that only reads still may.
            Create::IfAbsent => {
                std_options.write(true).create(true).truncate(false);
            }
            Create::New => {
                std_options.write(true).create_new(true);
            }
        }
        let file = std_options.open(path).map_err(|e| Error::io("open", path, e))?;
        let direct = options.direct
            && match set_direct(&file) {
                Ok(()) => true,
                Err(e) => {
                    shared.note(|| {
                        format!("{} is read and written through the page cache: O_DIRECT: {e}", path.display())
                    });
                    false
                }
            };
        Ok(Self { file, path: path.to_path_buf(), direct, shared: Arc::clone(shared), rewriting: Mutex::new(()) })
    }

    fn fail(&self, op: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = self.path.clone();
        move |e| Error::io(op, path, e)
    }

    /// Reads until `buf` is full or the file ends. `buf` and `offset` are aligned if the file is direct.
    fn read_whole(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            // A direct read ends inside a block only where the file does; going on from there would be unaligned.
            if self.direct && !done.is_multiple_of(ALIGN) {
                break;
            }
        }
        Ok(done)
    }

    /// Whether the kernel takes this memory and offset as they are.
    fn suits(&self, bytes: &[u8], offset: u64) -> bool {
        let aligned = |n: usize| n.is_multiple_of(ALIGN);
        !self.direct
            || (aligned(bytes.as_ptr() as usize) && aligned(bytes.len()) && offset.is_multiple_of(ALIGN as u64))
    }

    /// The aligned range around `len` bytes at `offset`: its start, its length, and where the bytes lie in it.
    fn around(len: usize, offset: u64) -> (u64, usize, usize) {
        let start = offset - offset % ALIGN as u64;
        let skip = (offset - start) as usize;
        (start, (skip + len).next_multiple_of(ALIGN), skip)
    }

    fn read_any(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.suits(buf, offset) {
            return self.read_whole(buf, offset);
        }
        let (start, len, skip) = Self::around(buf.len(), offset);
        let mut bounce = AlignedBuf::zeroed(len);
        let got = self.read_whole(&mut bounce, start)?;
        let found = bounce.get(skip..got).unwrap_or_default();
        let n = found.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), found.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    /// Writes all of `buf`, whatever its alignment.
    fn write_any(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = buf.get(done..).filter(|r| !r.is_empty()) {
            let at = offset + done as u64;
            if !self.suits(rest, at) {
                return self.rewrite(rest, at);
            }
            match self.file.write_at(rest, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Changes bytes of a direct file that are not whole blocks: reads the blocks, writes them back changed, and cuts
    /// off what the last block's padding added to the file.
    fn rewrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _alone = lock(&self.rewriting);
        let (start, len, skip) = Self::around(bytes.len(), offset);
        let old_len = self.file.metadata()?.len();
        let mut blocks = AlignedBuf::zeroed(len);
        self.read_whole(&mut blocks, start)?;
        if let Some(to) = blocks.get_mut(skip..skip + bytes.len()) {
            to.copy_from_slice(bytes);
        }
        let mut done = 0;
        while let Some(rest) = blocks.get(done..).filter(|r| !r.is_empty()) {
            match self.file.write_at(rest, start + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                // Only whole blocks count: the rest of a block written in part is written again.
                Ok(n) if n < ALIGN => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n - n % ALIGN,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let new_len = old_len.max(offset + bytes.len() as u64);
        // A length other than the padded end is that of a write beyond it, made meanwhile: not ours to cut off.
        if start + len as u64 > new_len && self.file.metadata()?.len() == start + len as u64 {
            self.file.set_len(new_len)?;
        }
        Ok(())
    }
}

impl File for PosixFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(self.fail("length of"))?.len())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let _alone = lock(&self.rewriting);
        self.file.set_len(len).map_err(self.fail("set length of"))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let n = self.read_any(buf, offset).map_err(self.fail("read"))?;
        self.shared.counters.read(n);
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.shared.counters.write(buf.len(), false);
        self.write_any(buf, offset).map_err(self.fail("write"))
    }

    fn sync(&self) -> Result<()> {
        self.shared.counters.sync();
        self.file.sync_data().map_err(self.fail("sync"))
    }

    /// One `RWF_DSYNC` write, or a write and an `fdatasync`.
    fn write_durable(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.shared.counters.write(buf.len(), true);
        let mut done = 0;
        if !self.shared.no_dsync.load(Ordering::Relaxed) && self.suits(buf, offset) {
            match write_dsync(&self.file, buf, offset) {
                Ok(n) if n == buf.len() => return Ok(()),
                Ok(n) => done = n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)) => {
                    self.shared.no_dsync.store(true, Ordering::Relaxed);
                    self.shared.note(|| format!("RWF_DSYNC is not available for {}: {e}", self.path.display()));
                }
                Err(e) => return Err(self.fail("write")(e)),
            }
        }
        let rest = buf.get(done..).unwrap_or_default();
        self.write_any(rest, offset + done as u64).map_err(self.fail("write"))?;
        self.file.sync_data().map_err(self.fail("sync"))
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }
}

/// Turns the page cache off for an open file. Done after opening: an `open` that is refused for `O_DIRECT` may have
/// created the file already.
#[cfg(target_os = "linux")]
fn set_direct(file: &fs::File) -> io::Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: 1. the descriptor is open for the length of the borrow; F_GETFL takes no argument.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: 2. as 1; F_SETFL takes an int.
    match unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_DIRECT) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn set_direct(_: &fs::File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// One durable write, which may be short.
#[cfg(target_os = "linux")]
fn write_dsync(file: &fs::File, buf: &[u8], offset: u64) -> io::Result<usize> {
    let at = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let iov = libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() };
    // SAFETY: 3. the descriptor and `buf` outlive the call, `iov` describes exactly `buf`, and the kernel only reads
    // from it.
    let n = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const iov, 1, at, libc::RWF_DSYNC) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

#[cfg(not(target_os = "linux"))]
fn write_dsync(_: &fs::File, _: &[u8], _: u64) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
