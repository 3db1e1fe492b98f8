//! Run files.
//!
//! The first byte says how the rest is meant:
//! - 0 (mod 3): bytes for each decoder as they are, and as the payload of a frame with a sound checksum;
//! - 1 (mod 3): damage done to sound run files. What a cursor or a probe gives without an error is what was written;
//! - 2 (mod 3): blocks, filter pages and index of the input's own in a file whose checksums are right.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::spine::format::{block, footer, frame, header, index};
use backstay_storage::spine::{
    Discipline, KeyBatch, RowBatch, RunMeta, Spine, SpineContext, SpineMeta, SpineOptions, cut_key, run_file_name,
    verify_run,
};
use backstay_storage::{Error, Result};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::input::Input;
use crate::{patch, seeds};

/// Where the run files are.
pub const DIR: &str = "/runs";
/// The store they belong to.
pub const STORE: u128 = 42;
const EXTENT: u64 = 4096;

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() % 3 {
        0 => decoders(input),
        1 => damaged(input),
        _ => made(input),
    }
}

fn decoders(mut input: Input<'_>) {
    let (count, kind, codec) = (input.u16(), input.u8(), input.u8());
    let bytes = input.0;
    let discipline = if kind % 2 == 0 { Discipline::Weighted } else { Discipline::Latest };
    let _ = header::decode_header(bytes);
    let _ = footer::decode_footer(bytes, 7, EXTENT);
    let _ = index::decode_index(bytes, u32::from(count), u32::from(codec));
    if let Ok(block) = block::Block::read(bytes.to_vec(), u32::from(count), discipline) {
        assert_eq!(block.to_rows().len(), usize::from(count));
    }
    let kinds = [frame::Kind::Block, frame::Kind::Index, frame::Kind::Keys, frame::Kind::Rows];
    for kind in kinds {
        let _ = frame::decode(bytes, kind, 7, EXTENT);
        let raw = u32::from(count) * if codec > 127 { 1 << 16 } else { 1 };
        let sealed = frame(kind, codec % 4, 7, EXTENT, 0, raw, bytes);
        if let Ok(frame) = frame::decode(&sealed, kind, 7, EXTENT) {
            assert_eq!(frame.raw.len(), raw as usize);
        }
    }
}

/// A frame with a sound checksum.
fn frame(kind: frame::Kind, codec: u8, ident: u64, offset: u64, count: u32, raw: u32, stored: &[u8]) -> Vec<u8> {
    let mut head = vec![kind as u8, codec, 0, 0];
    for field in [stored.len() as u32, raw, count] {
        head.extend(field.to_le_bytes());
    }
    let place = [&ident.to_le_bytes()[..], &offset.to_le_bytes(), &head].concat();
    let sum = xxh3_64_with_seed(stored, xxh3_64(&place));
    [&head[..], &sum.to_le_bytes(), stored].concat()
}

fn damaged(mut input: Input<'_>) {
    let (files, metas, sound) = seeds::run_files();
    let mut files = files.clone();
    patch::apply(&mut files, &mut input, 512);
    let context = context(&files);
    for (meta, sound) in metas.iter().zip(sound) {
        let verified: Result<Vec<()>> = meta.runs.iter().map(|run| verify_run(&context, meta, run)).collect();
        let walked = Spine::open(context.clone(), meta.clone()).and_then(|spine| walk(&spine));
        if let Ok(rows) = &walked {
            assert!(rows == sound, "a damaged {} spine shows other rows", meta.discipline);
            if let Ok(spine) = Spine::open(context.clone(), meta.clone())
                && let Ok(back) = walk_back(&spine)
            {
                assert!(
                    back.iter().eq(backward(sound)),
                    "a damaged {} spine shows other rows backward",
                    meta.discipline
                );
            }
        }
        assert!(verified.is_err() || walked.is_ok(), "verified, and yet: {:?}", walked.err());
        if let Ok(mut spine) = Spine::open(context.clone(), meta.clone())
            && let Ok(probe) = spine.probe(&every_seventh(sound))
        {
            let expected: RowBatch = probed(sound);
            assert!(probe.rows == expected, "a damaged {} spine finds other rows", meta.discipline);
            if let Ok(weights) = spine.probe_rows(sound) {
                let expected = sound.iter().map(|(_, _, weight)| weight);
                assert!(expected.eq(weights), "a damaged {} spine finds other weights", meta.discipline);
            }
        }
    }
}

