//! `backstay inspect`: what a pipeline's data directory holds. Reads only, takes no lock, works on one that is in use or damaged.

use std::path::{Path, PathBuf};

use backstay_storage::checkpoint::Manifest;
use backstay_storage::inspect::{Report, dump_log, inspect as look};
use backstay_storage::log::Dump;
use backstay_storage::{Damage, disk};

use super::Failure;
use crate::pipeline::savepoint::refuse_strangers;
use crate::pipeline::state::PipelineState;

/// What `inspect` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The data directory.
    data_dir: PathBuf,
    /// Read and check every block of log, runs and pending output.
    #[arg(long)]
    verify: bool,
    /// List the log too, damage and all: its segments (chain), their blocks, their records. Several with commas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    log: Vec<LogPart>,
}

/// What of the log is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogPart {
    /// Segments and free files.
    Chain,
    /// Every block.
    Blocks,
    /// Every record.
    Records,
}

/// Runs the command.
pub(super) fn inspect(args: Args) -> Result<(), Failure> {
    let report = look(&disk::system(), &args.data_dir, args.verify).map_err(Failure::usage)?;
    refuse_strangers(&report)?;
    head(&report);
    for checkpoint in &report.checkpoints {
        let Manifest { number, epoch, .. } = checkpoint.manifest;
        let what = format!("checkpoint {number} (epoch {epoch}, {})", checkpoint.file);
        tell_manifest(&what, &checkpoint.manifest, checkpoint.whole);
    }
    for savepoint in &report.savepoints {
        let what = format!("savepoint {:?} of checkpoint {}", savepoint.name, savepoint.manifest.number);
        tell_manifest(&what, &savepoint.manifest, savepoint.whole);
    }
    files(&report);
    list_log(&report.dir, &args.log)?;
    damage(&report, args.verify)
}

/// Prints each line as it is found: a log may be longer than memory.
fn list_log(dir: &Path, parts: &[LogPart]) -> Result<(), Failure> {
    if parts.is_empty() {
        return Ok(());
    }
    let asked = |part| parts.contains(&part);
    let what = Dump { chain: asked(LogPart::Chain), blocks: asked(LogPart::Blocks), records: asked(LogPart::Records) };
    outln!("  log, listed:");
    dump_log(&*disk::system(), dir, what, &mut |line| outln!("    {line}")).map_err(Failure::usage)
}

fn head(report: &Report) {
    outln!("{}", report.dir.display());
    if let Some(id) = report.store_id {
        outln!("  store {}, epoch {}", uuid::Uuid::from_u128(id), report.epoch);
    }
    let log = &report.log;
    outln!(
        "  log: records {} to {}, {} in {} segments",
        log.first_seq,
        log.last_seq,
        size(log.bytes),
        log.segments.len()
    );
    for segment in &log.segments {
        outln!(
            "    segment {:016x}: epoch {}, records from {}, {}",
            segment.id,
            segment.epoch,
            segment.first_seq,
            size(segment.bytes)
        );
    }
}

fn tell_manifest(what: &str, manifest: &Manifest, whole: bool) {
    let runs: Vec<_> = manifest.spines.iter().flat_map(|s| &s.runs).collect();
    outln!(
        "  {what}: {} spines, {} runs, {} rows, {}; log needed from record {}{}",
        manifest.spines.len(),
        runs.len(),
        runs.iter().map(|r| r.rows).sum::<u64>(),
        size(runs.iter().map(|r| r.len).sum()),
        manifest.log_from,
        if whole { "" } else { "; NOT WHOLE" },
    );
    match PipelineState::decode(&manifest.blob) {
        Ok(state) => tell_state(&state),
        Err(error) => outln!("    {error}"),
    }
}

fn tell_state(state: &PipelineState) {
    outln!(
        "    pipeline {} after step {}, {} workers, engine {}, incarnation {}",
        state.name,
        state.step,
        state.workers,
        state.engine,
        state.incarnation
    );
    for (name, _) in state.paused.iter().filter(|(_, paused)| **paused) {
        outln!("    paused: {name}");
    }
    for loss in state.recovery.iter().flat_map(|r| &r.losses) {
        outln!("    given up: {} rows of {} in steps {} to {}", loss.rows, loss.connector, loss.from, loss.to);
    }
    for (name, input) in &state.inputs {
        let bad = if input.errors > 0 { format!(", {} did not parse", input.errors) } else { String::new() };
        outln!("    input {name}: {} rows{bad}", input.rows);
        for at in &input.position.partitions {
            outln!("      {} at {}", at.partition, at.offset);
        }
    }
    for (name, output) in &state.outputs {
        let detail: Vec<String> = output.sink.detail.iter().map(|(k, v)| format!(", {k} {v}")).collect();
        outln!("    output {name}: delivered step {}{}", output.sink.step, detail.concat());
        for file in &output.pending {
            outln!("      pending deltas in {file}");
        }
    }
}

fn files(report: &Report) {
    for (what, files) in [("run files", &report.runs), ("pending output files", &report.extras)] {
        if !files.is_empty() {
            outln!("  {} {what}, {}", files.len(), size(files.iter().map(|f| f.bytes).sum()));
        }
    }
    for file in &report.unnamed {
        outln!("  named by no checkpoint: {}", file.display());
    }
}

fn damage(report: &Report, verify: bool) -> Result<(), Failure> {
    if report.is_sound() {
        outln!(
            "{}",
            if verify {
                "every block was read and is sound"
            } else {
                "sound as far as was looked; --verify reads every block"
            }
        );
        return Ok(());
    }
    report.damage.iter().for_each(tell_damage);
    for error in &report.unread {
        outln!("UNREAD {error}");
    }
    Err(Failure::new(3, format!("{} damaged, {} not read", report.damage.len(), report.unread.len())))
}

pub(super) fn tell_damage(damage: &Damage) {
    outln!(
        "DAMAGED {} in {}, offset {}: expected {}, got {}",
        damage.what,
        damage.file.display(),
        damage.offset,
        damage.expected,
        damage.got
    );
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
