//! What spans the whole spine: models, damage, golden bytes.

mod cached;
mod damage;
mod floor;
mod golden;
mod model;
mod sabotage;
mod walks;

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::disk::{Disk, SimDisk};

/// A small generator: the crate has no random numbers of its own.
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

const STORE: u128 = 0x1234_5678_9abc_def0;
const DIR: &str = "/store/runs";

fn disk() -> Arc<dyn Disk> {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    Arc::new(disk)
}

/// A context with so much cache, and memory enough for what is not on disk. Each has an epoch of its own.
fn context(disk: &Arc<dyn Disk>, cache: u64) -> Arc<SpineContext> {
    context_of(disk, 64 << 20, cache)
}

fn context_of(disk: &Arc<dyn Disk>, tables: u64, cache: u64) -> Arc<SpineContext> {
    let names = disk.list(Path::new(DIR)).unwrap();
    let last = names.iter().filter_map(|e| e.name.split('-').next()?.parse::<u64>().ok()).max();
    let options = SpineOptions { memory_bytes: tables + cache, cache_bytes: Some(cache), epoch: last.unwrap_or(0) + 1 };
    SpineContext::new(Arc::clone(disk), Path::new(DIR), STORE, options)
}

fn rows(of: &[(&[u8], &[u8], i64)]) -> RowBatch {
    let mut batch = RowBatch::new();
    of.iter().for_each(|(k, v, w)| batch.push(k, v, *w));
    batch
}

/// Everything that a cursor shows.
fn all(spine: &Spine) -> Result<RowBatch> {
    let mut cursor = spine.cursor()?;
    let mut out = RowBatch::new();
    while cursor.valid() {
        out.push(cursor.key(), cursor.value(), cursor.weight());
        cursor.next()?;
    }
    Ok(out)
}

/// Flushes and installs.
fn flush(context: &Arc<SpineContext>, spine: &mut Spine) -> Result<SpineMeta> {
    let frozen = spine.snapshot();
    let mut writer = RunFileWriter::new(context);
    let mut flushed = writer.flush(&frozen)?;
    writer.finish()?;
    let meta = flushed.meta().clone();
    flushed.install();
    Ok(meta)
}

#[test]
fn what_crosses_threads_may() {
    fn send<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    send::<Spine>();
    send::<Cursor>();
    send::<Snapshot>();
    send::<Flushed>();
    send::<RunFileWriter>();
    shared::<SpineContext>();
}

#[test]
fn a_row_over_the_bound_is_refused_whole() {
    let mut spine = Spine::ephemeral(Discipline::Latest);
    let batch = rows(&[(b"a", b"", 1), (b"k", &vec![0; MAX_ROW_BYTES], 1)]);
    let error = spine.insert_batch(&batch).unwrap_err();
    assert!(error.to_string().contains("268435457 bytes"), "{error}");
    assert_eq!(spine.get(b"a").unwrap(), None);
}

#[test]
fn an_ephemeral_spine_keeps_its_rows_at_a_freeze_and_cannot_be_flushed() {
    let mut spine = Spine::ephemeral(Discipline::Weighted);
    spine.insert_batch(&rows(&[(b"k", b"v", 1)])).unwrap();
    let frozen = spine.snapshot();
    assert_eq!(spine.stats().memtable_rows, 1);
    let context = context(&disk(), 64 << 20);
    let error = RunFileWriter::new(&context).flush(&frozen).unwrap_err();
    assert!(error.to_string().contains("ephemeral"), "{error}");
}

#[test]
fn a_second_flush_waits_for_the_first() {
    let context = context(&disk(), 64 << 20);
    let mut spine = Spine::open(Arc::clone(&context), SpineMeta::empty("s", Discipline::Weighted, 1)).unwrap();
    spine.insert_batch(&rows(&[(b"k", b"v", 1)])).unwrap();
    let first = spine.snapshot();
    spine.insert_batch(&rows(&[(b"k", b"v", 1)])).unwrap();
    let second = spine.snapshot();
    let mut writer = RunFileWriter::new(&context);
    let mut flushed = writer.flush(&first).unwrap();
    let error = writer.flush(&second).unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
    let again = writer.flush(&second);
    assert!(again.is_err(), "a refused flush must not end the other's guard");
    writer.finish().unwrap();
    flushed.install();
    assert_eq!(all(&spine).unwrap().weight(0), 2);
    let stats = spine.stats();
    assert_eq!((stats.frozen_tables, stats.runs), (1, 1));
    assert_eq!((stats.memtable_rows, stats.frozen_rows, stats.run_rows), (0, 1, 1));
    let mut writer = RunFileWriter::new(&context);
    writer.flush(&second).unwrap().install();
    assert_eq!((spine.stats().frozen_tables, spine.stats().runs), (0, 2));
}

