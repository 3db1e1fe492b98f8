//! Damage: a flipped bit anywhere that counts is an error that names file, offset, expected and got, or the older
//! checkpoint is taken, loudly. Never something else than what was written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::inspect::inspect;
use backstay_storage::{Error, Store};

use super::model::Rng;
use super::seed;
use super::workload::{Action, DIR, Embedder, Promised, options, run};

/// A store with three checkpoints (two kept) and records behind the last one.
fn sound(seed: u64) -> (SimDisk, Promised) {
    use Action::{Checkpoint, Steps};
    let disk = SimDisk::new(seed);
    let mut promised = Promised::default();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    run(&shared, seed, &[Steps(3), Checkpoint, Steps(4), Checkpoint, Steps(6), Checkpoint, Steps(5)], &mut promised)
        .unwrap();
    (disk, promised)
}

fn files(disk: &SimDisk, folder: &str) -> Vec<PathBuf> {
    disk.list_all().into_iter().filter(|p| p.starts_with(Path::new(DIR).join(folder))).collect()
}

fn open(disk: &SimDisk) -> Result<Store, Error> {
    Store::open(Arc::new(disk.clone()), Path::new(DIR), options(disk_seed()))
}

fn disk_seed() -> u64 {
    seed()
}

/// Asserts that an error names a file and says what was expected and got.
fn names(e: &Error, file: &Path, at: &str) {
    let Error::Damaged(damage) = e else { panic!("{at}: not damage: {e}") };
    assert_eq!(damage.file, file, "{at}: {e}");
    assert!(!damage.expected.is_empty() && !damage.got.is_empty(), "{at}: {e}");
}

#[test]
fn a_damaged_newest_manifest_is_passed_over_loudly_and_put_aside() {
    let seed = disk_seed();
    let (disk, _) = sound(seed);
    let manifests = files(&disk, "checkpoints");
    let [older, newest] = &manifests[..] else { panic!("{manifests:?}") };
    disk.flip_bit(newest, 100, 3).unwrap();
    let files_before = disk.list_all();

    let store = open(&disk).unwrap();
    let recovered = store.recovered().unwrap();
    assert_eq!(recovered.number, 2, "the older one");
    let warning = recovered.warnings.join("\n");
    for part in [newest.to_str().unwrap(), "offset", "expected", "got", "passed over"] {
        assert!(warning.contains(part), "no {part:?} in {warning}");
    }
    assert!(store.log().first_seq() <= recovered.log_from, "the log reaches back to it");
    // A file that waits to become a segment holds nothing, and may have become one.
    let counts = |p: &&PathBuf| p.extension().is_none_or(|e| e != "free");
    let missing: Vec<_> = files_before.iter().filter(counts).filter(|p| !disk.list_all().contains(p)).collect();
    assert!(missing.is_empty(), "nothing goes before the next checkpoint: {missing:?}");
    drop(store);

    // The replay from the older checkpoint is checked by the embedder. Then a checkpoint puts the damaged one aside.
    let mut embedder = open_in_spite(&disk, seed);
    let mut promised = Promised { epoch: embedder.store.epoch(), ..Promised::default() };
    promised.appended = embedder.step;
    embedder.checkpoint(&mut promised).unwrap();
    assert_eq!(promised.checkpoint, 4, "its number is not given again");
    let left = files(&disk, "checkpoints");
    let aside = PathBuf::from(format!("{}.damaged", newest.display()));
    assert!(left.contains(&aside) && left.contains(older) && !left.contains(newest) && left.len() == 3, "{left:?}");
    drop(embedder);
    let mut promised = Promised { appended: u64::MAX, ..Promised::default() };
    Embedder::open(Arc::new(disk), seed, &mut promised).unwrap();
}

/// Opens and replays a store whose newest checkpoint was passed over: checks all but the absence of warnings.
fn open_in_spite(disk: &SimDisk, seed: u64) -> Embedder {
    let store = open(disk).unwrap();
    assert!(!store.recovered().unwrap().warnings.is_empty());
    let mut promised = Promised { appended: u64::MAX, ..Promised::default() };
    Embedder::take_warned(store, seed, &mut promised).unwrap()
}

#[test]
fn without_any_whole_checkpoint_the_store_does_not_open() {
    let (disk, _) = sound(disk_seed());
    for manifest in files(&disk, "checkpoints") {
        disk.flip_bit(&manifest, 20, 0).unwrap();
    }
    let newest = files(&disk, "checkpoints").pop().unwrap();
    names(&open(&disk).unwrap_err(), &newest, "both manifests damaged");
}

