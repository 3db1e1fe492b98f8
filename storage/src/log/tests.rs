use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::format::{
    BLOCK, BLOCK_BYTES, Commit, DATA_START, Identity, LINK_AT, RecordHead, encode_commit, encode_record,
};
use super::segment::Head;
use super::{Log, LogOptions, Record, Seq, decode_segment, inspect, segment};
use crate::disk::{Create, Disk, OpenOptions, PosixDisk};
use crate::{Error, Result};

const ID: u128 = 7;

fn disk() -> Arc<dyn Disk> {
    Arc::new(PosixDisk::new())
}

fn small() -> LogOptions {
    LogOptions { segment_bytes: 9 * BLOCK_BYTES, ..LogOptions::default() }
}

fn open(dir: &Path, epoch: u64) -> Log {
    Log::open(disk(), dir, ID, epoch, small()).unwrap()
}

/// Record `seq`'s payload: 0 to 9000 bytes, some of which compress.
fn payload(seq: Seq) -> Vec<u8> {
    let len = (seq * 1237 % 9000) as usize;
    match seq % 3 {
        0 => vec![seq as u8; len],
        _ => (0..len as u64).map(|i| (i.wrapping_mul(seq).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect(),
    }
}

fn filled(records: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    for seq in 1..=records {
        assert_eq!(log.append(&payload(seq)).unwrap(), seq);
        log.commit().unwrap();
    }
    dir
}

fn seqs(records: Result<Vec<Record>>) -> Vec<Seq> {
    records.unwrap().iter().map(|r| r.seq).collect()
}

/// Flips the lowest bit of a byte of a segment.
fn flip(dir: &Path, id: u64, offset: u64) {
    let file = disk()
        .open(&segment::path_of(dir, id), OpenOptions { write: true, create: Create::Never, direct: false })
        .unwrap();
    let mut byte = [0];
    assert_eq!(file.read_at(&mut byte, offset).unwrap(), 1);
    file.write_at(&[byte[0] ^ 1], offset).unwrap();
}

fn damage(error: Error) -> (String, u64) {
    match error {
        Error::Damaged(damage) => (damage.file.file_name().unwrap().to_str().unwrap().into(), damage.offset),
        other => panic!("{other}"),
    }
}

#[test]
fn records_of_all_sizes_come_back_over_segments_and_openings() {
    let dir = filled(60);
    for epoch in 2..4 {
        let log = open(dir.path(), epoch);
        let first_new = log.next_seq();
        for seq in first_new..first_new + 5 {
            log.append(&payload(seq)).unwrap();
        }
        log.commit().unwrap();
    }
    let log = open(dir.path(), 4);
    for from in [0, 1, 2, 30, 60, 61, 70, 71, 99] {
        let records = log.scan(from).unwrap().collect::<Result<Vec<_>>>().unwrap();
        let expected: Vec<_> = (from.max(1)..=70)
            .map(|seq| Record {
                seq,
                payload: payload(seq).into(),
                epoch: if seq > 65 {
                    3
                } else if seq > 60 {
                    2
                } else {
                    1
                },
            })
            .collect();
        assert!(records == expected, "from {from}: {:?}", records.iter().map(|r| r.seq).collect::<Vec<_>>());
    }
    assert_eq!(Log::newest_epoch(&*disk(), dir.path()).unwrap(), 4);
}

#[test]
fn a_scan_sees_durable_records_only() {
    let dir = filled(3);
    let log = open(dir.path(), 2);
    log.append(b"x").unwrap();
    assert_eq!(seqs(log.scan(1).unwrap().collect()), [1, 2, 3]);
    let before = log.scan(2).unwrap();
    log.commit().unwrap();
    assert_eq!(seqs(before.collect()), [2, 3]);
    assert_eq!(seqs(log.scan(3).unwrap().collect()), [3, 4]);
}

#[test]
fn what_was_not_committed_is_gone_after_opening() {
    let dir = filled(3);
    let log = open(dir.path(), 2);
    log.append(b"lost").unwrap();
    drop(log);
    let log = open(dir.path(), 3);
    assert_eq!((log.durable(), log.next_seq()), (3, 4));
}

#[test]
fn a_commit_larger_than_a_segment_gets_one_of_its_size() {
    let dir = filled(1);
    let log = open(dir.path(), 2);
    let large: Vec<u8> = (0..1_000_000_u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    log.append_batch(&[b"before", &large, b"after"]).unwrap();
    log.commit().unwrap();
    log.append(b"next").unwrap();
    log.commit().unwrap();
    drop(log);
    let log = open(dir.path(), 3);
    let records: Vec<_> = log.scan(2).unwrap().map(|r| r.unwrap().payload).collect();
    assert!(records == [&b"before"[..], &large, b"after", b"next"]);
}

#[test]
fn long_payloads_that_compress_are_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    log.append(&[b'a'; 500_000]).unwrap();
    log.commit().unwrap();
    assert_eq!(log.stats().commit_bytes, BLOCK_BYTES);
    assert_eq!(log.scan(1).unwrap().next().unwrap().unwrap().payload, vec![b'a'; 500_000]);
}

#[test]
fn writes_overlap_and_are_acknowledged_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    for seq in 1..=200 {
        log.append(&payload(seq)).unwrap();
        log.submit().unwrap();
        if seq % 7 == 0 {
            log.wait_durable(seq - 3).unwrap();
            assert!(log.durable() >= seq - 3);
        }
    }
    assert_eq!(log.commit().unwrap(), 200);
    drop(log);
    assert_eq!(seqs(open(dir.path(), 2).scan(1).unwrap().collect()), (1..=200).collect::<Vec<_>>());
}

#[test]
fn an_append_that_finds_the_buffer_full_writes_it_out() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(disk(), dir.path(), ID, 1, LogOptions { buffer_bytes: 10_000, ..small() }).unwrap();
    for seq in 1..=20 {
        log.append(&[seq; 3000]).unwrap();
    }
    let commits = log.stats().commits;
    assert!((4..=6).contains(&commits), "{commits} commits for 60,000 bytes in buffers of 10,000");
    log.commit().unwrap();
    assert_eq!(log.durable(), 20);
}

