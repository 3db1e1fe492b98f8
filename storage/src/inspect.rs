//! A report of everything in a store's directory, for people and tests: it reads and never writes, takes no lock, and
//! works on a store that is in use or damaged.
//!
//! Known limits: a store in use changes while it is read. Files that went away between listing and reading are left out,
//! and a checkpoint that was removed meanwhile is not called damaged; the log's newest records may be missing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::checkpoint::recover::{check_run_file, list, survey};
use crate::checkpoint::{Manifest, extra, savepoint};
use crate::disk::Disk;
use crate::log::{self, Dump, DumpLine, LogReport};
use crate::spine::{self, RunMeta, Spine, SpineContext, SpineMeta, SpineOptions};
use crate::store::{Layout, refuse_unfinished};
use crate::{Damage, Error, Result};

/// What [`inspect()`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The directory.
    pub dir: PathBuf,
    /// The store's identity, if any file tells it.
    pub store_id: Option<u128>,
    /// The newest epoch that left a trace, 0 if none did.
    pub epoch: u64,
    /// The checkpoints whose manifests can be read, oldest first.
    pub checkpoints: Vec<CheckpointReport>,
    /// The savepoints that can be read, by name.
    pub savepoints: Vec<SavepointReport>,
    /// The log.
    pub log: LogReport,
    /// The run files, sorted by name.
    pub runs: Vec<FileReport>,
    /// The extra files, sorted by name.
    pub extras: Vec<FileReport>,
    /// Files that no checkpoint and no savepoint names, with their folder: leftovers of a crash that the next opening removes, manifests
    /// that were put aside, strangers. Extra files of a running store that it has not named yet are among them.
    pub unnamed: Vec<PathBuf>,
    /// Every damage found, that of the log included. Empty in a sound store.
    pub damage: Vec<Damage>,
    /// What could not be read for another reason: the error's text.
    pub unread: Vec<String>,
    /// Whether every block was read (`verify`), or only headers, footers and manifests.
    pub verified: bool,
}

/// One checkpoint on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointReport {
    /// The manifest's file name.
    pub file: String,
    /// The manifest's length in bytes.
    pub bytes: u64,
    /// All that it says.
    pub manifest: Manifest,
    /// Whether all that it names was found whole, as far as was looked.
    pub whole: bool,
}

/// One savepoint on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavepointReport {
    /// Its name.
    pub name: String,
    /// The length of its file in bytes.
    pub bytes: u64,
    /// All that it says.
    pub manifest: Manifest,
    /// Whether all that it names was found whole, as far as was looked.
    pub whole: bool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Its name in its folder.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether a checkpoint or savepoint that can be read names it.
    pub named: bool,
}

impl Report {
    /// Whether nothing is wrong, as far as was looked.
    ///
    /// ```
    /// assert!(backstay_storage::inspect::Report::default().is_sound());
    /// ```
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.unread.is_empty()
    }

    /// What of the damage is in savepoints' own files, with their names. Of those, [`Report::savepoints`] has none that cannot be read.
    ///
    /// ```
    /// use backstay_storage::{Store, StoreOptions, disk, inspect::inspect};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = Store::open(disk::system(), dir.path(), StoreOptions::default())?;
    /// store.checkpoint(Default::default())?;
    /// store.savepoint("before-upgrade")?;
    /// std::fs::write(dir.path().join("savepoints/before-upgrade.savepoint"), "something else").unwrap();
    /// let report = inspect(&disk::system(), dir.path(), false)?;
    /// let damaged: Vec<_> = report.damaged_savepoints().map(|(name, _)| name).collect();
    /// assert_eq!((damaged, report.savepoints.len()), (vec!["before-upgrade"], 0));
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn damaged_savepoints(&self) -> impl Iterator<Item = (&str, &Damage)> {
        let folder = Layout::new(&self.dir).savepoints;
        self.damage.iter().filter(move |damage| damage.file.parent() == Some(&folder)).filter_map(|damage| {
            let name = savepoint::name_of(damage.file.file_name()?.to_str()?)?;
            Some((name, damage))
        })
    }

    /// Notes what an operation ran into and gives its value otherwise.
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(Error::Damaged(damage)) => {
                if !self.damage.contains(&damage) {
                    self.damage.push(*damage);
                }
            }
            Err(other) => self.unread.push(other.to_string()),
        }
        None
    }
}

