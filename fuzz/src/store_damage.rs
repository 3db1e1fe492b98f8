//! Damage done to the files of a sound store ([`crate::patch`]), then the whole directory is inspected, opened, replayed and read.
//!
//! Either something says that it is damaged, or everything that comes back is what was written. Only the newest segment's tail, which
//! nothing proves to have been durable, may be missing without a word. The same holds for a copy of the savepoint, which is made before
//! the store is opened.

use std::path::Path;
use std::sync::Arc;

use backstay_storage::copy_savepoint;
use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::inspect::inspect;

use crate::embedder::{DIR, Embedder, Model, Row};
use crate::input::Input;
use crate::{patch, seeds};

pub fn run(data: &[u8]) {
    let (files, steps) = seeds::store_files();
    let mut files = files.clone();
    patch::apply(&mut files, &mut Input(data), 512);
    let disk = SimDisk::new(1);
    for folder in ["log", "runs", "checkpoints", "queue", "savepoints"] {
        disk.create_dir_all(&Path::new(DIR).join(folder)).expect("a directory on a new disk");
        disk.sync_dir(Path::new(DIR)).expect("sync of a new directory");
    }
    for (path, bytes) in &files {
        disk.overwrite(path, 0, bytes).expect("a file on a new disk");
    }
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let _ = inspect(&disk, Path::new(DIR), true);
    check_copy(&disk, steps);
    let Ok(mut embedder) = Embedder::open(Arc::clone(&disk)) else { return };
    let saved = embedder.store.savepoints();
    let base = embedder.step as usize;
    assert!(base <= steps.len(), "a checkpoint of step {base}, which was never made");
    let Ok(replayed) = embedder.replay() else { return };
    for (i, rows) in replayed.iter().enumerate() {
        assert_eq!(Some(rows), steps.get(base + i), "step {} is not what was written", base + i + 1);
    }
    for extra in embedder.store.recovered().map(|r| r.extras.clone()).unwrap_or_default() {
        if let Ok(bytes) = embedder.store.read_extra(&extra) {
            assert_eq!(bytes, seeds::EXTRA, "extra file {extra}");
        }
    }
    let expected = Model::after(&steps[..embedder.step as usize]);
    if let Ok(contents) = embedder.contents() {
        assert_eq!(contents, expected, "contents after step {}", embedder.step);
    }
    let keys: Vec<_> =
        expected.latest.keys().chain(expected.weighted.keys().map(|(k, _)| k)).step_by(7).cloned().collect();
    let _ = embedder.look_up(&keys, &expected);
    // What was opened can be built upon, unless damage was met meanwhile.
    if embedder.store.poisoned().is_none() && embedder.checkpoint(None).is_ok() {
        let step = embedder.step;
        assert_eq!(embedder.store.savepoints(), saved, "a checkpoint changes no savepoint");
        drop(embedder);
        let again = Embedder::open(disk).expect("a store whose newest checkpoint was just taken");
        assert_eq!(again.step, step);
    }
}

/// A copy of the savepoint is refused, or is what was saved.
fn check_copy(disk: &Arc<dyn Disk>, steps: &[Vec<Row>]) {
    let (from, to) = (Path::new(DIR), Path::new("/copy"));
    let copied = copy_savepoint(disk, from, seeds::SAVEPOINT, to);
    let opened = Embedder::open_in(Arc::clone(disk), to);
    if copied.is_err() {
        // One that never began is an empty directory, or none.
        assert!(
            opened.is_err() || opened.is_ok_and(|e| e.store.recovered().is_none()),
            "a copy that was refused opens"
        );
        return;
    }
    let mut copy = opened.expect("a copy that was acknowledged opens");
    assert_eq!(copy.step, 5, "the savepoint's step");
    assert!(copy.replay().expect("an empty log").is_empty());
    assert_eq!(copy.contents().expect("a copy that was checked"), Model::after(&steps[..5]));
    copy.checkpoint(None).expect("a checkpoint of the copy");
}
