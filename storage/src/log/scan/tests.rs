use std::path::Path;

use super::*;
use crate::disk::PosixDisk;
use crate::log::{Log, LogOptions};

/// Records 1 to 12, each in a segment of its own: the first of 100 bytes, the others of 12,000.
fn filled(dir: &Path) -> Log {
    let options = LogOptions { segment_bytes: 5 * 4096, compress_over: None, ..LogOptions::default() };
    let log = Log::open(Arc::new(PosixDisk::new()), dir, 7, 1, options).unwrap();
    for seq in 1..=12 {
        log.append(&payload(seq)).unwrap();
        log.commit().unwrap();
    }
    log
}

fn payload(seq: Seq) -> Vec<u8> {
    vec![seq as u8; if seq == 1 { 100 } else { 12_000 }]
}

#[test]
fn every_way_of_reading_gives_the_same_records() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    for mapped in [false, true] {
        for (from, read_ahead) in [(0, 0), (1, 1), (5, 4), (12, 64), (13, 4)] {
            let records: Vec<_> =
                log.scan_with(ScanOptions { from, mapped, read_ahead }).unwrap().map(Result::unwrap).collect();
            let expected: Vec<_> =
                (from.max(1)..=12).map(|seq| Record { seq, payload: payload(seq).into(), epoch: 1 }).collect();
            assert!(records == expected, "from {from}, mapped {mapped}");
        }
    }
}

#[test]
fn a_segment_that_was_trimmed_before_the_scan_came_to_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    for mapped in [false, true] {
        let first = log.first_seq();
        let mut scan = log.scan_with(ScanOptions { mapped, ..first.into() }).unwrap();
        assert_eq!(scan.next().unwrap().unwrap().seq, first);
        log.trim_before(first + 4).unwrap();
        let error = scan.next().unwrap().unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        let gone = first + 1;
        let expected = format!("record {gone} is no longer in the log: its segment {gone} (");
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(scan.next().is_none(), "a scan ends after its first error");
    }
}

#[test]
fn payloads_outlive_the_scan_and_the_segment() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    for mapped in [false, true] {
        let first = log.first_seq();
        let mut scan = log.scan_with(ScanOptions { mapped, ..first.into() }).unwrap();
        let payload = scan.next().unwrap().unwrap().payload;
        drop(scan);
        log.trim_before(first + 1).unwrap();
        assert!(payload.iter().all(|b| *b == first as u8));
    }
}

#[test]
fn a_segment_is_not_recycled_while_a_payload_lies_in_a_map_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    // The short record comes first: one that crosses blocks of a map is copied out.
    for mapped in [true, false] {
        let first = log.first_seq();
        let record = log.scan_with(ScanOptions { mapped, ..first.into() }).unwrap().next().unwrap().unwrap();
        let recycled = log.stats().segments_recycled;
        log.trim_before(first + 1).unwrap();
        for _ in 0..4 {
            log.append(&[0xee; 12_000]).unwrap();
            log.commit().unwrap();
        }
        // What was read into a buffer needs no file; a slice of a map does.
        assert_eq!(log.stats().segments_recycled - recycled, u64::from(!mapped));
        assert_eq!(record.payload, payload(first), "mapped {mapped}");
    }
}

#[test]
fn segments_are_held_until_they_are_read_and_maps_until_their_payloads_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    for mapped in [false, true] {
        let parts = log.parts_from(1).unwrap();
        let segment = parts[0].kept.clone();
        let holders = || Arc::strong_count(&segment);
        assert_eq!(holders(), 3, "the log, the part, this test");
        let mut scan = Scan::new(Arc::new(PosixDisk::new()), parts.into(), ScanOptions { mapped, ..1.into() });
        let first = scan.next().unwrap().unwrap();
        assert_eq!(holders(), 3 + usize::from(mapped));
        scan.next().unwrap().unwrap();
        // What was read into a buffer needs no file; a slice of a map does.
        assert_eq!(holders(), 2 + usize::from(mapped));
        drop(scan);
        assert_eq!(holders(), 2 + usize::from(mapped));
        drop(first);
        assert_eq!(holders(), 2);
    }
}

#[test]
fn a_segment_that_is_not_where_it_must_be_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    let mut parts = log.parts_from(1).unwrap();
    parts.remove(1);
    let error = Scan::new(Arc::new(PosixDisk::new()), parts.into(), 1.into()).nth(1).unwrap().unwrap_err().to_string();
    assert!(error.contains("expected a first record of at most 2, got 3"), "{error}");
}
