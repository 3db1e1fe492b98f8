//! The engines, behind what the workloads need of them.

pub mod backstay;
#[cfg(feature = "dbsp")]
pub mod dbsp;
pub mod fjall;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;

use std::path::Path;

use crate::data::{Batch, Key};

/// What the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One value a key, the last one counts.
    Latest,
    /// Several rows a key.
    Several,
}

/// What an engine is given. The same for all.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// Bytes for blocks of tables, decoded.
    pub cache: u64,
    /// Bytes for rows that are not yet in tables.
    pub memtables: u64,
    /// Whether every level is compressed with what compresses best, as for the comparison of sizes.
    pub small: bool,
}

impl Given {
    /// A budget of so many bytes, half for each purpose, but no more than two memtables of 64 MiB.
    pub fn budget(bytes: u64) -> Self {
        let memtables = (bytes / 2).min(128 << 20);
        Self { cache: bytes - memtables, memtables, small: false }
    }

    pub fn total(self) -> u64 {
        self.cache + self.memtables
    }
}

/// One engine's table of rows, in one folder. Nothing is durable before [`Engine::finish`].
pub trait Engine {
    /// Inserts rows with keys in any order.
    fn insert(&mut self, batch: &Batch);

    /// Adds to the counters of keys that are there: ascending keys, each once.
    fn add(&mut self, deltas: &[(Key, u64)]);

    /// Makes all durable and in tables: nothing is left in memtables.
    fn finish(&mut self);

    /// Waits until nothing is done in the background any more.
    fn settle(&mut self) {}

    /// How many of some ascending keys are there; looks at each value.
    fn probe(&mut self, keys: &[Key]) -> u64;

    /// Reads all rows in order: how many.
    fn scan(&mut self) -> u64;

    /// From each start on, reads `rows` rows: how many in all.
    fn ranges(&mut self, starts: &[Key], rows: usize) -> u64;

    /// Reads all rows of some ascending keys of a [`Shape::Several`]: how many.
    fn join(&mut self, keys: &[Key]) -> u64;

    /// Folders in its own that hold none of the rows: a log that nothing is appended to.
    fn beside(&self) -> &[&str] {
        &[]
    }
}

/// Contenders by name. Two ways to use an engine are two contenders.
pub const BACKSTAY: &str = "backstay";
/// Counters as weights of rows, which are added to without being read: Backstay's answer to a merge operator.
pub const WEIGHTS: &str = "backstay-weights";
#[cfg(feature = "rocksdb")]
pub const PEERS: &[&str] = &["rocksdb", "fjall"];
#[cfg(not(feature = "rocksdb"))]
pub const PEERS: &[&str] = &["fjall"];

/// Who takes part in `join` beside them: the spine of another engine of incremental views.
#[cfg(feature = "dbsp")]
pub const SPINES: &[&str] = &["dbsp"];
#[cfg(not(feature = "dbsp"))]
pub const SPINES: &[&str] = &[];

/// Opens a contender's table, new if there is none.
pub fn open(contender: &str, folder: &Path, shape: Shape, given: Given) -> Box<dyn Engine> {
    match contender {
        BACKSTAY => Box::new(backstay::Backstay::open(folder, shape, given, false)),
        WEIGHTS => Box::new(backstay::Backstay::open(folder, shape, given, true)),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => Box::new(rocksdb::Rocks::open(folder, shape, given, false)),
        #[cfg(feature = "rocksdb")]
        "rocksdb-merge" => Box::new(rocksdb::Rocks::open(folder, shape, given, true)),
        #[cfg(feature = "dbsp")]
        "dbsp" => Box::new(dbsp::Dbsp::open(folder, given)),
        "fjall" => Box::new(fjall::Fjall::open(folder, shape, given)),
        other => panic!("no contender {other}"),
    }
}

/// What each is told, for the output.
pub fn describe() {
    backstay::describe();
    #[cfg(feature = "rocksdb")]
    rocksdb::describe();
    #[cfg(not(feature = "rocksdb"))]
    println!("rocksdb:     left out of this build (--no-default-features)");
    fjall::describe();
    #[cfg(feature = "dbsp")]
    dbsp::describe();
    #[cfg(not(feature = "dbsp"))]
    println!("dbsp:        left out of this build (--features dbsp)");
}

/// The version of a crate that this bench was built with.
fn version(name: &str) -> &'static str {
    let lock = include_str!("../../../Cargo.lock");
    let name = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    lines.next().map_or("unknown", |line| line.trim_start_matches("version = ").trim_matches('"'))
}

/// The key of a row where a key has one value: its own key, then which of them it is.
fn several_key(key: &Key, seq: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(key);
    bytes[16..].copy_from_slice(&seq.to_be_bytes());
    bytes
}

/// Reads a little of each value, so that it has to be there.
fn look(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |first| u64::from_le_bytes(*first)) ^ value.len() as u64
}
