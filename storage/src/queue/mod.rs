//! A bounded queue of batches from one thread to another, lock-free while neither side has to wait.
//!
//! [`channel`] makes a single-producer, single-consumer ring. Several producers take one ring each: the
//! consumer then decides the order in which it reads them, which keeps results independent of thread timing.
//!
//! Layers:
//! - `ring`: the lock-free core and the only `unsafe` code, checked with loom (`--cfg loom`);
//! - `channel`: the two halves, who also know how to park until the other side moves.
//!
//! Invariants:
//! 1. Items leave in the order in which they entered, each exactly once; what is left when both halves are gone
//!    is dropped.
//! 2. An item that was sent before the sender was dropped is received.
//! 3. A side that parks is woken by the other side's next move or its drop (proof beside `channel::Side`).

mod channel;
pub(crate) mod gather;
pub(crate) mod inbox;
pub(crate) mod lead;
mod ring;
pub(crate) mod striped;
mod sync;

pub use channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TrySendError, channel};
