//! fio, where it is installed: the floor that others can check.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

/// What it is asked to do with a file that was written before, by direct I/O, from start to end.
pub struct Job<'a> {
    /// The file.
    pub file: &'a Path,
    /// Overwrite, or else read.
    pub write: bool,
    /// Bytes of an operation.
    pub block: usize,
    /// Operations in flight. With 1 it makes plain system calls.
    pub depth: usize,
    /// How the bytes become durable.
    pub durable: Durable,
    /// Starts again at the end until this is over; `None` goes through the file once.
    pub time: Option<Duration>,
    /// Whether io_uring works here; libaio otherwise.
    pub uring: bool,
}

/// How written bytes become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// They need not.
    No,
    /// Each write by `O_DSYNC`.
    Each,
    /// By a sync at the end, whose time counts.
    AtEnd,
}

/// What it measured.
pub struct Outcome {
    /// Half of the operations took no longer, in µs.
    pub p50_us: f64,
    /// Operations a second.
    pub per_second: f64,
    /// Megabytes (10^6) a second.
    pub mb_per_second: f64,
}

/// Its version, if it is installed.
pub fn version() -> Option<String> {
    let output = Command::new("fio").arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Job<'_> {
    /// Runs it.
    pub fn run(&self) -> Outcome {
        let engine = match (self.depth, self.uring) {
            (1, _) => "psync",
            (_, true) => "io_uring",
            _ => "libaio",
        };
        let side = if self.write { "write" } else { "read" };
        let mut fio = Command::new("fio");
        fio.args(["--name=floor", "--output-format=json", "--thread", "--direct=1", "--allow_file_create=0"])
            .args(["--lat_percentiles=1", "--clat_percentiles=0", "--refill_buffers=0", "--randrepeat=1"])
            .arg(format!("--filename={}", self.file.display()))
            .arg(format!("--ioengine={engine}"))
            .arg(format!("--rw={side}"))
            .arg(format!("--bs={}", self.block))
            .arg(format!("--iodepth={}", self.depth));
        match self.durable {
            Durable::No => {}
            Durable::Each => drop(fio.arg("--sync=dsync")),
            Durable::AtEnd => drop(fio.arg("--end_fsync=1")),
        }
        if let Some(time) = self.time {
            fio.args(["--time_based".into(), format!("--runtime={}ms", time.as_millis())]);
        }
        let output = fio.output().expect("fio runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "fio failed: {said}{}", String::from_utf8_lossy(&output.stderr));
        // Notes may stand before the JSON.
        let json = said.find('{').map_or("", |at| &said[at..]);
        let json: Value = serde_json::from_str(json).expect("fio's JSON");
        let of = &json["jobs"][0][side];
        let field = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("fio's JSON lacks a field: {of}"));
        let seconds = field(&of["runtime"]) / 1e3;
        Outcome {
            p50_us: field(&of["lat_ns"]["percentile"]["50.000000"]) / 1e3,
            per_second: field(&of["total_ios"]) / seconds,
            mb_per_second: field(&of["io_bytes"]) / seconds / 1e6,
        }
    }
}
