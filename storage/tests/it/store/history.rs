//! Checkpoints taken out of order, and what of the log and of older checkpoints must then stay.

use std::path::Path;
use std::sync::Arc;

use backstay_storage::disk::sim::CrashPlan;
use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::spine::{Discipline, RowBatch, Spine};
use backstay_storage::{Checkpoint, Error, Store};

use super::workload::{DIR, Embedder, Promised, options};

fn open(disk: &SimDisk) -> Store {
    Store::open(Arc::new(disk.clone()), Path::new(DIR), options(1)).unwrap()
}

fn one_row(step: u64) -> RowBatch {
    let mut rows = RowBatch::new();
    rows.push(b"steps", &step.to_be_bytes(), 1);
    rows
}

fn rows(spine: &Spine) -> Vec<(u64, i64)> {
    let mut cursor = spine.cursor().unwrap();
    let mut rows = Vec::new();
    while cursor.valid() {
        rows.push((u64::from_be_bytes(cursor.value().try_into().unwrap()), cursor.weight()));
        cursor.next().unwrap();
    }
    rows
}

/// A later checkpoint may need more of the log than the one before it.
#[test]
fn the_log_is_kept_for_every_kept_checkpoint_in_whatever_order_they_need_it() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    for step in 1..=20u64 {
        store.log().append(&[step as u8; 4000]).unwrap();
        store.log().commit().unwrap();
    }
    for log_from in [3, 18, 5] {
        store.checkpoint(Checkpoint { log_from, ..Checkpoint::default() }).unwrap();
    }
    assert!(store.log().first_seq() <= 5, "record 5 is gone: the first is {}", store.log().first_seq());
    drop(store);
    let store = open(&disk);
    assert_eq!(store.recovered().unwrap().log_from, 5);
    assert_eq!(store.log().scan(5).unwrap().map(|r| r.unwrap().seq).collect::<Vec<_>>(), (5..=20).collect::<Vec<_>>());
}

/// Of two checkpoints on two threads the later state may be committed first. The earlier one cannot be had any more.
#[test]
fn a_state_frozen_before_the_last_checkpoint_is_refused() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let mut spine = store.spine("s", Discipline::Weighted, 1).unwrap();
    store.checkpoint(Checkpoint::default()).unwrap();
    let mut frozen = Vec::new();
    for step in 1..=2u64 {
        store.log().append(&step.to_le_bytes()).unwrap();
        spine.insert_batch(&one_row(step)).unwrap();
        frozen.push((step + 1, spine.snapshot()));
    }
    let mut refused = 0;
    for (log_from, frozen) in frozen.into_iter().rev() {
        let taken = store.checkpoint(Checkpoint { frozen: vec![frozen], log_from, ..Checkpoint::default() });
        if let Err(e) = taken {
            assert!(matches!(&e, Error::Invalid(said) if said.contains("\"s\"")), "{e}");
            refused += 1;
        }
    }
    assert_eq!((refused, store.poisoned()), (1, None));
    drop((spine, store));

    let store = open(&disk);
    let mut spine = store.spine("s", Discipline::Weighted, 1).unwrap();
    for record in store.log().scan(store.recovered().unwrap().log_from).unwrap() {
        spine.insert_batch(&one_row(u64::from_le_bytes(record.unwrap().payload[..].try_into().unwrap()))).unwrap();
    }
    assert_eq!(rows(&spine), [(1, 1), (2, 1)], "a step counts once");
}

/// A state that is not this store's is refused without harm.
#[test]
fn frozen_states_of_no_store_or_another_are_refused() {
    let (one, other) = (SimDisk::new(1), SimDisk::new(2));
    let (store, stranger) = (open(&one), open(&other));
    let mut foreign = stranger.spine("s", Discipline::Weighted, 1).unwrap();
    foreign.insert_batch(&one_row(1)).unwrap();
    let mut ephemeral = Spine::ephemeral(Discipline::Weighted);
    for frozen in [foreign.snapshot(), ephemeral.snapshot()] {
        let e = store.checkpoint(Checkpoint { frozen: vec![frozen], ..Checkpoint::default() }).unwrap_err();
        assert!(matches!(&e, Error::Invalid(_)), "{e}");
        assert_eq!(store.poisoned(), None, "{e}");
    }
    store.checkpoint(Checkpoint::default()).unwrap();
}

/// The newest checkpoint's run is damaged; the store goes on from the older one, takes another, and loses power at each
/// operation of that. Whatever of it is there then, the older checkpoint must stay to fall back to: the damaged one does
/// not count as a second one.
#[test]
fn a_checkpoint_with_a_damaged_run_never_displaces_a_whole_one() {
    let seed = 1;
    let sound = || {
        let disk = SimDisk::new(seed);
        let mut promised = Promised::default();
        let mut embedder = Embedder::open(Arc::new(disk.clone()), seed, &mut promised).unwrap();
        for _ in 0..3 {
            embedder.steps(3, &mut promised).unwrap();
            embedder.checkpoint(&mut promised).unwrap();
        }
        drop(embedder);
        let run = disk.list_all().into_iter().rfind(|p| p.starts_with("/store/runs")).unwrap();
        let end = disk.read_file(&run).unwrap().len() as u64;
        // The second extent's footer, or the zeros behind it, and all before.
        for offset in (4096..end).step_by(64) {
            disk.flip_bit(&run, offset, 3).unwrap();
        }
        (disk, promised)
    };
    for op in 1.. {
        let (disk, mut promised) = sound();
        let store = open(&disk);
        assert_eq!(store.recovered().unwrap().number, 2);
        promised.checkpoint = 0;
        let mut embedder = Embedder::take_warned(store, seed, &mut promised).unwrap();
        disk.crash_at(disk.ops() + op);
        let done = embedder.take_checkpoint(&mut promised).is_ok();
        drop(embedder);
        for plan in [CrashPlan::KeepNone, CrashPlan::KeepAll] {
            let after = disk.power_cycle(plan);
            drop(open(&after));
            // Now the newest manifest is damaged too.
            let manifests: Vec<_> =
                after.list_all().into_iter().filter(|p| p.extension().is_some_and(|e| e == "manifest")).collect();
            let newest = manifests.last().unwrap();
            if !newest.to_str().unwrap().ends_with("-00000004.manifest") {
                continue;
            }
            after.flip_bit(newest, 100, 1).unwrap();
            let shared: Arc<dyn Disk> = Arc::new(after.clone());
            let again = Store::open(shared, Path::new(DIR), options(seed));
            let again = again.unwrap_or_else(|e| panic!("power loss at {op}, {plan:?}: {e}; {:?}", after.list_all()));
            assert_eq!(again.recovered().unwrap().number, 2);
        }
        if done {
            assert!(op > 5);
            break;
        }
    }
}
