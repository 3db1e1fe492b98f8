//! Power loss: which of the pending changes are there when the disk comes back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::{Change, Content, apply, mend, sectors};
use super::dice::{Dice, Fate};
use super::image::{Data, Image, SECTOR};
use super::names::{Dir, Node};
use super::state::{State, bury};

/// How a power loss treats what was not durable. A number is a seed.
///
/// A *pending operation* is one write, change of a file's length, or change of a directory that is not durable. They are
/// counted directories first, in the order of their paths, then files in the order of their creation, each in the order
/// of the calls. A *unit* is one of them too, except that a write is one unit for each 512-byte sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrashPlan {
    /// Nothing that was pending is there.
    KeepNone,
    /// All of it is there.
    KeepAll,
    /// Each unit is kept or lost by chance; rarely a sector is garbage, or a length is there without its bytes, with
    /// zeros or what a deleted file has left in their place.
    Seeded(u64),
    /// Unit i is kept if bit i is set; units from 128 on are lost.
    Subset(u128),
    /// Pending operation i is kept whole if bit i is set; those from 128 on are lost.
    Operations(u128),
    /// A combination of every unit's fates: a number whose digit i, the first unit's being the least significant, is what
    /// happens to unit i: 0 lost, 1 kept, and for a sector 2 garbage. Its base is 2, for a sector 3. The seed draws the
    /// garbage.
    Sectors {
        /// The digits.
        combination: u128,
        /// What draws the garbage.
        seed: u64,
    },
    /// The same for every pending operation: 0 lost, 1 kept, and for a write 2 garbage (in one sector at least), then torn
    /// (some sectors kept, not all) if it has several, then the length without the bytes if the durable file is shorter
    /// than its end. The base is the number of these. The seed draws sectors and garbage.
    Fates {
        /// The digits.
        combination: u128,
        /// What draws sectors and garbage.
        seed: u64,
    },
}

impl From<u64> for CrashPlan {
    fn from(seed: u64) -> Self {
        CrashPlan::Seeded(seed)
    }
}

/// What a power loss leaves of a disk.
pub(super) struct Remains {
    pub(super) dirs: BTreeMap<PathBuf, Dir>,
    pub(super) files: BTreeMap<u64, Content>,
    pub(super) graves: Vec<Image>,
}

impl State {
    /// The directories and files after a power loss.
    pub(super) fn after_crash(&self, plan: CrashPlan) -> Remains {
        let mut dice = Dice::new(plan, &self.graves);
        let mut names = BTreeMap::new();
        for (path, dir) in &self.dirs {
            dice.next_owner();
            names.insert(path, dir.after_crash(|| dice.kept()));
        }
        let in_flight = self.in_flight();
        let mut contents = BTreeMap::new();
        for (id, file) in &self.files {
            dice.next_owner();
            contents.insert(*id, in_flight.get(id).unwrap_or(file).after_crash(&mut dice));
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
                        if let Some(content) = contents.remove(id) {
                            files.insert(*id, content);
                        }
                    }
                }
            }
            dirs.insert(path, Dir::settled(names));
        }
        let mut graves = self.graves.clone();
        contents.into_values().for_each(|lost| bury(&mut graves, lost.durable));
        Remains { dirs, files, graves }
    }
}

impl Content {
    /// The file after a power loss in which each pending change met its fate.
    pub(super) fn after_crash(&self, dice: &mut Dice<'_>) -> Self {
        let (mut bytes, mut unreadable) = (self.durable.clone(), self.unreadable.clone());
        for change in &self.pending {
            let Change::Write { at, data } = change else {
                if dice.kept() {
                    apply(&mut bytes, change);
                    mend(&mut unreadable, change);
                }
                continue;
            };
            match dice.write(sectors(*at, data.len()), self.grows(*at, data.len())) {
                Some(Fate::Lost) => {}
                Some(Fate::Kept) => {
                    apply(&mut bytes, change);
                    mend(&mut unreadable, change);
                }
                decided => {
                    let mut sector = *at;
                    while sector < at + data.len() {
                        let end = (sector + SECTOR - sector % SECTOR).min(at + data.len());
                        let piece = data.slice(sector - at, end - at);
                        let fate = decided.unwrap_or_else(|| dice.sector());
                        meet(&mut bytes, sector, &piece, fate, dice);
                        if matches!(fate, Fate::Kept | Fate::Garbage) {
                            unreadable.remove(&(sector / SECTOR));
                        }
                        sector = end;
                    }
                }
            }
        }
        Self::settled(bytes, Arc::clone(&self.older), unreadable)
    }
}

/// Lets one sector's part of a write meet its fate.
fn meet(bytes: &mut Image, at: usize, piece: &Data, fate: Fate, dice: &mut Dice<'_>) {
    let end = at + piece.len();
    match fate {
        Fate::Lost => {}
        Fate::Kept => bytes.write(at, piece),
        Fate::Garbage => {
            bytes.grow(end);
            match dice.noise().below(4) {
                // The sector came apart: the head of what was new, the tail of what was old.
                0 => bytes.write(at, &piece.slice(0, piece.len() / 2)),
                1 => bytes.write(at, &Data::Zeros(piece.len())),
                _ => bytes.garble(at / SECTOR, dice.noise()),
            }
        }
        Fate::Zeros => bytes.grow(end),
        Fate::Stale => {
            let old = bytes.len();
            bytes.grow(end);
            if let Some(found) = dice.stale(at.max(old), end - at.max(old).min(end)) {
                bytes.put(at.max(old), &found);
            }
        }
    }
}
