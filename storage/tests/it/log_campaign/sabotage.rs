//! Each check, sync and order of the log is switched off, one at a time: something must notice.
//!
//! The random lives notice most. For a few there is a scenario of its own, because chance comes to it too rarely.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use backstay_storage::Error;
use backstay_storage::disk::SimDisk;
use backstay_storage::disk::sim::Fault;
use backstay_storage::log::{Log, LogOptions, ScanOptions};
use backstay_storage::sabotage::{Check, without};

use super::campaign;
use super::game::Tally;
use super::model::payload;

/// Cycles of random lives in which a switch must be noticed; without a switch they find nothing.
const CYCLES: u64 = 40_000;
/// Not that of the run: which games come to a switch must not be left to chance.
const SEED: u64 = 20_260_101;
const BLOCK: u64 = 4096;

fn open(disk: &SimDisk, epoch: u64, segment_bytes: u64) -> Result<Log, Error> {
    let options = LogOptions { segment_bytes, compress_over: None, window: 0, ..LogOptions::default() };
    Log::open(Arc::new(disk.clone()), Path::new("/log"), 42, epoch, options)
}

/// Any bit that rots in the two blocks at a segment's front is reported. Many are also found by what the fields say of each
/// other; those of the padding, the epoch and the window by the checksum alone.
fn rot_in_front(block: u64) -> Result<(), String> {
    for byte in [40, 56, 3000] {
        let disk = SimDisk::new(1);
        let log = open(&disk, 1, 32 * BLOCK).map_err(|e| e.to_string())?;
        for _ in 0..2 {
            log.append(b"record").and_then(|_| log.commit()).map_err(|e| e.to_string())?;
        }
        drop(log);
        disk.flip_bit("/log/0000000000000001.seg", block + byte, 3).map_err(|e| e.to_string())?;
        match open(&disk, 9, 32 * BLOCK) {
            Err(Error::Damaged(damage)) if damage.offset == block => {}
            other => return Err(format!("rot of byte {byte} of the block at {block}: {other:?}")),
        }
    }
    Ok(())
}

/// A commit that went astray over another is unsound there. Without the place in its checksum the order of commits still
/// refuses it (no two commits of a segment have the same first record), so that nothing is ever misread; but a block that
/// the disk misplaced is then told to be a sound one out of order, which would be an error of the log's own.
fn astray() -> Result<(), String> {
    let disk = SimDisk::new(1);
    let log = open(&disk, 1, 32 * BLOCK).map_err(|e| e.to_string())?;
    for commit in 0..4 {
        if commit == 2 {
            disk.fail_at(disk.ops() + 1, Fault::Misdirect(3 * BLOCK));
        }
        log.append(b"record").and_then(|_| log.commit()).map_err(|e| e.to_string())?;
    }
    drop(log);
    match open(&disk, 2, 32 * BLOCK) {
        Err(e) if e.to_string().contains("offset 12288: expected checksum") => Ok(()),
        other => Err(format!("the commit that went astray: {other:?}")),
    }
}

/// A scan that stands in a segment reads on while that is trimmed and its successors are written.
fn slow_scan() -> Result<(), String> {
    const SEGMENT: u64 = 3 << 20;
    let disk = SimDisk::new(1);
    let log = open(&disk, 1, SEGMENT).map_err(|e| e.to_string())?;
    let write = |from: u64, to: u64| {
        (from..to).try_for_each(|seq| log.append(&payload(1, seq, 300_000)).and_then(|_| log.commit()).map(drop))
    };
    write(1, 25).map_err(|e| e.to_string())?;
    let mut scan = log.scan_with(ScanOptions { read_ahead: 1, ..ScanOptions::from(1) }).map_err(|e| e.to_string())?;
    let first = scan.next().ok_or("no record")?.map_err(|e| e.to_string())?;
    log.trim_before(12).map_err(|e| e.to_string())?;
    write(25, 80).map_err(|e| e.to_string())?;
    // All of the first segment: 10 records or so.
    for record in std::iter::once(Ok(first)).chain(scan).take(9) {
        let record = record.map_err(|e| e.to_string())?;
        if record.payload != payload(1, record.seq, 300_000) {
            return Err(format!("record {} is not what was appended", record.seq));
        }
    }
    Ok(())
}

/// What notices a switch.
fn scenario(check: Check) -> Result<(), String> {
    match check {
        Check::LogHeaderChecksum => rot_in_front(0),
        Check::LogLinkChecksum => rot_in_front(BLOCK),
        Check::LogBlockPlace => astray(),
        Check::LogPin => slow_scan(),
        Check::LogOpenDirSync => crate::log::killed_trim(None),
        _ => {
            let mut tally = Tally::default();
            let end = campaign(SEED, CYCLES, &mut tally).break_value();
            end.map_or(Ok(()), |why| Err(format!("in {} cycles: {why}", tally.cycles)))
        }
    }
}

#[test]
fn every_check_sync_and_order_is_needed() {
    let mut unnoticed = Vec::new();
    for check in Check::ALL.into_iter().filter(|check| check.to_string().starts_with("Log")) {
        let noticed = catch_unwind(AssertUnwindSafe(|| without(check, || scenario(check))));
        match noticed {
            Ok(Ok(())) => unnoticed.push(check),
            Ok(Err(why)) => println!("without {check}: {why}"),
            Err(_) => println!("without {check}: a panic, told above"),
        }
    }
    assert!(unnoticed.is_empty(), "nothing notices that these are missing: {unnoticed:?}");
    // With everything on, the same scenarios and games find nothing.
    for check in [
        Check::LogHeaderChecksum,
        Check::LogLinkChecksum,
        Check::LogBlockPlace,
        Check::LogPin,
        Check::LogOpenDirSync,
        Check::LogChain,
    ] {
        scenario(check).unwrap_or_else(|why| panic!("with nothing switched off, {check}: {why}"));
    }
}
