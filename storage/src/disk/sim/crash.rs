//! Power loss: which of the pending changes are there when the disk comes back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::content::{Change, Content, Fate};
use super::names::{Dir, Node};
use super::rng::Rng;
use super::state::State;

/// How a power loss treats what was not durable. A number is a seed.
///
/// A *unit* is one pending sector, change of a file's length, or change of a directory. Units are counted directories
/// first, in the order of their paths, then files in the order of their creation, each in the order of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPlan {
    /// Nothing that was pending is there.
    KeepNone,
    /// All of it is there.
    KeepAll,
    /// Each unit is kept or lost by chance; rarely a sector is garbage, or a length is there without its bytes.
    Seeded(u64),
    /// Unit i is kept if bit i is set; units from 128 on are lost.
    Subset(u128),
}

impl From<u64> for CrashPlan {
    fn from(seed: u64) -> Self {
        CrashPlan::Seeded(seed)
    }
}

/// A plan being carried out, unit by unit.
struct Dice {
    plan: CrashPlan,
    rng: Rng,
    unit: u32,
    /// Of 32 units, how many are kept: drawn anew for each directory and file, so that all-kept beside all-lost is
    /// common, which is what a missing sync needs to show.
    keep: u64,
}

impl Dice {
    fn new(plan: CrashPlan) -> Self {
        let seed = if let CrashPlan::Seeded(seed) = plan { seed } else { 0 };
        Self { plan, rng: Rng::new(seed), unit: 0, keep: 16 }
    }

    fn next_owner(&mut self) {
        self.keep = match self.rng.below(4) {
            0 => 0,
            1 => 32,
            2 => 16,
            _ => self.rng.next() % 33,
        };
    }

    fn kept(&mut self) -> bool {
        let unit = self.unit;
        self.unit += 1;
        match self.plan {
            CrashPlan::KeepNone => false,
            CrashPlan::KeepAll => true,
            CrashPlan::Subset(bits) => bits.checked_shr(unit).unwrap_or(0) & 1 == 1,
            CrashPlan::Seeded(_) => self.rng.in_32(self.keep),
        }
    }

    fn fate(&mut self, change: &Change) -> Fate {
        let kept = self.kept();
        let odd = matches!(self.plan, CrashPlan::Seeded(_)) && change.is_bytes();
        if odd && self.rng.in_32(1) {
            Fate::Garbage
        } else if odd && !kept && self.rng.in_32(2) {
            Fate::LengthOnly
        } else if kept {
            Fate::Kept
        } else {
            Fate::Lost
        }
    }
}

impl State {
    /// The files with the writes that are in flight added to what is pending: they may reach the device too.
    fn with_in_flight(&self) -> BTreeMap<u64, Content> {
        let mut files = self.files.clone();
        if !self.down {
            // Else they were added when the power went.
            self.add_in_flight(&mut files);
        }
        files
    }

    /// How many units are pending.
    pub(super) fn pending_units(&self) -> usize {
        let names: usize = self.dirs.values().map(|d| d.pending.len()).sum();
        names + self.with_in_flight().values().map(|f| f.pending.len()).sum::<usize>()
    }

    /// The directories and files after a power loss.
    pub(super) fn after_crash(&self, plan: CrashPlan) -> (BTreeMap<PathBuf, Dir>, BTreeMap<u64, Content>) {
        let mut dice = Dice::new(plan);
        let mut names = BTreeMap::new();
        for (path, dir) in &self.dirs {
            dice.next_owner();
            names.insert(path.clone(), dir.after_crash(|| dice.kept()));
        }
        let mut contents = BTreeMap::new();
        let mut garbage = Rng::new(dice.rng.next());
        for (id, file) in self.with_in_flight() {
            dice.next_owner();
            contents.insert(id, file.after_crash(|c| dice.fate(c), &mut garbage));
        }
        // Only what can be reached from the root by names that were kept is there.
        let (mut dirs, mut files) = (BTreeMap::new(), BTreeMap::new());
        let mut to_visit = vec![Path::new("/").to_path_buf()];
        while let Some(path) = to_visit.pop() {
            let names = names.remove(&path).unwrap_or_default();
            for (name, node) in &names {
                match node {
                    Node::Dir => to_visit.push(path.join(name)),
                    Node::File(id) => {
                        if let Some(bytes) = contents.get(id) {
                            files.insert(*id, Content::settled(bytes.clone()));
                        }
                    }
                }
            }
            dirs.insert(path, Dir::settled(names));
        }
        (dirs, files)
    }
}
