//! The immutable part of a spine, shared by its owner and the checkpointer: frozen memtables and runs.
//!
//! Invariants:
//! 1. A version never changes: it is replaced by another, under the lock, and holders of the old one go on reading it.
//! 2. Newest first: every frozen table is newer than every run, and both lists are ordered. (Latest spines depend on it.)
//! 3. Only the owner adds a table, at the front; only [`Flushed::install`] removes tables, from the back, and puts
//!    in their place, at the front of the runs, the one run that holds exactly them and the runs it took in. At most
//!    one flush of a spine is under way (`flushing`), so the runs cannot change in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::context::{SpineContext, lock};
use super::cursor::{Merge, Source};
use super::extent::{Packing, raw_bytes};
use super::memtable::Memtable;
use super::policy;
use super::run::{Keep, Run};
use super::{Discipline, RowBatch, SpineMeta};
use crate::{Error, Result};

/// A memtable that no longer changes.
#[derive(Debug)]
pub(super) struct Frozen {
    /// Counts the freezes of the spine.
    pub(super) number: u64,
    pub(super) table: Memtable,
}

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub(super) struct Version {
    pub(super) frozen: Vec<Arc<Frozen>>,
    pub(super) runs: Vec<Arc<Run>>,
    /// The last freeze that is in the runs.
    flushed: u64,
}

/// What the owner and the checkpointer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) discipline: Discipline,
    pub(super) format: u32,
    /// `None` for an ephemeral spine.
    pub(super) context: Option<Arc<SpineContext>>,
    version: Mutex<Arc<Version>>,
    flushing: AtomicBool,
}

impl Shared {
    pub(super) fn new(meta: &SpineMeta, context: Option<Arc<SpineContext>>, runs: Vec<Arc<Run>>) -> Arc<Self> {
        Arc::new(Self {
            name: meta.name.clone(),
            discipline: meta.discipline,
            format: meta.format,
            context,
            version: Mutex::new(Arc::new(Version { frozen: Vec::new(), runs, flushed: 0 })),
            flushing: AtomicBool::new(false),
        })
    }

    pub(super) fn version(&self) -> Arc<Version> {
        Arc::clone(&lock(&self.version))
    }

    fn replace(&self, change: impl FnOnce(&Version) -> Version) {
        let mut version = lock(&self.version);
        *version = Arc::new(change(&version));
    }

    pub(super) fn freeze(&self, frozen: Frozen) {
        self.replace(|old| {
            let mut frozen_tables = vec![Arc::new(frozen)];
            frozen_tables.extend(old.frozen.iter().cloned());
            Version { frozen: frozen_tables, runs: old.runs.clone(), flushed: old.flushed }
        });
    }

    fn meta(&self, runs: &[Arc<Run>]) -> SpineMeta {
        let runs = runs.iter().map(|run| run.meta.clone()).collect();
        SpineMeta { name: self.name.clone(), discipline: self.discipline, format: self.format, runs }
    }
}

/// A spine's state at a freeze, for the checkpointer: whatever the owner does afterwards is not in it. It holds the
/// frozen rows in memory; dropping it loses nothing.
///
/// ```
/// use backstay_storage::spine::{Discipline, Spine};
/// assert!(Spine::ephemeral(Discipline::Weighted).freeze().is_ephemeral());
/// ```
#[derive(Debug)]
pub struct FrozenSpine {
    shared: Arc<Shared>,
    /// Tables up to this freeze belong to it.
    up_to: u64,
}

impl FrozenSpine {
    pub(super) fn new(shared: Arc<Shared>, up_to: u64) -> Self {
        Self { shared, up_to }
    }

