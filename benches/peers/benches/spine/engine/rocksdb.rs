//! RocksDB's tables: leveled, no write-ahead log.
//!
//! Settings, by its own tuning guide ("Setup Options and Basic Tuning"): level 1 as large as what level 0 compacts at, dynamic
//! level sizes, blocks of 16 KiB with a hash index in each for point look-ups, full bloom filters of 10 bits, LZ4 above and
//! zstd in the last level (zstd in all where sizes are compared), four write buffers in the memory for memtables so that a
//! flush stalls nobody, a background job for each core and one more, subcompactions. Direct reads, flushes and compactions: without a
//! cgroup the kernel's page cache would be a second block cache, which nobody gave it. Filters and indexes are outside of the
//! block cache, as Backstay's are.
//!
//! A scan reads ahead by 2 MiB. Point look-ups are a batched, sorted MultiGet. A join walks one iterator with the key's 16
//! bytes as prefix, whose filter it asks.

use std::hint::black_box;
use std::path::Path;
use std::thread;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DataBlockIndexType,
    MergeOperands, Options, ReadOptions, SliceTransform, WaitForCompactOptions, WriteBatch, WriteOptions,
};

use super::{Engine, Given, Shape, look, several_key};
use crate::data::{self, Batch, KEY, Key};

const TABLE: &str = "default";
/// Tables of level 0 that are compacted.
const LEVEL_0: u64 = 4;

/// An open database.
pub struct Rocks {
    db: DB,
    shape: Shape,
    /// Whether counters are added to by the merge operator; else they are read and written.
    merge: bool,
    unlogged: WriteOptions,
}

impl Rocks {
    pub fn open(folder: &Path, shape: Shape, given: Given, merge: bool) -> Self {
        let options = options(shape, given, merge);
        let table = ColumnFamilyDescriptor::new(TABLE, options.clone());
        let db = DB::open_cf_descriptors(&options, folder, [table]).expect("open RocksDB");
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        Self { db, shape, merge, unlogged }
    }

    fn table(&self) -> &ColumnFamily {
        self.db.cf_handle(TABLE).expect("the default column family")
    }

    fn write(&self, batch: WriteBatch) {
        self.db.write_opt(batch, &self.unlogged).expect("write");
    }
}

fn options(shape: Shape, given: Given, merge: bool) -> Options {
    let cores = thread::available_parallelism().map_or(1, usize::from) as i32;
    let write_buffer = given.memtables / 4;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.increase_parallelism(cores + 1);
    options.set_max_subcompactions(cores as u32);
    options.set_use_direct_reads(true);
    options.set_use_direct_io_for_flush_and_compaction(true);
    options.set_write_buffer_size(write_buffer as usize);
    options.set_max_write_buffer_number(4);
    options.set_level_zero_file_num_compaction_trigger(LEVEL_0 as i32);
    options.set_max_bytes_for_level_base(LEVEL_0 * write_buffer);
    options.set_target_file_size_base((LEVEL_0 * write_buffer / 4).clamp(2 << 20, 64 << 20));
    options.set_level_compaction_dynamic_level_bytes(true);
    if cfg!(feature = "rocksdb-compression") {
        let above = if given.small { DBCompressionType::Zstd } else { DBCompressionType::Lz4 };
        options.set_compression_type(above);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
    } else {
        options.set_compression_type(DBCompressionType::None);
    }
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(given.cache as usize));
    blocks.set_block_size(16 << 10);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_format_version(6);
    match shape {
        Shape::Latest => {
            blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
            blocks.set_data_block_hash_ratio(0.75);
        }
        Shape::Several => {
            options.set_prefix_extractor(SliceTransform::create_fixed_prefix(KEY));
            options.set_memtable_prefix_bloom_ratio(0.1);
            blocks.set_whole_key_filtering(false);
        }
    }
    options.set_block_based_table_factory(&blocks);
    if merge {
        options.set_merge_operator("add to a counter", add_all, sum);
    }
    options
}

/// The value with all deltas added to its counter.
fn add_all(_: &[u8], value: Option<&[u8]>, deltas: &MergeOperands) -> Option<Vec<u8>> {
    let mut value = value.map_or_else(|| vec![0; data::VALUE], <[u8]>::to_vec);
    deltas.iter().for_each(|delta| data::add(&mut value, data::counter(delta)));
    Some(value)
}

