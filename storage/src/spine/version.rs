//! The immutable part of a spine, shared by its owner, snapshots, the checkpointer and the merger: frozen memtables and runs.
//!
//! Invariants:
//! 1. A version never changes: it is replaced by another, under the lock, and holders of the old one go on reading it.
//! 2. Newest first: every frozen table is newer than every run, and both lists are ordered. (Latest spines depend on it.)
//! 3. Only the owner adds a table, at the front. Tables are written oldest first: whoever holds the [`FlushGuard`], of which
//!    there is one at a time, takes the oldest ones away and puts the run that holds them in front of the runs.
//! 4. A run in `busy` is being merged by one job; it and its neighbours in the same job stay where they are until that ends.
//! 5. The runs hold the rows up to the freeze before the oldest table's, and no others: a snapshot of just that freeze is its runs. A
//!    flush that goes beyond a snapshot's freeze leaves it the runs as they were (`Pin`).

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::context::{SpineContext, lock};
use super::floor::Floor;
use super::memory::Held;
use super::memtable::Memtable;
use super::policy::{self, Level};
use super::run::Run;
use super::{Discipline, SpineMeta};
use crate::{Error, Result};

/// A memtable that no longer changes.
#[derive(Debug)]
pub(super) struct Frozen {
    /// Counts the freezes of the spine.
    pub(super) number: u64,
    pub(super) table: Memtable,
    /// Its bytes in the memory's books.
    pub(super) _held: Option<Held>,
}

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub(super) struct Version {
    pub(super) tables: Vec<Arc<Frozen>>,
    pub(super) runs: Vec<Arc<Run>>,
    /// What is hidden.
    pub(super) floor: Option<Arc<Floor>>,
}

impl Version {
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.runs.is_empty()
    }
}

/// What a snapshot of a freeze is on disk, once the spine has gone on.
#[derive(Debug, Default)]
pub(super) struct Pin {
    up_to: u64,
    floor: Option<Arc<Floor>>,
    /// `None` inside: a flush wrote its rows together with later ones.
    runs: OnceLock<Option<Vec<Arc<Run>>>>,
}

#[derive(Debug, Default)]
struct Changing {
    version: Arc<Version>,
    /// Runs that are being merged.
    busy: Vec<Arc<Run>>,
    /// How many of them at rest.
    resting: usize,
    /// Somebody writes tables.
    flushing: bool,
    pins: Vec<Weak<Pin>>,
    /// The spine's owner is gone: nothing more is to be merged.
    closed: bool,
}

impl Changing {
    /// Puts a changed version in the place of the current one.
    fn update(&mut self, change: impl FnOnce(&mut Version)) {
        let mut version = (*self.version).clone();
        change(&mut version);
        self.version = Arc::new(version);
    }

    /// The runs that a policy names.
    fn choose(&self, rest: bool, policy: impl FnOnce(&[Level]) -> Option<Range<usize>>) -> Option<Merging> {
        let runs = &self.version.runs;
        let level = |run: &Arc<Run>| Level { bytes: run.meta.raw_bytes, busy: is_in(&self.busy, run) };
        let range = policy(&runs.iter().map(level).collect::<Vec<_>>()).filter(|_| !self.closed)?;
        let oldest = range.end == runs.len();
        Some(Merging { runs: runs.get(range).unwrap_or_default().to_vec(), oldest, rest })
    }

    /// These runs are not being merged any more.
    fn let_go(&mut self, runs: &[Arc<Run>]) {
        self.busy.retain(|run| !is_in(runs, run));
    }

    fn end(&mut self, merging: &Merging) {
        self.let_go(&merging.runs);
        if merging.rest {
            self.resting = 0;
        }
    }

