//! Taking a checkpoint: the commit order of invariant 2 of the design, and the clearing up after it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use hashbrown::HashSet;

use super::{History, Store, lock};
use crate::checkpoint::name::{MANIFEST, file_name};
use crate::checkpoint::{Checkpoint, CheckpointInfo, ExtraMeta, MAX_BYTES, Manifest, commit, garbage, savepoint};
use crate::sabotage::{Check, checked};
use crate::spine::{Flushed, RunFileWriter, Snapshot, SpineMeta};
use crate::{Error, Result};

impl Store {
    /// Takes a checkpoint: writes the frozen spines, commits the manifest, then removes what only older checkpoints
    /// needed. It may run on any thread, beside the owners of log and spines; of two at once one waits.
    ///
    /// On return the checkpoint is durable. The order, each step durable before the next starts: the log up to its last
    /// appended record; the new runs and their names; the manifest and its name. After that the frozen rows are replaced
    /// by the runs in what the spines read, and old manifests, then the files that only they named, then the log before
    /// the smallest `log_from` of the kept checkpoints are removed.
    ///
    /// Spines of the last checkpoint that are not in [`Checkpoint::frozen`] are carried over unchanged, unless
    /// [`Checkpoint::dropped`] names them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a request that cannot be met, with nothing done; anything else poisons the store, and what
    /// is durable is found out by opening it again: the older checkpoint or this one.
    ///
    /// ```
    /// # use backstay_storage::{Checkpoint, Store, StoreOptions, disk, spine::{Discipline, RowBatch}};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// # let mut totals = store.spine("totals", Discipline::Latest, 1)?;
    /// # let mut rows = RowBatch::new();
    /// # rows.push(b"key", b"value", 1);
    /// store.log().append(b"key=value")?;
    /// totals.insert_batch(&rows)?;
    /// let log_from = store.log().next_seq();
    /// let done = store.checkpoint(Checkpoint { frozen: vec![totals.snapshot()], log_from, ..Checkpoint::default() })?;
    /// assert_eq!((done.number, done.runs), (1, 1));
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn checkpoint(&self, checkpoint: Checkpoint) -> Result<CheckpointInfo> {
        let mut history = self.lock_history()?;
        let extras = self.admit(&checkpoint, &history)?;
        self.take(checkpoint, extras, &mut history).inspect_err(|e| self.fence.poison(e))
    }

    /// Merges the runs of all spines as the store does by itself when it has been left alone for a quarter of a second, and also those that it
    /// leaves to checkpoints because they are small: before a read-only phase, a copy, a measurement. Of each spine a run or a few are left then, each more than
    /// four times as large as all newer ones together. Rows in memory are left where they are: a checkpoint before it writes them. What a checkpoint on another thread
    /// is writing meanwhile may be left, too. The files that are replaced stay until no kept checkpoint names them.
    ///
    /// It returns when nothing is left to do: where nobody else inserts, after rewriting the state once at most.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if a spine's runs are larger than half of what the disk has left, with nothing lost and nothing poisoned; those of reading
    /// and writing runs, which poison the store.
    ///
    /// ```
    /// # use backstay_storage::{Checkpoint, Store, StoreOptions, disk, spine::{Discipline, RowBatch}};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// # let mut totals = store.spine("totals", Discipline::Latest, 1)?;
    /// for day in [b"monday", b"sunday"] {
    ///     let mut rows = RowBatch::new();
    ///     rows.push(day, &[7; 100_000], 1);
    ///     totals.insert_batch(&rows)?;
    ///     store.checkpoint(Checkpoint { frozen: vec![totals.snapshot()], ..Checkpoint::default() })?;
    /// }
    /// store.compact()?;
    /// assert_eq!(totals.stats().runs, 1);
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn compact(&self) -> Result<()> {
        self.fence.check()?;
        self.context.settle()
    }

    /// Checks a request before anything is done for it, and looks up its extra files.
    fn admit(&self, checkpoint: &Checkpoint, history: &History) -> Result<Vec<ExtraMeta>> {
        let (first, next) = (self.log.first_seq(), self.log.next_seq());
        let from = checkpoint.log_from;
        let oldest = history.log_from().unwrap_or(1).max(first);
        if !(oldest..=next).contains(&from) {
            let said = format!("a checkpoint that needs the log from record {from} on: there are {oldest} to {next}");
            return Err(Error::Invalid(said));
        }
        if checkpoint.blob.len() as u64 > MAX_BYTES / 2 {
            let said =
                format!("a blob of {} bytes: at most {} fit into a manifest", checkpoint.blob.len(), MAX_BYTES / 2);
            return Err(Error::Invalid(said));
        }
        let mut names = HashSet::new();
        if let Some(twice) = checkpoint.frozen.iter().find(|frozen| !names.insert(frozen.name())) {
            return Err(Error::Invalid(format!("spine {:?} is frozen twice in one checkpoint", twice.name())));
        }
        checkpoint.frozen.iter().try_for_each(|frozen| frozen.check(&self.context))?;
        let mut extras = Vec::with_capacity(checkpoint.extras.len());
        for name in &checkpoint.extras {
            extras.push(self.known_extra(name)?);
        }
        Ok(extras)
    }

