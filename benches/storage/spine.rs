//! The spine alone: batches of 10,000 rows in and probes of 10,000 keys, in memory and from runs in the block cache, beside what the
//! standard collections do with the same rows; then scans and short ranges of one run and of four, in the cache and not. Statistics
//! by criterion.

#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use backstay_storage::disk;
use backstay_storage::spine::{
    Discipline, KeyBatch, RowBatch, RunFileWriter, Spine, SpineContext, SpineMeta, SpineOptions,
};
use criterion::{BatchSize, Criterion, Throughput};
use hashbrown::HashMap;

/// Rows of a batch, keys of a probe.
const BATCH: u64 = 10_000;
/// Rows that are there when it is probed.
const LOADED: u64 = 1_000_000;
/// Ranges that are looked at together, and rows of each.
const RANGES: (u64, usize) = (1_000, 10);

fn main() {
    let args = common::Args::parse(&[], |_| {});
    let mut criterion = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(args.seconds.map_or(1500, |s| s * 100)))
        .without_plots();
    if let Some(filter) = &args.filter {
        criterion = criterion.with_filter(filter.clone());
    }
    let folder = args.folder();
    let disk = disk::system();
    println!("spine: batches of {BATCH} rows, {LOADED} rows when probed");
    common::describe_machine(folder.path(), &*disk);
    insert(&mut criterion);
    let context_disk = Arc::clone(&disk);
    let context = SpineContext::new(disk, folder.path(), 7, memory(256 << 20));
    probe(&mut criterion, &context);
    let uncached = SpineContext::new(context_disk, folder.path(), 7, memory(0));
    walk(&mut criterion, &context, &uncached);
    criterion.final_summary();
}

/// So much cache, and memory enough for all rows.
fn memory(cache_bytes: u64) -> SpineOptions {
    SpineOptions { memory_bytes: (1 << 30) + cache_bytes, cache_bytes: Some(cache_bytes), ..SpineOptions::default() }
}

/// Spreads numbers over all keys, so that batches are in no order.
fn key(n: u64) -> [u8; 9] {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = [0; 9];
    key[0] = (mixed >> 56) as u8;
    key[1..].copy_from_slice(&mixed.to_be_bytes());
    key
}

fn rows(numbers: std::ops::Range<u64>) -> RowBatch {
    let mut batch = RowBatch::with_capacity(BATCH as usize, BATCH as usize * 25);
    for n in numbers {
        batch.push(&key(n), &value(n), 1);
    }
    batch
}

fn value(n: u64) -> [u8; 16] {
    u128::from(n).to_be_bytes()
}

