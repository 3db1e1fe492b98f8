//! The pipeline: the step loop and everything that makes it resume at the exact next row.
//!
//! - `open` finds out where to go on: newest checkpoint, operator state, sinks;
//! - `orchestration` says which connectors are at work;
//! - `replay` runs the logged steps after it again, verified;
//! - [`recovery`] has what a person chose where a replay is impossible;
//! - [`controller`] cuts, logs, runs and delivers new steps, and takes checkpoints;
//! - [`input`] and [`output`] are the connectors at work, [`checkpointer`] writes checkpoints beside the steps;
//! - [`push`] has the rows that clients send: in the log before they are acknowledged;
//! - [`taken`] has those of inputs that need not be there for a replay: in the log, with their step;
//! - [`schedule`] says when these have their turns.
//!
//! Invariants (the design's, and where they are kept): write ahead — [`controller`] waits for step record n before it hands deltas of n to
//! outputs; replay identity — `replay` verifies each input's rows and each view's delta; non-blocking checkpoints — the
//! controller only freezes, [`checkpointer`] writes.
//!
//! Known limits: a pipeline's SQL cannot change over kept state.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

pub mod answer;
pub mod batch;
pub mod checkpointer;
pub mod clock;
pub mod config;
pub mod controller;
pub mod error;
pub mod feed;
mod hash;
pub mod histogram;
pub mod input;
pub mod measure;
mod open;
mod orchestration;
pub mod output;
mod pending;
pub mod push;
pub mod query;
pub mod record;
pub mod recovery;
mod replay;
pub mod rows;
pub mod savepoint;
pub mod schedule;
pub mod state;
pub mod status;
pub mod taken;
pub mod timed;

pub use clock::{Clock, SystemClock};
pub use config::PipelineConfig;
pub use controller::{Environment, Options, Summary, run};
pub use error::{PipelineError, Result};
pub use open::check_connectors;
pub use schedule::{Scheduler, Threads};
pub use status::Control;