#[test]
fn a_lost_or_damaged_run_is_an_older_checkpoint_or_an_error() {
    let seed = disk_seed();
    // Of those that the newest manifest names and the older does not.
    let shared: Arc<dyn Disk> = Arc::new(sound(seed).0);
    let mut named = inspect(&shared, Path::new(DIR), false).unwrap().checkpoints.into_iter().map(|checkpoint| {
        let manifest = checkpoint.manifest;
        manifest.spines.iter().flat_map(|s| &s.runs).map(|run| run.file.clone()).collect::<BTreeSet<_>>()
    });
    let (older, newest) = (named.next().unwrap(), named.next().unwrap());
    let newest_run = Path::new(DIR).join("runs").join(newest.difference(&older).max().unwrap());

    let (disk, _) = sound(seed);
    Disk::remove(&disk, &newest_run).unwrap();
    let store = open(&disk).unwrap();
    let recovered = store.recovered().unwrap();
    assert_eq!(recovered.number, 2);
    assert!(recovered.warnings[0].contains(newest_run.to_str().unwrap()), "{:?}", recovered.warnings);
    assert!(recovered.warnings[0].contains("no such file"), "{:?}", recovered.warnings);
    drop(store);
    open_in_spite(&disk, seed).check_state().unwrap();

    let (disk, _) = sound(seed);
    for run in files(&disk, "runs") {
        Disk::remove(&disk, &run).unwrap();
    }
    let e = open(&disk).unwrap_err();
    let Error::Damaged(damage) = &e else { panic!("{e}") };
    let named = damage.file.file_name().and_then(|name| name.to_str()).unwrap();
    assert!(newest.contains(named), "no run is left: {e}");
}

/// Every block of every file: a flipped bit leads to an error, a loud older checkpoint, or harms nothing that counts.
#[test]
fn no_flipped_bit_changes_what_is_read() {
    let seed = disk_seed();
    let (disk, promised) = sound(seed);
    let mut rng = Rng(seed);
    let (mut refused, mut passed_over, mut harmless) = (0, 0, 0);
    for path in disk.list_all() {
        let len = disk.read_file(&path).unwrap().len() as u64;
        let step = if len > 4096 { 1024 } else { 32 };
        for start in (0..len).step_by(step) {
            let offset = (start + rng.below(step as u64)).min(len - 1);
            let bad = disk.power_cycle(backstay_storage::disk::sim::CrashPlan::KeepAll);
            bad.flip_bit(&path, offset, rng.below(8) as u8).unwrap();
            let at = format!("BACKSTAY_SEED={seed}: a bit of {} at {offset} flipped", path.display());
            let store = match open(&bad) {
                Ok(store) => store,
                Err(e) => {
                    assert!(matches!(e, Error::Damaged(_)), "{at}: {e}");
                    refused += 1;
                    continue;
                }
            };
            let warned = store.recovered().is_some_and(|r| !r.warnings.is_empty());
            let mut seen = Promised { epoch: promised.epoch, appended: promised.appended, ..Promised::default() };
            match Embedder::take_warned(store, seed, &mut seen) {
                Ok(embedder) => {
                    // The log's last commit, of five steps at most, is the one place where damage cannot be told from a write
                    // that a crash cut off.
                    let (lost, in_log) =
                        (promised.durable - embedder.step, path.extension().is_some_and(|e| e == "seg"));
                    assert!(lost == 0 || (in_log && lost <= 5), "{at}: {lost} steps were lost silently");
                    *(if warned { &mut passed_over } else { &mut harmless }) += 1;
                }
                Err(super::workload::Stop::Refused(Error::Damaged(_))) => refused += 1,
                Err(stop) => panic!("{at}: {stop:?}"),
            }
        }
    }
    println!("BACKSTAY_SEED={seed}: {refused} refused, {passed_over} passed over, {harmless} harmless");
    assert!(refused > 10 && passed_over > 10, "too few to show anything");
}