    fn merge_floor(&self) -> Option<Arc<Floor>> {
        let pins = self.pins.iter().filter_map(Weak::upgrade).map(|pin| pin.floor.clone());
        // `None`, which hides nothing, is the least.
        pins.chain([self.version.floor.clone()]).min_by(|a, b| {
            let bound = |floor: &Option<Arc<Floor>>| floor.as_ref().map(|floor| floor.below.clone());
            bound(a).cmp(&bound(b))
        })?
    }
}

/// What the owner and the others share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) discipline: Discipline,
    pub(super) format: u32,
    /// `None` for an ephemeral spine.
    pub(super) context: Option<Arc<SpineContext>>,
    changing: Mutex<Changing>,
}

/// Where the rows of a snapshot are.
#[derive(Debug)]
pub(super) enum Place {
    /// In these runs.
    Runs(Vec<Arc<Run>>),
    /// Some are in these tables still, the oldest last.
    Tables(Vec<Arc<Frozen>>),
    /// They were written together with later ones.
    Passed,
}

/// Runs that one job merges into one.
#[derive(Debug)]
pub(super) struct Merging {
    pub(super) runs: Vec<Arc<Run>>,
    /// Nothing older is left: a tombstone hides nothing.
    pub(super) oldest: bool,
    /// It is what is right at rest.
    rest: bool,
}

impl Merging {
    /// Raw bytes of the runs.
    pub(super) fn bytes(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.meta.raw_bytes))
    }
}

impl Shared {
    pub(super) fn new(meta: &SpineMeta, context: Option<Arc<SpineContext>>, runs: Vec<Arc<Run>>) -> Arc<Self> {
        let version = Arc::new(Version { runs, ..Version::default() });
        Arc::new(Self {
            name: meta.name.clone(),
            discipline: meta.discipline,
            format: meta.format,
            context,
            changing: Mutex::new(Changing { version, ..Changing::default() }),
        })
    }

    pub(super) fn version(&self) -> Arc<Version> {
        Arc::clone(&lock(&self.changing).version)
    }

    pub(super) fn freeze(&self, frozen: Frozen) {
        lock(&self.changing).update(|version| version.tables.insert(0, Arc::new(frozen)));
    }

    /// The version of now, and where to find what it is on disk later. `up_to`: the last freeze.
    pub(super) fn pin(&self, up_to: u64) -> (Arc<Version>, Arc<Pin>) {
        let mut now = lock(&self.changing);
        let pin = Arc::new(Pin { up_to, floor: now.version.floor.clone(), runs: OnceLock::new() });
        now.pins.retain(|pin| pin.strong_count() > 0);
        now.pins.push(Arc::downgrade(&pin));
        (Arc::clone(&now.version), pin)
    }

    /// Where the rows up to a pin's freeze are.
    pub(super) fn find(&self, pin: &Pin) -> Place {
        let now = lock(&self.changing);
        if let Some(runs) = pin.runs.get() {
            return runs.clone().map_or(Place::Passed, Place::Runs);
        }
        let tables: Vec<_> = now.version.tables.iter().filter(|t| t.number <= pin.up_to).cloned().collect();
        if tables.is_empty() { Place::Runs(now.version.runs.clone()) } else { Place::Tables(tables) }
    }

    /// Hides more, from reads at once.
    pub(super) fn raise(&self, floor: Floor) -> Result<()> {
        let mut now = lock(&self.changing);
        now.version.floor.as_ref().map_or(Ok(()), |old| old.check_raised(&floor))?;
        now.update(|version| version.floor = Some(Arc::new(floor)));
        Ok(())
    }

    /// What writing and merging may leave out.
    pub(super) fn merge_floor(&self) -> Option<Arc<Floor>> {
        lock(&self.changing).merge_floor()
    }

