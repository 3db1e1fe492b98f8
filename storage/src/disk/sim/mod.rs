//! A disk in memory that loses power, fails and lies on demand, for testing whatever stands on a [`Disk`].
//!
//! The fault model:
//! - A write is visible to readers at once and pending until its file is synced or it was a durable one. At a power loss
//!   each pending 512-byte sector is there or not, whatever the others do; rarely it is garbage.
//! - A creation, rename or removal is visible at once and pending until its directory is synced. At a power loss each is
//!   there or not. A file whose name is lost is lost; a kept rename whose creation was lost names the file.
//! - A file's length may be there without its bytes: zeros in their place, or what a deleted file has left.
//! - What is durable stays exactly as it was, except for damage that a test asks for.
//! - A queue's operations take effect in random order, when they are waited for. What is in flight at the power loss may
//!   be there too.
//! - Single operations can be made to fail, to fall short, to go astray, to be lost or to read what is stale
//!   ([`SimDisk::fail_at`]); the disk can be full ([`SimDisk::set_capacity`]); what only the page cache has is not seen by
//!   direct reads, and can be dropped ([`SimDisk::drop_caches`]).
//! - Bits can rot ([`SimDisk::flip_bit`]), sectors decay ([`SimDisk::decay`]), new space can show what a deleted file has
//!   left ([`SimDisk::show_stale`]), and a sync can be turned into a lie ([`SimDisk::sabotage`]), to prove that a test
//!   would notice its absence.
//!
//! A crash test runs a workload once to learn [`SimDisk::ops`], then again for each number below with
//! [`SimDisk::crash_at`], and opens what [`SimDisk::power_cycle`] gives for each of the [`SimDisk::outcomes`]. [`Explore`]
//! does all of that.
//!
//! Invariants:
//! 1. The same seed and the same calls in the same order give the same outcome: no clock, no other randomness, only
//!    ordered maps. (Calls from several threads are in the order that the threads make them.)
//! 2. [`SimDisk::power_cycle`] changes nothing: many outcomes can be drawn from one disk. It costs in proportion to what
//!    is pending, not to what is on the disk.
//!
//! Known limits: files live in memory. A rename stays within one directory. Directories are never removed. An
//! operation is atomic to other threads. What goes astray stays within its file, and is seen where it went: no page cache
//! hides it, nor damage. A later write to a page that a failed sync left clean does not bring the rest of the page along.

mod content;
mod control;
mod crash;
mod damage;
mod dice;
mod explore;
mod fault;
mod file;
mod image;
mod names;
mod outcome;
mod queue;
mod rng;
mod state;
mod tally;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use super::shared::{Counters, lock};
use super::{Create, DirEntry, DirLock, Disk, DiskInfo, DiskStats, File, IoQueue, Metadata, OpenOptions};
use crate::{Error, Result};
use content::Content;
pub use crash::CrashPlan;
pub use damage::Decay;
pub use explore::Explore;
pub use fault::{Fault, Sabotage, SyncKind};
use file::SimFile;
use names::{Dir, Move, Node};
pub use outcome::{Coverage, Outcomes};
use queue::{SimLock, SimQueue};
use state::{State, failed, key, power_loss};
pub use tally::{Failure, Moment, Tally};

/// The simulated disk. Clones are the same disk.
///
/// ```
/// use std::path::Path;
/// use backstay_storage::disk::{Create, Disk, OpenOptions, SimDisk};
/// use backstay_storage::disk::sim::CrashPlan;
/// let disk = SimDisk::new(1);
/// let file = disk.open(Path::new("/a"), OpenOptions { write: true, create: Create::New, direct: false })?;
/// file.write_at(b"hello", 0)?;
/// disk.sync_dir(Path::new("/"))?; // the name, but not the bytes
/// assert_eq!(disk.read_file("/a")?, b"hello");
/// assert_eq!(disk.power_cycle(CrashPlan::KeepNone).read_file("/a")?, b"");
/// # Ok::<(), backstay_storage::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SimDisk {
    shared: Arc<Shared>,
    seed: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    counters: Counters,
    locks: Mutex<Vec<Weak<SimLock>>>,
}

impl SimDisk {
    /// An empty disk, with only `/` on it. `seed` decides the order in which queues complete.
    ///
    /// ```
    /// # use backstay_storage::disk::SimDisk;
    /// assert!(SimDisk::new(7).list_all().is_empty());
    /// ```
    pub fn new(seed: u64) -> Self {
        Self::with_state(seed, State::new(seed))
    }

    fn with_state(seed: u64, state: State) -> Self {
        let shared = Shared { state: Mutex::new(state), counters: Counters::default(), locks: Mutex::default() };
        Self { shared: Arc::new(shared), seed }
    }