/// Several deltas as one.
fn sum(_: &[u8], _: Option<&[u8]>, deltas: &MergeOperands) -> Option<Vec<u8>> {
    Some(deltas.iter().fold(0_u64, |sum, delta| sum.wrapping_add(data::counter(delta))).to_le_bytes().to_vec())
}

impl Engine for Rocks {
    fn insert(&mut self, batch: &Batch) {
        let mut writes = WriteBatch::default();
        for (i, key) in batch.keys.iter().enumerate() {
            match self.shape {
                Shape::Latest => writes.put(key, batch.value(i)),
                Shape::Several => writes.put(several_key(key, batch.seqs[i]), batch.value(i)),
            }
        }
        self.write(writes);
    }

    fn add(&mut self, deltas: &[(Key, u64)]) {
        let mut writes = WriteBatch::default();
        if self.merge {
            deltas.iter().for_each(|(key, delta)| writes.merge(key, delta.to_le_bytes()));
            return self.write(writes);
        }
        let found = self.db.batched_multi_get_cf(self.table(), deltas.iter().map(|(key, _)| key), true);
        let mut value = Vec::new();
        for (found, (key, delta)) in found.into_iter().zip(deltas) {
            value.clear();
            value.extend_from_slice(&found.expect("get").expect("a counter is gone"));
            data::add(&mut value, *delta);
            writes.put(key, &value);
        }
        self.write(writes);
    }

    fn finish(&mut self) {
        self.db.flush().expect("flush");
    }

    fn settle(&mut self) {
        self.db.wait_for_compact(&WaitForCompactOptions::default()).expect("wait for compactions");
    }

    fn probe(&mut self, keys: &[Key]) -> u64 {
        let (mut rows, mut sum) = (0, 0);
        for found in self.db.batched_multi_get_cf(self.table(), keys, true) {
            if let Some(value) = found.expect("get") {
                rows += 1;
                sum ^= look(&value);
            }
        }
        black_box(sum);
        rows
    }

    fn scan(&mut self) -> u64 {
        let mut options = ReadOptions::default();
        options.set_readahead_size(2 << 20);
        options.set_total_order_seek(true);
        let mut rows = self.db.raw_iterator_opt(options);
        rows.seek_to_first();
        let (mut read, mut sum) = (0, 0);
        while let Some(value) = rows.value() {
            read += 1;
            sum ^= look(value);
            rows.next();
        }
        rows.status().expect("scan");
        black_box(sum);
        read
    }

    fn ranges(&mut self, starts: &[Key], rows: usize) -> u64 {
        let mut walk = self.db.raw_iterator();
        let (mut read, mut sum) = (0, 0);
        for start in starts {
            walk.seek(start);
            for _ in 0..rows {
                let Some(value) = walk.value() else { break };
                read += 1;
                sum ^= look(value);
                walk.next();
            }
            walk.status().expect("range");
        }
        black_box(sum);
        read
    }

    fn join(&mut self, keys: &[Key]) -> u64 {
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        let mut walk = self.db.raw_iterator_opt(options);
        let (mut rows, mut sum) = (0, 0);
        for key in keys {
            walk.seek(key);
            while let Some((_, value)) = walk.item().filter(|(found, _)| found.starts_with(key)) {
                rows += 1;
                sum ^= look(value);
                walk.next();
            }
            walk.status().expect("join");
        }
        black_box(sum);
        rows
    }
}

/// What it is told.
pub fn describe() {
    let tables = if cfg!(feature = "rocksdb-compression") {
        "LZ4 above, zstd in the last level"
    } else {
        "NOT COMPRESSED: built without rocksdb-compression, no verdict on sizes"
    };
    println!(
        "rocksdb:     crate {}, librocksdb-sys {}; leveled, {tables}; 4 write buffers of memtables / 4, 16 KiB blocks, bloom 10 bits",
        super::version("rocksdb"),
        super::version("librocksdb-sys")
    );
    println!(
        "             no log, direct I/O, jobs = cores + 1; LRU block cache = cache; MultiGet sorted, prefix iterators"
    );
}
