//! What the block cache holds beside probes, checkpoints and merges.

use super::*;

/// Rows `(number, some 400 bytes)` of a latest spine; the bytes say which batch they are of.
fn numbered(numbers: impl Iterator<Item = u32>, batch: u8) -> RowBatch {
    let mut rows = RowBatch::new();
    numbers.for_each(|n| rows.push(&n.to_be_bytes(), &[batch; 400], 1));
    rows
}

/// A latest spine in which newer runs hold ever fewer of the same keys: all, each 8th, each 64th.
fn layered(cache: u64) -> (Arc<dyn Disk>, Arc<SpineContext>, Spine) {
    let disk = disk();
    let store = context(&disk, cache);
    let mut spine = Spine::open(Arc::clone(&store), SpineMeta::empty("s", Discipline::Latest, 3)).unwrap();
    for (batch, every) in [1, 8, 64].into_iter().enumerate() {
        spine.insert_batch(&numbered((0..16_000).step_by(every), batch as u8)).unwrap();
        flush(&store, &mut spine).unwrap();
    }
    assert_eq!(spine.stats().runs, 3);
    (disk, store, spine)
}

fn blocks_cached(store: &SpineContext, run: &run::Run) -> usize {
    (0..run.index.len()).filter(|&i| store.cache().has_block(&run.handle, run.place(i).0)).count()
}

#[test]
fn a_key_is_read_from_its_newest_run_alone() {
    let (_disk, store, mut spine) = layered(64 << 20);
    let mut keys = KeyBatch::new();
    // Of each 64th key there are three rows, 50 blocks apart.
    (0..16_000u32).step_by(64 * 50).for_each(|n| keys.push(&n.to_be_bytes()));
    let found = spine.probe(&keys).unwrap();
    assert!((0..keys.len()).all(|i| found.rows.value(found.range(i).start) == [2; 400]));
    let runs = &spine.shared.version().runs;
    let read: Vec<usize> = runs.iter().map(|run| blocks_cached(&store, run)).collect();
    assert!(read[0] > 0 && read[1..] == [0, 0], "blocks read of each run, newest first: {read:?}");
}

/// About one in a hundred keys passes a filter of a run that does not have it: it must be found in an older one all the same.
#[test]
fn a_filter_that_is_wrong_hides_nothing() {
    for cache in [0, 64 << 20] {
        let (_disk, _store, mut spine) = layered(cache);
        let mut keys = KeyBatch::new();
        // Those from 16,000 on are in no run.
        (0..20_000u32).for_each(|n| keys.push(&n.to_be_bytes()));
        let found = spine.probe(&keys).unwrap();
        for n in 0..20_000 {
            let newest = if n % 64 == 0 { 2 } else { u8::from(n % 8 == 0) };
            let range = found.range(n);
            match n < 16_000 {
                true => assert_eq!((range.len(), found.rows.value(range.start)), (1, &[newest; 400][..]), "key {n}"),
                false => assert!(range.is_empty(), "key {n}"),
            }
        }
    }
}

/// Readers who found a run's rows in the cache find those of the run that takes its place there too, and the old ones go.
#[test]
fn what_takes_the_place_of_a_cached_run_is_cached() {
    for walked in [false, true] {
        let (_disk, store, mut spine) = layered(64 << 20);
        if walked {
            all(&spine).unwrap();
        }
        let old = spine.shared.version().runs.clone();
        // Level by level, as many runs as a merge takes.
        for batch in 3..9 {
            spine.insert_batch(&numbered((0..16_000).step_by(9), batch)).unwrap();
            flush(&store, &mut spine).unwrap();
        }
        let now = spine.shared.version().runs.clone();
        let replaced = old.iter().filter(|run| !now.iter().any(|other| Arc::ptr_eq(run, other)));
        let left: Vec<usize> = replaced.map(|run| blocks_cached(&store, run)).collect();
        assert!(!left.is_empty() && left.iter().all(|&blocks| blocks == 0), "walked {walked}: {left:?}");
        let made = now.iter().filter(|run| !old.iter().any(|other| Arc::ptr_eq(run, other)));
        for run in made {
            let expected = if walked { run.index.len() } else { 0 };
            assert_eq!(blocks_cached(&store, run), expected, "walked {walked}");
        }
    }
}
