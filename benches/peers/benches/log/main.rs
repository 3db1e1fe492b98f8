//! The segment log beside its peers and what the device can do, in one run on one file system.
//!
//! Each row prints every contender's figures and the log's ratio to the best of what it is measured against, with the
//! target beside it. `--check` ends with status 1 if a target is missed.
//!
//! - Contenders take turns, every other round backwards; a figure is the median of the rounds, with least and most.
//! - A floor is the best of several ways to do the same raw work, so that no bad one flatters the log.
//! - Payloads are incompressible and the log is told not to compress: bytes are bytes.
//! - The log is trimmed behind its writer, as its peers recycle or purge, except where a row says otherwise.
//!
//! Known limits: every log is in the page cache or in flight when the next turn begins; the device is brought to rest
//! by a sync of the file system, not by waiting for its own caches or discards.

#![expect(clippy::disallowed_methods, reason = "a bench measures time, and its peers use files as other programs do")]

#[path = "../../../common/mod.rs"]
mod common;
#[path = "../../../common/figures.rs"]
mod figures;
#[path = "../../../common/raw.rs"]
mod raw;
#[path = "../../../common/step_files.rs"]
mod step_files;

mod bytes;
mod contender;
mod direct;
mod fio;
mod report;
mod row;
mod turns;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use backstay_storage::disk::{self, Disk};

use common::Args;
use report::Report;

/// Turns of one whole run, by which `--seconds` is divided.
const TURNS: f64 = 200.0;
/// A turn by default and with `--quick`.
const TURN: f64 = 1.0;
const QUICK_TURN: f64 = 0.3;

/// What every row is told.
struct Bench {
    /// Everything is put here.
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    /// How long a turn is.
    turn: Duration,
    quick: bool,
    /// fio's version, if it is installed.
    fio: Option<String>,
}

impl Bench {
    /// A new folder, removed when the value is dropped.
    fn new_folder(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(&self.folder).expect("a folder")
    }

    /// Brings the file system to rest, so that a turn does not pay for what was done before it.
    fn settle(&self) {
        let folder = std::fs::File::open(&self.folder).expect("the bench's folder");
        rustix::fs::syncfs(&folder).expect("syncfs");
    }
}

fn main() -> ExitCode {
    if let Some(words) = row::reopen::child_words() {
        return row::reopen::child(&words);
    }
    let (mut quick, mut check) = (false, false);
    let args = Args::parse(&["--quick", "--check"], |flag| match flag {
        "--quick" => quick = true,
        _ => check = true,
    });
    let folder = args.folder();
    let turn = args.seconds.map_or(if quick { QUICK_TURN } else { TURN }, |s| s as f64 / TURNS);
    let bench = Bench {
        folder: folder.path().into(),
        disk: disk::system(),
        turn: Duration::from_secs_f64(turn.max(0.05)),
        quick,
        fio: fio::version(),
    };
    bench.disk.probe(folder.path()).expect("probe");
    println!("log: the segment log beside its peers; turns of {:.2} s, {} rounds", turn.max(0.05), turns::ROUNDS);
    common::describe_machine(folder.path(), &*bench.disk);
    match &bench.fio {
        Some(version) => println!("fio:         {version}"),
        None => println!("fio:         not installed; the bench's own loops are the only floor"),
    }
    if !cfg!(feature = "rocksdb") {
        println!("rocksdb:     left out of this build (--no-default-features)");
    }

    let mut report = Report::default();
    for (name, run) in row::ALL {
        if args.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str())) {
            run(&bench, &mut report);
        }
    }
    let met = report.summary();
    ExitCode::from(u8::from(check && !met))
}
