//! Opening a store: lock, the newest whole checkpoint, epoch, log, and the removal of what a crash left behind.
//!
//! Recovery removes nothing before it has decided, and what it removes no kept checkpoint names: opening again after a
//! crash at any point of it comes to the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::copy::refuse_unfinished;
use super::fence::{Fence, FencedDisk};
use super::{Counters, Extras, History, Layout, Savepoints, Spines, Store, StoreOptions};
use crate::checkpoint::recover::{Survey, check_run_file, damaged_name, survey};
use crate::checkpoint::savepoint::{self, Found};
use crate::checkpoint::{Manifest, Recovered, extra};
use crate::disk::Disk;
use crate::log::{self, Log};
use crate::sabotage::{Check, checked};
use crate::spine::{Mergers, Spine, SpineContext, SpineOptions};
use crate::{Error, Result};

/// A checkpoint that is whole, with its spines opened.
struct Chosen {
    manifest: Manifest,
    spines: BTreeMap<String, Spine>,
    /// What was told of newer ones that are not.
    passed_over: Vec<String>,
}

impl Store {
    /// Opens the store in `dir`, creating it if there is none, and locks it. A new store commits nothing before its
    /// first log record or checkpoint.
    ///
    /// The newest checkpoint whose manifest, run footers and indexes, and extra files' headers are whole is taken. If
    /// newer ones are damaged, [`Recovered::warnings`] says so, and nothing of theirs is removed before the next
    /// checkpoint. The log still holds every record after the older one.
    ///
    /// # Errors
    /// [`Error::Locked`] if it is in use; [`Error::Damaged`] if there are checkpoints and none is whole, or if the log is
    /// damaged or lacks records that the checkpoint needs; [`Error::Unsupported`] for another version's files;
    /// [`Error::Invalid`] for a savepoint's copy that was cut off.
    ///
    /// ```
    /// # use backstay_storage::{Store, StoreOptions, disk};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = Store::open(disk::system(), dir.path(), StoreOptions { new_id: 7, ..StoreOptions::default() })?;
    /// for record in store.log().scan(1)? {
    ///     let _ = record?.payload;
    /// }
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: StoreOptions) -> Result<Self> {
        options.check()?;
        let layout = Layout::new(dir);
        disk.create_dir_all(dir)?;
        let fence = Arc::new(Fence::new(disk.lock_dir(dir)?));
        refuse_unfinished(&*disk, &layout)?;
        let disk: Arc<dyn Disk> = Arc::new(FencedDisk::new(disk, Arc::clone(&fence)));
        disk.create_dir_all(&layout.log)?;
        for folder in layout.numbered() {
            disk.create_dir_all(folder)?;
            // Decide on durable names only: a rename that the last opener did not live to sync must not be built upon
            // and then be gone.
            disk.sync_dir(folder)?;
        }
        disk.create_dir_all(&layout.savepoints)?;
        if checked(Check::SavepointOpenSync) {
            disk.sync_dir(&layout.savepoints)?;
        }
        disk.probe(&layout.log)?;
        let found = survey(&*disk, &layout)?;
        let id = match found.sound().next() {
            Some(manifest) => Some(manifest.store_id),
            None => log::store_id(&*disk, &layout.log)?,
        };
        let saved = savepoint::survey(&*disk, &layout.savepoints, id)?;
        let id = id.unwrap_or(options.new_id);
        let in_memory = SpineOptions { memory_bytes: options.memory_bytes, cache_bytes: options.cache_bytes, epoch: 1 };
        let context = SpineContext::new(Arc::clone(&disk), &layout.runs, id, in_memory);
        let told = Arc::clone(&fence);
        context.on_failure(move |e| told.poison(e));
        let mut warnings = Vec::new();
        let mut damaged = Vec::new();
        let keep = options.keep_checkpoints;
        let chosen = choose(&disk, &layout, &context, &found, keep, &mut warnings, &mut damaged)?;
        refuse_bereft(&layout, &saved, chosen.is_some())?;
        let savepoints = Savepoints::new(saved, &disk, &layout);
        warnings.extend(savepoints.warnings().cloned());
        let named = savepoints.sound.values().fold((0, 0), |(e, n), m| (m.epoch.max(e), m.number.max(n)));
        let epoch = found.epoch.max(named.0).max(Log::newest_epoch(&*disk, &layout.log)?);
        let epoch = after(epoch, "epoch", &layout)?;
        context.begin(epoch);
        let next_number = after(found.number.max(named.1), "checkpoint number", &layout)?;
        let log = Log::open(Arc::clone(&disk), &layout.log, id, epoch, options.log)?;
        check_log(&layout, &log, chosen.as_ref().map(|c| &c.manifest), &found)?;

        let kept = kept(&found, chosen.as_ref().map(|c| &c.manifest), &damaged);
        let fell_back = !damaged.is_empty();
        let recovered = chosen.as_ref().map(|c| recovered(c, warnings));
        let metas = chosen.iter().flat_map(|c| &c.manifest.spines);
        let formats = metas.map(|m| (m.name.clone(), (m.discipline, m.format))).collect();
        let spines = chosen.map(|c| c.spines).unwrap_or_default();
        let mut store = Self {
            disk,
            fence,
            layout,
            keep: options.keep_checkpoints,
            id,
            epoch,
            recovered,
            log: Arc::new(log),
            _mergers: None,
            context,
            formats,
            spines: Mutex::new(Spines { waiting: spines, out: BTreeSet::new() }),
            history: Mutex::new(History { kept, damaged, next_number }),
            extras: Mutex::new(Extras { next_number: 1, unnamed: BTreeMap::new(), named: BTreeMap::new() }),
            savepoints: Mutex::new(savepoints),
            counters: Counters::default(),
        };
        let mut history = super::lock(&store.history);
        let mut doomed = Vec::new();
        if fell_back {
            // Someone may want to look at the damaged checkpoint, or mend it: its files stay for now.
            store.index_extras(&history);
            store.count(&history);
        } else {
            // Freeing gigabytes takes a file system long; nobody has to wait for it.
            let beside = store.disk.threads() && options.merge_threads > 0;
            store.clear_up(&mut history, Some(&mut doomed).filter(|_| beside))?;
        }
        drop(history);
        // Last: until here nothing is written but what opening writes.
        store._mergers = Some(Mergers::start(&store.context, options.merge_threads, doomed)?);
        Ok(store)
    }
}

