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
//! # Savepoints and copies
//!
//! [`Store::savepoint`] keeps the newest checkpoint by name, [`copy_savepoint`] makes a store of its own of it. A copy is a new
//! incarnation: [`Recovered::savepoint`] tells an embedder that what it opened is one.
//!
//! # Another number of workers
//!
//! A store does not know what a worker is. An embedder that divides its state among workers, and wants to open a checkpoint
//! with another number of them, lets each key begin with a *vnode*: one byte, a hash of what the rows are distributed by. Each
//! worker owns a range of vnodes and has a spine of its own. To divide anew it reads each old spine by one cursor for each new
//! owner's range, writes the rows into the new owners' spines, and names the old ones in [`Checkpoint::dropped`] of the next
//! checkpoint. Until that is durable the old spines are what counts, so a crash in between begins again:
//!
//! ```
//! use backstay_storage::spine::{Discipline, RowBatch, Spine};
//! use backstay_storage::{Checkpoint, Store, StoreOptions, disk};
//!
//! /// The vnodes that worker `of` of `workers` owns.
//! fn vnodes(of: usize, workers: usize) -> std::ops::Range<usize> {
//!     of * 256 / workers..(of + 1) * 256 / workers
//! }
//!
//! /// Takes over the rows of a range of vnodes, some at a time.
//! fn take_over(from: &Spine, to: &mut Spine, vnodes: std::ops::Range<usize>) -> backstay_storage::Result<()> {
//!     let mut rows = RowBatch::new();
//!     let mut cursor = from.cursor()?;
//!     cursor.seek(&[vnodes.start as u8])?;
//!     while cursor.valid() && usize::from(cursor.key()[0]) < vnodes.end {
//!         rows.push(cursor.key(), cursor.value(), cursor.weight());
//!         if rows.bytes() > 1 << 20 {
//!             to.insert_batch(&rows)?;
//!             rows.clear();
//!         }
//!         cursor.next()?;
//!     }
//!     to.insert_batch(&rows)
//! }
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
//! # let mut one = store.spine("counts#0/1", Discipline::Weighted, 1)?;
//! # let mut rows = RowBatch::new();
//! # (0..=255u8).for_each(|vnode| rows.push(&[vnode, b'k'], b"", 1));
//! # one.insert_batch(&rows)?;
//! // One worker's state is divided among three.
//! let mut frozen = Vec::new();
//! for worker in 0..3 {
//!     let mut new = store.spine(&format!("counts#{worker}/3"), Discipline::Weighted, 1)?;
//!     take_over(&one, &mut new, vnodes(worker, 3))?;
//!     frozen.push(new.snapshot());
//! }
//! store.checkpoint(Checkpoint { frozen, dropped: vec!["counts#0/1".into()], ..Checkpoint::default() })?;
//! # drop((one, store));
//! # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
//! # assert_eq!(store.spine_names(), ["counts#0/3", "counts#1/3", "counts#2/3"]);
//! # let mut found = 0;
//! # for name in store.spine_names() {
//! #     let spine = store.spine(&name, Discipline::Weighted, 1)?;
//! #     let mut cursor = spine.cursor()?;
//! #     while cursor.valid() {
//! #         found += cursor.weight();
//! #         cursor.next()?;
//! #     }
//! # }
//! # assert_eq!(found, 256);
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

pub use checkpoint::savepoint::check_name as check_savepoint_name;
pub use checkpoint::{Checkpoint, CheckpointInfo, Recovered};
pub use error::{Damage, Error, Result};
pub use store::*;
