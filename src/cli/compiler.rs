//! `backstay compiler`: for the service, which has programs compiled by processes of their own. Not for people.

use super::Failure;
use crate::server::manager::compiler::{Bounds, child};

/// What `compiler` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// MiB of memory that it may take.
    #[arg(long, value_name = "N")]
    max_memory_mib: u32,
    /// Seconds that it may take.
    #[arg(long, value_name = "N")]
    max_secs: u32,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let bounds = Bounds { memory_mib: args.max_memory_mib, secs: args.max_secs };
    child::answer(bounds).map_err(|e| Failure::new(1, e))
}