/// A store's context over these files.
fn context(files: &[(PathBuf, Vec<u8>)]) -> Arc<SpineContext> {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(DIR)).expect("a directory on a new disk");
    for (path, bytes) in files {
        disk.overwrite(path, 0, bytes).expect("a file on a new disk");
    }
    SpineContext::new(
        Arc::new(disk),
        Path::new(DIR),
        STORE,
        SpineOptions { memory_bytes: 1 << 20, ..SpineOptions::default() },
    )
}

/// All rows in order.
pub fn walk(spine: &Spine) -> Result<RowBatch> {
    let mut rows = RowBatch::new();
    let mut cursor = spine.cursor()?;
    while cursor.valid() {
        rows.push(cursor.key(), cursor.value(), cursor.weight());
        cursor.next()?;
    }
    Ok(rows)
}

/// All rows from the last to the first.
fn walk_back(spine: &Spine) -> Result<RowBatch> {
    let mut rows = RowBatch::new();
    let mut cursor = spine.cursor()?;
    cursor.seek_last()?;
    while cursor.valid() {
        rows.push(cursor.key(), cursor.value(), cursor.weight());
        cursor.prev()?;
    }
    Ok(rows)
}

fn backward(rows: &RowBatch) -> impl Iterator<Item = (&[u8], &[u8], i64)> {
    (0..rows.len()).rev().map(|i| (rows.key(i), rows.value(i), rows.weight(i)))
}

/// Some of the keys, and one that is not there.
fn every_seventh(rows: &RowBatch) -> KeyBatch {
    let mut keys = KeyBatch::new();
    for key in distinct(rows).iter().step_by(7) {
        keys.push(key);
    }
    keys.push(b"\xff none");
    keys
}

fn distinct(rows: &RowBatch) -> Vec<&[u8]> {
    let mut keys: Vec<_> = rows.iter().map(|(key, _, _)| key).collect();
    keys.dedup();
    keys
}

/// The rows of these keys.
fn probed(rows: &RowBatch) -> RowBatch {
    let keys: std::collections::BTreeSet<_> = distinct(rows).into_iter().step_by(7).collect();
    let mut found = RowBatch::new();
    for (key, value, weight) in rows.iter().filter(|(key, _, _)| keys.contains(key)) {
        found.push(key, value, weight);
    }
    found
}