/// Rows of so many bytes in all, of keys that no other batch has.
fn many(rng: &mut Rng, bytes: usize) -> RowBatch {
    let mut batch = RowBatch::new();
    while batch.bytes() < bytes {
        batch.push(&rng.below(u64::MAX).to_be_bytes(), &[7; 100], 1);
    }
    batch
}

/// Memory that is short has tables written, not all merges done: those free none.
#[test]
fn full_memory_does_not_wait_for_merges() {
    let (disk, mut rng) = (disk(), Rng::new(9));
    let plenty = context(&disk, 0);
    let mut idle = Spine::open(Arc::clone(&plenty), SpineMeta::empty("idle", Discipline::Weighted, 1)).unwrap();
    let mut meta = None;
    for _ in 0..4 {
        idle.insert_batch(&many(&mut rng, 2 << 20)).unwrap();
        meta = Some(flush(&plenty, &mut idle).unwrap());
    }
    drop(idle);
    for held in [false, true] {
        let context = context_of(&disk, 1 << 20, 0);
        let mut spine = Spine::open(Arc::clone(&context), SpineMeta::empty("s", Discipline::Latest, 1)).unwrap();
        let mut snapshots = Vec::new();
        for _ in 0..3 {
            spine.insert_batch(&many(&mut rng, 300 << 10)).unwrap();
            snapshots.extend(Some(spine.snapshot()).filter(|_| held));
        }
        let idle = Spine::open(Arc::clone(&context), meta.clone().unwrap()).unwrap();
        spine.insert_batch(&many(&mut rng, 200 << 10)).unwrap();
        assert_eq!(context.memtable_bytes() > 1 << 20, held, "{} bytes", context.memtable_bytes());
        assert_eq!(idle.stats().runs, 4, "held: {held}: all was merged meanwhile");
    }
}

/// Small tables that snapshots left are written together; what a snapshot that is still there holds stays a run of its own.
#[test]
fn tables_of_snapshots_are_written_together() {
    let disk = disk();
    let context = context(&disk, 0);
    for (held, files) in [(false, 1), (true, 2)] {
        let name = format!("held-{held}");
        let mut spine = Spine::open(Arc::clone(&context), SpineMeta::empty(&name, Discipline::Latest, 1)).unwrap();
        let before = disk.list(Path::new(DIR)).unwrap().len();
        let mut kept = None;
        for i in 0..MANY_TABLES as u64 + 1 {
            spine.insert_batch(&rows(&[(b"k", &i.to_be_bytes(), 1), (&i.to_be_bytes(), b"", 1)])).unwrap();
            let snapshot = spine.snapshot();
            kept = if i == 3 && held { Some(snapshot) } else { kept };
        }
        for _ in 0..files {
            // The insert that finds too many of them, and with a snapshot between them one more.
            assert!(spine.stats().frozen_tables > 0);
            context.merger().spill(&spine.shared);
            spine.insert_batch(&rows(&[(b"x", b"", 1)])).unwrap();
        }
        assert_eq!((spine.stats().frozen_tables, spine.stats().runs), (0, files), "held: {held}");
        assert_eq!(disk.list(Path::new(DIR)).unwrap().len() - before, files);
        assert_eq!(all(&spine).unwrap().len(), MANY_TABLES + 3);
        let newest = MANY_TABLES as u64;
        assert_eq!(spine.get(b"k").unwrap().unwrap(), newest.to_be_bytes());
        if let Some(kept) = kept {
            assert_eq!(kept.get(b"k").unwrap().unwrap(), 3u64.to_be_bytes());
            let mut writer = RunFileWriter::new(&context);
            let flushed = writer.flush(&kept).unwrap();
            writer.finish().unwrap();
            let then = Spine::open(Arc::clone(&context), flushed.meta().clone()).unwrap();
            assert_eq!(all(&then).unwrap().len(), 5, "exactly what was there then");
        }
    }
}

#[test]
fn a_flush_that_is_dropped_loses_nothing() {
    let context = context(&disk(), 64 << 20);
    let mut spine = Spine::open(Arc::clone(&context), SpineMeta::empty("s", Discipline::Latest, 1)).unwrap();
    spine.insert_batch(&rows(&[(b"k", b"old", 1)])).unwrap();
    let frozen = spine.snapshot();
    drop(RunFileWriter::new(&context).flush(&frozen).unwrap());
    spine.insert_batch(&rows(&[(b"k", b"new", 1), (b"l", b"", -1)])).unwrap();
    let meta = flush(&context, &mut spine).unwrap();
    assert_eq!(meta.runs.iter().map(|r| r.rows).collect::<Vec<_>>(), [1], "tombstones go where nothing is older");
    assert_eq!(spine.get(b"k").unwrap().as_deref(), Some(&b"new"[..]));
}

