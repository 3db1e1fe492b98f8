//! Each kind of sync the store relies on is turned into a lie, one at a time: the crash test must notice every one.

use backstay_storage::disk::sim::{Sabotage, SyncKind};

use super::crash::explore;
use super::seed;

#[test]
fn every_missing_sync_is_noticed() {
    let rules = [
        (SyncKind::File, ".manifest", "the manifest's bytes before its rename"),
        (SyncKind::Dir, "checkpoints", "the manifest's name"),
        (SyncKind::File, ".run", "the runs' bytes"),
        (SyncKind::Dir, "runs", "the run file's name"),
        (SyncKind::File, "queue", "an extra file's bytes"),
        (SyncKind::Dir, "queue", "an extra file's name"),
        (SyncKind::DurableWrite, "log", "the log's commits"),
        (SyncKind::File, "log", "a new segment's bytes"),
        (SyncKind::Dir, "log", "a segment's name"),
    ];
    let seed = seed();
    let mut unnoticed = Vec::new();
    for (kind, path, what) in rules {
        let rule = Sabotage { kind, path: path.into(), nth: None };
        match explore(seed, 2, Some(&rule)) {
            Err(failure) => println!("without {what}: {}", failure.lines().next().unwrap_or_default()),
            Ok(tally) => unnoticed.push(format!("{what} ({kind:?} of {path}): {tally:?}")),
        }
    }
    assert!(unnoticed.is_empty(), "BACKSTAY_SEED={seed}: not noticed: {unnoticed:#?}");
}
