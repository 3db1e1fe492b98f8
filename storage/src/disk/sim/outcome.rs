//! The outcomes of a power loss that a test should try: all there are while they are few, chosen ones beyond.

use super::SimDisk;
use super::content::{Change, sectors};
use super::crash::CrashPlan;
use super::dice::fates;
use super::rng::Rng;
use super::state::State;
use crate::disk::shared::lock;

/// How much of what can happen at a power loss a set of plans covers, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coverage {
    /// Each sector old, new and garbage, each other change lost and kept, in every combination.
    EverySector,
    /// Each pending operation in every fate, in every combination; which sectors of a torn or garbled write is drawn.
    EveryFate,
    /// Every subset of the pending operations kept whole; and each write in every other fate too, with all others lost and
    /// with all others kept.
    EverySubset,
    /// Nothing kept, everything kept, and drawn ones.
    Sampled,
}

/// The plans of [`SimDisk::outcomes`], in a fixed order.
#[derive(Debug)]
pub struct Outcomes {
    coverage: Coverage,
    /// The fates of each pending operation (for [`Coverage::EverySector`]: of each unit).
    bases: Vec<u128>,
    count: u128,
    next: u128,
    seed: u64,
}

impl Outcomes {
    /// How much the plans cover.
    ///
    /// ```
    /// # use backstay_storage::disk::{SimDisk, sim::Coverage};
    /// assert_eq!(SimDisk::new(7).outcomes(10, 0, 1).coverage(), Coverage::EverySector); // of nothing
    /// ```
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// The combination in which operation `at` meets fate `digit` and every other one meets fate `others`, 0 or 1.
    fn one_odd(&self, at: usize, digit: u128, others: u128) -> u128 {
        let (mut combination, mut weight) = (0, 1_u128);
        for (i, base) in self.bases.iter().enumerate() {
            combination += weight * if i == at { digit } else { others };
            weight *= base;
        }
        combination
    }

    /// The nth plan behind the subsets.
    fn odd(&self, nth: u128) -> Option<CrashPlan> {
        let (others, mut left) = (nth % 2, nth / 2);
        for (at, base) in self.bases.iter().enumerate() {
            let odd = base - 2;
            if left < odd {
                return Some(CrashPlan::Fates { combination: self.one_odd(at, 2 + left, others), seed: self.seed });
            }
            left -= odd;
        }
        None
    }
}

impl Iterator for Outcomes {
    type Item = CrashPlan;

    fn next(&mut self) -> Option<CrashPlan> {
        let (at, seed) = (self.next, self.seed);
        self.next += 1;
        if at >= self.count {
            return if self.coverage == Coverage::EverySubset { self.odd(at - self.count) } else { None };
        }
        Some(match self.coverage {
            Coverage::EverySector => CrashPlan::Sectors { combination: at, seed },
            Coverage::EveryFate => CrashPlan::Fates { combination: at, seed },
            Coverage::EverySubset => CrashPlan::Operations(at),
            Coverage::Sampled => match at {
                0 => CrashPlan::KeepNone,
                1 => CrashPlan::KeepAll,
                _ => CrashPlan::Seeded(Rng::new(seed.wrapping_add(at as u64)).next()),
            },
        })
    }
}

/// The product, if it is no more than `limit`.
fn product(bases: impl IntoIterator<Item = u128>, limit: u128) -> Option<u128> {
    bases.into_iter().try_fold(1_u128, |product, base| Some(product * base).filter(|product| *product <= limit))
}

impl SimDisk {
    /// How many units ([`CrashPlan`]) a power loss would decide on now: a sector counts, not the write that it is of.
    ///
    /// ```
    /// # use backstay_storage::disk::SimDisk;
    /// assert_eq!(SimDisk::new(7).pending_units(), 0);
    /// ```
    pub fn pending_units(&self) -> usize {
        let pending = lock(&self.shared.state).pending();
        pending.iter().map(|p| p.sectors.max(1)).sum()
    }

