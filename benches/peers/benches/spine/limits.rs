//! What a child may use and has used: a memory limit by a cgroup where one can be made, peaks and written bytes from /proc.
//!
//! Known limit: only a memory controller at the root of cgroup v2, or of v1 at its usual place, is tried. Where there is none the engines
//! keep to what they were given by themselves, and the peak of the child's resident memory says how well.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Where groups are made, and the file that has a group's limit.
#[derive(Clone, Copy, Debug)]
struct Hierarchy {
    root: &'static str,
    limit: &'static str,
    unlimited: &'static str,
}

const V2: Hierarchy = Hierarchy { root: "/sys/fs/cgroup", limit: "memory.max", unlimited: "max" };
const V1: Hierarchy = Hierarchy { root: "/sys/fs/cgroup/memory", limit: "memory.limit_in_bytes", unlimited: "-1" };

impl Hierarchy {
    /// The one that is there; else why none.
    fn here() -> Result<Self, String> {
        let root = V2.root;
        match fs::read_to_string(format!("{root}/cgroup.controllers")) {
            Ok(controllers) if controllers.split_whitespace().any(|name| name == "memory") => Ok(V2),
            Ok(_) => Err(format!("the cgroup v2 at {root} has no memory controller")),
            Err(_) if fs::exists(format!("{}/{}", V1.root, V1.limit)).unwrap_or(false) => Ok(V1),
            Err(_) => Err(format!("there is no cgroup v2 at {root} and no memory controller of v1 below it")),
        }
    }

    fn group(self, pid: u32) -> PathBuf {
        format!("{}/backstay-bench-{pid}", self.root).into()
    }
}

/// The limit of this process and those it starts, if one can be set.
#[derive(Clone, Debug)]
pub struct Limit {
    hierarchy: Hierarchy,
    group: PathBuf,
}

impl Limit {
    /// Makes a group for the child `pid` and puts it there; else why not.
    pub fn enter(pid: u32) -> Result<Self, String> {
        let hierarchy = Hierarchy::here()?;
        let group = hierarchy.group(pid);
        fs::create_dir(&group).map_err(|e| format!("cannot create {}: {e}", group.display()))?;
        let limit = Self { hierarchy, group };
        let put =
            |file: &str, text: &str| limit.put(file, text).map_err(|e| format!("cannot write {file} of a cgroup: {e}"));
        match put(hierarchy.limit, hierarchy.unlimited).and_then(|()| put("cgroup.procs", &pid.to_string())) {
            Ok(()) => Ok(limit),
            Err(why) => {
                let _ = fs::remove_dir(&limit.group);
                Err(why)
            }
        }
    }

    /// At most so many bytes from now on, page cache included.
    pub fn set(&self, bytes: u64) {
        self.put(self.hierarchy.limit, &bytes.to_string()).expect("the limit of a cgroup");
    }

    fn put(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.group.join(file), text)
    }
}

/// Removes the group of a child that has ended, if it had one.
pub fn clear(pid: u32) {
    if let Ok(hierarchy) = Hierarchy::here() {
        let _ = fs::remove_dir(hierarchy.group(pid));
    }
}

/// How children are limited here, for the output.
pub fn describe() -> String {
    let pid = std::process::id();
    // A group without a process tells whether one can be made.
    let made = Hierarchy::here().and_then(|hierarchy| {
        fs::create_dir(hierarchy.group(pid)).map_err(|e| e.to_string()).map(|()| hierarchy.limit)
    });
    match made {
        Ok(limit) => {
            clear(pid);
            format!(
                "each engine in a child under a cgroup's {limit} of what it is given and a fifth of that beside, {} MiB at least",
                BESIDE >> 20
            )
        }
        Err(why) => format!("no cgroup limit ({why}); peaks of resident memory are printed instead"),
    }
}

/// What a child gets at least beside what its engine is given: code, indexes and filters of open tables, buffers in flight, what the
/// allocator holds back, and the bench's own.
const BESIDE: u64 = 256 << 20;

/// The limit of a child whose engine is given so many bytes.
pub fn of(given: u64) -> u64 {
    given + (given / 5).max(BESIDE)
}

/// Starts the peak of the resident memory anew.
pub fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most resident memory since then, in bytes.
pub fn peak() -> u64 {
    field("/proc/self/status", "VmHWM:") << 10
}

/// Processor time that all threads of this process have taken.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Waits until little is done by this process any more: an engine that does not tell what it does in the background.
pub fn settle() {
    const QUIET: Duration = Duration::from_millis(500);
    let mut before = processor_time();
    loop {
        thread::sleep(QUIET);
        let now = processor_time();
        if now - before < QUIET / 20 {
            return;
        }
        before = now;
    }
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
