//! A log-structured storage engine: an append-only [segment log](log), an LSM-style [spine] for keyed,
//! weighted state, and fsync-ordered [checkpoints](checkpoint) that tie the two together.
//!
//! It knows bytes and weights, never SQL. Start from [`Store`].
//!
//! An embedder works in steps. Each is appended to the log before its effect leaves the process, and applied to spines. A
//! checkpoint now and then bounds what has to be replayed after a crash:
//!
//! ```
//! use backstay_storage::spine::{Discipline, RowBatch};
//! use backstay_storage::{Checkpoint, Store, StoreOptions, disk};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let (dir, new_id) = (dir.path(), 0x5eed);
//! fn apply(totals: &mut backstay_storage::spine::Spine, step: &[u8]) -> backstay_storage::Result<()> {
//!     let mut rows = RowBatch::new();
//!     rows.push(step, b"", 1);
//!     totals.insert_batch(&rows)
//! }
//!
//! {
//!     let store = Store::open(disk::system(), dir, StoreOptions { new_id, ..StoreOptions::default() })?;
//!     let mut totals = store.spine("totals", Discipline::Weighted, 1)?;
//!     for step in [b"apple", b"peach"] {
//!         store.log().append(step)?;
//!         store.log().commit()?; // durable: now the outside world may hear of it
//!         apply(&mut totals, step)?;
//!     }
//!     let log_from = store.log().next_seq();
//!     store.checkpoint(Checkpoint { frozen: vec![totals.snapshot()], log_from, ..Checkpoint::default() })?;
//!     store.log().append(b"apple")?;
//!     store.log().commit()?;
//! } // or kill -9
//!
//! let store = Store::open(disk::system(), dir, StoreOptions::default())?;
//! let mut totals = store.spine("totals", Discipline::Weighted, 1)?;
//! let log_from = store.recovered().map_or(1, |checkpoint| checkpoint.log_from);
//! for record in store.log().scan(log_from)? {
//!     apply(&mut totals, &record?.payload)?;
//! }
//! let mut cursor = totals.cursor()?;
//! cursor.seek(b"apple")?;
//! assert_eq!((cursor.key(), cursor.weight()), (&b"apple"[..], 2));
//! # Ok::<(), backstay_storage::Error>(())
//! ```
//!
//! The map: [`disk`] is the only door to the file system, with io_uring, plain and simulated implementations; [`log`],
//! [`spine`] and [`checkpoint`] are the engine; [`inspect`] reports on a store without touching it; [`queue`] hands batches
//! from thread to thread. The formats are described byte by byte in `docs/format.md`.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod checkpoint;
pub mod disk;
mod error;
pub mod inspect;
pub mod log;
pub mod queue;
#[doc(hidden)]
pub mod sabotage;
pub mod spine;
mod store;

pub use checkpoint::{Checkpoint, CheckpointInfo, Recovered};
pub use error::{Damage, Error, Result};
pub use store::*;
