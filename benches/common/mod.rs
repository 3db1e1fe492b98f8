//! What the benches share: their arguments, where they put files, and what machine this is.

#![expect(
    clippy::disallowed_methods,
    reason = "benches stand outside of the engine: they read the machine's files and make folders"
)]

use std::fs;
use std::path::{Path, PathBuf};

use backstay_storage::disk::Disk;
use tempfile::TempDir;

/// What a bench is told on the command line.
#[derive(Debug, Default)]
pub struct Args {
    /// `--dir PATH`: where files are put.
    dir: Option<PathBuf>,
    /// `--seconds N`: roughly how long it may take.
    pub seconds: Option<u64>,
    /// A word: only what contains it.
    pub filter: Option<String>,
}

impl Args {
    /// Reads the command line, whose `--bench` is cargo's. A bench's `own` flags are named for the help and handed to
    /// `take`; one that has a value is named `--rows=N`, may be given as `--rows 7` too, and is handed over as `--rows=7`.
    pub fn parse(own: &[&str], mut take: impl FnMut(&str)) -> Self {
        let has_value = |flag: &str| own.iter().any(|own| own.split_once('=').is_some_and(|(name, _)| name == flag));
        let mut args = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--bench" => {}
                "--dir" => args.dir = words.next().map(PathBuf::from),
                "--seconds" => args.seconds = words.next().and_then(|n| n.parse().ok()),
                "--help" | "-h" => {
                    let own: String = own.iter().map(|flag| format!(" [{flag}]")).collect();
                    println!("cargo bench [--bench NAME] -- [--dir PATH] [--seconds N]{own} [FILTER]");
                    std::process::exit(0);
                }
                flag if own.contains(&flag) => take(flag),
                flag if has_value(flag) => take(&format!("{flag}={}", words.next().unwrap_or_default())),
                flag if flag.split_once('=').is_some_and(|(name, _)| has_value(name)) => take(flag),
                flag if flag.starts_with("--") => {
                    let own: String = own.iter().map(|flag| format!("{flag}, ")).collect();
                    eprintln!("unknown argument {flag}; there are --dir PATH, --seconds N, {own}and a filter");
                    std::process::exit(2);
                }
                filter => args.filter = Some(filter.to_owned()),
            }
        }
        args
    }

    /// A new folder in `--dir`, or else beside the bench's own program in cargo's target folder.
    pub fn folder(&self) -> TempDir {
        let parent = self.dir.clone().unwrap_or_else(|| {
            let program = std::env::current_exe().expect("the path of this program");
            program.parent().expect("a program is in a folder").join("bench-data")
        });
        fs::create_dir_all(&parent).unwrap_or_else(|e| panic!("cannot create {}: {e}", parent.display()));
        tempfile::tempdir_in(&parent).unwrap_or_else(|e| panic!("cannot write to {}: {e}", parent.display()))
    }
}

/// Prints what the figures depend on.
pub fn describe_machine(dir: &Path, disk: &dyn Disk) {
    let read = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_else(|_| "unknown".into());
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown", |l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("machine:     {cores} cores, {model}; Linux {}", read("/proc/sys/kernel/osrelease"));
    println!("load before: {}", read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "));
    println!("folder:      {}", dir.display());
    let mounts = read("/proc/mounts");
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?, words.next()?, words.next()?))
        })
        .filter(|(_, at, _, _)| dir.starts_with(at))
        .max_by_key(|(_, at, _, _)| at.len());
    if let Some((device, at, kind, options)) = mount {
        println!("file system: {kind} on {device} at {at} ({options})");
        println!("device:      {}", describe_device(device));
    }
    let info = disk.info();
    let note = info.note.map(|n| format!(" ({n})")).unwrap_or_default();
    println!("disk:        {}, durable writes by {}{note}", info.kind, info.durable_write);
}

/// What sysfs says of a block device.
fn describe_device(device: &str) -> String {
    let Some(name) = device.strip_prefix("/dev/") else { return "not a block device".into() };
    let Ok(mut folder) = fs::canonicalize(format!("/sys/class/block/{name}")) else {
        return format!("{name}, not in /sys");
    };
    // A partition has no queue of its own.
    if !folder.join("queue").exists() {
        folder.pop();
    }
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok().map(|t| t.trim().to_owned());
    let mut said = vec![folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()];
    if let Ok(driver) = fs::canonicalize(folder.join("device/driver")) {
        said.extend(driver.file_name().map(|n| format!("driver {}", n.to_string_lossy())));
    }
    for (file, what) in [
        ("device/model", "model"),
        ("queue/rotational", "rotational"),
        ("queue/write_cache", "write cache:"),
        ("queue/fua", "FUA"),
        ("queue/scheduler", "scheduler"),
        ("queue/nr_requests", "queue depth"),
    ] {
        said.extend(read(file).filter(|v| !v.is_empty()).map(|v| format!("{what} {v}")));
    }
    said.join(", ")
}