/// Reports what is in a store's directory. With `verify` every block of log and runs and every extra file is read and
/// checked, otherwise only headers, footers, indexes and manifests.
///
/// # Errors
/// Only if the directory itself cannot be read. Everything else is in the report.
///
/// ```
/// use backstay_storage::{Checkpoint, Store, StoreOptions, disk, inspect};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(disk::system(), dir.path(), StoreOptions { new_id: 7, ..StoreOptions::default() })?;
/// store.checkpoint(Checkpoint::default())?;
/// let report = inspect::inspect(&disk::system(), dir.path(), true)?;
/// assert!(report.is_sound());
/// assert_eq!((report.store_id, report.checkpoints.len()), (Some(7), 1));
/// # Ok::<(), backstay_storage::Error>(())
/// ```
pub fn inspect(disk: &Arc<dyn Disk>, dir: &Path, verify: bool) -> Result<Report> {
    let layout = Layout::new(dir);
    disk.list(dir)?;
    let mut report = Report { dir: dir.to_path_buf(), verified: verify, ..Report::default() };
    report.note(refuse_unfinished(&**disk, &layout));
    inspect_checkpoints(disk, &layout, &mut report);
    inspect_savepoints(disk, &layout, &mut report);
    inspect_contents(disk, &layout, &mut report);
    inspect_log(disk, &layout, &mut report);
    list_files(disk, &layout, &mut report);
    Ok(report)
}

/// Lists the log of a store's directory, as [`log::dump`] does: line by line, damage and all. A store without a log has
/// nothing to list.
///
/// # Errors
/// What is not damage: a folder or file that cannot be read, another format version.
///
/// ```
/// use backstay_storage::log::{Dump, DumpLine};
/// use backstay_storage::{Store, StoreOptions, disk, inspect};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(disk::system(), dir.path(), StoreOptions { new_id: 7, ..StoreOptions::default() })?;
/// store.log().append(b"a")?;
/// store.log().commit()?;
/// let mut records = Vec::new();
/// inspect::dump_log(&*disk::system(), dir.path(), Dump { records: true, ..Dump::default() }, &mut |line| {
///     if let DumpLine::Record(record) = line {
///         records.push(record.first);
///     }
/// })?;
/// assert_eq!(records, [b"a"]);
/// # Ok::<(), backstay_storage::Error>(())
/// ```
pub fn dump_log(disk: &dyn Disk, dir: &Path, what: Dump, sink: &mut dyn FnMut(DumpLine)) -> Result<()> {
    log::dump(disk, &Layout::new(dir).log, what, sink)
}

fn inspect_checkpoints(disk: &Arc<dyn Disk>, layout: &Layout, report: &mut Report) {
    let found = survey(&**disk, layout);
    let Some(found) = report.note(found) else { return };
    report.epoch = found.epoch;
    for candidate in found.manifests {
        if let Some(manifest) = report.note(candidate.manifest) {
            report.store_id = Some(manifest.store_id);
            let (file, bytes) = (candidate.name, candidate.bytes);
            report.checkpoints.push(CheckpointReport { file, bytes, manifest, whole: true });
        }
    }
}

fn inspect_savepoints(disk: &Arc<dyn Disk>, layout: &Layout, report: &mut Report) {
    let found = savepoint::survey(&**disk, &layout.savepoints, report.store_id);
    for found in report.note(found).unwrap_or_default() {
        if let Some(manifest) = report.note(found.manifest) {
            report.store_id.get_or_insert(manifest.store_id);
            let (name, bytes) = (found.name, found.bytes);
            report.savepoints.push(SavepointReport { name, bytes, manifest, whole: true });
        }
    }
}

/// Looks at what the checkpoints and savepoints name, at each run once.
fn inspect_contents(disk: &Arc<dyn Disk>, layout: &Layout, report: &mut Report) {
    let options = SpineOptions { memory_bytes: 0, ..SpineOptions::default() };
    let context = SpineContext::new(Arc::clone(disk), &layout.runs, report.store_id.unwrap_or_default(), options);
    let mut look = Look { disk, layout, context, verify: report.verified, seen: HashMap::new() };
    let mut checkpoints = std::mem::take(&mut report.checkpoints);
    for checkpoint in &mut checkpoints {
        let file = layout.checkpoints.join(&checkpoint.file);
        checkpoint.whole = look.at_all(&checkpoint.manifest, &file, report);
    }
    report.checkpoints = checkpoints;
    let mut savepoints = std::mem::take(&mut report.savepoints);
    for savepoint in &mut savepoints {
        let file = layout.savepoints.join(savepoint::file_of(&savepoint.name));
        savepoint.whole = look.at_all(&savepoint.manifest, &file, report);
    }
    report.savepoints = savepoints;
}

