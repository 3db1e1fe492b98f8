//! What the connectors' tests share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use backstay_storage::disk::{Create, Disk, OpenOptions, SimDisk};

use super::config::ConnectorConfig;
use super::{Chunk, Context, Descriptor, Input, InputReader, Next, Range, registry};

/// The columns that most tests use: `id BIGINT NOT NULL, name VARCHAR, at TIMESTAMP, price DOUBLE`.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("price", DataType::Float64, true),
    ]))
}

pub(crate) fn context(disk: Arc<dyn Disk>, schema: SchemaRef) -> Context {
    Context {
        name: "t.c".to_owned(),
        pipeline: "p".to_owned(),
        schema,
        declared: Vec::new(),
        primary_key: Vec::new(),
        append_only: false,
        rereads: true,
        disk,
        base_dir: PathBuf::from("/data"),
        variables: BTreeMap::new(),
    }
}

pub(crate) fn config(json: &str) -> ConnectorConfig {
    ConnectorConfig::parse_list("t", &format!("[{json}]")).unwrap().remove(0)
}

pub(crate) fn input(disk: &SimDisk, json: &str) -> Box<dyn Input> {
    registry::input(&config(json), context(Arc::new(disk.clone()), schema())).unwrap()
}

/// A disk with a `/data` folder.
pub(crate) fn disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk
}

/// Replaces a file's content.
pub(crate) fn put(disk: &dyn Disk, path: &str, bytes: &[u8]) {
    let options = OpenOptions { write: true, create: Create::IfAbsent, direct: false };
    let file = disk.open(Path::new(path), options).unwrap();
    file.set_len(0).unwrap();
    file.write_at(bytes, 0).unwrap();
}

pub(crate) fn append(disk: &dyn Disk, path: &str, bytes: &[u8]) {
    let options = OpenOptions { write: true, create: Create::IfAbsent, direct: false };
    let file = disk.open(Path::new(path), options).unwrap();
    let len = file.len().unwrap();
    file.write_at(bytes, len).unwrap();
}

/// All chunks until there is nothing more now.
pub(crate) fn drain(reader: &mut dyn InputReader) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    while let Next::Chunk(chunk) = reader.next().unwrap() {
        assert_eq!(chunk.rows.num_rows(), chunk.ends.len());
        chunks.push(chunk);
    }
    chunks
}

/// A generator of test choices.
#[derive(Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 += 1;
        let random = super::input::random::random(7, self.0, 1);
        super::input::random::below(random, n as u64) as usize
    }
}

/// A row of a chunk, with what it takes to compare it.
pub(crate) type Row = (String, u64, String, i64);

/// The rows and errors of chunks, in order: partition, offset (a row's end, an error's start), text, weight (0: an error).
pub(crate) fn rows(chunks: &[Chunk]) -> Vec<Row> {
    let mut all = Vec::new();
    for chunk in chunks {
        let partition = chunk.partition.to_string();
        for (i, end) in chunk.ends.iter().enumerate() {
            let weight = chunk.weights.as_ref().map_or(1, |w| w[i]);
            all.push((partition.clone(), *end, text(&chunk.rows.slice(i, 1)), weight));
        }
        all.extend(chunk.errors.iter().map(|e| (partition.clone(), e.offset, e.message.clone(), 0)));
    }
    all.sort();
    all
}

pub(crate) fn text(batch: &RecordBatch) -> String {
    let values = batch.columns().iter().map(|c| {
        let options = arrow::util::display::FormatOptions::default().with_null("NULL");
        let formatter = arrow::util::display::ArrayFormatter::try_new(c, &options).unwrap();
        (0..c.len()).map(|i| formatter.value(i).to_string()).collect::<Vec<_>>().join(";")
    });
    values.collect::<Vec<_>>().join(",")
}

pub(crate) fn all_rows(chunks: &[Chunk]) -> RecordBatch {
    concat_batches(&chunks[0].rows.schema(), chunks.iter().map(|c| &c.rows)).unwrap()
}

/// Cuts chunks into steps of random sizes, as the controller does: by rows, a bad row going with the row behind it or the chunk's end.
pub(crate) fn cut(chunks: &[Chunk], rng: &mut Rng) -> Vec<Descriptor> {
    let mut ranges: Vec<Range> = Vec::new();
    for chunk in chunks {
        let mut start = chunk.start;
        let mut ends: Vec<u64> = chunk.ends.iter().copied().filter(|_| rng.below(3) == 0).collect();
        ends.retain(|e| *e < chunk.end);
        ends.dedup();
        ends.push(chunk.end);
        for end in ends {
            let (partition, identity) = (chunk.partition.to_string(), chunk.identity.at(end));
            ranges.push(Range { partition, start, end, identity });
            start = end;
        }
    }
    let mut steps = Vec::new();
    let mut rest = &ranges[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(1 + rng.below(rest.len().min(3)));
        // A range goes on across chunks.
        let mut step: Vec<Range> = Vec::new();
        for range in now {
            match step.last_mut() {
                Some(last) if last.partition == range.partition && last.end == range.start => {
                    last.end = range.end;
                    last.identity.clone_from(&range.identity);
                }
                _ => step.push(range.clone()),
            }
        }
        steps.push(Descriptor { ranges: step });
        rest = later;
    }
    steps
}

/// Replaying every step gives what was read, and reading on from behind any step gives the rest.
pub(crate) fn check_replay(input: &dyn Input, chunks: &[Chunk], seed: u64) {
    let steps = cut(chunks, &mut Rng(seed));
    let mut replayed = Vec::new();
    let mut position = super::Position::default();
    for step in &steps {
        let again = input.replay(step).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(again.len() >= step.ranges.len(), "seed {seed}");
        for (a, b) in again.iter().zip(&again[1..]) {
            assert!(a.partition != b.partition || a.end == b.start, "seed {seed}");
        }
        let last = step.ranges.last().unwrap();
        assert_eq!(again.last().unwrap().identity.at(last.end), last.identity, "seed {seed}");
        replayed.extend(again);
        position.apply(step);
        if steps.len() < 20 || replayed.len() % 7 == 0 {
            let mut reader = input.open(&position).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let mut whole = replayed.clone();
            whole.extend(drain(&mut *reader));
            assert_eq!(rows(&whole), rows(chunks), "seed {seed}, position {position:?}");
        }
    }
    assert_eq!(rows(&replayed), rows(chunks), "seed {seed}");
}
