//! What a test tells a simulated disk and asks of it. None of these calls counts as an operation.

use std::path::{Path, PathBuf};

use super::SimDisk;
use super::crash::{CrashPlan, Remains};
use super::fault::{Fault, Sabotage};
use super::names::Node;
use super::rng::Rng;
use super::state::{State, key};
use crate::Result;
use crate::disk::shared::lock;

impl SimDisk {
    /// How many operations were begun: every call that reads, writes, syncs or changes names, and every operation that
    /// a queue executes. Lengths, metadata and this module's own calls are not counted.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Disk, SimDisk};
    /// let disk = SimDisk::new(7);
    /// disk.sync_dir(Path::new("/"))?;
    /// assert_eq!(disk.ops(), 1);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn ops(&self) -> u64 {
        lock(&self.shared.state).ops
    }

    /// Makes the power go at operation `op`, counted as by [`SimDisk::ops`] from 1: it fails, what it changes is
    /// pending, and every later operation fails.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Disk, SimDisk};
    /// let disk = SimDisk::new(7);
    /// disk.crash_at(1);
    /// assert!(disk.sync_dir(Path::new("/")).is_err());
    /// assert!(disk.is_down());
    /// ```
    pub fn crash_at(&self, op: u64) {
        lock(&self.shared.state).crash_at = Some(op);
    }

    /// Whether the power has gone.
    ///
    /// ```
    /// # use backstay_storage::disk::SimDisk;
    /// assert!(!SimDisk::new(7).is_down());
    /// ```
    pub fn is_down(&self) -> bool {
        lock(&self.shared.state).down
    }

    /// The disk as it comes back after losing power now (or at [`SimDisk::crash_at`]). A number is a seed. Open handles
    /// stay with the old disk; faults are gone, capacity and sabotage stay.
    ///
    /// ```
    /// # use backstay_storage::disk::SimDisk;
    /// # use backstay_storage::disk::sim::CrashPlan;
    /// let disk = SimDisk::new(7);
    /// let after = disk.power_cycle(42);
    /// let nothing_lost = disk.power_cycle(CrashPlan::KeepAll);
    /// assert_eq!(after.list_all(), nothing_lost.list_all());
    /// ```
    pub fn power_cycle(&self, plan: impl Into<CrashPlan>) -> SimDisk {
        let plan = plan.into();
        let state = lock(&self.shared.state);
        let Remains { dirs, files, graves } = state.after_crash(plan);
        let drawn = match plan {
            CrashPlan::Seeded(seed) | CrashPlan::Sectors { seed, .. } | CrashPlan::Fates { seed, .. } => seed,
            _ => 0,
        };
        let seed = Rng::new(self.seed ^ drawn.rotate_left(32)).next();
        let new = State {
            dirs,
            files,
            graves,
            next_id: state.next_id,
            capacity: state.capacity,
            show_stale: state.show_stale,
            sabotage: state.sabotage.clone(),
            sabotaged: state.sabotaged,
            ..State::new(seed)
        };
        Self::with_state(seed, new)
    }

    /// Makes operation `op`, counted as by [`SimDisk::ops`] from 1, go wrong.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Disk, SimDisk, sim::Fault};
    /// let disk = SimDisk::new(7);
    /// disk.fail_at(disk.ops() + 1, Fault::Io);
    /// assert!(disk.sync_dir(Path::new("/")).is_err());
    /// assert!(disk.sync_dir(Path::new("/")).is_ok());
    /// ```
    pub fn fail_at(&self, op: u64, fault: Fault) {
        lock(&self.shared.state).faults.insert(op, fault);
    }

    /// Limits the sum of the lengths of all named files, in bytes; `None` for no limit.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Disk, OpenOptions, SimDisk};
    /// let disk = SimDisk::new(7);
    /// disk.set_capacity(Some(3));
    /// let file = disk.open(Path::new("/a"), OpenOptions::CREATE_DIRECT)?;
    /// assert!(file.write_at(b"four", 0).is_err());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.shared.state).capacity = bytes;
    }

    /// Turns syncs into lies from now on. Rules add up.
    ///
    /// ```
    /// # use backstay_storage::disk::{SimDisk, sim::{Sabotage, SyncKind}};
    /// let disk = SimDisk::new(7);
    /// disk.sabotage(Sabotage { kind: SyncKind::Dir, path: String::new(), nth: None });
    /// assert_eq!(disk.sabotaged(), 0); // none was asked for yet
    /// ```
    pub fn sabotage(&self, rule: Sabotage) {
        lock(&self.shared.state).sabotage.push((rule, 0));
    }

    /// How many syncs were lies so far: a sabotage test that counts 0 has tested nothing.
    ///
    /// ```
    /// # use backstay_storage::disk::SimDisk;
    /// assert_eq!(SimDisk::new(7).sabotaged(), 0);
    /// ```
    pub fn sabotaged(&self) -> u64 {
        lock(&self.shared.state).sabotaged
    }

    /// The bytes of a file as readers see them, also when the power is gone.
    ///
    /// ```
    /// # use backstay_storage::disk::SimDisk;
    /// assert!(SimDisk::new(7).read_file("/none").is_err());
    /// ```
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = key(path.as_ref());
        let mut state = lock(&self.shared.state);
        let id = state.file_id("read", &path)?;
        Ok(state.content("read", &path, id)?.live.bytes(0, usize::MAX))
    }

    /// The paths of all files, sorted, as callers see them, also when the power is gone.
    ///
    /// ```
    /// # use std::path::PathBuf;
    /// # use backstay_storage::disk::SimDisk;
    /// let disk = SimDisk::new(7);
    /// disk.overwrite("/a", 0, b"")?;
    /// assert_eq!(disk.list_all(), [PathBuf::from("/a")]);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn list_all(&self) -> Vec<PathBuf> {
        let state = lock(&self.shared.state);
        let names =
            state.dirs.iter().flat_map(|(path, dir)| dir.live.iter().map(move |(name, node)| (path, name, node)));
        let mut all: Vec<PathBuf> =
            names.filter(|(_, _, node)| **node != Node::Dir).map(|(path, name, _)| path.join(name)).collect();
        all.sort();
        all
    }
}