#[test]
fn trimming_drops_whole_old_segments() {
    let dir = filled(60);
    let log = open(dir.path(), 2);
    let files = || segment::list(&*disk(), dir.path()).unwrap().segments.iter().map(|s| s.id).collect::<Vec<_>>();
    let (before, bytes) = (files(), log.bytes());
    log.trim_before(30).unwrap();
    assert!(log.first_seq() <= 30 && log.first_seq() > 20, "first is {}", log.first_seq());
    assert!(log.bytes() < bytes && files().len() < before.len());
    assert_eq!(seqs(log.scan(30).unwrap().collect()), (30..=60).collect::<Vec<_>>());
    let error = log.scan(log.first_seq() - 1).unwrap_err();
    assert!(error.to_string().contains("no longer in the log"), "{error}");
    log.trim_before(u64::MAX).unwrap();
    assert_eq!((log.first_seq(), files().len()), (61, 1));
    drop(log);
    let log = open(dir.path(), 3);
    assert_eq!((log.durable(), log.next_seq(), log.first_seq()), (60, 61, 61));
}

#[test]
fn opening_again_and_again_takes_little_room() {
    let dir = filled(1);
    for epoch in 2..30 {
        let log = open(dir.path(), epoch);
        let expected = 3 * BLOCK_BYTES + (epoch - 2) * DATA_START + small().segment_bytes;
        assert!(log.bytes() <= expected, "{} bytes at epoch {epoch}, more than {expected}", log.bytes());
    }
}

#[test]
fn an_old_epoch_and_a_foreign_store_are_refused() {
    let dir = filled(1);
    let error = Log::open(disk(), dir.path(), ID, 1, small()).unwrap_err();
    assert!(error.to_string().contains("epoch 1 has already"), "{error}");
    let error = Log::open(disk(), dir.path(), ID + 1, 2, small()).unwrap_err();
    assert!(error.to_string().contains("expected store 00000000000000000000000000000008"), "{error}");
}

