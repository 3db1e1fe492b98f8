//! Damaged savepoints: the store opens and says so, and what they may name stays until somebody removes them by name.

use std::path::{Path, PathBuf};

use backstay_storage::checkpoint::Manifest;
use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::inspect::inspect;
use backstay_storage::{Error, Store, copy_savepoint};

use super::savepoint::{check_copy, count, shared};
use super::seed;
use super::workload::{DIR, Embedder, Promised, options};

const STEP: u64 = 3;

fn file(name: &str) -> PathBuf {
    Path::new(DIR).join("savepoints").join(format!("{name}.savepoint"))
}

/// A store with two savepoints, of step 3 and 4, whose checkpoints are gone.
fn saved(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let mut promised = Promised::default();
    let mut embedder = Embedder::open(shared(&disk), seed, &mut promised).unwrap();
    for (steps, name) in [(STEP, Some("a")), (1, Some("b")), (1, None), (1, None)] {
        embedder.steps(steps, &mut promised).unwrap();
        embedder.checkpoint(&mut promised).unwrap();
        if let Some(name) = name {
            embedder.store.savepoint(name).unwrap();
        }
    }
    disk
}

/// The files that a manifest names.
fn files_of(manifest: &Manifest) -> Vec<PathBuf> {
    let runs = manifest.spines.iter().flat_map(|s| &s.runs).map(|r| Path::new(DIR).join("runs").join(&r.file));
    runs.chain(manifest.extras.iter().map(|e| Path::new(DIR).join("queue").join(&e.name))).collect()
}

/// Opens in spite of warnings, checks the state, and takes some checkpoints; gives the warnings.
fn work_on(disk: &SimDisk, seed: u64) -> Result<Vec<String>, String> {
    let told = |e: &dyn std::fmt::Debug| format!("{e:?}");
    let store = Store::open(shared(disk), Path::new(DIR), options(seed)).map_err(|e| told(&e))?;
    let warnings = store.recovered().ok_or("no checkpoint")?.warnings.clone();
    if warnings != store.savepoint_warnings() {
        return Err(format!("{warnings:?} and {:?}", store.savepoint_warnings()));
    }
    let mut promised = Promised { appended: u64::MAX, ..Promised::default() };
    let mut embedder = Embedder::take_warned(store, seed, &mut promised).map_err(|e| told(&e))?;
    for _ in 0..4 {
        embedder.steps(1, &mut promised).map_err(|e| told(&e))?;
        embedder.checkpoint(&mut promised).map_err(|e| told(&e))?;
    }
    Ok(warnings)
}

/// A flipped bit in a savepoint's file: a warning, through checkpoints and openings; once it is mended all is there.
pub fn flip_and_mend(seed: u64) -> Result<(), String> {
    let disk = saved(seed);
    let len = disk.read_file(file("a")).map_err(|e| e.to_string())?.len() as u64;
    for offset in (0..len).step_by(61) {
        disk.flip_bit(file("a"), offset, 5).map_err(|e| e.to_string())?;
        for opening in 0..3 {
            let warnings = work_on(&disk, seed)?;
            let tells = |w: &String| w.contains(file("a").to_str().unwrap_or_default()) && w.contains("expected");
            if warnings.len() != 1 || !warnings.iter().all(tells) {
                return Err(format!("byte {offset}, opening {opening}: {warnings:?}"));
            }
            let copied = copy_savepoint(&shared(&disk), Path::new(DIR), "a", Path::new("/none"));
            if !matches!(&copied, Err(Error::Damaged(damage)) if damage.file == file("a")) {
                return Err(format!("byte {offset}: {copied:?}"));
            }
        }
        let report = inspect(&shared(&disk), Path::new(DIR), true).map_err(|e| e.to_string())?;
        if !report.damage.iter().any(|d| d.file == file("a")) {
            return Err(format!("inspect does not see byte {offset}: {report:#?}"));
        }
        disk.flip_bit(file("a"), offset, 5).map_err(|e| e.to_string())?;
        let to = format!("/copies/{offset}");
        copy_savepoint(&shared(&disk), Path::new(DIR), "a", Path::new(&to)).map_err(|e| format!("mended: {e}"))?;
        check_copy(&shared(&disk), &to, seed, "a", STEP)?;
    }
    match work_on(&disk, seed)?.is_empty() {
        true => Ok(()),
        false => Err("warnings when all is mended".into()),
    }
}