/// A run file of the input's making.
fn made(mut input: Input<'_>) {
    let discipline = if input.u8().is_multiple_of(2) { Discipline::Weighted } else { Discipline::Latest };
    let identity = [&STORE.to_le_bytes()[..], &1u64.to_le_bytes(), &1u64.to_le_bytes()].concat();
    let ident = xxh3_64(&identity);
    let (mut extent, mut entries, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rows, mut blocks) = (0u64, 0u32);
    let (mut min_key, mut max_key) = (Vec::new(), Vec::new());
    for _ in 0..input.u8() % 5 {
        let (claimed, first, value, last) = (input.u16(), input.counted(), input.counted(), input.counted());
        let payload = input.counted();
        let offset = EXTENT + extent.len() as u64;
        let bytes = frame(frame::Kind::Block, 0, ident, offset, claimed.into(), payload.len() as u32, payload);
        for number in [bytes.len(), claimed.into(), first.len(), value.len(), last.len()] {
            varint(&mut entries, number as u64);
        }
        [first, value, last].iter().for_each(|part| entries.extend(*part));
        if blocks == 0 {
            min_key = cut_key(first).to_vec();
        }
        max_key = cut_key(last).to_vec();
        sums.extend(&bytes[16..24]);
        extent.extend(bytes);
        rows += u64::from(claimed);
        blocks += 1;
    }
    // One group of blocks, and its pages: how many entries they claim to have, and their bytes; none of rows if there are no bytes.
    let mut group = Vec::new();
    varint(&mut group, blocks.into());
    for kind in [frame::Kind::Keys, frame::Kind::Rows] {
        let (count, payload) = (input.u16(), input.counted());
        let offset = EXTENT + extent.len() as u64;
        let bytes = frame(kind, 0, ident, offset, count.into(), payload.len() as u32, payload);
        let bytes = if kind == frame::Kind::Rows && payload.is_empty() { &[] } else { &bytes[..] };
        varint(&mut group, bytes.len() as u64);
        sums.extend(bytes.get(16..24).unwrap_or_default());
        extent.extend(bytes);
    }
    let data_len = extent.len() as u64;
    // What is left, if anything, is an index of the input's own.
    let made = [group, entries].concat();
    let entries = if input.is_empty() { &made } else { input.0 };
    let offset = EXTENT + data_len;
    let bytes = frame(frame::Kind::Index, 0, ident, offset, blocks, entries.len() as u32, entries);
    sums.extend(&bytes[16..24]);
    let index_len = bytes.len() as u64;
    extent.extend(bytes);
    let footer_at = EXTENT + extent.len() as u64;
    let mut foot = b"BSTYFOOT".to_vec();
    foot.extend(2u32.to_le_bytes());
    foot.extend([discipline.as_u8(), 0, 0, 0]);
    foot.extend(1u32.to_le_bytes());
    foot.extend(blocks.to_le_bytes());
    for field in [rows, 0, EXTENT, data_len, index_len, 0, xxh3_64(&sums), rows, 0, rows, 1] {
        foot.extend(field.to_le_bytes());
    }
    let checksum = xxh3_64_with_seed(&foot, ident ^ footer_at);
    extent.extend(&foot);
    extent.extend(checksum.to_le_bytes());

    let mut file = b"BSTYRUN1".to_vec();
    file.extend(2u32.to_le_bytes());
    file.extend([0; 4]);
    file.extend(&identity);
    file.resize(4096 - 8, 0);
    file.extend(xxh3_64(&file).to_le_bytes());
    file.extend(&extent);
    file.resize(file.len().next_multiple_of(4096), 0);

    let name = run_file_name(1, 1);
    let context = context(&[(Path::new(DIR).join(&name), file)]);
    let len = extent.len() as u64;
    let run = RunMeta { file: name, offset: EXTENT, len, checksum, rows, raw_bytes: 0, min_key, max_key };
    let meta = SpineMeta { runs: vec![run], ..SpineMeta::empty("made", discipline, 1) };
    for run in &meta.runs {
        let _ = verify_run(&context, &meta, run);
    }
    let mut spine = match Spine::open(context, meta) {
        Ok(spine) => spine,
        Err(Error::Damaged(damage)) => {
            // The envelope is right, so that only what the input chose can be wrong.
            assert!(!damage.what.contains("footer") && !damage.what.contains("header"), "{damage:?}");
            return;
        }
        Err(e) => panic!("neither damage nor sound: {e}"),
    };
    if let Ok(rows) = walk(&spine)
        && let Ok(mut cursor) = spine.cursor()
    {
        for (key, value, _) in rows.iter().step_by(3) {
            let _ = cursor.seek_row(key, value);
            let _ = cursor.prev();
            let _ = cursor.seek_for_prev(key);
            let _ = cursor.next();
            let _ = cursor.seek(key);
        }
        let _ = walk_back(&spine);
        let _ = spine.probe(&every_seventh(&rows));
        let _ = spine.probe_rows(&rows);
    }
}

/// Appends a LEB128 number.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