    /// The spine's name.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Weighted).freeze().name(), "ephemeral");
    /// ```
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Which rows it holds.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Weighted).freeze().discipline(), Discipline::Weighted);
    /// ```
    pub fn discipline(&self) -> Discipline {
        self.shared.discipline
    }

    /// The embedder's row format number.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert_eq!(Spine::ephemeral(Discipline::Weighted).freeze().format(), 0);
    /// ```
    pub fn format(&self) -> u32 {
        self.shared.format
    }

    /// Whether it is of an ephemeral spine, which has nothing to flush.
    ///
    /// ```
    /// # use backstay_storage::spine::{Discipline, Spine};
    /// assert!(Spine::ephemeral(Discipline::Weighted).freeze().is_ephemeral());
    /// ```
    pub fn is_ephemeral(&self) -> bool {
        self.shared.context.is_none()
    }

    /// Whether it can be flushed with `context`: not if it is ephemeral, of another store, or older than what was
    /// flushed since, whose rows its runs hold now.
    pub(crate) fn check(&self, context: &Arc<SpineContext>) -> Result<()> {
        let name = self.name();
        let Some(own) = &self.shared.context else {
            return Err(Error::Invalid(format!("spine {name:?} is ephemeral: it cannot be flushed")));
        };
        if !Arc::ptr_eq(own, context) {
            return Err(Error::Invalid(format!("spine {name:?} is of another store than the run file")));
        }
        if self.up_to < self.shared.version().flushed {
            return Err(Error::Invalid(format!(
                "spine {name:?} was frozen before the state that was flushed last: checkpoints are taken in the order of \
                 their freezes"
            )));
        }
        Ok(())
    }

    /// Starts a flush with `context`, which must be the spine's.
    pub(super) fn begin(&self, context: &Arc<SpineContext>) -> Result<Flush> {
        let name = self.name();
        if self.shared.flushing.swap(true, Ordering::AcqRel) {
            return Err(Error::Invalid(format!(
                "spine {name:?} is being flushed already: install or drop that flush first"
            )));
        }
        let guard = FlushGuard { shared: Arc::clone(&self.shared) };
        // Behind the flag: no other flush can be installed from here on.
        self.check(context)?;
        let version = self.shared.version();
        let sorted: Vec<_> =
            version.frozen.iter().filter(|f| f.number <= self.up_to).flat_map(|f| f.table.sorted()).collect();
        let fresh = sorted.iter().flat_map(|rows| rows.iter()).map(|(key, value, _)| raw_bytes(key, value)).sum();
        let sizes: Vec<u64> = version.runs.iter().map(|run| run.meta.raw_bytes).collect();
        let taken = if sorted.is_empty() { 0 } else { policy::runs_to_merge(fresh, &sizes) };
        Ok(Flush { guard, version, sorted, taken, up_to: self.up_to })
    }
}

/// Ends the flush when it is dropped, installed or not.
#[derive(Debug)]
struct FlushGuard {
    shared: Arc<Shared>,
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        self.shared.flushing.store(false, Ordering::Release);
    }
}

/// A flush under way.
#[derive(Debug)]
pub(super) struct Flush {
    guard: FlushGuard,
    version: Arc<Version>,
    /// The frozen rows, newest first.
    sorted: Vec<Arc<RowBatch>>,
    /// How many of the newest runs are taken in.
    taken: usize,
    up_to: u64,
}

impl Flush {
    /// What is to be written; `None` if there is nothing.
    pub(super) fn merge(&self, context: &Arc<SpineContext>) -> Option<Merge> {
        if self.sorted.is_empty() {
            return None;
        }
        let memory = self.sorted.iter().map(|rows| Source::memory(Arc::clone(rows)));
        let taken = self.version.runs.iter().take(self.taken);
        let runs = taken.map(|run| Source::run(Arc::clone(context), Arc::clone(run), Keep::Once));
        // Where nothing older is left, a tombstone hides nothing.
        let tombstones = self.taken < self.version.runs.len();
        Some(Merge::new(self.guard.shared.discipline, tombstones, memory.chain(runs).collect()))
    }

    /// A run that takes in the oldest rows stays for long.
    pub(super) fn packing(&self) -> Packing {
        let oldest = self.taken > 0 && self.taken == self.version.runs.len();
        if oldest { Packing::Small } else { Packing::Fast }
    }

    /// The result, with the run that was written of [`Flush::merge`], if any row was left.
    pub(super) fn done(self, run: Option<Arc<Run>>) -> Flushed {
        let runs: Vec<_> = run.into_iter().chain(self.version.runs.iter().skip(self.taken).cloned()).collect();
        Flushed { meta: self.guard.shared.meta(&runs), guard: self.guard, runs, up_to: self.up_to }
    }
}

/// A spine whose frozen rows were written: what the manifest is to say of it, and what is to be installed once that is
/// committed. Dropped without that, everything stays as it was: the frozen rows go into the next flush.
///
/// The example is at [`RunFileWriter`](super::RunFileWriter).
#[derive(Debug)]
pub struct Flushed {
    guard: FlushGuard,
    meta: SpineMeta,
    runs: Vec<Arc<Run>>,
    up_to: u64,
}

impl Flushed {
    /// What a manifest stores of the spine.
    ///
    /// The example is at [`RunFileWriter`](super::RunFileWriter).
    pub fn meta(&self) -> &SpineMeta {
        &self.meta
    }

    /// Lets the spine read the new run in place of the rows and runs that are in it. To be called after the manifest
    /// is committed, from any thread.
    ///
    /// The example is at [`RunFileWriter`](super::RunFileWriter).
    pub fn install(self) {
        let Self { guard, runs, up_to, .. } = self;
        guard.shared.replace(|old| Version {
            frozen: old.frozen.iter().filter(|f| f.number > up_to).cloned().collect(),
            runs,
            flushed: up_to,
        });
    }
}