#[test]
fn waiting_for_what_was_not_appended_is_an_error() {
    let dir = filled(1);
    let error = open(dir.path(), 2).wait_durable(2).unwrap_err();
    assert_eq!(error.to_string(), "record 2 was not appended: the next is 2");
}

#[test]
fn every_flipped_byte_below_the_end_is_named() {
    let dir = filled(12);
    drop(open(dir.path(), 2));
    let segments = inspect(&*disk(), dir.path(), true).unwrap().segments;
    assert!(segments.len() > 2);
    let mut tried = 0;
    for (id, used) in segments.iter().filter(|s| s.epoch == 1).map(|s| (s.id, s.used)) {
        for offset in (0..used).step_by(509) {
            flip(dir.path(), id, offset);
            let report = inspect(&*disk(), dir.path(), true).unwrap();
            let place = (segment::path_of(dir.path(), id), offset / BLOCK_BYTES * BLOCK_BYTES);
            assert_eq!(report.damage.iter().map(|d| (d.file.clone(), d.offset)).collect::<Vec<_>>(), [place]);
            flip(dir.path(), id, offset);
            tried += 1;
        }
    }
    assert!(tried > 50);
    assert_eq!(inspect(&*disk(), dir.path(), true).unwrap().damage, []);
}

#[test]
fn damage_in_a_sealed_segment_ends_a_scan() {
    let dir = filled(60);
    let log = open(dir.path(), 2);
    flip(dir.path(), 2, DATA_START + 100);
    let results: Vec<_> = log.scan(1).unwrap().collect();
    let (last, good) = results.split_last().unwrap();
    assert!(!good.is_empty() && good.iter().all(Result::is_ok));
    let error = last.as_ref().unwrap_err().to_string();
    assert!(error.contains("0000000000000002.seg, offset 8192: expected checksum"), "{error}");
}

#[test]
fn damage_below_what_a_later_block_promises_is_not_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    for _ in 0..4 {
        log.append(b"x").unwrap();
        log.commit().unwrap();
    }
    drop(log);
    flip(dir.path(), 1, 2 * BLOCK_BYTES + 50);
    let error = Log::open(disk(), dir.path(), ID, 2, small()).unwrap_err();
    assert!(error.to_string().contains("the block at 12288 proves 12288 bytes durable"), "{error}");
    assert_eq!(damage(error), ("0000000000000001.seg".into(), 2 * BLOCK_BYTES));
    // Nothing was changed: repaired, it opens with all records.
    flip(dir.path(), 1, 2 * BLOCK_BYTES + 50);
    assert_eq!(open(dir.path(), 2).durable(), 4);
}

#[test]
fn a_torn_last_commit_is_cut_off_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    log.append(b"kept").unwrap();
    log.commit().unwrap();
    log.append_batch(&[&[1; 3000], &[2; 3000], &[3; 3000]]).unwrap();
    log.commit().unwrap();
    drop(log);
    let path = segment::path_of(dir.path(), 1);
    let file = disk().open(&path, OpenOptions { write: true, create: Create::Never, direct: false }).unwrap();
    let mut whole = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut whole, 0).unwrap();
    // Its last block: the first two records could be read, but were committed with the third.
    flip(dir.path(), 1, 4 * BLOCK_BYTES + 50);
    let log = open(dir.path(), 2);
    assert_eq!((log.durable(), log.next_seq()), (1, 2));
    log.append(b"new 2").unwrap();
    log.commit().unwrap();
    drop(log);
    // The ghosts of records 2 to 4 come back whole. They are void: the next segment's header ends theirs before them.
    file.write_at(&whole, 0).unwrap();
    for epoch in 3..5 {
        let log = open(dir.path(), epoch);
        let records: Vec<_> = log.scan(1).unwrap().map(|r| r.unwrap().payload).collect();
        assert_eq!(records, ["kept", "new 2"]);
        assert_eq!(log.next_seq(), 3);
    }
}

