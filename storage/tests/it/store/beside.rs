//! Writing memtables and merging runs on real threads, beside inserts, snapshots, their readers and checkpoints: all agree with a
//! map in memory at each moment.

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;

use backstay_storage::disk;
use backstay_storage::spine::{Cursor, Discipline, KeyBatch, RowBatch, Snapshot};
use backstay_storage::{Checkpoint, Store, StoreOptions};

use super::model::Rng;
use super::seed;

type Rows = BTreeMap<(Vec<u8>, Vec<u8>), i64>;

/// What the rows of a spine must be.
#[derive(Clone)]
struct Model {
    discipline: Discipline,
    rows: Rows,
}

impl Model {
    fn insert(&mut self, batch: &RowBatch) {
        for (key, value, weight) in batch.iter() {
            match self.discipline {
                Discipline::Weighted => {
                    let entry = self.rows.entry((key.to_vec(), value.to_vec())).or_default();
                    *entry += weight;
                    if *entry == 0 {
                        self.rows.remove(&(key.to_vec(), value.to_vec()));
                    }
                }
                Discipline::Latest => {
                    let old = self.of(key).map(|(row, _)| row.clone()).collect::<Vec<_>>();
                    for row in &old {
                        self.rows.remove(row);
                    }
                    if weight > 0 {
                        self.rows.insert((key.to_vec(), value.to_vec()), 1);
                    }
                }
            }
        }
    }

    fn of(&self, key: &[u8]) -> impl Iterator<Item = (&(Vec<u8>, Vec<u8>), &i64)> {
        self.rows.range((key.to_vec(), Vec::new())..).take_while(move |(row, _)| row.0 == key)
    }

    fn check(&self, mut cursor: Cursor, at: &str) {
        for ((key, value), weight) in &self.rows {
            assert_eq!((cursor.key(), cursor.value(), cursor.weight()), (&key[..], &value[..], *weight), "{at}");
            cursor.next().unwrap();
        }
        assert!(!cursor.valid(), "{at}: more rows than there are");
    }

    fn check_probe(&self, rng: &mut Rng, at: &str, probe: impl FnOnce(&KeyBatch) -> backstay_storage::spine::Probe) {
        let mut keys = KeyBatch::new();
        (0..50).for_each(|_| keys.push(&key(rng)));
        let found = probe(&keys);
        for i in 0..keys.len() {
            let range = found.offsets[i] as usize..found.offsets[i + 1] as usize;
            let got = range.map(|row| (found.rows.value(row).to_vec(), found.rows.weight(row))).collect::<Vec<_>>();
            let want = self.of(keys.get(i)).map(|(row, weight)| (row.1.clone(), *weight)).collect::<Vec<_>>();
            assert_eq!(got, want, "{at}: key {:?}", keys.get(i));
        }
    }
}

fn key(rng: &mut Rng) -> [u8; 8] {
    rng.below(2500).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

fn batch(rng: &mut Rng) -> RowBatch {
    let mut batch = RowBatch::new();
    for _ in 0..1 + rng.below(300) {
        let value = [b'v'; 60];
        let key = key(rng);
        batch.push(&key, &value[..(rng.below(4) * 20) as usize], rng.below(3) as i64 - 1);
    }
    batch
}

#[test]
fn everything_beside_everything() {
    let seed = seed();
    for discipline in [Discipline::Weighted, Discipline::Latest] {
        for (memory_bytes, merge_threads) in [(64 << 10, 2), (400 << 10, 1), (64 << 10, 0)] {
            let at = format!("BACKSTAY_SEED={seed}, {discipline}, {memory_bytes} bytes, {merge_threads} threads");
            let options = || StoreOptions { memory_bytes, merge_threads, ..StoreOptions::default() };
            let mut rng = Rng(seed ^ memory_bytes);
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(disk::system(), dir.path(), options()).unwrap();
            let mut spine = store.spine("s", discipline, 1).unwrap();
            let mut model = Model { discipline, rows: Rows::new() };
            let mut named = model.clone();
            let (to_checkpointer, snapshots) = sync_channel::<Snapshot>(2);
            let (to_reader, read) = sync_channel::<(Snapshot, Model)>(2);
            std::thread::scope(|scope| {
                let store = &store;
                let checkpointer = scope.spawn(move || {
                    for snapshot in snapshots {
                        store.checkpoint(Checkpoint { frozen: vec![snapshot], ..Checkpoint::default() }).unwrap();
                    }
                });
                let told = at.clone();
                scope.spawn(move || {
                    let mut rng = Rng(seed);
                    for (snapshot, model) in read {
                        model.check(snapshot.cursor().unwrap(), &told);
                        model.check_probe(&mut rng, &told, |keys| snapshot.probe(keys).unwrap());
                    }
                });
                for step in 0..600 {
                    let batch = batch(&mut rng);
                    model.insert(&batch);
                    spine.insert_batch(&batch).unwrap();
                    if step % 10 == 0 {
                        model.check_probe(&mut rng, &at, |keys| spine.probe(keys).unwrap());
                    }
                    if step % 50 == 7 {
                        model.check(spine.cursor().unwrap(), &at);
                    }
                    if step % 23 == 1 {
                        to_checkpointer.send(spine.snapshot()).unwrap();
                        named = model.clone();
                    }
                    if step % 31 == 2 {
                        to_reader.send((spine.snapshot(), model.clone())).unwrap();
                    }
                }
                let stats = spine.stats();
                assert!(stats.runs > 0 && stats.runs < 30, "{at}: {stats:?}");
                drop((to_checkpointer, to_reader));
                checkpointer.join().unwrap();
            });
            drop((spine, store));
            let store = Store::open(disk::system(), dir.path(), options()).unwrap();
            named.check(store.spine("s", discipline, 1).unwrap().cursor().unwrap(), &at);
        }
    }
}

/// Keys may be long: what a manifest says of them is cut.
#[test]
fn long_keys_make_no_long_manifests() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(disk::system(), dir.path(), StoreOptions::default()).unwrap();
    let mut spine = store.spine("long", Discipline::Latest, 1).unwrap();
    let long = |last: u8| [&[7; 3_000_000][..], &[last]].concat();
    let mut rows = RowBatch::new();
    (0..3).for_each(|i| rows.push(&long(i), &[i], 1));
    spine.insert_batch(&rows).unwrap();
    let done = store.checkpoint(Checkpoint { frozen: vec![spine.snapshot()], ..Checkpoint::default() }).unwrap();
    assert!(done.manifest_bytes < 2000, "{done:?}");
    drop((spine, store));
    let store = Store::open(disk::system(), dir.path(), StoreOptions::default()).unwrap();
    let mut spine = store.spine("long", Discipline::Latest, 1).unwrap();
    assert_eq!(spine.get(&long(2)).unwrap().unwrap(), [2]);
}

#[test]
fn a_spine_without_its_store_takes_no_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(disk::system(), dir.path(), StoreOptions::default()).unwrap();
    let mut spine = store.spine("orphan", Discipline::Latest, 1).unwrap();
    let mut rows = RowBatch::new();
    rows.push(b"k", b"v", 1);
    spine.insert_batch(&rows).unwrap();
    drop(store);
    let e = spine.insert_batch(&rows).unwrap_err();
    assert!(e.to_string().contains("\"orphan\" was dropped"), "{e}");
    assert_eq!(spine.get(b"k").unwrap().unwrap(), b"v", "it can still be read");
}
