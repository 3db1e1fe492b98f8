//! All that a simulated disk holds, and the gate that every operation passes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::content::Content;
use super::fault::{Fault, Sabotage, SyncKind};
use super::image::Image;
use super::names::{Dir, Node};
use super::rng::Rng;
use crate::disk::Op;
use crate::disk::shared::plain;
use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct State {
    pub(super) rng: Rng,
    /// Operations begun so far.
    pub(super) ops: u64,
    /// The operation at which the power goes.
    pub(super) crash_at: Option<u64>,
    /// Whether it has gone.
    pub(super) down: bool,
    pub(super) dirs: BTreeMap<PathBuf, Dir>,
    pub(super) files: BTreeMap<u64, Content>,
    pub(super) next_id: u64,
    pub(super) capacity: Option<u64>,
    /// Whether a file that grows shows what deleted ones have left.
    pub(super) show_stale: bool,
    /// What the last deleted files have left on the device, oldest first.
    pub(super) graves: Vec<Image>,
    pub(super) faults: BTreeMap<u64, Fault>,
    /// Each with how many syncs it has matched.
    pub(super) sabotage: Vec<(Sabotage, u64)>,
    /// Syncs that were made to do nothing.
    pub(super) sabotaged: u64,
    pub(super) locked: BTreeSet<PathBuf>,
    /// What the queues have in flight.
    pub(super) queues: BTreeMap<u64, Vec<(u64, Op)>>,
}

/// What the gate says of an operation that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Fault(Fault),
    /// The power goes now: leave the change pending and answer with [`power_loss`].
    PowerLoss,
}

/// The error of the operation at which the power goes, and of all later ones.
pub(super) fn power_loss(op: &'static str, path: &Path) -> Error {
    Error::io(op, path, io::Error::other("simulated power loss"))
}

pub(super) fn failed(op: &'static str, path: &Path, kind: io::ErrorKind) -> Error {
    Error::io(op, path, kind.into())
}

/// The name under which a path is kept: absolute, plain.
pub(super) fn key(path: &Path) -> PathBuf {
    plain(&Path::new("/").join(path))
}

