//! `backstay api-key`: makes a key of the service's API, shows it once, and keeps its hash.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::Failure;
use crate::server::manager::keys;

/// What `api-key` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The key is shown this once; the file gets its hash. Any of a file's keys will do: to replace one, make
another, restart the service, give the new key to its clients, and delete the old line.")]
pub struct Args {
    /// The file of hashes, for `backstay serve --api-key-file`; made if it is not there.
    file: PathBuf,
    /// What the key is for.
    #[arg(long, default_value = "")]
    label: String,
}

/// Runs the command.
#[expect(clippy::disallowed_methods, reason = "a file that the user names on the command line is not durable state")]
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.label.chars().any(char::is_control) {
        return Err(Failure::usage("--label: one line of text"));
    }
    let key = keys::generate([uuid::Uuid::new_v4(), uuid::Uuid::new_v4()]);
    // First, as it is known to nobody else once the hash is kept.
    outln!("{key}");
    let line = format!("{}\n", keys::line(&key, &args.label));
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&args.file);
    let kept = file.and_then(|mut file| file.write_all(line.as_bytes()).and_then(|()| file.sync_all()));
    kept.map_err(|e| {
        Failure::new(1, format!("the key is not kept in {}, and does not count: {e}", args.file.display()))
    })?;
    Ok(())
}