/// 20 batches into an empty one; the time is that of all of them.
fn insert(criterion: &mut Criterion) {
    let batches: Vec<RowBatch> = (0..20).map(|i| rows(i * BATCH..(i + 1) * BATCH)).collect();
    let mut group = criterion.benchmark_group("insert 20 batches");
    group.throughput(Throughput::Elements(20 * BATCH));
    for discipline in [Discipline::Latest, Discipline::Weighted] {
        group.bench_function(format!("{discipline} spine"), |b| {
            b.iter_batched_ref(
                || Spine::ephemeral(discipline),
                |spine| batches.iter().for_each(|batch| spine.insert_batch(batch).expect("insert")),
                BatchSize::PerIteration,
            );
        });
    }
    group.bench_function("HashMap, a key and a value on the heap", |b| {
        b.iter_batched_ref(
            HashMap::<Box<[u8]>, Box<[u8]>>::new,
            |map| {
                for (key, value, _) in batches.iter().flat_map(RowBatch::iter) {
                    map.insert(key.into(), value.into());
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("BTreeMap of (key, value) to weight", |b| {
        b.iter_batched_ref(
            BTreeMap::<(Box<[u8]>, Box<[u8]>), i64>::new,
            |map| {
                for (key, value, weight) in batches.iter().flat_map(RowBatch::iter) {
                    *map.entry((key.into(), value.into())).or_default() += weight;
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Keys that are there, spread over all of them, or keys that are not.
fn keys(from: u64) -> KeyBatch {
    let mut keys = KeyBatch::new();
    for n in 0..BATCH {
        keys.push(&key(from + n * 17 % LOADED));
    }
    keys
}

fn probe(criterion: &mut Criterion, context: &Arc<SpineContext>) {
    let (hit, miss) = (keys(0), keys(1 << 40));
    let all = rows(0..LOADED);
    let map: HashMap<Box<[u8]>, Box<[u8]>> = all.iter().map(|(k, v, _)| (k.into(), v.into())).collect();
    let tree: BTreeMap<Box<[u8]>, Box<[u8]>> = all.iter().map(|(k, v, _)| (k.into(), v.into())).collect();
    let mut group = criterion.benchmark_group("probe");
    group.throughput(Throughput::Elements(BATCH));
    for discipline in [Discipline::Latest, Discipline::Weighted] {
        let mut memory = Spine::ephemeral(discipline);
        let mut stored =
            Spine::open(context.clone(), SpineMeta::empty(&discipline.to_string(), discipline, 1)).expect("a spine");
        for i in 0..LOADED / BATCH {
            let batch = rows(i * BATCH..(i + 1) * BATCH);
            memory.insert_batch(&batch).expect("insert");
            stored.insert_batch(&batch).expect("insert");
        }
        let mut writer = RunFileWriter::new(context);
        let mut flushed = writer.flush(&stored.snapshot()).expect("flush");
        writer.finish().expect("finish");
        flushed.install();
        for (which, keys, found) in [("hit", &hit, BATCH as usize), ("miss", &miss, 0)] {
            for (place, spine) in [("memory", &mut memory), ("a cached run", &mut stored)] {
                assert_eq!(spine.probe(keys).expect("probe").rows.len(), found, "{which} in {place}");
                group.bench_function(format!("{which}, {discipline} spine in {place}"), |b| {
                    b.iter(|| black_box(spine.probe(keys).expect("probe").rows.len()));
                });
            }
        }
    }
    for (which, keys) in [("hit", &hit), ("miss", &miss)] {
        // What a probe gives: the values, copied.
        group.bench_function(format!("{which}, HashMap"), |b| {
            b.iter(|| black_box(found((0..keys.len()).filter_map(|i| map.get(keys.get(i))))));
        });
        group.bench_function(format!("{which}, BTreeMap"), |b| {
            b.iter(|| black_box(found((0..keys.len()).filter_map(|i| tree.get(keys.get(i))))));
        });
    }
    group.finish();
}

/// The values one after another, as a probe's result has them.
fn found<'a>(values: impl Iterator<Item = &'a Box<[u8]>>) -> Vec<u8> {
    let mut all = Vec::new();
    values.for_each(|value| all.extend_from_slice(value));
    all
}

/// Full scans and short ranges.
fn walk(criterion: &mut Criterion, cached: &Arc<SpineContext>, uncached: &Arc<SpineContext>) {
    let mut group = criterion.benchmark_group("walk");
    for runs in [1, 4] {
        let name = format!("{runs} run{}", if runs == 1 { "" } else { "s" });
        let meta = write_runs(cached, runs);
        let raw: u64 = meta.runs.iter().map(|run| run.raw_bytes).sum();
        let stored: u64 = meta.runs.iter().map(|run| run.len).sum();
        println!("{name}: {raw} raw bytes in {stored} on disk");
        for (place, context) in [("cached", cached), ("uncached", uncached)] {
            let spine = Spine::open(context.clone(), meta.clone()).expect("a spine");
            println!("{name}: {} resident bytes", spine.stats().resident_bytes);
            group.throughput(Throughput::Elements(LOADED));
            group.bench_function(format!("scan of {name}, {place}"), |b| b.iter(|| assert_eq!(scan(&spine), LOADED)));
            group.throughput(Throughput::Elements(RANGES.0));
            group.bench_function(format!("short ranges of {name}, {place}"), |b| b.iter(|| black_box(ranges(&spine))));
        }
    }
    group.finish();
}

/// A latest spine of so many runs; each newer one is far smaller, so that they are not merged.
fn write_runs(context: &Arc<SpineContext>, runs: u64) -> SpineMeta {
    let mut spine = Spine::open(context.clone(), SpineMeta::empty("walk", Discipline::Latest, 1)).expect("a spine");
    let mut from = 0;
    for run in 0..runs {
        let to = if run + 1 == runs { LOADED } else { LOADED - LOADED / 10u64.pow(run as u32 + 1) };
        for start in (from..to).step_by(BATCH as usize) {
            spine.insert_batch(&rows(start..to.min(start + BATCH))).expect("insert");
        }
        from = to;
        let mut writer = RunFileWriter::new(context);
        let mut flushed = writer.flush(&spine.snapshot()).expect("flush");
        writer.finish().expect("finish");
        flushed.install();
    }
    let meta = RunFileWriter::new(context).flush(&spine.snapshot()).expect("nothing to flush").meta().clone();
    assert_eq!(meta.runs.len() as u64, runs, "runs were merged");
    meta
}

fn scan(spine: &Spine) -> u64 {
    let mut cursor = spine.cursor().expect("a cursor");
    let mut rows = 0;
    while cursor.valid() {
        rows += 1;
        black_box((cursor.key(), cursor.value(), cursor.weight()));
        cursor.next().expect("next");
    }
    rows
}

fn ranges(spine: &Spine) -> usize {
    let mut cursor = spine.cursor().expect("a cursor");
    let mut bytes = 0;
    for n in 0..RANGES.0 {
        cursor.seek(&key(n * 977 % LOADED)).expect("seek");
        for _ in 0..RANGES.1 {
            bytes += cursor.key().len() + cursor.value().len();
            cursor.next().expect("next");
        }
    }
    bytes
}
