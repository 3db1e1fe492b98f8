//! A crash test of whatever stands on a [`SimDisk`]: the power goes at every operation, in every way, and in the recovery
//! too.
//!
//! Invariants:
//! 1. The same seed, settings and closures give the same crashes in the same order, as far as the closures draw no chance
//!    of their own and leave the disk to one thread.
//! 2. A failure, and a panic in a closure, names seed, operation and plan.
//!
//! Known limits: the workload runs anew for each crash point, so that a whole exploration takes time in the square of its
//! operations: many short workloads find more than one long one. An error that a recovery gives while the power goes is
//! taken for that of the loss of power.

use std::fmt;

use super::rng::Rng;
use super::tally::{Failure, Moment, Tally, Told};
use super::{Coverage, SimDisk};

/// How to explore; see [`Explore::run`].
#[derive(Clone, Copy, Debug)]
pub struct Explore {
    seed: u64,
    crash_every: u64,
    only: Option<u64>,
    limit: u64,
    samples: u64,
    nested_in: u64,
    nested: u64,
}

impl Explore {
    /// Every operation once, each with nothing kept, everything kept, and one drawn outcome; no crash in recovery.
    ///
    /// ```
    /// use backstay_storage::disk::sim::Explore;
    /// let tally = Explore::new(7).run(|_| Ok(()), |_, (), _| Ok(()))?;
    /// assert_eq!((tally.operations, tally.crash_points, tally.recoveries), (0, 1, 1)); // a loss of power at rest
    /// # Ok::<(), backstay_storage::disk::sim::Failure>(())
    /// ```
    pub fn new(seed: u64) -> Self {
        Self { seed, crash_every: 1, only: None, limit: 0, samples: 1, nested_in: 1, nested: 0 }
    }

    /// Crashes at one operation of each `n`, drawn by the seed.
    ///
    /// ```
    /// # use backstay_storage::disk::{Disk, sim::Explore};
    /// let ten = |disk: &backstay_storage::disk::SimDisk| {
    ///     (0..10).try_for_each(|_| disk.sync_dir("/".as_ref())).or_else(|e| if disk.is_down() { Ok(()) } else { Err(e.to_string()) })
    /// };
    /// assert_eq!(Explore::new(7).crash_every(5).run(ten, |_, (), _| Ok(()))?.crash_points, 3); // 2, and one at the end
    /// # Ok::<(), backstay_storage::disk::sim::Failure>(())
    /// ```
    #[must_use]
    pub fn crash_every(self, n: u64) -> Self {
        Self { crash_every: n.max(1), ..self }
    }

    /// Crashes at operation `op` only, to look at a failure.
    ///
    /// ```
    /// # use backstay_storage::disk::sim::Explore;
    /// assert_eq!(Explore::new(7).only(1).run(|_| Ok(()), |_, (), _| Ok(()))?.crash_points, 1);
    /// # Ok::<(), backstay_storage::disk::sim::Failure>(())
    /// ```
    #[must_use]
    pub fn only(self, op: u64) -> Self {
        Self { only: Some(op), ..self }
    }

    /// Which outcomes to try at each crash: as [`SimDisk::outcomes`] says.
    ///
    /// ```
    /// # use backstay_storage::disk::sim::Explore;
    /// // Every subset of up to 12 pending operations, 100 drawn outcomes where there are more.
    /// let explore = Explore::new(7).outcomes(4096, 100);
    /// # assert!(explore.run(|_| Ok(()), |_, (), _| Ok(())).is_ok());
    /// ```
    #[must_use]
    pub fn outcomes(self, limit: u64, samples: u64) -> Self {
        Self { limit, samples, ..self }
    }

    /// Crashes in one of `one_in` recoveries too, anew at each of its operations, or at `crashes` drawn ones if it has
    /// more; each with nothing kept, everything kept, and one drawn outcome.
    ///
    /// ```
    /// # use backstay_storage::disk::sim::Explore;
    /// let explore = Explore::new(7).nested(10, u64::MAX);
    /// # assert!(explore.run(|_| Ok(()), |_, (), _| Ok(())).is_ok());
    /// ```
    #[must_use]
    pub fn nested(self, one_in: u64, crashes: u64) -> Self {
        Self { nested_in: one_in.max(1), nested: crashes, ..self }
    }