/// Looking at what manifests name.
struct Look<'a> {
    disk: &'a Arc<dyn Disk>,
    layout: &'a Layout,
    context: Arc<SpineContext>,
    verify: bool,
    /// The runs looked at, by file and offset, and whether they are whole.
    seen: HashMap<(String, u64), bool>,
}

impl Look<'_> {
    /// Notes what is wrong with what the manifest in `file` names. Whether it is whole.
    fn at_all(&mut self, manifest: &Manifest, file: &Path, report: &mut Report) -> bool {
        let (disk, layout, id) = (&**self.disk, self.layout, manifest.store_id);
        let mut whole = true;
        let mut found = Vec::new();
        for meta in &manifest.extras {
            found.push(match self.verify {
                true => extra::read(disk, &layout.queue, id, meta).map(|_| ()),
                false => extra::check(disk, &layout.queue, id, meta),
            });
        }
        for spine in &manifest.spines {
            for run in &spine.runs {
                let key = (run.file.clone(), run.offset);
                if let Some(seen) = self.seen.get(&key) {
                    whole &= seen;
                    continue;
                }
                let looked =
                    check_run_file(disk, layout, run).and_then(|()| look_at(&self.context, spine, run, self.verify));
                self.seen.insert(key, looked.is_ok());
                found.push(looked);
            }
        }
        let sound = found.iter().all(Result::is_ok);
        // What went away meanwhile was removed, with its files, by the store that is in use.
        if !sound && present(disk, file) {
            whole = false;
            for result in found {
                report.note(result);
            }
        }
        whole
    }
}

/// Opens a run, which checks its footer, index and filter; or reads all of it.
fn look_at(context: &Arc<SpineContext>, spine: &SpineMeta, run: &RunMeta, verify: bool) -> Result<()> {
    if verify {
        return spine::verify_run(context, spine, run);
    }
    let alone = SpineMeta { runs: vec![run.clone()], ..SpineMeta::empty(&spine.name, spine.discipline, spine.format) };
    Spine::open(Arc::clone(context), alone).map(|_| ())
}

fn inspect_log(disk: &Arc<dyn Disk>, layout: &Layout, report: &mut Report) {
    if !present(&**disk, &layout.log) {
        return;
    }
    let found = log::inspect(&**disk, &layout.log, report.verified);
    if let Some(log) = report.note(found) {
        let epoch = log.segments.iter().map(|s| s.epoch).max().unwrap_or(0);
        report.epoch = report.epoch.max(epoch);
        for damage in &log.damage {
            report.note::<()>(Err(Error::Damaged(Box::new(damage.clone()))));
        }
        report.log = log;
    }
    if report.store_id.is_none() {
        report.store_id = log::store_id(&**disk, &layout.log).ok().flatten();
    }
}

/// Lists the files and says which of them a checkpoint or savepoint names.
fn list_files(disk: &Arc<dyn Disk>, layout: &Layout, report: &mut Report) {
    let saved = || report.savepoints.iter().map(|s| &s.manifest);
    let manifests = || report.checkpoints.iter().map(|c| &c.manifest).chain(saved());
    let runs = manifests().flat_map(|m| &m.spines).flat_map(|s| &s.runs).map(|r| r.file.clone()).collect();
    let extras = manifests().flat_map(|m| &m.extras).map(|e| e.name.clone()).collect();
    let sound = report.checkpoints.iter().map(|c| c.file.clone()).collect();
    let savepoints = report.savepoints.iter().map(|s| savepoint::file_of(&s.name)).collect();
    report.runs = list_folder(disk, &layout.runs, &runs, report);
    report.extras = list_folder(disk, &layout.queue, &extras, report);
    list_folder(disk, &layout.checkpoints, &sound, report);
    list_folder(disk, &layout.savepoints, &savepoints, report);
}

fn list_folder(disk: &Arc<dyn Disk>, dir: &Path, named: &HashSet<String>, report: &mut Report) -> Vec<FileReport> {
    let entries = report.note(list(&**disk, dir)).unwrap_or_default();
    let files =
        entries.into_iter().map(|e| FileReport { named: named.contains(&e.name), bytes: e.metadata.len, file: e.name });
    let files: Vec<_> = files.collect();
    report.unnamed.extend(files.iter().filter(|f| !f.named).map(|f| dir.join(&f.file)));
    files
}

fn present(disk: &dyn Disk, path: &Path) -> bool {
    matches!(disk.metadata(path), Ok(Some(_)))
}