    /// Lets go of runs that are hidden whole; whether there were any.
    pub(super) fn drop_hidden(&self) -> bool {
        let mut now = lock(&self.changing);
        let Some(floor) = now.merge_floor() else { return false };
        let hidden = |run: &Arc<Run>| floor.hides_all(run.index.min_key(), run.index.max_key());
        let idle = now.version.runs.iter().filter(|run| !is_in(&now.busy, run));
        let gone: Vec<_> = idle.filter(|run| hidden(run)).cloned().collect();
        if !gone.is_empty() {
            now.update(|version| version.runs.retain(|run| !is_in(&gone, run)));
            drop(now);
            self.cool(&gone);
        }
        !gone.is_empty()
    }

    /// The cache has no use for what runs that were replaced hold, and does not know that.
    fn cool(&self, gone: &[Arc<Run>]) {
        if let Some(context) = &self.context {
            gone.iter().for_each(|run| run.cool(context));
        }
    }

    /// Whether readers find most of the runs' rows in the cache; then what takes their place belongs there too.
    pub(super) fn is_warm(&self, runs: &[Arc<Run>]) -> bool {
        let Some(context) = &self.context else { return false };
        let bytes = |run: &Arc<Run>| run.meta.raw_bytes;
        let warm: u64 = runs.iter().filter(|run| run.is_warm(context)).map(bytes).sum();
        2 * warm > runs.iter().map(bytes).sum()
    }

    /// The right to write tables, if nobody has it.
    pub(super) fn begin_flush(self: &Arc<Self>) -> Option<FlushGuard> {
        let mut now = lock(&self.changing);
        let free = !std::mem::replace(&mut now.flushing, true);
        free.then(|| FlushGuard { shared: Arc::clone(self), absorbed: Vec::new() })
    }

    /// Whether the right to write tables is free.
    pub(super) fn can_flush(&self) -> bool {
        !lock(&self.changing).flushing
    }

    /// The next runs to merge, marked as busy.
    pub(super) fn next_merge(&self, small: u64) -> Option<Merging> {
        let mut now = lock(&self.changing);
        let chosen = now.choose(false, |levels| policy::next_merge(levels, small))?;
        now.busy.extend(chosen.runs.iter().cloned());
        Some(chosen)
    }

    /// The runs to merge at rest, marked as busy. Fails with [`Error::NoSpace`] where that would take more than half of the disk's `room`.
    pub(super) fn next_at_rest(&self, small: u64, room: Option<u64>) -> Result<Option<Merging>> {
        let mut now = lock(&self.changing);
        let Some(chosen) = now.choose(true, |levels| policy::at_rest(levels, small)) else { return Ok(None) };
        let bytes = chosen.runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.meta.len));
        if let Some(room) = room.filter(|room| room / 2 < bytes) {
            let path = self.context()?.dir().to_path_buf();
            let detail = format!(
                "merging the runs of spine {:?} takes up to {bytes} bytes and is to leave as many, and there are {room}",
                self.name
            );
            return Err(Error::NoSpace { path, detail });
        }
        now.busy.extend(chosen.runs.iter().cloned());
        now.resting = chosen.runs.len();
        Ok(Some(chosen))
    }

    /// Runs of a merge at rest that is under way.
    pub(super) fn resting(&self) -> usize {
        lock(&self.changing).resting
    }

    /// Puts `merged` in the place of the runs that were merged; `None` puts nothing there.
    pub(super) fn replace(&self, merging: &Merging, merged: Option<Arc<Run>>) {
        let mut now = lock(&self.changing);
        now.update(|Version { runs, .. }| {
            let first = |run: &Arc<Run>| merging.runs.first().is_some_and(|first| Arc::ptr_eq(run, first));
            if let Some(at) = runs.iter().position(first) {
                runs.splice(at..at + merging.runs.len(), merged);
            }
        });
        now.end(merging);
        drop(now);
        self.cool(&merging.runs);
    }

    /// Gives up a merge.
    pub(super) fn give_up(&self, merging: &Merging) {
        lock(&self.changing).end(merging);
    }

    pub(super) fn close(&self) {
        lock(&self.changing).closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.changing).closed
    }

    pub(super) fn meta(&self, runs: &[Arc<Run>]) -> SpineMeta {
        let runs = runs.iter().map(|run| run.meta.clone()).collect();
        SpineMeta { name: self.name.clone(), discipline: self.discipline, format: self.format, runs }
    }

    pub(super) fn context(&self) -> Result<&Arc<SpineContext>> {
        let name = &self.name;
        self.context
            .as_ref()
            .ok_or_else(|| Error::Invalid(format!("spine {name:?} is ephemeral: it cannot be flushed")))
    }
}

