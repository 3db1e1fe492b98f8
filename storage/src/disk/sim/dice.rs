//! The lots that a power loss draws for what was pending: a [`CrashPlan`] carried out.

use super::crash::CrashPlan;
use super::image::Image;
use super::rng::Rng;

/// What a crash does to one sector's part of a pending write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Kept,
    /// The sector holds neither the old nor the new bytes.
    Garbage,
    /// The length was written, the bytes were not.
    Zeros,
    /// The same on a device that shows what a deleted file has left.
    Stale,
}

/// The fates that a whole write can meet, in the order of [`CrashPlan::Fates`]'s digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    Lost,
    Kept,
    Garbage,
    Torn,
    Length,
}

fn choices(sectors: usize, grows: bool) -> impl Iterator<Item = Whole> {
    let torn = (sectors > 1).then_some(Whole::Torn);
    let length = grows.then_some(Whole::Length);
    [Whole::Lost, Whole::Kept, Whole::Garbage].into_iter().chain(torn).chain(length)
}

/// How many fates a write can meet.
pub(super) fn fates(sectors: usize, grows: bool) -> u128 {
    choices(sectors, grows).count() as u128
}

/// A plan being carried out, change by change.
pub(super) struct Dice<'a> {
    plan: CrashPlan,
    /// Digits of a combination that are left.
    digits: u128,
    rng: Rng,
    noise: Rng,
    unit: u32,
    /// Of 32 units, how many are kept: drawn anew for each directory and file, so that all-kept beside all-lost is
    /// common, which is what a missing sync needs to show.
    keep: u64,
    /// Whether the write that is being decided is one that may have odd sectors.
    odd: bool,
    whole: Whole,
    /// Sectors of the write that come, and the one that settles it: it is kept in a torn write whose next is not, or is
    /// the one that is garbage for certain.
    at: usize,
    pivot: usize,
    stale: Option<&'a Image>,
    graves: &'a [Image],
}

impl<'a> Dice<'a> {
    pub(super) fn new(plan: CrashPlan, graves: &'a [Image]) -> Self {
        let (seed, digits) = match plan {
            CrashPlan::Seeded(seed) => (seed, 0),
            CrashPlan::Sectors { combination, seed } | CrashPlan::Fates { combination, seed } => (seed, combination),
            _ => (0, 0),
        };
        let mut rng = Rng::new(seed);
        let noise = Rng::new(rng.next());
        let whole = Whole::Lost;
        Self { plan, digits, rng, noise, unit: 0, keep: 16, odd: false, whole, at: 0, pivot: 0, stale: None, graves }
    }

    /// The changes that come are those of another directory or file.
    pub(super) fn next_owner(&mut self) {
        self.keep = match self.rng.below(4) {
            0 => 0,
            1 => 32,
            2 => 16,
            _ => self.rng.next() % 33,
        };
        self.stale = self.graves.get(self.rng.below(self.graves.len()));
    }

    fn digit(&mut self, base: u128) -> u128 {
        let digit = self.digits % base;
        self.digits /= base;
        digit
    }

    fn bit(&mut self, bits: u128) -> bool {
        let unit = self.unit;
        self.unit = self.unit.saturating_add(1);
        bits.checked_shr(unit).unwrap_or(0) & 1 == 1
    }

    /// Whether a change that is there or not is there.
    pub(super) fn kept(&mut self) -> bool {
        match self.plan {
            CrashPlan::KeepNone => false,
            CrashPlan::KeepAll => true,
            CrashPlan::Subset(bits) | CrashPlan::Operations(bits) => self.bit(bits),
            CrashPlan::Sectors { .. } | CrashPlan::Fates { .. } => self.digit(2) == 1,
            CrashPlan::Seeded(_) => self.rng.in_32(self.keep),
        }
    }

    /// What happens to all sectors of a write; `None` if [`Dice::sector`] is to be asked for each of them, in their order.
    pub(super) fn write(&mut self, sectors: usize, grows: bool) -> Option<Fate> {
        match self.plan {
            CrashPlan::KeepNone => Some(Fate::Lost),
            CrashPlan::KeepAll => Some(Fate::Kept),
            CrashPlan::Operations(bits) => Some(if self.bit(bits) { Fate::Kept } else { Fate::Lost }),
            CrashPlan::Subset(_) | CrashPlan::Sectors { .. } => None,
            CrashPlan::Seeded(_) => {
                self.odd = self.rng.in_32(8);
                match self.keep {
                    0 if !self.odd => Some(Fate::Lost),
                    32 if !self.odd => Some(Fate::Kept),
                    _ => None,
                }
            }
            CrashPlan::Fates { .. } => {
                let digit = self.digit(fates(sectors, grows));
                self.whole = choices(sectors, grows).nth(digit as usize).unwrap_or(Whole::Lost);
                // Drawn whatever the fate, so that another fate of this write leaves the others' sectors as they are.
                (self.at, self.pivot) = (0, self.rng.below(sectors));
                self.noise = Rng::new(self.rng.next());
                if self.whole == Whole::Torn {
                    self.pivot = self.pivot.min(sectors.saturating_sub(2));
                }
                match self.whole {
                    Whole::Lost => Some(Fate::Lost),
                    Whole::Kept => Some(Fate::Kept),
                    Whole::Length if self.noise.below(2) == 0 => Some(Fate::Zeros),
                    Whole::Length => Some(Fate::Stale),
                    Whole::Garbage | Whole::Torn => None,
                }
            }
        }
    }

    /// What happens to the next sector of the write.
    pub(super) fn sector(&mut self) -> Fate {
        let either = |kept| if kept { Fate::Kept } else { Fate::Lost };
        match self.plan {
            CrashPlan::Sectors { .. } => match self.digit(3) {
                0 => Fate::Lost,
                1 => Fate::Kept,
                _ => Fate::Garbage,
            },
            CrashPlan::Fates { .. } => {
                let at = self.at;
                self.at += 1;
                match self.whole {
                    Whole::Garbage if at == self.pivot || self.noise.in_32(4) => Fate::Garbage,
                    Whole::Torn if at == self.pivot => Fate::Kept,
                    Whole::Torn if at == self.pivot + 1 => Fate::Lost,
                    _ => either(self.noise.in_32(16)),
                }
            }
            _ => {
                let kept = self.kept();
                if self.odd && self.rng.in_32(4) {
                    Fate::Garbage
                } else if self.odd && !kept && self.rng.in_32(6) {
                    if self.rng.in_32(16) { Fate::Stale } else { Fate::Zeros }
                } else {
                    either(kept)
                }
            }
        }
    }

    /// What draws garbage.
    pub(super) fn noise(&mut self) -> &mut Rng {
        &mut self.noise
    }

    /// What a deleted file has left in these bytes of the file.
    pub(super) fn stale(&self, at: usize, len: usize) -> Option<Vec<u8>> {
        self.stale.map(|image| image.bytes(at, len))
    }
}
