//! The rows, in the order in which they run.

mod bulk;
mod durable;
mod raw;
pub mod reopen;
mod replay;

use crate::Bench;
use crate::report::Report;

/// A row's name, for the filter, and the row.
type Row = (&'static str, fn(&Bench, &mut Report));

/// All of them.
pub const ALL: [Row; 6] = [
    ("single", raw::single),
    ("grouped", raw::grouped),
    ("bulk", bulk::run),
    ("durable", durable::run),
    ("replay", replay::run),
    ("reopen", reopen::run),
];
