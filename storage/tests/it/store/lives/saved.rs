//! The savepoints of a game: what was promised of them, what was done to their files, and what an opening must then tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use backstay_storage::checkpoint::Manifest;
use backstay_storage::disk::SimDisk;
use backstay_storage::{Error, Result, Store};

use crate::store::model::Rng;
use crate::store::workload::Stop;

/// Few, so that names are given again.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// Bytes of an extra file that are looked at when a store is opened.
const EXTRA_HEADER: u64 = 72;

/// A flipped bit.
#[derive(Clone, Debug)]
struct Rot {
    file: PathBuf,
    offset: u64,
    bit: u8,
}

/// The savepoints of one directory.
#[derive(Debug, Default)]
pub struct Saved {
    /// Those that are there, and their steps.
    pub there: BTreeMap<String, u64>,
    /// One that was being made or removed: it may be there or not.
    pub doubtful: Option<(String, u64)>,
    rot: Vec<Rot>,
}

/// Whether a call was refused with nothing done, for the reason that it had to be.
pub fn refused<T: std::fmt::Debug>(result: Result<T>, reason: &str) -> std::result::Result<(), Stop> {
    match result {
        Err(Error::Invalid(said)) if said.contains(reason) => Ok(()),
        Err(other) => Err(Stop::Refused(other)),
        Ok(done) => Err(Stop::Wrong(format!("{done:?} where {reason:?} was to be said"))),
    }
}

pub fn file_of(dir: &Path, name: &str) -> PathBuf {
    dir.join("savepoints").join(format!("{name}.savepoint"))
}

fn manifest(disk: &SimDisk, path: &Path) -> Manifest {
    Manifest::decode(&disk.read_file(path).unwrap(), path).unwrap()
}

/// The manifests of the checkpoints in a directory, oldest first.
pub fn manifests(disk: &SimDisk, dir: &Path) -> Vec<PathBuf> {
    let all = disk.list_all().into_iter();
    all.filter(|p| p.starts_with(dir) && p.extension().is_some_and(|e| e == "manifest")).collect()
}

/// The extents of a manifest's runs.
pub fn runs(disk: &SimDisk, path: &Path) -> BTreeSet<(String, u64, u64)> {
    let manifest = manifest(disk, path);
    manifest.spines.iter().flat_map(|s| &s.runs).map(|r| (r.file.clone(), r.offset, r.len)).collect()
}

/// The names of a manifest's extra files, with their lengths.
fn extras(disk: &SimDisk, path: &Path) -> BTreeSet<(String, u64)> {
    manifest(disk, path).extras.into_iter().map(|e| (e.name, e.len)).collect()
}

impl Saved {
    /// The file of this name is gone, or another one.
    fn forget(&mut self, dir: &Path, name: &str) {
        let file = file_of(dir, name);
        self.rot.retain(|rot| rot.file != file);
    }

    fn is_rotten(&self, file: &Path, from: u64, len: u64) -> bool {
        self.rot.iter().any(|rot| rot.file == file && (from..from + len).contains(&rot.offset))
    }

    /// Whether a copy must be refused.
    pub fn is_broken(&self, disk: &SimDisk, dir: &Path, name: &str) -> bool {
        let file = file_of(dir, name);
        self.warns(disk, dir, name)
            || runs(disk, &file).iter().any(|(run, at, len)| self.is_rotten(&dir.join("runs").join(run), *at, *len))
            || extras(disk, &file).iter().any(|(extra, len)| self.is_rotten(&dir.join("queue").join(extra), 0, *len))
    }

    /// Whether an opening must say so.
    fn warns(&self, disk: &SimDisk, dir: &Path, name: &str) -> bool {
        let file = file_of(dir, name);
        self.is_rotten(&file, 0, u64::MAX)
            || extras(disk, &file).iter().any(|(e, _)| self.is_rotten(&dir.join("queue").join(e), 0, EXTRA_HEADER))
    }

