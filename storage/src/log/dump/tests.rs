use tempfile::TempDir;

use super::*;
use crate::disk::{Create, PosixDisk};
use crate::log::{Log, LogOptions};

const ALL: Dump = Dump { chain: true, blocks: true, records: true };

fn open(dir: &Path, epoch: u64) -> Log {
    let options = LogOptions { segment_bytes: 8 * BLOCK_BYTES, ..LogOptions::default() };
    Log::open(std::sync::Arc::new(PosixDisk::new()), dir, 7, epoch, options).unwrap()
}

/// Segment 1 is full: commits of one record of 6000 bytes (2 blocks). Segment 2 has one more. Then an opening: segment 3.
fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    for seq in 1..=4_u64 {
        let mut state = seq;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seq);
            (state >> 56) as u8
        });
        log.append(&noise.take(6000).collect::<Vec<_>>()).unwrap();
        log.commit().unwrap();
    }
    log.append(&[b'z'; 5000]).unwrap();
    log.append(b"short").unwrap();
    log.commit().unwrap();
    drop(log);
    drop(open(dir.path(), 2));
    dir
}

fn lines(dir: &TempDir, what: Dump) -> Vec<DumpLine> {
    let mut lines = Vec::new();
    dump(&PosixDisk::new(), dir.path(), what, &mut |line| lines.push(line)).unwrap();
    lines
}

fn flip(dir: &TempDir, id: u64, offset: u64) {
    let options = OpenOptions { write: true, create: Create::Never, direct: false };
    let file = PosixDisk::new().open(&segment::path_of(dir.path(), id), options).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, offset).unwrap();
    file.write_at(&[byte[0] ^ 1], offset).unwrap();
}

fn seqs(lines: &[DumpLine]) -> Vec<Seq> {
    lines.iter().filter_map(|l| if let DumpLine::Record(r) = l { Some(r.seq) } else { None }).collect()
}

fn damage(lines: &[DumpLine]) -> Vec<(String, u64)> {
    let of = |l: &DumpLine| match l {
        DumpLine::Damage(d) => Some((d.file.file_name().unwrap().to_str().unwrap().to_owned(), d.offset)),
        _ => None,
    };
    lines.iter().filter_map(of).collect()
}

fn file(id: u64) -> String {
    format!("{id:016x}.seg")
}

#[test]
fn a_sound_log_is_listed_whole() {
    let dir = filled();
    let lines = lines(&dir, ALL);
    assert_eq!((seqs(&lines), damage(&lines)), ((1..=6).collect(), vec![]));
    let ends: Vec<_> =
        lines.iter().filter_map(|l| if let DumpLine::Segment(s) = l { Some((s.id, s.end)) } else { None }).collect();
    let data = |n| DATA_START + n * BLOCK_BYTES;
    assert_eq!(ends, [(1, Some((data(6), 3))), (2, Some((data(3), 6))), (3, Some((data(0), 6)))]);
    let sound =
        |l: &&DumpLine| matches!(l, DumpLine::Block(DumpBlock { state: BlockState::Sound { .. }, void: false, .. }));
    assert_eq!(lines.iter().filter(sound).count(), 9);
    let zeros = BlockState::Zeros { blocks: 8 - DATA_START / BLOCK_BYTES };
    let expected = DumpBlock { segment: 3, offset: DATA_START, void: true, state: zeros };
    assert!(lines.contains(&DumpLine::Block(expected)));
}

#[test]
fn lines_print_what_a_person_looks_for() {
    let dir = filled();
    let text: Vec<String> = lines(&dir, ALL).iter().map(DumpLine::to_string).collect();
    let block = DATA_START + 2 * BLOCK_BYTES;
    for expected in [
        "epoch 1, after 0 bytes of segment 0, records 1 to 3, ends at".to_owned(),
        format!("epoch 1, after {} bytes of segment 1, records 4 to 6, ends at", DATA_START + 6 * BLOCK_BYTES),
        "no record, the next is 7, ends at".to_owned(),
        format!(
            "block at {DATA_START}: 0 of 2 of the commit at {DATA_START}, 1 records from 1, promising {DATA_START}, 4056 bytes"
        ),
        format!("record 6, ends in the block at {block}: 5 bytes: \"short\""),
        "5000 bytes, ".to_owned(),
        " compressed: \"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\"…".to_owned(),
    ] {
        assert!(text.iter().any(|line| line.contains(&expected)), "{expected} is not in\n{}", text.join("\n"));
    }
}