#[test]
fn inspect_finds_each_flipped_bit_and_reports_the_rest() {
    let seed = disk_seed();
    let (disk, _) = sound(seed);
    let mut targets = vec![files(&disk, "checkpoints").remove(0), files(&disk, "runs").remove(0)];
    targets.extend(files(&disk, "queue").into_iter().take(1));
    // A file that waits to become a segment holds nothing.
    targets.extend(files(&disk, "log").into_iter().find(|p| p.extension().is_some_and(|e| e == "seg")));
    assert!(targets.len() >= 3, "{targets:?}");
    for path in targets {
        let bad = disk.power_cycle(backstay_storage::disk::sim::CrashPlan::KeepAll);
        bad.flip_bit(&path, 80, 1).unwrap();
        let shared: Arc<dyn Disk> = Arc::new(bad);
        let report = inspect(&shared, Path::new(DIR), true).unwrap();
        assert!(report.damage.iter().any(|d| d.file == path), "{}: {report:#?}", path.display());
        assert!(!report.checkpoints.is_empty(), "the sound checkpoint is still reported: {report:#?}");
    }
}

#[test]
fn a_log_that_lost_what_a_checkpoint_saw_is_damage() {
    let seed = disk_seed();
    let (disk, _) = sound(seed);
    for file in files(&disk, "log") {
        Disk::remove(&disk, &file).unwrap();
    }
    let e = open(&disk).unwrap_err();
    names(&e, &Path::new(DIR).join("log"), "the log is gone");
    assert!(e.to_string().contains("records up to"), "{e}");
    // The other way round: checkpoints gone, a log that begins late.
    let (disk, _) = sound(seed);
    for file in files(&disk, "checkpoints") {
        Disk::remove(&disk, &file).unwrap();
    }
    let e = open(&disk).unwrap_err();
    assert!(e.to_string().contains("since there is no checkpoint"), "{e}");
}

#[test]
fn a_log_that_begins_behind_what_the_checkpoint_needs_is_damage() {
    use Action::{Checkpoint, Steps};
    let seed = disk_seed();
    let disk = SimDisk::new(seed);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let script = [Steps(3), Checkpoint, Steps(4), Steps(4), Steps(4), Steps(4)];
    run(&shared, seed, &script, &mut Promised::default()).unwrap();
    let segments = files(&disk, "log");
    for segment in &segments[..segments.len() - 1] {
        Disk::remove(&disk, segment).unwrap();
    }
    let e = open(&disk).unwrap_err();
    names(&e, &Path::new(DIR).join("log"), "the log's front is gone");
    assert!(e.to_string().contains("record 4 on, for checkpoint 1"), "{e}");
}

#[test]
fn a_sound_manifest_under_another_name_is_no_checkpoint() {
    let seed = disk_seed();
    let (disk, promised) = sound(seed);
    let older = disk.read_file(&files(&disk, "checkpoints")[0]).unwrap();
    let copy = Path::new(DIR).join("checkpoints/00000001-00000009.manifest");
    disk.overwrite(&copy, 0, &older).unwrap();
    let store = open(&disk).unwrap();
    let recovered = store.recovered().unwrap();
    assert_eq!(recovered.number, promised.checkpoint, "not the older one, that the copy is of");
    let warnings = recovered.warnings.join("\n");
    assert!(warnings.contains(copy.to_str().unwrap()) && warnings.contains("number 9"), "{warnings}");
}

#[test]
fn a_stranger_in_the_folders_is_harmless_or_named() {
    let seed = disk_seed();
    let (disk, promised) = sound(seed);
    // A sound manifest of another store.
    let manifests = files(&disk, "checkpoints");
    let mut other =
        backstay_storage::checkpoint::Manifest::decode(&disk.read_file(&manifests[0]).unwrap(), &manifests[0]).unwrap();
    (other.store_id, other.epoch, other.number) = (99, 1, 1);
    let foreign = Path::new(DIR).join("checkpoints/00000001-00000001.manifest");
    disk.overwrite(&foreign, 0, &other.encode()).unwrap();
    disk.overwrite(Path::new(DIR).join("runs/notes.txt"), 0, b"a user's").unwrap();
    let store = open(&disk).unwrap();
    let warnings = store.recovered().unwrap().warnings.join("\n");
    assert!(warnings.contains(foreign.to_str().unwrap()) && warnings.contains("store 0000"), "{warnings}");
    let mut seen = Promised { appended: promised.appended, ..Promised::default() };
    let mut embedder = Embedder::take_warned(store, seed, &mut seen).unwrap();
    assert_eq!(embedder.step, promised.durable);
    embedder.checkpoint(&mut seen).unwrap();
    assert_eq!(disk.read_file("/store/runs/notes.txt").unwrap(), b"a user's");
    drop(embedder);

    let wild = Path::new(DIR).join(format!("runs/{}-00000001.run", u64::MAX));
    disk.overwrite(&wild, 0, b"").unwrap();
    let e = open(&disk).unwrap_err();
    assert!(e.to_string().contains("which no store reaches"), "{e}");
}