/// The directory and the last name of a path that [`key`] made.
fn split(op: &'static str, path: &Path) -> Result<(PathBuf, String)> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => Ok((dir.to_path_buf(), name.to_string_lossy().into_owned())),
        _ => Err(failed(op, path, io::ErrorKind::IsADirectory)),
    }
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            ops: 0,
            crash_at: None,
            down: false,
            dirs: BTreeMap::from([(PathBuf::from("/"), Dir::default())]),
            files: BTreeMap::new(),
            next_id: 1,
            capacity: None,
            show_stale: false,
            graves: Vec::new(),
            faults: BTreeMap::new(),
            sabotage: Vec::new(),
            sabotaged: 0,
            locked: BTreeSet::new(),
            queues: BTreeMap::new(),
        }
    }

    /// Fails if the power is gone. Not counted.
    pub(super) fn check_up(&self, op: &'static str, path: &Path) -> Result<()> {
        if self.down { Err(power_loss(op, path)) } else { Ok(()) }
    }

    /// Counts an operation and says how it is to go. EIO and ENOSPC are answered here.
    pub(super) fn begin(&mut self, op: &'static str, path: &Path) -> Result<Gate> {
        self.check_up(op, path)?;
        self.ops += 1;
        if self.crash_at.is_some_and(|at| at <= self.ops) {
            self.files.extend(self.in_flight());
            self.down = true;
            return Ok(Gate::PowerLoss);
        }
        match self.faults.remove(&self.ops) {
            None => Ok(Gate::Open),
            Some(Fault::NoSpace) => Err(failed(op, path, io::ErrorKind::StorageFull)),
            Some(fault) => Ok(Gate::Fault(fault)),
        }
    }

    /// As [`State::begin`], for an operation that EIO leaves without effect. True if the power goes now.
    pub(super) fn begin_simple(&mut self, op: &'static str, path: &Path) -> Result<bool> {
        match self.begin(op, path)? {
            Gate::Fault(Fault::Io) => Err(eio(op, path)),
            gate => Ok(gate == Gate::PowerLoss),
        }
    }

    /// The files that queues are writing to, with what is in flight added to what is pending: it may reach the device
    /// too. Nothing once the power has gone: it was added then.
    pub(super) fn in_flight(&self) -> BTreeMap<u64, Content> {
        let mut files = BTreeMap::new();
        if self.down {
            return files;
        }
        for (_, op) in self.queues.values().flatten() {
            if let Op::Write { file, offset, buf, .. } = op
                && let Some((id, content)) = file.sim_id().and_then(|id| Some((id, self.files.get(&id)?)))
                && !buf.is_empty()
            {
                files.entry(id).or_insert_with(|| content.clone()).add_pending(*offset as usize, buf);
            }
        }
        files
    }

    /// Whether this sync is one that a test has turned off.
    pub(super) fn is_sabotaged(&mut self, kind: SyncKind, path: &Path) -> bool {
        let text = path.to_string_lossy();
        let mut hit = false;
        for (rule, matched) in &mut self.sabotage {
            if rule.kind == kind && text.contains(&rule.path) {
                *matched += 1;
                hit |= rule.nth.is_none_or(|nth| nth == *matched);
            }
        }
        self.sabotaged += u64::from(hit);
        hit
    }

    /// The directory that holds a name, and the name.
    pub(super) fn place(&mut self, op: &'static str, path: &Path) -> Result<(&mut Dir, String)> {
        let (dir, name) = split(op, path)?;
        match self.dirs.get_mut(&dir) {
            Some(dir) => Ok((dir, name)),
            None => Err(failed(op, path, io::ErrorKind::NotFound)),
        }
    }

    pub(super) fn node(&self, path: &Path) -> Option<Node> {
        if self.dirs.contains_key(path) {
            return Some(Node::Dir);
        }
        let (dir, name) = split("look up", path).ok()?;
        self.dirs.get(&dir)?.live.get(&name).copied()
    }

    /// The id of the file that a path names.
    pub(super) fn file_id(&self, op: &'static str, path: &Path) -> Result<u64> {
        match self.node(path) {
            Some(Node::File(id)) => Ok(id),
            Some(Node::Dir) => Err(failed(op, path, io::ErrorKind::IsADirectory)),
            None => Err(failed(op, path, io::ErrorKind::NotFound)),
        }
    }

    pub(super) fn content(&mut self, op: &'static str, path: &Path, id: u64) -> Result<&mut Content> {
        self.files.get_mut(&id).ok_or_else(|| failed(op, path, io::ErrorKind::NotFound))
    }

    /// How far a file may grow before the disk is full.
    pub(super) fn room(&self, id: u64) -> u64 {
        let Some(capacity) = self.capacity else { return u64::MAX };
        let named = self.dirs.values().flat_map(|d| d.live.values());
        let others: u64 = named
            .filter_map(|n| match n {
                Node::File(other) if *other != id => self.files.get(other).map(|f| f.live.len() as u64),
                _ => None,
            })
            .sum();
        capacity.saturating_sub(others)
    }

    /// Gives a file this length. What it grows by is zeros, or stale bytes if the disk shows them.
    pub(super) fn set_len(&mut self, id: u64, len: usize) {
        let Some(content) = self.files.get_mut(&id) else { return };
        let before = content.live.len();
        if len < before {
            bury(&mut self.graves, content.live.clone());
        }
        content.set_len(len);
        if len > before
            && self.show_stale
            && let Some(grave) = self.graves.last()
        {
            content.write(before, &grave.bytes(before, len - before), false);
        }
    }

    /// Forgets files that have no handle and that no state of the disk can name.
    pub(super) fn collect(&mut self) {
        let (dirs, graves) = (&self.dirs, &mut self.graves);
        self.files.retain(|id, file| {
            let stays = file.handles > 0 || dirs.values().any(|d| d.may_name(*id));
            if !stays {
                bury(graves, file.device());
            }
            stays
        });
    }
}

/// How many deleted files leave something behind.
const GRAVES: usize = 8;

/// Notes what a deleted file leaves on the device.
pub(super) fn bury(graves: &mut Vec<Image>, bytes: Image) {
    if !bytes.is_blank() {
        if graves.len() == GRAVES {
            graves.remove(0);
        }
        graves.push(bytes);
    }
}

/// A device error.
pub(super) fn eio(op: &'static str, path: &Path) -> Error {
    Error::io(op, path, io::Error::other("simulated I/O error (EIO)"))
}
