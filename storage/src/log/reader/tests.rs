use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::disk::sim::Fault;
use crate::disk::{Disk, OpenOptions, SimDisk};
use crate::log::format::{Commit, Identity, Link, encode_commit, encode_record};
use crate::log::source::{CHUNK, READ_AHEAD};

const FILE: &str = "/log/segment";

fn header(segment_bytes: u64) -> Header {
    Header { store_id: 7, segment: 1, epoch: 3, segment_bytes, window: u64::MAX }
}

fn noise(seq: Seq, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| ((i + 1).wrapping_mul(seq * 2 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 53) as u8)
        .collect()
}

/// A segment of records of these lengths, `each` to a commit.
fn segment(lens: &[usize], each: usize) -> (Header, Tail, Vec<u8>) {
    let header = header(1 << 30);
    let mut bytes = vec![0; DATA_START as usize];
    let mut seq = 0;
    for lens in lens.chunks(each) {
        let (mut stream, first_seq) = (Vec::new(), seq + 1);
        for len in lens {
            seq += 1;
            let head = RecordHead { seq, stored: *len as u32, raw: *len as u32, zstd: false };
            encode_record(&mut stream, head, &noise(seq, *len));
        }
        let blocks = crate::log::format::blocks_for(stream.len()) as u32;
        let (start, records) = (bytes.len() as u64, lens.len() as u32);
        let commit = Commit { start, blocks, first_seq, records, promised: DATA_START };
        bytes.extend_from_slice(&encode_commit(&stream, &commit, &Identity::of(&header)));
    }
    let tail = Tail { end: bytes.len() as u64, last_seq: seq };
    (header, tail, bytes)
}

fn disk_with(bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/log")).unwrap();
    disk.overwrite(Path::new(FILE), 0, bytes).unwrap();
    disk
}

/// A reader with reads in flight, and one of memory.
fn readers(disk: &SimDisk, header: &Header, tail: Tail) -> [SegmentReader; 2] {
    let path = Path::new(FILE);
    let file = disk.open(path, OpenOptions::READ_DIRECT).unwrap();
    let map = disk.map(&file, tail.end.min(file.len().unwrap())).unwrap();
    let part = DATA_START..tail.end;
    let head = Head { header: header.clone(), link: Link { first_seq: 1, prev_len: 0 } };
    let ahead = Source::ahead(ReadAhead::new(disk, READ_AHEAD).unwrap(), file, path, part.clone());
    [ahead, Source::memory(Bytes::from_owner(map), path, part)].map(|source| SegmentReader::new(source, &head, tail))
}

fn read(reader: &mut SegmentReader, from: Seq) -> (Vec<(Seq, Bytes)>, Option<Error>) {
    let mut records = Vec::new();
    loop {
        match reader.next(from) {
            Ok(Some(record)) => records.push((record.seq, record.payload)),
            Ok(None) => return (records, None),
            Err(e) => return (records, Some(e)),
        }
    }
}

/// Lengths that put heads and payloads on, before and behind the ends of blocks and chunks, and a record over three chunks.
fn awkward() -> Vec<usize> {
    let mut lens = vec![0, 1, 4036, 4037, 4035, 4016, 4056, 4017, 8112, 3 * CHUNK, 5, CHUNK];
    lens.extend((0..4000).map(|i| i * 7 % 611));
    lens.extend((0..300).map(|i| 4000 + i));
    lens.extend([100_000; 30]);
    lens
}

#[test]
fn records_on_every_seam_are_whole() {
    let lens = awkward();
    for each in [1, 7, lens.len()] {
        let (header, tail, bytes) = segment(&lens, each);
        let disk = disk_with(&bytes);
        for from in [0, 2, 11, 3000, tail.last_seq, tail.last_seq + 1] {
            for mut reader in readers(&disk, &header, tail) {
                let (records, error) = read(&mut reader, from);
                assert!(error.is_none(), "{each} a commit, from {from}: {error:?}");
                let first = from.max(1);
                assert_eq!(records.len() as u64, tail.last_seq + 1 - first, "{each} a commit, from {from}");
                for ((seq, payload), expected) in records.iter().zip(first..) {
                    assert_eq!(*seq, expected);
                    // Held until all were read: none changes when the reader goes on.
                    assert!(*payload == noise(*seq, lens[*seq as usize - 1]), "record {seq}, {each} a commit");
                }
            }
        }
    }
}