    /// Makes a directory whose parent is there; its name is pending.
    fn create_dir(&self, path: &Path) -> Result<()> {
        let mut state = lock(&self.shared.state);
        let power_goes = state.begin_simple("create directory", path)?;
        let (dir, name) = state.place("create directory", path)?;
        dir.change(Move::Link { name, node: Node::Dir });
        state.dirs.insert(path.to_path_buf(), Dir::default());
        if power_goes { Err(power_loss("create directory", path)) } else { Ok(()) }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>> {
        let at = key(path);
        let mut state = lock(&self.shared.state);
        let power_goes = state.begin_simple("open", path)?;
        let id = match (state.node(&at), options.create) {
            (Some(Node::Dir), _) => return Err(failed("open", path, io::ErrorKind::IsADirectory)),
            (Some(Node::File(_)), Create::New) => return Err(failed("open", path, io::ErrorKind::AlreadyExists)),
            (Some(Node::File(id)), _) => id,
            (None, Create::Never) => return Err(failed("open", path, io::ErrorKind::NotFound)),
            (None, _) => {
                let id = state.next_id;
                let (dir, name) = state.place("open", &at)?;
                dir.change(Move::Link { name, node: Node::File(id) });
                state.files.insert(id, Content::default());
                state.next_id += 1;
                id
            }
        };
        if power_goes {
            return Err(power_loss("open", path));
        }
        state.content("open", path, id)?.handles += 1;
        let shared = Arc::clone(&self.shared);
        Ok(Arc::new(SimFile { shared, id, path: path.to_path_buf(), writable: options.write, direct: options.direct }))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let at = key(path);
        let mut missing = Vec::new();
        for dir in at.ancestors() {
            match self.metadata(dir)? {
                Some(m) if m.is_dir => {
                    self.sync_dir(dir.parent().unwrap_or(dir))?;
                    break;
                }
                Some(_) => return Err(failed("create directory", dir, io::ErrorKind::NotADirectory)),
                None => missing.push(dir),
            }
        }
        for dir in missing.into_iter().rev() {
            self.create_dir(dir)?;
            self.sync_dir(dir.parent().unwrap_or(dir))?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.shared.counters.dir_sync();
        let mut state = lock(&self.shared.state);
        let power_goes = state.begin_simple("sync directory", dir)?;
        let turned_off = state.is_sabotaged(SyncKind::Dir, dir);
        let Some(names) = state.dirs.get_mut(&key(dir)) else {
            return Err(failed("sync directory", dir, io::ErrorKind::NotFound));
        };
        if power_goes {
            return Err(power_loss("sync directory", dir));
        }
        if !turned_off {
            names.sync();
            state.collect();
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (key(from), key(to));
        let mut state = lock(&self.shared.state);
        let power_goes = state.begin_simple("rename", &from)?;
        let id = state.file_id("rename", &from)?;
        if state.node(&to) == Some(Node::Dir) {
            return Err(failed("rename", &to, io::ErrorKind::IsADirectory));
        }
        if from.parent() != to.parent() {
            let (from, to) = (from.display(), to.display());
            let why = format!("the simulated disk renames within one directory only, not {from} to {to}");
            return Err(Error::Invalid(why));
        }
        let (_, to_name) = state.place("rename", &to)?;
        let (dir, name) = state.place("rename", &from)?;
        if name != to_name {
            dir.change(Move::Rename { from: name, to: to_name, node: Node::File(id) });
        }
        if power_goes { Err(power_loss("rename", &from)) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let at = key(path);
        let mut state = lock(&self.shared.state);
        let power_goes = state.begin_simple("remove", path)?;
        let node = Node::File(state.file_id("remove", &at)?);
        let (dir, name) = state.place("remove", &at)?;
        dir.change(Move::Unlink { name, node });
        if power_goes { Err(power_loss("remove", path)) } else { Ok(()) }
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        let mut state = lock(&self.shared.state);
        if state.begin_simple("list", dir)? {
            return Err(power_loss("list", dir));
        }
        let Some(names) = state.dirs.get(&key(dir)) else {
            return Err(failed("list", dir, io::ErrorKind::NotFound));
        };
        let entry = |(name, node): (&String, &Node)| DirEntry { name: name.clone(), metadata: metadata(&state, *node) };
        Ok(names.live.iter().map(entry).collect())
    }

    fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        let state = lock(&self.shared.state);
        state.check_up("metadata", path)?;
        Ok(state.node(&key(path)).map(|node| metadata(&state, node)))
    }

    /// Takes the lock or fails at once: in the simulation nobody is about to let go of it.
    fn lock_dir(&self, dir: &Path) -> Result<DirLock> {
        let path = key(dir);
        let mut state = lock(&self.shared.state);
        if state.begin_simple("lock", dir)? {
            return Err(power_loss("lock", dir));
        }
        if !state.dirs.contains_key(&path) {
            return Err(failed("lock", dir, io::ErrorKind::NotFound));
        }
        if !state.locked.insert(path.clone()) {
            return Err(Error::Locked { path: dir.to_path_buf(), holder: None });
        }
        drop(state);
        let held = Arc::new(SimLock { shared: Arc::clone(&self.shared), path });
        lock(&self.shared.locks).push(Arc::downgrade(&held));
        Ok(DirLock::new(held))
    }

    fn queue(&self, depth: usize) -> Result<Box<dyn IoQueue>> {
        let mut state = lock(&self.shared.state);
        state.check_up("make", Path::new("(queue)"))?;
        let id = state.next_id;
        state.next_id += 1;
        drop(state);
        let mut locks = lock(&self.shared.locks);
        locks.retain(|l| l.strong_count() > 0);
        Ok(Box::new(SimQueue {
            shared: Arc::clone(&self.shared),
            id,
            depth: depth.max(1),
            done: Vec::new(),
            locks: locks.clone(),
            held: Vec::new(),
        }))
    }

    fn threads(&self) -> bool {
        false
    }

    fn info(&self) -> DiskInfo {
        DiskInfo { kind: "simulated", durable_write: "simulated", note: None }
    }

    fn stats(&self) -> DiskStats {
        self.shared.counters.snapshot()
    }
}

fn metadata(state: &State, node: Node) -> Metadata {
    match node {
        Node::Dir => Metadata { len: 0, is_dir: true, is_file: false },
        Node::File(id) => {
            Metadata { len: state.files.get(&id).map_or(0, |f| f.live.len() as u64), is_dir: false, is_file: true }
        }
    }
}