#[test]
fn rows_that_cancel_out_leave_no_run_and_no_file() {
    let disk = disk();
    let context = context(&disk, 64 << 20);
    let mut spine = Spine::open(Arc::clone(&context), SpineMeta::empty("s", Discipline::Weighted, 1)).unwrap();
    spine.insert_batch(&rows(&[(b"a", b"v", 1), (b"b", b"v", 1), (b"c", b"v", 1)])).unwrap();
    spine.insert_batch(&rows(&[(b"a", b"v", -1)])).unwrap();
    let frozen = spine.snapshot();
    spine.insert_batch(&rows(&[(b"b", b"v", -1), (b"c", b"v", -1)])).unwrap();
    assert!(all(&spine).unwrap().is_empty());
    drop(frozen);
    let frozen = spine.snapshot();
    let mut writer = RunFileWriter::new(&context);
    let mut flushed = writer.flush(&frozen).unwrap();
    assert_eq!(writer.finish().unwrap(), RunFile::default());
    flushed.install();
    assert_eq!(spine.stats(), SpineStats::default());
    assert!(disk.list(Path::new(DIR)).unwrap().is_empty());
}

#[test]
fn a_cursor_shows_the_state_it_was_made_in() {
    let context = context(&disk(), 64 << 20);
    let mut spine = Spine::open(Arc::clone(&context), SpineMeta::empty("s", Discipline::Latest, 1)).unwrap();
    spine.insert_batch(&rows(&[(b"a", b"1", 1), (b"b", b"1", 1)])).unwrap();
    let mut cursor = spine.cursor().unwrap();
    spine.insert_batch(&rows(&[(b"a", b"2", 1), (b"b", b"", -1)])).unwrap();
    flush(&context, &mut spine).unwrap();
    assert_eq!((cursor.key(), cursor.value()), (&b"a"[..], &b"1"[..]));
    cursor.next().unwrap();
    assert_eq!((cursor.key(), cursor.value()), (&b"b"[..], &b"1"[..]));
    assert_eq!(all(&spine).unwrap(), rows(&[(b"a", b"2", 1)]));
}

#[test]
fn one_checkpoint_of_many_spines_is_one_file_and_one_sync() {
    let disk = disk();
    let context = context(&disk, 64 << 20);
    let mut spines: Vec<Spine> = (0..20)
        .map(|i| Spine::open(Arc::clone(&context), SpineMeta::empty(&i.to_string(), Discipline::Weighted, 1)).unwrap())
        .collect();
    for spine in &mut spines {
        spine.insert_batch(&rows(&[(spine.name().to_owned().as_bytes(), b"v", 1)])).unwrap();
    }
    let before = disk.stats();
    let mut writer = RunFileWriter::new(&context);
    let mut flushed: Vec<_> = spines.iter_mut().map(|s| writer.flush(&s.snapshot()).unwrap()).collect();
    let file = writer.finish().unwrap();
    let after = disk.stats();
    assert_eq!((file.runs, after.syncs - before.syncs, after.dir_syncs - before.dir_syncs), (20, 1, 1));
    assert_eq!(after.writes - before.writes, 1, "20 small runs fit one large write");
    flushed.iter_mut().for_each(Flushed::install);
    for spine in &spines {
        assert_eq!(all(spine).unwrap().key(0), spine.name().as_bytes());
    }
}

#[test]
fn rows_larger_than_a_block_and_one_key_over_many_blocks() {
    let disk = disk();
    let context = context(&disk, 64 << 20);
    let mut spine = Spine::open(Arc::clone(&context), SpineMeta::empty("s", Discipline::Weighted, 1)).unwrap();
    let mut want = RowBatch::new();
    let mut noise = Rng::new(1);
    for i in 0..300u32 {
        // Values that share their first 64 bytes, so that the index cannot tell them apart.
        let mut value = vec![7; 70];
        value.extend(i.to_be_bytes());
        value.extend((0..1000).map(|_| noise.below(256) as u8));
        want.push(b"hot", &value, 1);
    }
    want.push(b"huge", &vec![1; 3 << 20], 1);
    want.push(&vec![b'k'; 100_000], b"", 1);
    spine.insert_batch(&want).unwrap();
    flush(&context, &mut spine).unwrap();
    assert_eq!(all(&spine).unwrap(), want);
    let mut keys = KeyBatch::new();
    [&b"huge"[..], b"hot", b"ho"].iter().for_each(|k| keys.push(k));
    let found = spine.probe(&keys).unwrap();
    assert_eq!(found.offsets, [0, 1, 301, 301]);
    let mut cursor = spine.cursor().unwrap();
    for i in (0..300).rev() {
        cursor.seek_row(b"hot", want.value(i)).unwrap();
        assert_eq!((cursor.key(), cursor.value()), (&b"hot"[..], want.value(i)), "row {i}");
    }
}