#[test]
fn damage_of_headers_holes_and_lost_bytes_is_named() {
    let dir = filled(60);
    for (at, block) in [(20, 0), (LINK_AT + 20, LINK_AT)] {
        flip(dir.path(), 2, at);
        // Opening looks at both ends of the log only.
        let log = open(dir.path(), if block == 0 { 2 } else { 3 });
        let error = log.scan(1).and_then(|mut scan| scan.find_map(Result::err).map_or(Ok(()), Err)).unwrap_err();
        assert_eq!(damage(error), ("0000000000000002.seg".into(), block));
        assert!(inspect(&*disk(), dir.path(), false).unwrap().damage.iter().any(|d| d.offset == block));
        flip(dir.path(), 2, at);
    }

    let (from, to) = (segment::path_of(dir.path(), 2), dir.path().join("kept"));
    disk().rename(&from, &to).unwrap();
    let error = first_error(dir.path(), 4);
    assert!(error.to_string().contains("expected the segment between 1 and 3, got no such file"), "{error}");
    disk().rename(&to, &from).unwrap();
    let bytes = |id| {
        let file = disk().open(&segment::path_of(dir.path(), id), OpenOptions::READ).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    // Another segment under its name.
    let file = disk().open(&from, OpenOptions { write: true, create: Create::Never, direct: false }).unwrap();
    let (mine, other) = (bytes(2), bytes(3));
    file.write_at(&other, 0).unwrap();
    let error = first_error(dir.path(), 4);
    assert!(error.to_string().contains("expected segment 2, got segment 3"), "{error}");
    file.write_at(&mine, 0).unwrap();
    file.set_len(DATA_START + BLOCK_BYTES).unwrap();
    assert_eq!(damage(first_error(dir.path(), 5)), ("0000000000000002.seg".into(), DATA_START + BLOCK_BYTES));
}

/// Puts another sound front into a segment.
fn forge(dir: &Path, id: u64, change: impl FnOnce(&mut Head)) {
    let options = OpenOptions { write: true, create: Create::Never, direct: false };
    let file = disk().open(&segment::path_of(dir, id), options).unwrap();
    let mut head = segment::front_of(&*file, file.path()).unwrap().begun(file.path()).unwrap();
    change(&mut head);
    file.write_at(&head.header.encode(), 0).unwrap();
    let mut link = vec![0; BLOCK];
    head.link.encode(&mut link, &head.header);
    file.write_at(&link, LINK_AT).unwrap();
}

/// What opening the log, or else reading all of it, finds.
fn first_error(dir: &Path, epoch: u64) -> Error {
    match Log::open(disk(), dir, ID, epoch, small()) {
        Ok(log) => log.scan(1).and_then(|mut scan| scan.find_map(Result::err).map_or(Ok(()), Err)).unwrap_err(),
        Err(e) => e,
    }
}

#[test]
fn sound_fronts_that_do_not_chain_are_damage() {
    type Change = fn(&mut Head);
    let changes: [(Change, &str); 5] = [
        (|h| h.header.store_id += 1, "expected store"),
        (|h| h.header.epoch = 0, "expected an epoch of at least 1"),
        (|h| h.link.first_seq = 1, "(1 records from 1, promising 4096), got block 0"),
        (|h| h.link.prev_len = 10 * BLOCK_BYTES, "expected a predecessor of at most 36864 bytes"),
        (|h| h.header.segment = 2, "expected segment 3, got segment 2"),
    ];
    for (change, expected) in changes {
        let dir = filled(60);
        forge(dir.path(), 3, change);
        let error = first_error(dir.path(), 2);
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(damage(error).0, "0000000000000003.seg");
    }
}

#[test]
fn a_header_that_changes_while_the_log_is_open_is_damage() {
    let dir = filled(60);
    let log = open(dir.path(), 2);
    forge(dir.path(), 1, |h| h.header.window += BLOCK_BYTES);
    let error = log.scan(1).unwrap().find_map(Result::err).unwrap();
    assert_eq!(damage(error), ("0000000000000001.seg".into(), 0));
}

#[test]
fn a_segment_must_end_where_its_successor_says() {
    let changes: [fn(&mut Head); 2] = [|h| h.link.first_seq += 5, |h| h.link.prev_len -= BLOCK_BYTES];
    for change in changes {
        let dir = filled(60);
        forge(dir.path(), 3, change);
        let log = open(dir.path(), 2);
        let error = log.scan(1).unwrap().find_map(Result::err).unwrap();
        assert_eq!(damage(error).0, "0000000000000002.seg");
    }
}

/// A sound commit that does not follow the one before it was never written there by us: it is no torn tail.
#[test]
fn a_sound_commit_that_contradicts_the_one_before_is_damage() {
    let dir = filled(1);
    let path = segment::path_of(dir.path(), 1);
    let options = OpenOptions { write: true, create: Create::Never, direct: false };
    let file = disk().open(&path, options).unwrap();
    let header = segment::front_of(&*file, &path).unwrap().header;
    let mut stream = Vec::new();
    encode_record(&mut stream, RecordHead { seq: 3, stored: 1, raw: 1, zstd: false }, b"x");
    let commit = Commit { start: DATA_START + BLOCK_BYTES, blocks: 1, first_seq: 3, records: 1, promised: DATA_START };
    file.write_at(&encode_commit(&stream, &commit, &Identity::of(&header)), commit.start).unwrap();
    let error = Log::open(disk(), dir.path(), ID, 2, small()).unwrap_err();
    assert!(error.to_string().contains("records from 2"), "{error}");
    assert_eq!(damage(error), ("0000000000000001.seg".into(), commit.start));
}

#[test]
fn a_compressed_record_must_have_the_length_it_says() {
    let zeros = zstd::bulk::compress(&[0; 100], 1).unwrap();
    for (raw, sound) in [(100, true), (101, false), (99, false), (2 << 20, false)] {
        let dir = filled(0);
        let path = segment::path_of(dir.path(), 1);
        let options = OpenOptions { write: true, create: Create::Never, direct: false };
        let file = disk().open(&path, options).unwrap();
        let header = segment::front_of(&*file, &path).unwrap().header;
        let mut stream = Vec::new();
        encode_record(&mut stream, RecordHead { seq: 1, stored: zeros.len() as u32, raw, zstd: true }, &zeros);
        let commit = Commit { start: DATA_START, blocks: 1, first_seq: 1, records: 1, promised: DATA_START };
        file.write_at(&encode_commit(&stream, &commit, &Identity::of(&header)), commit.start).unwrap();
        let found = open(dir.path(), 2).scan(1).unwrap().next().unwrap();
        assert_eq!(found.is_ok(), sound, "{raw}: {found:?}");
    }
}

/// Blocks can be sound while the records in them are not: a faulty writer's, or made on purpose.
#[test]
fn records_that_contradict_their_commit_are_damage() {
    let record = |stream: &mut Vec<u8>, seq| {
        encode_record(stream, RecordHead { seq, stored: 1, raw: 1, zstd: false }, b"x");
    };
    for (seqs, records) in [(vec![2], 1), (vec![1], 2), (vec![1, 2], 1), (vec![1, 1], 2)] {
        let dir = filled(0);
        let path = segment::path_of(dir.path(), 1);
        let options = OpenOptions { write: true, create: Create::Never, direct: false };
        let file = disk().open(&path, options).unwrap();
        let header = segment::front_of(&*file, &path).unwrap().header;
        let mut stream = Vec::new();
        seqs.iter().for_each(|seq| record(&mut stream, *seq));
        let commit = Commit { start: DATA_START, blocks: 1, first_seq: 1, records, promised: DATA_START };
        file.write_at(&encode_commit(&stream, &commit, &Identity::of(&header)), commit.start).unwrap();
        let log = open(dir.path(), 2);
        let error = log.scan(1).unwrap().find_map(Result::err);
        let error = error.unwrap_or_else(|| panic!("records {seqs:?} of {records} were read"));
        assert_eq!(damage(error).0, "0000000000000001.seg", "records {seqs:?} of {records}");
    }
}

#[test]
fn an_unfinished_segment_is_removed_and_foreign_files_are_left() {
    let dir = filled(2);
    let create = |name: &str| {
        let options = OpenOptions { write: true, create: Create::New, direct: false };
        disk().open(&dir.path().join(name), options).unwrap().write_at(b"junk", 0).unwrap();
    };
    create("0000000000000009.seg.new");
    create("README");
    assert_eq!(open(dir.path(), 2).durable(), 2);
    let names: Vec<_> = disk().list(dir.path()).unwrap().into_iter().map(|e| e.name).collect();
    assert!(names.iter().all(|name| !name.ends_with(".new")) && names.contains(&"README".into()), "{names:?}");
    create("3.seg");
    let error = Log::open(disk(), dir.path(), ID, 3, small()).unwrap_err();
    assert!(error.to_string().contains("3.seg, offset 0: expected a number of 16 hexadecimal digits"), "{error}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "something else than the log cuts its file")]
fn an_inspection_tells_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(inspect(&*disk(), &dir.path().join("none"), true).unwrap(), Default::default());
    let log = open(dir.path(), 5);
    log.append_batch(&[b"a", b"b"]).unwrap();
    log.commit().unwrap();
    drop(log);
    let log = open(dir.path(), 6);
    let report = inspect(&*disk(), dir.path(), true).unwrap();
    assert_eq!((report.first_seq, report.last_seq, report.bytes), (1, 2, log.bytes()));
    let segments: Vec<_> = report.segments.iter().map(|s| (s.id, s.epoch, s.first_seq, s.last_seq, s.used)).collect();
    assert_eq!(segments, [(1, 5, 1, Some(2), 3 * BLOCK_BYTES), (2, 6, 3, Some(2), DATA_START)]);
    drop(log);
    // One that was made ahead, and is too short, is damage like another.
    let ahead = segment::path_of(dir.path(), 2);
    let file = std::fs::OpenOptions::new().write(true).open(&ahead).unwrap();
    file.set_len(segments_len(&report) - BLOCK_BYTES).unwrap();
    let damage = inspect(&*disk(), dir.path(), true).unwrap().damage;
    assert!(matches!(&damage[..], [one] if one.file == ahead), "{damage:?}");
}

fn segments_len(report: &super::LogReport) -> u64 {
    report.segments[1].bytes
}

#[test]
fn any_bytes_decode_to_records_or_an_error() {
    let dir = filled(3);
    let file = disk().open(&segment::path_of(dir.path(), 1), OpenOptions::READ).unwrap();
    let mut good = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut good, 0).unwrap();
    assert_eq!(decode_segment(&good).unwrap().iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 2, 3]);
    for len in (0..good.len()).step_by(997) {
        assert!(decode_segment(&good[..len]).is_err(), "{len} bytes");
    }
    // Records that lie, in blocks that do not: the checksum is put right after each change.
    let header = super::format::decode_header(&good).unwrap();
    let identity = super::format::Identity::of(&header);
    let block = super::format::decode_block(&good[2 * BLOCK..3 * BLOCK], &identity, DATA_START).unwrap();
    let (commit, stream) = (block.commit, block.payload.to_vec());
    for at in 0..super::format::RECORD_HEAD {
        for value in [0, 1, 0x7f, 0xff] {
            let mut stream = stream.clone();
            if stream[at] == value {
                continue;
            }
            stream[at] = value;
            let mut bad = good[..2 * BLOCK].to_vec();
            bad.extend_from_slice(&super::format::encode_commit(&stream, &commit, &identity));
            bad.resize(good.len(), 0);
            assert!(decode_segment(&bad).is_err(), "byte {at} = {value}");
        }
    }
}
