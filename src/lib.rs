//! SQL views kept up to date over streams and files, exactly once across `kill -9` and power loss.
//!
//! The way of the data: [`connector`]s parse input into chunks; the [`pipeline`] controller cuts them into steps, logs each
//! step's record, runs the [`circuit`] that [`sql`] was compiled to, and hands the views' deltas to output connectors.
//! State lives in [`backstay_storage`].

pub mod circuit;
pub mod cli;
pub mod connector;
pub mod logging;
pub mod pipeline;
pub mod sabotage;
pub mod server;
pub mod sql;
mod suggest;