    fn take(&self, c: Checkpoint, extras: Vec<ExtraMeta>, history: &mut History) -> Result<CheckpointInfo> {
        let number = history.next_number;
        // Everything that the state holds was appended before it was frozen, hence before now.
        let log_durable = self.log.commit()?;
        let (mut flushed, run_bytes) = self.write_runs(&c.frozen)?;
        let mut spines: BTreeMap<String, SpineMeta> = BTreeMap::new();
        let last = history.kept.last().map(|m| m.spines.as_slice()).unwrap_or_default();
        for meta in last.iter().filter(|meta| !c.dropped.contains(&meta.name)) {
            spines.insert(meta.name.clone(), meta.clone());
        }
        for flushed in &mut flushed {
            spines.insert(flushed.meta().name.clone(), flushed.meta().clone());
            flushed.install();
        }
        let manifest = Manifest {
            store_id: self.id,
            epoch: self.epoch,
            number,
            log_from: c.log_from,
            log_durable,
            extras,
            spines: spines.into_values().collect(),
            blob: c.blob,
            savepoint: None,
        };
        let manifest_bytes = commit(&*self.disk, &self.layout.checkpoints, &manifest)?;
        let runs = manifest.spines.iter().map(|s| s.runs.len() as u64).sum();
        history.next_number += 1;
        history.kept.push(manifest);
        // Their files stay up to here, where a manifest names them.
        drop(flushed);
        let removed = self.clear_up(history, None)?;
        let bytes = run_bytes + manifest_bytes;
        self.counters.checkpoints.fetch_add(1, Relaxed);
        self.counters.checkpoint_bytes.fetch_add(bytes, Relaxed);
        Ok(CheckpointInfo { number, epoch: self.epoch, bytes, runs, manifest_bytes, removed })
    }

    /// Writes the frozen spines into one run file, durable with its name on return. Gives its length too.
    fn write_runs(&self, frozen: &[Snapshot]) -> Result<(Vec<Flushed>, u64)> {
        let mut writer = RunFileWriter::new(&self.context);
        let flushed = frozen.iter().map(|frozen| writer.flush(frozen)).collect::<Result<_>>()?;
        Ok((flushed, writer.finish()?.bytes))
    }

    /// Brings the directory to what the kept checkpoints need, and returns how many files went. A crash anywhere in it
    /// leaves files that the next opening or checkpoint removes. With `later`, the names of run files that somebody may remove beside what comes next
    /// are put there.
    pub(super) fn clear_up(&self, history: &mut History, later: Option<&mut Vec<String>>) -> Result<u64> {
        let surplus = history.kept.len().saturating_sub(self.keep);
        let gone: Vec<_> = history.kept.drain(..surplus).map(|m| file_name(m.epoch, m.number, MANIFEST)).collect();
        // Durable before anything that only these manifests named goes: else one might come back and name what is gone.
        let mut removed = garbage::manifests(&*self.disk, &self.layout.checkpoints, &gone, &history.damaged)?;
        history.damaged.clear();
        self.counters.removed_files.fetch_add(removed, Relaxed);
        savepoint::clear_leftovers(&*self.disk, &self.layout.savepoints)?;
        removed += self.collect(history, later)?;
        if let Some(needed) = history.log_from() {
            self.log.trim_before(needed)?;
        }
        self.count(history);
        Ok(removed)
    }

    /// Removes the runs and extra files that no kept checkpoint and no savepoint names, and returns how many went.
    pub(super) fn collect(&self, history: &History, later: Option<&mut Vec<String>>) -> Result<u64> {
        let saved = self.saved_runs()?;
        let spines = history.kept.iter().flat_map(|m| &m.spines);
        let kept = spines.flat_map(|s| &s.runs).map(|run| run.file.as_str());
        let named = kept.chain(saved.iter().map(String::as_str)).collect();
        let doomed = garbage::runs(&*self.disk, &self.layout.runs, &named, |name| self.context.is_in_use(name))?;
        let bytes = doomed.iter().fold(0u64, |sum, (_, len)| sum.saturating_add(*len));
        let doomed = doomed.into_iter().map(|(name, _)| name);
        let mut removed = match later {
            // Where little room is left, whoever comes next may need theirs.
            Some(later) if self.disk.room(&self.layout.runs)?.is_some_and(|room| room > bytes) => {
                later.extend(doomed);
                later.len() as u64
            }
            _ => garbage::remove(&*self.disk, &self.layout.runs, doomed)?,
        };
        self.index_extras(history);
        let spares_old = self.spares_old();
        let is_named = |name: &str| {
            if spares_old && self.is_old(name) {
                return true;
            }
            let extras = lock(&self.extras);
            extras.named.contains_key(name) || extras.unnamed.contains_key(name)
        };
        removed += garbage::extras(&*self.disk, &self.layout.queue, is_named)?;
        self.counters.removed_files.fetch_add(removed, Relaxed);
        Ok(removed)
    }

    /// Works out anew which extra files are named by a kept checkpoint or a savepoint.
    pub(super) fn index_extras(&self, history: &History) {
        let mut extras = lock(&self.extras);
        let savepoints = lock(&self.savepoints);
        let saved = savepoints.sound.values().filter(|_| checked(Check::SavepointExtras));
        let manifests = history.kept.iter().chain(saved);
        let named = manifests.flat_map(|m| &m.extras).map(|extra| (extra.name.clone(), extra.clone()));
        extras.named = named.collect();
        let super::Extras { named, unnamed, .. } = &mut *extras;
        unnamed.retain(|name, _| !named.contains_key(name));
    }

    /// Publishes the figures of the history.
    pub(super) fn count(&self, history: &History) {
        self.counters.kept.store(history.kept.len() as u64, Relaxed);
        self.counters.newest.store(history.kept.last().map_or(0, |m| m.number), Relaxed);
    }
}
