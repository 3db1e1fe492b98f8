//! What a child may use and has used: a memory limit by cgroup v2 where that can be written, peaks and written bytes from /proc.
//!
//! Known limit: only a cgroup v2 that has its memory controller at the root is tried. Where there is none the engines keep to
//! what they were given by themselves, and the peak of the child's resident memory says how well.

use std::fs;
use std::path::PathBuf;

const ROOT: &str = "/sys/fs/cgroup";

/// The limit of this process and those it starts, if one can be set.
#[derive(Clone, Debug)]
pub struct Limit {
    group: PathBuf,
}

impl Limit {
    /// Makes a group for the child `pid` and puts it there; else why not.
    pub fn enter(pid: u32) -> Result<Self, String> {
        available()?;
        let group = group(pid);
        fs::create_dir(&group).map_err(|e| format!("cannot create {}: {e}", group.display()))?;
        let limit = Self { group };
        let put = |file: &str, text: &str| {
            fs::write(limit.group.join(file), text).map_err(|e| format!("cannot write {file} of a cgroup: {e}"))
        };
        match put("memory.max", "max").and_then(|()| put("cgroup.procs", &pid.to_string())) {
            Ok(()) => Ok(limit),
            Err(why) => {
                limit.remove();
                Err(why)
            }
        }
    }

    /// At most so many bytes from now on, page cache included.
    pub fn set(&self, bytes: u64) {
        fs::write(self.group.join("memory.max"), bytes.to_string()).expect("memory.max");
    }

    fn remove(&self) {
        let _ = fs::remove_dir(&self.group);
    }
}

/// Removes the group of a child that has ended, if it had one.
pub fn clear(pid: u32) {
    let _ = fs::remove_dir(group(pid));
}

fn group(pid: u32) -> PathBuf {
    format!("{ROOT}/backstay-bench-{pid}").into()
}

/// How children are limited here, for the output.
pub fn describe() -> String {
    let pid = std::process::id();
    // A group without a process tells whether one can be made.
    match available().and_then(|()| fs::create_dir(group(pid)).map_err(|e| e.to_string())) {
        Ok(()) => {
            clear(pid);
            format!(
                "each engine in a child under a cgroup's memory.max of what it is given and {} MiB beside",
                BESIDE >> 20
            )
        }
        Err(why) => format!("no cgroup limit ({why}); peaks of resident memory are printed instead"),
    }
}

fn available() -> Result<(), String> {
    let controllers = fs::read_to_string(format!("{ROOT}/cgroup.controllers"))
        .map_err(|_| format!("{ROOT} is no cgroup v2: it has no cgroup.controllers"))?;
    if controllers.split_whitespace().any(|name| name == "memory") {
        Ok(())
    } else {
        Err(format!("the cgroup v2 at {ROOT} has no memory controller"))
    }
}

/// What a child gets beside what its engine is given: code, indexes and filters of open tables, buffers in flight, and the bench's own.
pub const BESIDE: u64 = 256 << 20;

/// Starts the peak of the resident memory anew.
pub fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most resident memory since then, in bytes.
pub fn peak() -> u64 {
    field("/proc/self/status", "VmHWM:") << 10
}

/// Bytes that this process has had written to devices.
pub fn written() -> u64 {
    field("/proc/self/io", "write_bytes:")
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let number = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}
