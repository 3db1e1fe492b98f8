//! Random work on a spine and on a `BTreeMap`: they must agree, whatever is frozen, flushed, merged or reopened between.

use std::collections::BTreeMap;

use super::*;

/// (key, value) → weight for weighted spines, (key, "") → value for latest ones.
#[derive(Default)]
struct Model {
    weighted: BTreeMap<(Vec<u8>, Vec<u8>), i64>,
    latest: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    fn insert(&mut self, discipline: Discipline, batch: &RowBatch) {
        for (key, value, weight) in batch.iter() {
            match discipline {
                Discipline::Weighted => {
                    let row = (key.to_vec(), value.to_vec());
                    let sum = self.weighted.entry(row.clone()).or_default();
                    *sum += weight;
                    if *sum == 0 {
                        self.weighted.remove(&row);
                    }
                }
                Discipline::Latest if weight > 0 => {
                    self.latest.insert(key.to_vec(), value.to_vec());
                }
                Discipline::Latest => {
                    self.latest.remove(key);
                }
            }
        }
    }

    /// Rows of the keys for which `keep` holds, in order.
    fn rows(&self, keep: impl Fn(&[u8], &[u8]) -> bool) -> RowBatch {
        let mut out = RowBatch::new();
        for ((key, value), weight) in &self.weighted {
            if keep(key, value) {
                out.push(key, value, *weight);
            }
        }
        for (key, value) in &self.latest {
            if keep(key, value) {
                out.push(key, value, 1);
            }
        }
        out
    }
}

fn random_key(rng: &mut Rng, keys: u64) -> Vec<u8> {
    let key = rng.below(keys);
    // Of different lengths, some a prefix of others, many with a common start of over 8 bytes.
    match key % 3 {
        0 => key.to_be_bytes()[6..].to_vec(),
        1 => format!("a common prefix {key}").into_bytes(),
        _ => vec![0; (key % 40) as usize],
    }
}

fn random_batch(rng: &mut Rng, keys: u64) -> RowBatch {
    let mut batch = RowBatch::new();
    for _ in 0..rng.below(200) {
        let key = random_key(rng, keys);
        let value = vec![rng.below(4) as u8; rng.below(60) as usize];
        batch.push(&key, &value, rng.below(7) as i64 - 3);
    }
    batch
}

fn check(spine: &mut Spine, model: &Model, rng: &mut Rng, keys: u64) {
    assert_eq!(all(spine).unwrap(), model.rows(|_, _| true), "cursor");
    let mut asked = KeyBatch::new();
    for _ in 0..rng.below(60) {
        asked.push(&random_key(rng, keys + 10));
    }
    let found = spine.probe(&asked).unwrap();
    assert_eq!(found.offsets.len(), asked.len() + 1);
    for i in 0..asked.len() {
        let mut got = RowBatch::new();
        found.range(i).for_each(|r| got.push(found.rows.key(r), found.rows.value(r), found.rows.weight(r)));
        assert_eq!(got, model.rows(|k, _| k == asked.get(i)), "probe of {:?}", asked.get(i));
    }
    let mut cursor = spine.cursor().unwrap();
    for _ in 0..20 {
        let (key, value) = (random_key(rng, keys), vec![rng.below(4) as u8; rng.below(60) as usize]);
        let latest = spine.discipline() == Discipline::Latest;
        let by_row = rng.below(2) == 0;
        let from = if by_row && !latest { value.as_slice() } else { &[] };
        if by_row {
            cursor.seek_row(&key, &value).unwrap()
        } else {
            cursor.seek(&key).unwrap()
        }
        let want = model.rows(|k, v| if latest { k >= key.as_slice() } else { (k, v) >= (key.as_slice(), from) });
        for i in 0..want.len().min(5) {
            let got = (cursor.key(), cursor.value(), cursor.weight());
            assert_eq!(got, (want.key(i), want.value(i), want.weight(i)), "seek {key:?} {from:?}, then {i}");
            cursor.next().unwrap();
        }
        assert!(want.len() >= 5 || !cursor.valid());
    }
    check_backward(spine, model, rng, keys);
    check_rows(spine, model, rng, keys);
}

fn check_backward(spine: &Spine, model: &Model, rng: &mut Rng, keys: u64) {
    let rows = model.rows(|_, _| true);
    let mut cursor = spine.cursor().unwrap();
    cursor.seek_last().unwrap();
    for i in (0..rows.len()).rev() {
        assert_eq!((cursor.key(), cursor.value(), cursor.weight()), (rows.key(i), rows.value(i), rows.weight(i)));
        cursor.prev().unwrap();
    }
    assert!(!cursor.valid());
    for _ in 0..20 {
        let key = random_key(rng, keys + 5);
        cursor.seek_for_prev(&key).unwrap();
        let mut at = rows.upper_bound(&key, 0).checked_sub(1);
        for step in 0..10 {
            let want = at.map(|i| (rows.key(i), rows.value(i), rows.weight(i)));
            let got = cursor.valid().then(|| (cursor.key(), cursor.value(), cursor.weight()));
            assert_eq!(got, want, "step {step} from the last at most {key:?}");
            let Some(i) = at else { break };
            if rng.below(3) == 0 {
                cursor.next().unwrap();
                at = Some(i + 1).filter(|&i| i < rows.len());
            } else {
                cursor.prev().unwrap();
                at = i.checked_sub(1);
            }
        }
    }
}