    /// How many pending operations ([`CrashPlan`]) a power loss would decide on now: a write counts once.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Disk, OpenOptions, SimDisk};
    /// let disk = SimDisk::new(7);
    /// disk.open(Path::new("/a"), OpenOptions::CREATE_DIRECT)?.write_at(&[1; 5000], 0)?;
    /// assert_eq!((disk.pending_operations(), disk.pending_units()), (2, 11)); // the name, and 10 sectors
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn pending_operations(&self) -> usize {
        lock(&self.shared.state).pending().len()
    }

    /// Every plan that keeps some subset of the pending units, if there are at most `limit` (and at most 24) of them.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Disk, SimDisk};
    /// let disk = SimDisk::new(7);
    /// assert_eq!(disk.crash_plans(8).map(|plans| plans.count()), Some(1));
    /// ```
    pub fn crash_plans(&self, limit: usize) -> Option<impl Iterator<Item = CrashPlan> + use<>> {
        let units = self.pending_units();
        (units <= limit.min(24)).then(|| (0..1u128 << units).map(CrashPlan::Subset))
    }

    /// Outcomes of a power loss now: with the best [`Coverage`] that takes at most `limit` plans (of which 2^24 is the
    /// most), or else `samples` drawn plans beside nothing kept and everything kept. `seed` draws what is drawn.
    ///
    /// A limit of 4096 covers every subset of 12 pending operations; those in which one write is torn, garbage or a
    /// length without its bytes come on top, at most 6 for each write.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Disk, OpenOptions, SimDisk, sim::Coverage};
    /// let disk = SimDisk::new(7);
    /// let file = disk.open(Path::new("/a"), OpenOptions::CREATE_DIRECT)?;
    /// disk.sync_dir(Path::new("/"))?;
    /// file.write_at(&[1; 1024], 0)?;
    /// let all = disk.outcomes(9, 0, 1);
    /// assert_eq!((all.coverage(), all.count()), (Coverage::EverySector, 9)); // 2 sectors: 3 × 3
    /// // lost, kept, garbage, torn, or only the length
    /// let fates = disk.outcomes(8, 0, 1);
    /// assert_eq!((fates.coverage(), fates.count()), (Coverage::EveryFate, 5));
    /// let drawn = disk.outcomes(0, 4, 1);
    /// assert_eq!((drawn.coverage(), drawn.count()), (Coverage::Sampled, 6));
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn outcomes(&self, limit: u64, samples: u64, seed: u64) -> Outcomes {
        let pending = lock(&self.shared.state).pending();
        let limit = u128::from(limit.clamp(1, 1 << 24));
        let bases: Vec<u128> = pending.iter().map(Pending::fates).collect();
        let units =
            pending.iter().flat_map(|p| std::iter::repeat_n(if p.sectors > 0 { 3 } else { 2 }, p.sectors.max(1)));
        let (coverage, count) = if let Some(count) = product(units, limit) {
            (Coverage::EverySector, count)
        } else if let Some(count) = product(bases.iter().copied(), limit) {
            (Coverage::EveryFate, count)
        } else if let Some(count) = product(bases.iter().map(|_| 2), limit) {
            (Coverage::EverySubset, count)
        } else {
            (Coverage::Sampled, 2 + u128::from(samples))
        };
        Outcomes { coverage, bases, count, next: 0, seed }
    }
}

/// What is to be known of a pending operation to list its fates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// Those that a write touches; 0 for another operation.
    sectors: usize,
    /// Whether it is a write that ends behind the durable end of its file.
    grows: bool,
}

impl Pending {
    fn fates(&self) -> u128 {
        if self.sectors == 0 { 2 } else { fates(self.sectors, self.grows) }
    }
}

impl State {
    /// What a power loss would decide on, in its order.
    fn pending(&self) -> Vec<Pending> {
        let names = self.dirs.values().flat_map(|dir| &dir.pending).map(|_| Pending { sectors: 0, grows: false });
        let in_flight = self.in_flight();
        let files = self.files.iter().map(|(id, file)| in_flight.get(id).unwrap_or(file));
        let changes = files.flat_map(|file| {
            file.pending.iter().map(|change| match change {
                Change::Write { at, data } => {
                    Pending { sectors: sectors(*at, data.len()), grows: file.grows(*at, data.len()) }
                }
                Change::Grow(_) | Change::Cut(_) => Pending { sectors: 0, grows: false },
            })
        });
        names.chain(changes).collect()
    }
}
