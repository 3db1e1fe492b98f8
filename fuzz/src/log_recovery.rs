//! A directory of segments, free files and one that was made ahead, recovered.
//!
//! The first byte says how the rest is meant:
//! - 0 (mod 3): damage done to a sound log. Every record that comes back is the one that was written with that number.
//! - 1 (mod 3): compact segments, made sound in their checksums. What comes back is contiguous.
//! - 2 (mod 3): files as they are.
//!
//! The sound log has a segment that was made ahead of a file that was a segment before, and a free file of old blocks. In the other modes
//! some files are free ones: nothing of them may come back, so what is recovered must be the same without them.
//!
//! Whatever could be opened and read must be the same after more records and another opening.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use backstay_storage::disk::SimDisk;
use backstay_storage::log::{Dump, DumpLine, Log, LogOptions, Record, ScanOptions, dump, format, inspect};
use backstay_storage::{Error, Result};

use crate::input::Input;
use crate::{compact, patch, seeds};

/// Where the log is.
pub const DIR: &str = "/log";
/// The store it belongs to.
pub const STORE: u128 = 7;

/// Small segments, so that a short log has several.
pub fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 6 * 4096,
        compress_over: Some(512),
        window: 8192,
        buffer_bytes: 1 << 20,
        spare_segments: 2,
    }
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.u8() % 3;
    let files = match mode {
        0 => {
            let mut files = seeds::log_with_others();
            patch::apply(&mut files, &mut input, 4096);
            files
        }
        _ => {
            let mut files = Vec::new();
            let mut id = u64::from(input.u8() % 4);
            while !input.is_empty() && files.len() < 6 {
                // Mostly the next number; now and then a hole, or a free file.
                let kind = input.u8() % 16;
                id += if kind == 15 { 2 } else { 1 };
                let bytes = input.counted();
                let bytes = if mode == 1 { compact::expand(bytes) } else { bytes.to_vec() };
                if kind == 14 {
                    id -= 1;
                    files.push((PathBuf::from(format!("{DIR}/{id:016x}.free")), bytes));
                } else {
                    files.push((PathBuf::from(format!("{DIR}/{id:016x}.seg")), bytes));
                }
            }
            files
        }
    };
    let disk = SimDisk::new(1);
    for (path, bytes) in &files {
        put(&disk, path, bytes);
    }
    let _ = inspect(&disk, Path::new(DIR), true);
    let everything = Dump { chain: true, blocks: true, records: true };
    let _ = dump(&disk, Path::new(DIR), everything, &mut |line| drop(line.to_string()));
    let opened = open_and_scan(&disk);
    check_free_files_are_void(&files, opened.as_ref().ok().map(|(_, records)| &records[..]));
    let Ok((log, records)) = opened else { return };
    check_ahead_is_void(&files, &records);
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
    let mut dumped = Vec::new();
    let records = Dump { records: true, ..Dump::default() };
    let done = dump(&disk, Path::new(DIR), records, &mut |line| match line {
        DumpLine::Record(record) => dumped.push(record.seq),
        DumpLine::Damage(damage) => panic!("damage in what was opened and read without an error: {damage:?}"),
        _ => {}
    });
    done.expect("dump");
    assert!(dumped.iter().eq(again.iter().map(|r| &r.seq)), "a dump lists other records than a scan");
}

/// Opens the files without the free ones, which must give the same.
fn check_free_files_are_void(files: &patch::Files, records: Option<&[Record]>) {
    let is_free = |path: &Path| path.extension().is_some_and(|e| e == "free");
    if !files.iter().any(|(path, _)| is_free(path)) {
        return;
    }
    let disk = SimDisk::new(1);
    files.iter().filter(|(path, _)| !is_free(path)).for_each(|(path, bytes)| put(&disk, path, bytes));
    let without = open_and_scan(&disk).ok().map(|(_, records)| records);
    assert_eq!(without.as_deref(), records, "a free file changes what is recovered");
}

/// If the newest segment has no sound link and the log opened, it was taken for one that was made ahead: without it the log must be the same.
fn check_ahead_is_void(files: &patch::Files, records: &[Record]) {
    let segments = files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "seg"));
    let Some((newest, bytes)) = segments.max_by(|a, b| a.0.cmp(&b.0)) else { return };
    let header = format::decode_header(bytes).expect("the header of the newest segment of a log that opens");
    if format::decode_link(bytes.get(format::BLOCK..).unwrap_or_default(), &header).is_ok() {
        return;
    }
    let disk = SimDisk::new(1);
    files.iter().filter(|(path, _)| path != newest).for_each(|(path, bytes)| put(&disk, path, bytes));
    let (_, without) = open_and_scan(&disk).expect("a log without what has not begun");
    assert_eq!(without, records, "a segment that has not begun changes what is recovered");
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
    let mapped = log.scan_with(ScanOptions { mapped: true, ..first.into() })?.collect::<Result<Vec<Record>>>()?;
    assert_eq!(mapped, records, "maps give other records than reads");
    let mut follower = log.follow(first);
    for record in &records {
        assert_eq!(follower.try_next()?.as_ref(), Some(record), "a follower gives other records than a scan");
    }
    assert_eq!(follower.try_next()?, None);
    drop(follower);
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
