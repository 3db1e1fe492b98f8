//! What the device itself can do with one durable write at a time.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use backstay_storage::disk::{ALIGN, AlignedBuf};

/// Blocks of the file.
const BLOCKS: u64 = 4096;

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
const O_DIRECT: i32 = 0o40000;
#[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
const O_DIRECT: i32 = 0o200000;
const O_DSYNC: i32 = 0o10000;

/// Overwrites the `n`th block of a file that was written before with each call; durable on return, by `O_DSYNC` or
/// by a sync after the write.
pub fn overwrite(path: &Path, dsync: bool) -> impl FnMut(u64) + Send + use<> {
    let mut file = File::create(path).expect("raw file");
    for _ in 0..BLOCKS / 256 {
        file.write_all(&vec![0; 256 * ALIGN]).expect("fill the raw file");
    }
    file.sync_all().expect("sync of the raw file");
    let durable = if dsync { O_DSYNC } else { 0 };
    // Some file systems have no direct I/O.
    let open = |flags| OpenOptions::new().write(true).custom_flags(flags).open(path);
    let file = open(O_DIRECT | durable).or_else(|_| open(durable)).expect("raw file");
    let block = AlignedBuf::from_slice(&[7; ALIGN]);
    move |n| {
        file.write_all_at(&block, n % BLOCKS * ALIGN as u64).expect("raw write");
        if !dsync {
            file.sync_data().expect("fdatasync");
        }
    }
}
