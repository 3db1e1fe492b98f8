//! How much room a file system has left.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::{Error, Result};

/// Bytes that a process without privileges may still write to the file system of `dir`.
#[cfg_attr(target_os = "linux", expect(clippy::useless_conversion, reason = "the fields are smaller on other systems"))]
pub(super) fn room(dir: &Path) -> Result<u64> {
    let failed = |e| Error::io("ask for the room of", dir, e);
    let path = CString::new(dir.as_os_str().as_bytes()).map_err(|e| failed(io::Error::other(e)))?;
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: 1. `path` is a string that ends with a zero and lives until the call returns; 2. `stat` is memory for what the call
    // writes, and nobody else has it.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    // SAFETY: 3. the call has returned 0: it has filled it.
    let stat = unsafe { stat.assume_init() };
    Ok(u64::from(stat.f_bavail).saturating_mul(u64::from(stat.f_frsize)))
}
