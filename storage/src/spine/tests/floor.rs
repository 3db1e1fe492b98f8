//! Hidden rows never show, are gone in time, and a restart from an older state misses none that its floor shows.

use std::collections::BTreeMap;

use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A front of one byte, then a time.
fn key(rng: &mut Rng, around: u64) -> Vec<u8> {
    let time = (around + rng.below(400)) as u32;
    [&[rng.below(3) as u8][..], &time.to_be_bytes()].concat()
}

fn floor_at(time: u64) -> Floor {
    Floor { skip: 1, below: (time as u32).to_be_bytes().to_vec() }
}

fn shown(model: &Model, floor: &Floor) -> Vec<(Vec<u8>, Vec<u8>)> {
    model.iter().filter(|(key, _)| !floor.hides(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn check(mut cursor: Cursor, want: &[(Vec<u8>, Vec<u8>)], rng: &mut Rng, at: &str) {
    let row = |cursor: &Cursor| (cursor.key().to_vec(), cursor.value().to_vec());
    for want in want {
        assert_eq!(row(&cursor), *want, "{at}, forward");
        cursor.next().unwrap();
    }
    assert!(!cursor.valid(), "{at}");
    cursor.seek_last().unwrap();
    for want in want.iter().rev() {
        assert_eq!(row(&cursor), *want, "{at}, back");
        cursor.prev().unwrap();
    }
    assert!(!cursor.valid(), "{at}");
    for _ in 0..5 {
        let near = key(rng, 0);
        cursor.seek(&near).unwrap();
        assert_eq!(cursor.valid().then(|| row(&cursor)).as_ref(), want.iter().find(|(key, _)| *key >= near), "{at}");
        cursor.seek_for_prev(&near).unwrap();
        let last = want.iter().rfind(|(key, _)| *key <= near);
        assert_eq!(cursor.valid().then(|| row(&cursor)).as_ref(), last, "{at}");
    }
}

fn play(seed: u64) {
    let mut rng = Rng::new(seed);
    let disk = disk();
    let tables = [0, 20_000, 64 << 20][rng.below(3) as usize];
    let mut store = context_of(&disk, tables, 100_000);
    let mut meta = SpineMeta::empty("s", Discipline::Latest, 1);
    let mut spine = Spine::open(Arc::clone(&store), meta.clone()).unwrap();
    let mut floor = floor_at(0);
    let mut model = Model::new();
    // What is on disk, and the snapshots that are to be checked.
    let mut named = (model.clone(), floor.clone());
    let mut snapshots: Vec<(Snapshot, Model, Floor)> = Vec::new();
    let mut time = 0;
    for step in 0..60 {
        let at = format!("seed {seed}, step {step}");
        let mut batch = RowBatch::new();
        for _ in 0..rng.below(80) {
            let (key, delete) = (key(&mut rng, time), rng.below(4) == 0);
            let value = step.to_string().into_bytes();
            if delete {
                batch.push(&key, b"", -1);
                model.remove(&key);
            } else {
                batch.push(&key, &value, 1);
                model.insert(key, value);
            }
        }
        spine.insert_batch(&batch).unwrap();
        match rng.below(6) {
            0 | 1 => {
                time += rng.below(120);
                floor = floor_at(time);
                spine.raise_floor(floor.clone()).unwrap();
            }
            2 => snapshots.push((spine.snapshot(), model.clone(), floor.clone())),
            3 => {
                // The floor rises, and more is written, while the checkpoint is under way.
                let snapshot = spine.snapshot();
                let then = (model.clone(), floor.clone());
                time += rng.below(120);
                floor = floor_at(time);
                spine.raise_floor(floor.clone()).unwrap();
                spine.insert_batch(&rows(&[(&[0, 0xff], b"later", 1)])).unwrap();
                model.insert(vec![0, 0xff], b"later".to_vec());
                let mut writer = RunFileWriter::new(&store);
                let mut flushed = writer.flush(&snapshot).unwrap();
                writer.finish().unwrap();
                (meta, named) = (flushed.meta().clone(), then);
                flushed.install();
            }
            4 if step % 4 == 0 => {
                snapshots.clear();
                drop(spine);
                store = context_of(&disk, tables, 100_000);
                spine = Spine::open(Arc::clone(&store), meta.clone()).unwrap();
                (model, floor) = named.clone();
                spine.raise_floor(floor.clone()).unwrap();
            }
            _ => {
                if !snapshots.is_empty() {
                    let (snapshot, model, floor) = snapshots.remove(rng.below(snapshots.len() as u64) as usize);
                    check(snapshot.cursor().unwrap(), &shown(&model, &floor), &mut rng, &at);
                }
            }
        }
        let want = shown(&model, &floor);
        check(spine.cursor().unwrap(), &want, &mut rng, &at);
        let mut keys = KeyBatch::new();
        (0..30).for_each(|_| keys.push(&key(&mut rng, time.saturating_sub(100))));
        let found = spine.probe(&keys).unwrap();
        for i in 0..keys.len() {
            let want = want.iter().find(|(key, _)| *key == keys.get(i)).map(|(_, value)| &value[..]);
            let (from, to) = (found.offsets[i] as usize, found.offsets[i + 1] as usize);
            assert_eq!((from < to).then(|| found.rows.value(from)), want, "{at}");
        }
    }
}

#[test]
fn hidden_rows_never_show_and_others_are_never_missed() {
    for seed in 0..120 {
        let outcome = std::panic::catch_unwind(|| play(seed));
        assert!(outcome.is_ok(), "seed {seed}: see the panic above");
    }
}

#[test]
fn a_floor_cannot_be_lowered() {
    let mut spine = Spine::ephemeral(Discipline::Weighted);
    spine.raise_floor(floor_at(5)).unwrap();
    assert!(spine.raise_floor(floor_at(4)).unwrap_err().to_string().contains("does not hide all"));
    assert!(spine.raise_floor(Floor { skip: 0, ..floor_at(9) }).is_err());
}

/// Runs that are hidden whole go without being read; of others the hidden rows go when they are merged.
#[test]
fn what_is_hidden_is_gone_in_time() {
    let disk = disk();
    let store = context_of(&disk, 64 << 20, 0);
    let mut spine = Spine::open(Arc::clone(&store), SpineMeta::empty("s", Discipline::Latest, 1)).unwrap();
    for hour in 0..3u32 {
        let mut batch = RowBatch::new();
        (0..500u32).for_each(|i| batch.push(&(hour * 1000 + i).to_be_bytes(), b"v", 1));
        spine.insert_batch(&batch).unwrap();
        flush(&store, &mut spine).unwrap();
    }
    assert_eq!((spine.stats().runs, spine.stats().run_rows), (3, 1500));
    let reads = disk.stats().reads;
    spine.raise_floor(Floor { skip: 0, below: 1200u32.to_be_bytes().to_vec() }).unwrap();
    assert_eq!((spine.stats().runs, spine.stats().run_rows), (2, 1000));
    assert_eq!(disk.stats().reads, reads);
    for _ in 0..2 {
        spine.insert_batch(&rows(&[(b"zz", b"v", 1)])).unwrap();
        flush(&store, &mut spine).unwrap();
    }
    assert!(spine.stats().run_rows <= 802, "{:?}", spine.stats());
}
