//! Those who make a payload durable.

pub mod backstay;
pub mod files;
pub mod okaywal;
pub mod raft_engine;
pub mod raw;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;

/// Appends a payload and returns once it is durable.
pub type Append<'a> = Box<dyn FnMut(&[u8]) + 'a>;

/// A log, or what stands for one.
pub trait Contender: Sync {
    /// What one thread appends with.
    fn worker(&self, thread: usize) -> Append<'_>;

    /// House-keeping between turns, which nobody times.
    fn settle(&self) {}
}