fn is_in(runs: &[Arc<Run>], run: &Arc<Run>) -> bool {
    runs.iter().any(|other| Arc::ptr_eq(other, run))
}

/// The right to write a spine's frozen tables. Dropped without [`FlushGuard::install`], everything stays as it was.
#[derive(Debug)]
pub(super) struct FlushGuard {
    shared: Arc<Shared>,
    /// Runs that the flush takes in, busy meanwhile; newest first.
    absorbed: Vec<Arc<Run>>,
}

impl FlushGuard {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The oldest tables that have at most so many bytes together, newest first, or the oldest alone. None is newer than a snapshot
    /// of an older one that is still there: that would have no runs of its own. (One taken later has all of them.)
    pub(super) fn oldest(&self, bytes: u64) -> Vec<Arc<Frozen>> {
        let now = lock(&self.shared.changing);
        let pins: Vec<u64> = now.pins.iter().filter_map(Weak::upgrade).map(|pin| pin.up_to).collect();
        let tables = &now.version.tables;
        let (mut taken, mut sum) = (0, 0);
        for table in tables.iter().rev() {
            sum += table.table.bytes() as u64;
            if taken > 0 && sum > bytes {
                break;
            }
            taken += 1;
            if pins.contains(&table.number) {
                break;
            }
        }
        tables.iter().skip(tables.len() - taken).cloned().collect()
    }

    /// Takes in newest runs, as many as a flush of `fresh` bytes is to merge with what it writes; gives them, newest first, and
    /// whether nothing older is left. None are taken in if anything else is done with one of them.
    pub(super) fn absorb(&mut self, fresh: u64, small: u64) -> (Vec<Arc<Run>>, bool) {
        let mut now = lock(&self.shared.changing);
        let version = Arc::clone(&now.version);
        let idle = version.runs.iter().take_while(|run| !is_in(&now.busy, run));
        let sizes: Vec<u64> = idle.map(|run| run.meta.raw_bytes).collect();
        let taken = policy::absorbed(fresh, &sizes, small);
        self.absorbed = version.runs.iter().take(taken).cloned().collect();
        now.busy.extend(self.absorbed.iter().cloned());
        (self.absorbed.clone(), taken == version.runs.len())
    }

    /// Puts `run` in the place of the tables up to freeze `up_to` and what was absorbed; `None` puts nothing there.
    pub(super) fn install(self, up_to: u64, run: Option<Arc<Run>>) {
        let mut now = lock(&self.shared.changing);
        let old = Arc::clone(&now.version);
        for pin in now.pins.iter().filter_map(Weak::upgrade).filter(|pin| pin.up_to < up_to) {
            // Set already if an earlier flush went beyond it.
            let exact = !old.tables.iter().any(|t| t.number <= pin.up_to);
            pin.runs.get_or_init(|| exact.then(|| old.runs.clone()));
        }
        now.update(|Version { tables, runs, .. }| {
            tables.retain(|t| t.number > up_to);
            runs.splice(..self.absorbed.len().min(runs.len()), run);
        });
        drop(now);
        self.shared.cool(&self.absorbed);
    }
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        let mut now = lock(&self.shared.changing);
        now.flushing = false;
        now.let_go(&self.absorbed);
        drop(now);
        if let Some(context) = &self.shared.context {
            context.merger().changed();
        }
    }
}