#[test]
fn a_damaged_savepoint_warns_and_keeps_what_it_may_name() {
    flip_and_mend(seed()).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn a_damaged_savepoint_goes_when_it_is_removed_by_name() {
    let seed = seed();
    let disk = saved(seed);
    disk.flip_bit(file("a"), 70, 1).unwrap();
    assert_eq!(work_on(&disk, seed).unwrap().len(), 1);
    let (runs, extras) = (count(&disk, "runs"), count(&disk, "queue"));
    let store = Store::open(shared(&disk), Path::new(DIR), options(seed)).unwrap();
    assert_eq!(store.savepoints().iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["b"], "only what can be read");
    let e = store.savepoint("a").unwrap_err();
    assert!(e.to_string().contains("already"), "its name is taken: {e}");
    store.remove_savepoint("a").unwrap();
    assert!(store.savepoint_warnings().is_empty());
    assert!(count(&disk, "runs") <= runs && count(&disk, "queue") < extras, "its files are garbage now");
    drop(store);
    assert!(work_on(&disk, seed).unwrap().is_empty());
    let report = inspect(&shared(&disk), Path::new(DIR), true).unwrap();
    assert!(report.is_sound() && report.unnamed.is_empty() && report.savepoints.len() == 1, "{report:#?}");
}

/// What an epoch writes while it knows of an unreadable savepoint is collected as ever: the savepoint is older.
#[test]
fn an_unreadable_savepoint_does_not_make_this_epochs_garbage_pile_up() {
    let seed = seed();
    let disk = saved(seed);
    disk.flip_bit(file("a"), 70, 1).unwrap();
    let store = Store::open(shared(&disk), Path::new(DIR), options(seed)).unwrap();
    let mut promised = Promised { appended: u64::MAX, ..Promised::default() };
    let mut embedder = Embedder::take_warned(store, seed, &mut promised).unwrap();
    let mut files = Vec::new();
    for _ in 0..12 {
        embedder.steps(1, &mut promised).unwrap();
        embedder.checkpoint(&mut promised).unwrap();
        files.push(count(&disk, "queue"));
    }
    assert!(files[2..].iter().max() <= files.iter().take(3).max(), "{files:?}");
}

/// A sound savepoint under another's name, or of another store, is not taken for what it is not.
pub fn strangers(seed: u64) -> Result<(), String> {
    let disk = saved(seed);
    let bytes = disk.read_file(file("a")).map_err(|e| e.to_string())?;
    disk.overwrite(file("c"), 0, &bytes).map_err(|e| e.to_string())?;
    let warnings = work_on(&disk, seed)?;
    let says = |what: &str| warnings.iter().filter(|w| w.contains(what)).count();
    if (warnings.len(), says("savepoint \"c\"")) != (1, 2 - 1) {
        return Err(format!("a savepoint under another's name: {warnings:?}"));
    }
    Disk::remove(&disk, &file("c")).map_err(|e| e.to_string())?;
    Ok(())
}

/// The same of another store.
pub fn foreigner(seed: u64) -> Result<(), String> {
    let (disk, other) = (saved(seed), saved(seed + 1));
    let mut bytes = other.read_file(file("a")).map_err(|e| e.to_string())?;
    let path = file("a");
    let mut manifest = Manifest::decode(&bytes, &path).map_err(|e| e.to_string())?;
    // One that names no file which this store lacks.
    manifest.spines.clear();
    manifest.extras.clear();
    manifest.savepoint = Some("d".into());
    bytes = manifest.encode();
    disk.overwrite(file("d"), 0, &bytes).map_err(|e| e.to_string())?;
    let warnings = work_on(&disk, seed)?;
    match warnings.iter().all(|w| w.contains("store 0000")) && warnings.len() == 1 {
        true => Ok(()),
        false => Err(format!("another store's savepoint: {warnings:?}")),
    }
}

#[test]
fn a_sound_savepoint_in_anothers_place_is_a_warning() {
    strangers(seed()).unwrap_or_else(|why| panic!("{why}"));
    foreigner(seed()).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn names_and_files_that_are_not_ours_are_told_or_left_alone() {
    let seed = seed();
    let disk = saved(seed);
    let folder = Path::new(DIR).join("savepoints");
    let bytes = disk.read_file(file("a")).unwrap();
    disk.overwrite(folder.join("notes.txt"), 0, b"a user's").unwrap();
    disk.overwrite(folder.join("half.savepoint.tmp"), 0, &bytes[..30]).unwrap();
    disk.overwrite(folder.join("UPPER.savepoint"), 0, &bytes).unwrap();
    let warnings = work_on(&disk, seed).unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("UPPER"), "{warnings:?}");
    assert_eq!(disk.read_file(folder.join("notes.txt")).unwrap(), b"a user's");
    assert!(disk.read_file(folder.join("half.savepoint.tmp")).is_err(), "what a crash left goes");
    let store = Store::open(shared(&disk), Path::new(DIR), options(seed)).unwrap();
    store.remove_savepoint("UPPER").unwrap();
    drop(store);
    assert!(work_on(&disk, seed).unwrap().is_empty());
}

/// A sound savepoint whose run or extra file is gone: a warning, and the copy is refused.
#[test]
fn a_savepoint_that_lacks_a_file_warns() {
    let seed = seed();
    for folder in ["runs", "queue"] {
        let disk = saved(seed);
        let report = inspect(&shared(&disk), Path::new(DIR), true).unwrap();
        let checkpoints: Vec<_> = report.checkpoints.iter().flat_map(|c| files_of(&c.manifest)).collect();
        let first = &report.savepoints[0];
        // Its extra file is its own; whether a run is depends on what was merged since.
        let Some(own) = files_of(&first.manifest)
            .into_iter()
            .find(|file| file.starts_with(Path::new(DIR).join(folder)) && !checkpoints.contains(file))
        else {
            assert_eq!(folder, "runs");
            continue;
        };
        Disk::remove(&disk, &own).unwrap();
        let warnings = work_on(&disk, seed).unwrap();
        let tells =
            |w: &String| w.contains("not whole") && w.contains(own.to_str().unwrap()) && w.contains("no such file");
        assert!(!warnings.is_empty() && warnings.iter().all(tells), "{warnings:?}");
        let e = copy_savepoint(&shared(&disk), Path::new(DIR), "a", Path::new("/copy")).unwrap_err();
        assert!(matches!(&e, Error::Damaged(damage) if damage.file == own), "{e}");
        let report = inspect(&shared(&disk), Path::new(DIR), true).unwrap();
        assert!(report.savepoints.iter().any(|s| s.name == "a" && !s.whole), "{report:#?}");
    }
}

/// Every checkpoint and the log are gone: not a new store, and the savepoint is the way out.
pub fn bereft(seed: u64) -> Result<(), String> {
    let disk = saved(seed);
    for gone in disk.list_all() {
        if ["log", "checkpoints"].iter().any(|f| gone.starts_with(Path::new(DIR).join(f))) {
            Disk::remove(&disk, &gone).map_err(|e| e.to_string())?;
        }
    }
    match Store::open(shared(&disk), Path::new(DIR), options(seed)) {
        Err(e @ Error::Damaged(_)) if e.to_string().contains("can be copied") => {}
        other => return Err(format!("without checkpoints and log: {:?}", other.map(|store| store.epoch()))),
    }
    copy_savepoint(&shared(&disk), Path::new(DIR), "a", Path::new("/copy")).map_err(|e| e.to_string())?;
    check_copy(&shared(&disk), "/copy", seed, "a", STEP)
}

#[test]
fn a_store_that_lost_all_but_its_savepoints_is_not_a_new_one() {
    bereft(seed()).unwrap_or_else(|why| panic!("{why}"));
}