/// Refuses to take a directory for a new store's that has savepoints: their checkpoints' successors are never all removed.
fn refuse_bereft(layout: &Layout, saved: &[Found], chosen: bool) -> Result<()> {
    match saved.iter().find(|found| found.manifest.is_ok()) {
        Some(found) if !chosen && checked(Check::SavepointWithout) => {
            let expected = format!("a checkpoint, since there is savepoint {:?}, which can be copied", found.name);
            Err(Error::damaged(&layout.checkpoints, 0, "store", expected, "none"))
        }
        _ => Ok(()),
    }
}

/// The number after the largest one in use. File names are not checksummed: any number may stand there.
fn after(largest: u64, what: &str, layout: &Layout) -> Result<u64> {
    largest.checked_add(1).ok_or_else(|| {
        let dir = layout.root.display();
        Error::Invalid(format!("a file in {dir} is named with {what} {largest}, which no store reaches: remove it"))
    })
}

/// Takes the newest checkpoint that is whole. Those that are not are told in `warnings` and listed in `damaged`.
fn choose(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    context: &Arc<SpineContext>,
    found: &Survey,
    keep: usize,
    warnings: &mut Vec<String>,
    damaged: &mut Vec<String>,
) -> Result<Option<Chosen>> {
    let mut chosen: Option<Chosen> = None;
    let mut first_damage = None;
    // If surplus ones are to be removed, a crash left them: one of those that would stay may be the damaged one that an
    // opening before passed over, and did not live to put aside.
    let surplus = found.sound().count() > keep;
    for candidate in found.manifests.iter().rev() {
        let manifest = match (&candidate.manifest, &chosen) {
            (Ok(_), Some(_)) if !surplus => continue, // an older one, kept to fall back to
            (Ok(manifest), _) => manifest,
            // A failed read, or a newer version's file: an older checkpoint would not be what the user has.
            (Err(other), _) if !matches!(other, Error::Damaged(_)) => return Err(again(other)),
            (Err(damage), _) => {
                warnings.push(told(chosen.is_some(), &candidate.name, damage));
                damaged.push(candidate.name.clone());
                first_damage.get_or_insert_with(|| again(damage));
                continue;
            }
        };
        match open_all(disk, layout, context, manifest) {
            Ok(spines) => {
                chosen.get_or_insert_with(|| Chosen {
                    manifest: manifest.clone(),
                    spines,
                    passed_over: warnings.clone(),
                });
            }
            Err(damage @ Error::Damaged(_)) => {
                warnings.push(told(chosen.is_some(), &candidate.name, &damage));
                damaged.push(candidate.name.clone());
                first_damage.get_or_insert(damage);
            }
            Err(other) => return Err(other),
        }
    }
    match (chosen, first_damage) {
        (None, Some(damage)) => Err(damage),
        (chosen, _) => Ok(chosen),
    }
}