#[test]
fn damage_anywhere_ends_the_records_right_there() {
    let lens = [30, 5000, 300, 9000, 12, 0, 700_000, 40, 800_000, 3];
    let (header, tail, bytes) = segment(&lens, 2);
    let sound = disk_with(&bytes);
    let [mut reader, _] = readers(&sound, &header, tail);
    // Which records end before each block.
    let mut ends = Vec::new();
    while let Some(stored) = reader.next_stored(0).unwrap() {
        ends.push(stored.block);
    }
    for at in (DATA_START..tail.end).step_by(37 * BLOCK + 11) {
        let mut bad = bytes.clone();
        bad[at as usize] ^= 4;
        let disk = disk_with(&bad);
        let block = at / BLOCK_BYTES * BLOCK_BYTES;
        for mut reader in readers(&disk, &header, tail) {
            let (records, error) = read(&mut reader, 0);
            let Some(Error::Damaged(damage)) = error else { panic!("{error:?}") };
            assert_eq!((damage.offset, damage.what), (block, "log block"));
            assert_eq!(records.len(), ends.iter().filter(|end| **end < block).count(), "flipped at {at}");
        }
    }
}

#[test]
fn a_file_that_is_too_short_gives_what_it_has() {
    let (header, tail, bytes) = segment(&[3000; 400], 1);
    for len in [DATA_START, DATA_START + 10 * BLOCK_BYTES, DATA_START + 300 * BLOCK_BYTES + 100] {
        let disk = disk_with(&bytes[..len as usize]);
        for mut reader in readers(&disk, &header, tail) {
            let (records, error) = read(&mut reader, 0);
            let Some(Error::Damaged(damage)) = error else { panic!("{error:?}") };
            assert_eq!((records.len() as u64, damage.offset), ((len - DATA_START) / BLOCK_BYTES, len));
            assert_eq!(damage.expected, format!("a file of {} bytes", tail.end));
        }
    }
}

#[test]
fn what_was_read_before_a_failed_read_comes_first() {
    let (header, tail, bytes) = segment(&[3000; 1000], 1);
    let mut counts = Vec::new();
    for failing in 1..=4 {
        // The same disk each time: it completes reads out of order, but in the same order.
        let disk = disk_with(&bytes);
        let [mut reader, _] = readers(&disk, &header, tail);
        disk.fail_at(disk.ops() + failing, Fault::Io);
        let (records, error) = read(&mut reader, 0);
        assert!(matches!(error, Some(Error::Io { .. })), "{error:?}");
        counts.push(records.len());
    }
    counts.sort();
    assert_eq!(counts, [0, 256, 512, 768]);
}

#[test]
fn a_segment_must_end_with_its_tail() {
    let (header, tail, bytes) = segment(&[3000, 5000, 10], 1);
    let disk = disk_with(&bytes);
    let cut = Tail { end: tail.end - 2 * BLOCK_BYTES, last_seq: 2 };
    let wrong = [
        (cut, "log commit", "a commit that ends by 16384"),
        (Tail { last_seq: 4, ..tail }, "log segment", "whole commits up to 24576 with record 4"),
    ];
    for (tail, what, expected) in wrong {
        for mut reader in readers(&disk, &header, tail) {
            let Some(Error::Damaged(damage)) = read(&mut reader, 0).1 else { panic!("{tail:?} was believed") };
            assert_eq!((damage.what, damage.expected.as_str()), (what, expected));
        }
    }
}

#[test]
fn payloads_are_slices_of_what_was_read() {
    let lens = [100; 2000];
    let (header, tail, bytes) = segment(&lens, 2000);
    let disk = disk_with(&bytes);
    for (mut reader, crossing_too) in readers(&disk, &header, tail).into_iter().zip([true, false]) {
        let records = read(&mut reader, 0).0;
        let (first, last) = (records[0].1.as_ptr() as usize, records[1999].1.as_ptr() as usize);
        // One chunk, or two windows of the map: all lie in the same memory, but for those that were gathered.
        let inside = records.iter().filter(|(_, p)| (first..=last).contains(&(p.as_ptr() as usize))).count();
        assert!(if crossing_too { inside == 2000 } else { inside >= 1940 }, "{inside} of 2000");
    }
}

#[test]
fn buffers_are_used_again_once_their_payloads_are_gone() {
    let (header, tail, bytes) = segment(&[60_000; 200], 10);
    let disk = Arc::new(disk_with(&bytes));
    let [mut reader, _] = readers(&disk, &header, tail);
    let mut places = std::collections::BTreeSet::new();
    while let Some(record) = reader.next(0).unwrap() {
        places.insert(record.payload.as_ptr() as usize / CHUNK);
    }
    // 12 chunks were read; each buffer of 1 MiB touches two of these places, what crosses chunks a few more.
    assert!(places.len() <= 2 * (READ_AHEAD + 2) + 4, "{} places", places.len());
}