    /// Compares what an opening tells with what was promised. `faulty`: a read of it may have failed, which it tells and goes on.
    /// What it tells is durable.
    pub fn opened(&mut self, store: &Store, disk: &SimDisk, dir: &Path, faulty: bool) -> std::result::Result<(), Stop> {
        let said = store.savepoint_warnings();
        let is_warned = |name: &str| said.iter().any(|w| w.contains(&format!("savepoint {name:?} ")));
        let told = told_by(store);
        let mut expected = self.there.clone();
        if let Some((name, step)) = self.doubtful.take() {
            if told.contains_key(&name) || is_warned(&name) {
                expected.insert(name, step);
            } else {
                self.forget(dir, &name);
            }
        }
        for (name, step) in &expected {
            let (warned, must_warn) = (is_warned(name), self.warns(disk, dir, name));
            let unread = warned && (self.is_rotten(&file_of(dir, name), 0, u64::MAX) || faulty);
            let right = told.get(name).map_or(unread, |told| told == step);
            if !right || (warned != must_warn && !(warned && faulty)) {
                let why = format!("savepoint {name:?} of step {step}, rot {:?}: {told:?} and {said:?}", self.rot);
                return Err(Stop::Wrong(why));
            }
        }
        if let Some(other) = told.keys().find(|name| !expected.contains_key(*name)) {
            return Err(Stop::Wrong(format!("savepoint {other:?} is there, of {:?}", self.there)));
        }
        self.there = expected;
        Ok(())
    }

    /// Makes one of the newest checkpoint, which is of step `newest`, or sees it refused.
    pub fn save(&mut self, store: &Store, name: &str, newest: Option<u64>) -> std::result::Result<bool, Stop> {
        let Some(step) = newest.filter(|_| !self.there.contains_key(name)) else {
            let reason = if self.there.contains_key(name) { "already" } else { "no checkpoint yet" };
            return refused(store.savepoint(name), reason).map(|()| false);
        };
        self.doubtful = Some((name.into(), step));
        store.savepoint(name)?;
        self.doubtful = None;
        self.there.insert(name.into(), step);
        match told_by(store).get(name) == Some(&step) {
            true => Ok(true),
            false => Err(Stop::Wrong(format!("savepoint {name:?} of step {step} is not there: {:?}", told_by(store)))),
        }
    }

    /// Removes one, or sees it refused.
    pub fn remove(&mut self, store: &Store, dir: &Path, name: &str) -> std::result::Result<bool, Stop> {
        if !self.there.contains_key(name) {
            return refused(store.remove_savepoint(name), "no savepoint").map(|()| false);
        }
        self.doubtful = self.there.remove_entry(name);
        store.remove_savepoint(name)?;
        self.doubtful = None;
        self.forget(dir, name);
        match told_by(store).contains_key(name) {
            false => Ok(true),
            true => Err(Stop::Wrong(format!("savepoint {name:?} is there after its removal"))),
        }
    }

    /// A bit of a checkpoint was flipped, which savepoints may share.
    pub fn damaged(&mut self, file: PathBuf, offset: u64, bit: u8) {
        self.rot.push(Rot { file, offset, bit });
    }

    /// Mends a savepoint's file, or damages one, or what no checkpoint names of one. All manifests are sound. Whether it did
    /// damage.
    pub fn rot(&mut self, disk: &SimDisk, dir: &Path, rng: &mut Rng) -> bool {
        let mendable = self.rot.iter().position(|rot| rot.file.starts_with(dir.join("savepoints")));
        if let Some(at) = mendable.filter(|_| rng.below(2) == 0) {
            let Rot { file, offset, bit } = self.rot.remove(at);
            disk.flip_bit(file, offset, bit).unwrap();
            return false;
        }
        let whole: Vec<_> = self.there.keys().filter(|name| !self.is_broken(disk, dir, name)).collect();
        let Some(name) = whole.get(rng.below(3) as usize) else { return false };
        let file = file_of(dir, name);
        let manifests = manifests(disk, dir);
        let kept_runs: BTreeSet<_> = manifests.iter().flat_map(|m| runs(disk, m)).collect();
        let kept_extras: BTreeSet<_> = manifests.iter().flat_map(|m| extras(disk, m)).collect();
        let len = disk.read_file(&file).unwrap().len() as u64;
        let mut places = vec![(file.clone(), 0, len)];
        let own = runs(disk, &file).into_iter().filter(|run| !kept_runs.contains(run));
        places.extend(own.map(|(run, at, len)| (dir.join("runs").join(run), at, len)));
        let own = extras(disk, &file).into_iter().filter(|extra| !kept_extras.contains(extra));
        places.extend(own.map(|(extra, len)| (dir.join("queue").join(extra), 0, len)));
        let (file, from, len) = places.swap_remove(rng.below(places.len() as u64) as usize);
        let (offset, bit) = (from + rng.below(len), rng.below(8) as u8);
        disk.flip_bit(&file, offset, bit).unwrap();
        self.rot.push(Rot { file, offset, bit });
        true
    }
}

/// The savepoints that a store tells, and their steps.
fn told_by(store: &Store) -> BTreeMap<String, u64> {
    let step = |blob: &[u8]| u64::from_le_bytes(blob.try_into().expect("a blob of ours"));
    store.savepoints().into_iter().map(|s| (s.name, step(&s.blob))).collect()
}