    /// Explores, until the first failure.
    ///
    /// `workload` gets an empty disk and does its work until that is over or the power goes. It returns what it was
    /// promised till then (what was acknowledged, what was asked for), in both cases; an error if something went wrong
    /// that no loss of power explains ([`SimDisk::is_down`]). It must do the same each time.
    ///
    /// `recover` gets the disk after a loss of power and what was promised: it opens whatever stands on the disk and
    /// compares. What it returns must come out the same after every crash of the recovery itself; `()` compares nothing.
    /// An error is the failure.
    ///
    /// ```
    /// use std::path::Path;
    /// use backstay_storage::disk::sim::Explore;
    /// use backstay_storage::disk::{Create, Disk, OpenOptions, SimDisk};
    ///
    /// /// Replaces the file /count durably: written beside it, synced, renamed.
    /// fn put(disk: &SimDisk, count: u8) -> backstay_storage::Result<()> {
    ///     let create = OpenOptions { write: true, create: Create::IfAbsent, direct: false };
    ///     let file = disk.open(Path::new("/count.new"), create)?;
    ///     file.write_at(&[count], 0)?;
    ///     file.sync()?; // without this line the exploration fails
    ///     disk.rename(Path::new("/count.new"), Path::new("/count"))?;
    ///     disk.sync_dir(Path::new("/"))
    /// }
    ///
    /// /// Counts up, and says how far that was acknowledged.
    /// fn workload(disk: &SimDisk) -> Result<u8, String> {
    ///     let acknowledged = (1..=3).take_while(|count| put(disk, *count).is_ok()).last();
    ///     Ok(acknowledged.unwrap_or(0))
    /// }
    ///
    /// /// What was acknowledged is there, or what was being put beyond it.
    /// fn recover(disk: &SimDisk, acknowledged: &u8) -> Result<u8, String> {
    ///     let count = match disk.open(Path::new("/count"), OpenOptions::READ) {
    ///         Ok(file) => {
    ///             let mut count = [0];
    ///             file.read_at(&mut count, 0).map_err(|e| e.to_string())?;
    ///             count[0]
    ///         }
    ///         Err(_) => 0,
    ///     };
    ///     let right = count == *acknowledged || count == acknowledged + 1;
    ///     if right { Ok(count) } else { Err(format!("{acknowledged} was acknowledged, {count} is there")) }
    /// }
    ///
    /// let explore = Explore::new(7).outcomes(4096, 100).nested(1, u64::MAX);
    /// let tally = explore.run(workload, |disk, acknowledged, _| recover(disk, acknowledged))?;
    /// assert_eq!((tally.operations, tally.exhausted), (15, tally.crash_points));
    /// # Ok::<(), backstay_storage::disk::sim::Failure>(())
    /// ```
    pub fn run<P, F: PartialEq + fmt::Debug>(
        &self,
        workload: impl FnMut(&SimDisk) -> Result<P, String>,
        recover: impl FnMut(&SimDisk, &P, &Moment) -> Result<F, String>,
    ) -> Result<Tally, Failure> {
        self.run_on(workload, recover, |_, _, _, _| Ok(()))
    }

    /// As [`Explore::run`]; `work_on` goes on after each recovery, the nested ones included, on the disk it left. It gets
    /// what `recover` returned too. No crash is tried in it.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Disk, OpenOptions, sim::Explore};
    /// let create = |disk: &backstay_storage::disk::SimDisk| {
    ///     Ok::<_, String>(disk.open(Path::new("/a"), OpenOptions::CREATE_DIRECT).is_ok())
    /// };
    /// let tally = Explore::new(7).run_on(
    ///     create,
    ///     |disk, _, _| Ok(disk.list_all().len()),
    ///     |disk, _, found, _| if *found == 0 { create(disk).map(drop) } else { Ok(()) },
    /// )?;
    /// assert_eq!(tally.operations, 1);
    /// # Ok::<(), backstay_storage::disk::sim::Failure>(())
    /// ```
    pub fn run_on<P, F: PartialEq + fmt::Debug>(
        &self,
        mut workload: impl FnMut(&SimDisk) -> Result<P, String>,
        recover: impl FnMut(&SimDisk, &P, &Moment) -> Result<F, String>,
        work_on: impl FnMut(&SimDisk, &P, &F, &Moment) -> Result<(), String>,
    ) -> Result<Tally, Failure> {
        let seed = self.seed;
        let mut lives = Lives { recover, work_on, tally: Tally::default(), rng: Rng::new(seed) };
        let unrecovered = |op, why| Failure { seed, op, moment: None, why };
        let whole = SimDisk::new(seed);
        workload(&whole).map_err(|why| unrecovered(whole.ops() + 1, why))?;
        let total = whole.ops();
        lives.tally.operations = total;
        let drawn = 1 + lives.rng.below(self.crash_every as usize) as u64;
        let every = (drawn..=total).step_by(self.crash_every as usize).chain([total + 1]);
        for op in every.filter(|op| self.only.is_none_or(|only| only.min(total + 1) == *op)) {
            let down = SimDisk::new(seed);
            down.crash_at(op);
            let promised = workload(&down).map_err(|why| unrecovered(op, why))?;
            if op <= total && !down.is_down() {
                let why = format!("the workload did {total} operations at first, now {}", down.ops());
                return Err(unrecovered(op, why));
            }
            lives.tally.crash_points += 1;
            self.outcomes_of(&down, op, &promised, &mut lives)?;
        }
        Ok(lives.tally)
    }

