//! A directory of segments, recovered.
//!
//! The first byte says how the rest is meant:
//! - 0 (mod 3): damage done to a sound log. Every record that comes back is the one that was written with that number.
//! - 1 (mod 3): compact segments, made sound in their checksums. What comes back is contiguous.
//! - 2 (mod 3): files as they are.
//!
//! Whatever could be opened and read must be the same after more records and another opening.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use backstay_storage::disk::SimDisk;
use backstay_storage::log::{Log, LogOptions, Record, inspect};
use backstay_storage::{Error, Result};

use crate::input::Input;
use crate::{compact, patch, seeds};

/// Where the log is.
pub const DIR: &str = "/log";
/// The store it belongs to.
pub const STORE: u128 = 7;

/// Small segments, so that a short log has several.
pub fn options() -> LogOptions {
    LogOptions { segment_bytes: 5 * 4096, compress_over: Some(512), window: 8192, buffer_bytes: 1 << 20 }
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.u8() % 3;
    let files = match mode {
        0 => {
            let mut files = seeds::log_files().clone();
            patch::apply(&mut files, &mut input, 4096);
            files
        }
        _ => {
            let mut files = Vec::new();
            let mut id = u64::from(input.u8() % 4);
            while !input.is_empty() && files.len() < 6 {
                // Mostly the next number; now and then a hole.
                id += if input.u8() % 16 == 15 { 2 } else { 1 };
                let bytes = input.counted();
                let bytes = if mode == 1 { compact::expand(bytes) } else { bytes.to_vec() };
                files.push((PathBuf::from(format!("{DIR}/{id:016x}.seg")), bytes));
            }
            files
        }
    };
    let disk = SimDisk::new(1);
    for (path, bytes) in &files {
        put(&disk, path, bytes);
    }
    let _ = inspect(&disk, Path::new(DIR), true);
    let Ok((log, records)) = open_and_scan(&disk) else { return };
    if mode == 0 {
        let sound = sound_records();
        for record in &records {
            let written = sound.get(record.seq as usize - 1);
            assert_eq!(Some(record), written, "record {} is not what was written", record.seq);
        }
    }
    // What was recovered stays, and goes on.
    let next = log.next_seq();
    assert_eq!(log.append(b"after").expect("append to a recovered log"), next);
    log.commit().expect("commit to a recovered log");
    drop(log);
    let (_, again) = open_and_scan(&disk).expect("a log that was recovered before");
    assert_eq!(again[..records.len()], records, "another opening finds other records");
    let after = again.get(records.len()).expect("the record written after recovery");
    assert_eq!((after.seq, &after.payload[..], again.len()), (next, &b"after"[..], records.len() + 1));
    let report = inspect(&disk, Path::new(DIR), true).expect("inspect");
    assert_eq!(report.damage, [], "damage in what was opened and read without an error");
}

/// Puts a file on the disk durably.
fn put(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    use backstay_storage::disk::Disk;
    disk.create_dir_all(Path::new(DIR)).expect("a directory on a new disk");
    disk.overwrite(path, 0, bytes).expect("a file on a new disk");
}

/// Opens the log as the store does and reads all of it.
fn open_and_scan(disk: &SimDisk) -> Result<(Log, Vec<Record>)> {
    let dir = Path::new(DIR);
    let epoch = Log::newest_epoch(disk, dir)?;
    let epoch = epoch.checked_add(1).ok_or_else(|| Error::Invalid("the last epoch".into()))?;
    let log = Log::open(Arc::new(disk.clone()), dir, STORE, epoch, options())?;
    let first = log.first_seq();
    let records = log.scan(first)?.collect::<Result<Vec<Record>>>()?;
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record.seq, first + i as u64, "records are not contiguous");
        assert!(record.epoch < epoch);
    }
    assert_eq!(log.next_seq(), first + records.len() as u64, "the scan ends before the log does");
    Ok((log, records))
}

/// The records of the sound log.
pub fn sound_records() -> &'static [Record] {
    static RECORDS: OnceLock<Vec<Record>> = OnceLock::new();
    RECORDS.get_or_init(|| {
        let disk = SimDisk::new(1);
        for (path, bytes) in seeds::log_files() {
            put(&disk, path, bytes);
        }
        open_and_scan(&disk).expect("the sound log").1
    })
}