fn check_rows(spine: &mut Spine, model: &Model, rng: &mut Rng, keys: u64) {
    let mut asked = random_batch(rng, keys);
    let there = model.rows(|_, _| true);
    for _ in 0..rng.below(20).min(there.len() as u64) {
        let i = rng.below(there.len() as u64) as usize;
        asked.push(there.key(i), there.value(i), 0);
    }
    let got = spine.probe_rows(&asked).unwrap();
    for (i, (key, value, _)) in asked.iter().enumerate() {
        let row = model.rows(|k, v| (k, v) == (key, value));
        assert_eq!(got[i], row.weight(0), "probe of the row {key:?} {value:?}");
    }
}

fn run(seed: u64, discipline: Discipline) {
    let mut rng = Rng::new(seed);
    let disk = disk();
    // From no cache at all to one that holds everything.
    let cache = [0, 100_000, 64 << 20][rng.below(3) as usize];
    // From so little memory that all is written at once, to so much that only checkpoints write.
    let tables = [0, 20_000, 64 << 20][rng.below(3) as usize];
    let mut store = context_of(&disk, tables, cache);
    let mut meta = SpineMeta::empty("model", discipline, 3);
    let mut spine = Spine::open(Arc::clone(&store), meta.clone()).unwrap();
    let (mut model, mut durable) = (Model::default(), Model::default());
    let keys = [20, 300, 5000][rng.below(3) as usize];
    for _ in 0..80 {
        match rng.below(10) {
            0..=4 => {
                let batch = random_batch(&mut rng, keys);
                model.insert(discipline, &batch);
                spine.insert_batch(&batch).unwrap();
            }
            5 => drop(spine.snapshot()),
            6 | 7 => {
                let frozen = spine.snapshot();
                let at_freeze = Model { weighted: model.weighted.clone(), latest: model.latest.clone() };
                // The owner goes on while the flush is under way.
                let batch = random_batch(&mut rng, keys);
                let mut writer = RunFileWriter::new(&store);
                let mut flushed = writer.flush(&frozen).unwrap();
                model.insert(discipline, &batch);
                spine.insert_batch(&batch).unwrap();
                if rng.below(3) == 0 {
                    drop(spine.snapshot());
                }
                writer.finish().unwrap();
                if rng.below(5) > 0 {
                    (meta, durable) = (flushed.meta().clone(), at_freeze);
                    flushed.install();
                }
            }
            8 => {
                // All is forgotten that was not flushed and installed.
                store = context_of(&disk, tables, cache);
                spine = Spine::open(Arc::clone(&store), meta.clone()).unwrap();
                model = Model { weighted: durable.weighted.clone(), latest: durable.latest.clone() };
            }
            _ => check(&mut spine, &model, &mut rng, keys),
        }
    }
    check(&mut spine, &model, &mut rng, keys);
    for run in &meta.runs {
        verify_run(&store, &meta, run).unwrap();
    }
}

fn with_seeds(discipline: Discipline) {
    for seed in 0..60 {
        let outcome = std::panic::catch_unwind(|| run(seed, discipline));
        assert!(outcome.is_ok(), "{discipline} spine and model differ with seed {seed}: see the panic above");
    }
}

#[test]
fn a_weighted_spine_equals_its_model() {
    with_seeds(Discipline::Weighted);
}

#[test]
fn a_latest_spine_equals_its_model() {
    with_seeds(Discipline::Latest);
}

#[test]
fn many_checkpoints_leave_few_runs_and_all_rows() {
    for discipline in [Discipline::Weighted, Discipline::Latest] {
        let disk = disk();
        let store = context(&disk, 1 << 20);
        let mut spine = Spine::open(Arc::clone(&store), SpineMeta::empty("s", discipline, 3)).unwrap();
        let mut rng = Rng::new(7);
        let mut model = Model::default();
        for number in 1..=60 {
            let mut batch = RowBatch::new();
            for _ in 0..800 {
                batch.push(&rng.below(3000).to_be_bytes(), &rng.below(3).to_be_bytes(), rng.below(3) as i64 - 1);
            }
            model.insert(discipline, &batch);
            spine.insert_batch(&batch).unwrap();
            let meta = flush(&store, &mut spine).unwrap();
            assert!(meta.runs.len() <= 9, "{} runs after {number} checkpoints", meta.runs.len());
        }
        check(&mut spine, &model, &mut rng, 300);
        assert_eq!(spine.stats().frozen_tables, 0);
    }
}