    /// Tries the outcomes of one loss of power.
    fn outcomes_of<P, F, R, W>(
        &self,
        down: &SimDisk,
        op: u64,
        promised: &P,
        lives: &mut Lives<R, W>,
    ) -> Result<(), Failure>
    where
        F: PartialEq + fmt::Debug,
        R: FnMut(&SimDisk, &P, &Moment) -> Result<F, String>,
        W: FnMut(&SimDisk, &P, &F, &Moment) -> Result<(), String>,
    {
        let seed = self.seed;
        let outcomes = down.outcomes(self.limit, self.samples, mixed(seed, op));
        lives.tally.exhausted += u64::from(outcomes.coverage() != Coverage::Sampled);
        for plan in outcomes {
            let moment = Moment { seed, op, plan, nested: None };
            let (found, operations) = lives.one(&down.power_cycle(plan), promised, None, &moment)?;
            lives.tally.recoveries += 1;
            if self.nested == 0 || !lives.rng.next().is_multiple_of(self.nested_in) {
                continue;
            }
            let mut inner = 0;
            loop {
                let stride = (operations / self.nested).max(1) as usize;
                inner += 1 + lives.rng.below(2 * stride - 1) as u64;
                if inner > operations {
                    break;
                }
                let again = down.power_cycle(plan);
                again.crash_at(inner);
                let told = Told(moment);
                let cut_off = (lives.recover)(&again, promised, &moment);
                drop(told);
                if let (Err(why), false) = (cut_off, again.is_down()) {
                    return Err(Failure { seed, op, moment: Some(Box::new(moment)), why });
                }
                for plan in again.outcomes(0, 1, mixed(seed, op ^ inner << 32)) {
                    let moment = Moment { nested: Some((inner, plan)), ..moment };
                    lives.one(&again.power_cycle(plan), promised, Some(&found), &moment)?;
                    lives.tally.nested += 1;
                }
            }
        }
        Ok(())
    }
}

/// The closures, and what they did.
struct Lives<R, W> {
    recover: R,
    work_on: W,
    tally: Tally,
    rng: Rng,
}

impl<R, W> Lives<R, W> {
    /// One recovery and what follows. Says what was found and in how many operations.
    fn one<P, F>(
        &mut self,
        up: &SimDisk,
        promised: &P,
        expected: Option<&F>,
        moment: &Moment,
    ) -> Result<(F, u64), Failure>
    where
        F: PartialEq + fmt::Debug,
        R: FnMut(&SimDisk, &P, &Moment) -> Result<F, String>,
        W: FnMut(&SimDisk, &P, &F, &Moment) -> Result<(), String>,
    {
        let _told = Told(*moment);
        let failure = |why| Failure { seed: moment.seed, op: moment.op, moment: Some(Box::new(*moment)), why };
        let found = (self.recover)(up, promised, moment).map_err(failure)?;
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(failure(format!("found {found:?}, without the second crash {expected:?}")));
        }
        let operations = up.ops();
        (self.work_on)(up, promised, &found, moment).map_err(failure)?;
        self.tally.lies = self.tally.lies.max(up.sabotaged());
        Ok((found, operations))
    }
}

/// A seed for one crash point.
fn mixed(seed: u64, op: u64) -> u64 {
    Rng::new(seed ^ op.rotate_left(40)).next()
}