#[test]
fn behind_damage_it_goes_on_with_the_next_commit() {
    for (damaged, kept) in [(0, [2, 3]), (1, [2, 3]), (2, [1, 3]), (3, [1, 3]), (5, [1, 2])] {
        let dir = filled();
        let offset = DATA_START + damaged * BLOCK_BYTES;
        flip(&dir, 1, offset + 77);
        let lines = lines(&dir, ALL);
        assert_eq!(seqs(&lines), [&kept[..], &[4, 5, 6]].concat(), "block {damaged}");
        assert_eq!(damage(&lines), [(file(1), offset)]);
        let unsound = |l: &DumpLine| matches!(l, DumpLine::Block(b) if b.offset == offset && matches!(b.state, BlockState::Unsound { .. }));
        assert_eq!(lines.iter().filter(|l| unsound(l)).count(), 1);
    }
}

#[test]
fn damaged_headers_are_told_and_the_rest_is_listed() {
    let dir = filled();
    flip(&dir, 2, 20);
    let found = lines(&dir, ALL);
    // Segment 1's end is not known without segment 2, but its records are.
    assert_eq!((seqs(&found), damage(&found)), (vec![1, 2, 3], vec![(file(2), 0)]));
    flip(&dir, 2, 20);
    flip(&dir, 3, 20);
    let found = lines(&dir, Dump { records: true, ..Dump::default() });
    assert_eq!((seqs(&found), damage(&found)), ((1..=6).collect(), vec![(file(3), 0)]));
}

#[test]
fn a_directory_that_is_not_there_has_nothing() {
    let mut lines = Vec::new();
    dump(&PosixDisk::new(), Path::new("/nowhere/at/all"), ALL, &mut |line| lines.push(line)).unwrap();
    assert_eq!(lines, []);
}

/// Makes segment 4 ahead, of a file that was segment 1: its old blocks stand there still.
fn make_ahead(dir: &TempDir) {
    let disk = std::sync::Arc::new(PosixDisk::new());
    let first = segment::path_of(dir.path(), 1);
    let third = segment::path_of(dir.path(), 3);
    let name = |id, path: &Path| Name { id, path: path.into(), file_len: 8 * BLOCK_BYTES };
    let header = segment::read_front(&*disk, &name(3, &third), false).unwrap().header;
    let free = segment::free_path_of(dir.path(), 1);
    std::fs::copy(&first, &free).unwrap();
    let header = Header { segment: 4, ..header };
    crate::log::maker::Maker::new(disk, dir.path(), header, Some(name(1, &free))).finish().unwrap();
}

#[test]
fn a_segment_that_was_made_ahead_is_said_to_be_so_and_has_nothing() {
    let dir = filled();
    make_ahead(&dir);
    let options = OpenOptions { write: true, create: Create::New, direct: false };
    let free = PosixDisk::new().open(&segment::free_path_of(dir.path(), 9), options).unwrap();
    free.write_at(&[1; 5000], 0).unwrap();
    let found = lines(&dir, ALL);
    assert_eq!((seqs(&found), damage(&found)), ((1..=6).collect(), vec![]));
    let text: Vec<String> = found.iter().map(DumpLine::to_string).collect();
    let chain: Vec<&String> = text.iter().filter(|line| !line.starts_with(' ')).collect();
    assert!(chain[2].contains("no record, the next is 7, ends at 8192"), "{}", chain[2]);
    assert!(chain[3].starts_with("segment 4: 32768 bytes, ") && chain[3].ends_with("made ahead, has not begun"));
    assert!(chain[4].starts_with("free file ") && chain[4].ends_with("0000000000000009.free: 5000 bytes"));
    assert_eq!(chain.len(), 5);
    let ahead = found.iter().filter_map(|l| if let DumpLine::Block(b) = l { Some(b) } else { None });
    let ahead: Vec<_> = ahead.filter(|b| b.segment == 4).collect();
    assert_eq!(ahead.len(), 6);
    assert!(ahead.iter().all(|b| b.void && matches!(b.state, BlockState::Unsound { .. })));
}

#[test]
fn a_damaged_link_is_told_and_the_records_behind_it_are_listed() {
    for (id, file_offset) in [(1, 4096 + 20), (2, 4096 + 20)] {
        let dir = filled();
        flip(&dir, id, file_offset);
        let found = lines(&dir, ALL);
        assert_eq!((seqs(&found), damage(&found)), ((1..=6).collect(), vec![(file(id), LINK_AT)]), "segment {id}");
        let text = found.iter().map(DumpLine::to_string).find(|l| l.starts_with(&format!("segment {id}: "))).unwrap();
        assert!(text.contains("its link is not sound, records up to "), "{text}");
    }
}
