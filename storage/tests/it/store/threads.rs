//! Checkpoints beside the owners of log, spines and extra files, on real threads and a real directory.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use backstay_storage::disk::SimDisk;
use backstay_storage::disk::sim::Fault;
use backstay_storage::spine::{Discipline, RowBatch};
use backstay_storage::{Checkpoint, Store, StoreOptions, disk};

use super::workload::{Embedder, Promised, Stop};

const STEPS: u64 = 400;

fn row(step: u64) -> RowBatch {
    let mut rows = RowBatch::new();
    rows.push(&(step % 50).to_be_bytes(), &step.to_be_bytes(), 1);
    rows
}

/// The owner steps on and writes extra files while another thread takes checkpoints of what was frozen: neither a step nor
/// an extra file is lost.
#[test]
fn checkpoints_run_beside_everything_else() {
    fn shareable<T: Send + Sync>(value: T) -> T {
        value
    }
    let dir = tempfile::tempdir().unwrap();
    let store = shareable(Store::open(disk::system(), dir.path(), StoreOptions::default()).unwrap());
    let mut spine = store.spine("steps", Discipline::Weighted, 1).unwrap();
    let (to_checkpointer, frozen) = sync_channel(1);
    let mut named_last = Vec::new();
    std::thread::scope(|scope| {
        let store = &store;
        let checkpointer = scope.spawn(move || {
            let mut taken = 0;
            for checkpoint in frozen {
                store.checkpoint(checkpoint).unwrap();
                taken += 1;
            }
            taken
        });
        for step in 1..=STEPS {
            store.log().append(&step.to_le_bytes()).unwrap();
            spine.insert_batch(&row(step)).unwrap();
            let pending = store.write_extra("pending", &step.to_le_bytes()).unwrap();
            if step % 20 == 0 {
                named_last = vec![pending];
                let checkpoint = Checkpoint {
                    frozen: vec![spine.snapshot()],
                    blob: step.to_le_bytes().to_vec().into(),
                    log_from: step + 1,
                    extras: named_last.clone(),
                    ..Checkpoint::default()
                };
                to_checkpointer.send(checkpoint).unwrap();
            } else {
                // Not named by any checkpoint yet, and one may be clearing up right now.
                assert_eq!(store.read_extra(&pending).unwrap()[..], step.to_le_bytes());
                store.discard_extra(&pending);
            }
        }
        drop(to_checkpointer);
        assert_eq!(checkpointer.join().unwrap(), STEPS / 20);
    });
    drop((spine, store));

    let store = Store::open(disk::system(), dir.path(), StoreOptions::default()).unwrap();
    let recovered = store.recovered().unwrap();
    assert_eq!((recovered.number, &recovered.blob[..]), (STEPS / 20, &STEPS.to_le_bytes()[..]));
    assert_eq!(recovered.extras, named_last);
    assert_eq!(store.read_extra(&named_last[0]).unwrap()[..], STEPS.to_le_bytes());
    let spine = store.spine("steps", Discipline::Weighted, 1).unwrap();
    let mut cursor = spine.cursor().unwrap();
    let mut seen: Vec<u64> = Vec::new();
    while cursor.valid() {
        assert_eq!(cursor.weight(), 1);
        seen.push(u64::from_be_bytes(cursor.value().try_into().unwrap()));
        cursor.next().unwrap();
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=STEPS).collect::<Vec<_>>());
}

/// The same on the simulated disk, until an operation of either thread fails or the power goes; then the store is opened
/// again, and everything that either thread was promised must be there.
#[test]
fn a_failure_under_two_threads_loses_nothing() {
    let (mut failed, mut taken) = (0, 0);
    for seed in 0..30u64 {
        let mut disk = SimDisk::new(seed);
        let mut promised = Promised::default();
        for life in 0..4u64 {
            let life_told = format!("seed {seed}, life {life}");
            let opened = Embedder::open(Arc::new(disk.clone()), seed, &mut promised);
            let mut embedder = opened.unwrap_or_else(|stop| panic!("{life_told}: {stop:?}"));
            let at = disk.ops() + 20 + (seed * 37 + life * 53) % 160;
            match (seed + life) % 3 {
                0 => disk.fail_at(at, Fault::Io),
                1 => disk.fail_at(at, Fault::NoSpace),
                _ => disk.crash_at(at),
            }
            let store = Arc::clone(&embedder.store);
            let (to_checkpointer, prepared) = sync_channel(2);
            let (outcome, newest) = std::thread::scope(|scope| {
                let checkpointer = scope.spawn(move || {
                    let mut newest = 0;
                    for checkpoint in prepared {
                        match store.checkpoint(checkpoint) {
                            Ok(done) => newest = done.number,
                            Err(_) => break,
                        }
                    }
                    newest
                });
                let outcome = (0..30).try_for_each(|i| {
                    embedder.steps(1 + i % 3, &mut promised)?;
                    if i % 3 == 2 {
                        // It may be gone after a failure; that is seen by the next step.
                        let _ = to_checkpointer.send(embedder.prepare_checkpoint()?);
                    }
                    embedder.check_state()
                });
                drop(to_checkpointer);
                (outcome, checkpointer.join().unwrap())
            });
            drop(embedder);
            promised.checkpoint = promised.checkpoint.max(newest);
            taken += u64::from(newest > 0);
            match outcome {
                Ok(()) => {}
                Err(Stop::Refused(_)) => failed += 1,
                Err(stop) => panic!("{life_told}: {stop:?}"),
            }
            if disk.is_down() || (seed + life) % 2 == 0 {
                disk = disk.power_cycle(seed << 8 | life);
            }
        }
    }
    assert!(failed > 30 && taken > 30, "{failed} lives failed, {taken} had a checkpoint");
}