fn told(older: bool, manifest: &str, damage: &Error) -> String {
    let role = match older {
        true => "an older checkpoint is damaged, and cannot be fallen back to",
        false => "a newer checkpoint is damaged and was passed over for an older one",
    };
    let aside = damaged_name(manifest);
    format!("{role}: {manifest}: {damage}; the next checkpoint puts it aside as {aside}")
}

/// The same error once more, since the survey keeps its own.
fn again(error: &Error) -> Error {
    match error {
        Error::Damaged(damage) => Error::Damaged(damage.clone()),
        Error::Io { op, path, source } => {
            Error::Io { op, path: path.clone(), source: std::io::Error::new(source.kind(), source.to_string()) }
        }
        Error::Unsupported { path, what, expected, got } => {
            Error::Unsupported { path: path.clone(), what, expected: expected.clone(), got: got.clone() }
        }
        other => Error::Invalid(other.to_string()),
    }
}

/// Opens all that a manifest names. Damage, a missing file included, comes back as [`Error::Damaged`].
fn open_all(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    context: &Arc<SpineContext>,
    manifest: &Manifest,
) -> Result<BTreeMap<String, Spine>> {
    for meta in &manifest.extras {
        extra::check(&**disk, &layout.queue, manifest.store_id, meta)?;
    }
    let mut spines = BTreeMap::new();
    for meta in &manifest.spines {
        for run in &meta.runs {
            check_run_file(&**disk, layout, run)?;
        }
        spines.insert(meta.name.clone(), Spine::open(Arc::clone(context), meta.clone())?);
    }
    Ok(spines)
}

/// The checkpoints that count: the chosen one and the sound ones before it, oldest first.
fn kept(found: &Survey, chosen: Option<&Manifest>, damaged: &[String]) -> Vec<Manifest> {
    let Some(chosen) = chosen else { return Vec::new() };
    let upto = (chosen.epoch, chosen.number);
    let whole = found.manifests.iter().filter(|f| !damaged.contains(&f.name));
    let sound = whole.filter_map(|f| f.manifest.as_ref().ok());
    sound.filter(|m| (m.epoch, m.number) <= upto).cloned().collect()
}

/// Checks that the log holds what the checkpoints promise: from the first record that is needed to the last that was
/// durable when the newest manifest was committed.
fn check_log(layout: &Layout, log: &Log, chosen: Option<&Manifest>, found: &Survey) -> Result<()> {
    let (first, next) = (log.first_seq(), log.next_seq());
    let lost = |expected: String, got: String| Err(Error::damaged(&layout.log, 0, "log", expected, got));
    match chosen {
        Some(m) if first > m.log_from => {
            let expected = format!("record {} on, for checkpoint {}", m.log_from, m.number);
            lost(expected, format!("records from {first} on"))
        }
        None if first > 1 => {
            lost("record 1 on, since there is no checkpoint".into(), format!("records from {first} on"))
        }
        _ => match found.sound().map(|m| (m.log_holds(), m.number)).max() {
            Some((durable, number)) if durable >= next => {
                let expected = format!("records up to {durable}, which were durable before checkpoint {number}");
                lost(expected, format!("records up to {}", next.saturating_sub(1)))
            }
            _ => Ok(()),
        },
    }
}

fn recovered(Chosen { manifest, passed_over, .. }: &Chosen, warnings: Vec<String>) -> Recovered {
    Recovered {
        number: manifest.number,
        epoch: manifest.epoch,
        blob: manifest.blob.clone(),
        log_from: manifest.log_from,
        extras: manifest.extras.iter().map(|e| e.name.clone()).collect(),
        savepoint: manifest.savepoint.clone(),
        warnings,
        passed_over: passed_over.clone(),
    }
}
