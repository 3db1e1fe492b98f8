//! Runs of many blocks and filter pages: walks both ways, probes of keys and rows, and how much each of them reads.

use super::*;

/// Some keys with one row, some with hundreds; values longer than the index keeps.
fn many_rows(seed: u64) -> RowBatch {
    let mut rng = Rng::new(seed);
    let mut rows = RowBatch::new();
    for key in 0..9_000u64 {
        let count = if key % 1000 == 7 { 700 } else { 1 + rng.below(4) };
        for value in 0..count {
            let mut bytes = vec![b'v'; if key % 2000 == 7 { 80 } else { 0 }];
            bytes.extend(value.to_be_bytes());
            bytes.extend((0..rng.below(30)).map(|_| rng.below(256) as u8));
            rows.push(format!("some key {key:07}").as_bytes(), &bytes, 1 + rng.below(3) as i64);
        }
    }
    rows.consolidate(Discipline::Weighted);
    rows
}

/// A spine of `rows`, over several runs and with what stays in memory.
fn spread(rows: &RowBatch, runs: u64, cache: u64) -> (Arc<dyn Disk>, Spine) {
    let disk = disk();
    let store = context(&disk, cache);
    let mut spine = Spine::open(Arc::clone(&store), SpineMeta::empty("s", Discipline::Weighted, 3)).unwrap();
    for part in 0..runs {
        let mut batch = RowBatch::new();
        // Newer runs are smaller, so that they are not merged.
        let of = |i: u64| (0..runs - 1).find(|part| !i.is_multiple_of(20u64.pow(*part as u32 + 1))).unwrap_or(runs - 1);
        for (i, (key, value, weight)) in rows.iter().enumerate() {
            if of(i as u64) == part {
                batch.push(key, value, weight);
            }
        }
        spine.insert_batch(&batch).unwrap();
        flush(&store, &mut spine).unwrap();
    }
    assert_eq!(spine.stats().runs as u64, runs);
    (disk, spine)
}

fn row(cursor: &Cursor) -> (&[u8], &[u8], i64) {
    (cursor.key(), cursor.value(), cursor.weight())
}

#[test]
fn walks_both_ways_and_turns() {
    let rows = many_rows(1);
    let at = |i: usize| (rows.key(i), rows.value(i), rows.weight(i));
    for (runs, cache) in [(1, 0), (1, 64 << 20), (3, 0), (3, 300_000)] {
        let (_disk, spine) = spread(&rows, runs, cache);
        assert!(all(&spine).unwrap() == rows, "{runs} runs forward");
        let mut cursor = spine.cursor().unwrap();
        cursor.seek_last().unwrap();
        for i in (0..rows.len()).rev() {
            assert_eq!(row(&cursor), at(i), "{runs} runs back");
            cursor.prev().unwrap();
        }
        assert!(!cursor.valid());
        let mut rng = Rng::new(runs);
        for turn in 0..150 {
            let mut i = rng.below(rows.len() as u64) as usize;
            let (key, value, _) = at(i);
            match turn % 3 {
                0 => cursor.seek_row(key, value).unwrap(),
                1 => {
                    cursor.seek(key).unwrap();
                    i = rows.lower_bound(key, 0);
                }
                _ => {
                    cursor.seek_for_prev(key).unwrap();
                    i = rows.upper_bound(key, 0) - 1;
                }
            }
            for _ in 0..rng.below(4) {
                let (back, steps) = (rng.below(2) == 0, rng.below(if turn % 10 == 0 { 3000 } else { 20 }));
                for _ in 0..steps {
                    assert_eq!(row(&cursor), at(i), "turn {turn} of {runs} runs");
                    let next = if back { i.checked_sub(1) } else { Some(i + 1).filter(|&i| i < rows.len()) };
                    let Some(next) = next else { break };
                    i = next;
                    if back { cursor.prev().unwrap() } else { cursor.next().unwrap() }
                }
            }
            assert_eq!(row(&cursor), at(i));
        }
    }
}

#[test]
fn rows_are_told_from_others_of_their_key() {
    let rows = many_rows(2);
    let (_disk, mut spine) = spread(&rows, 3, 1 << 20);
    let (mut asked, mut want) = (RowBatch::new(), Vec::new());
    let mut rng = Rng::new(3);
    for _ in 0..5_000 {
        let (key, value, weight) = rows.iter().nth(rng.below(rows.len() as u64) as usize).unwrap();
        if rng.below(2) == 0 {
            (asked.push(key, value, 0), want.push(weight)).0
        } else {
            (asked.push(key, &[value, &[0]].concat(), 0), want.push(0)).0
        }
    }
    assert_eq!(spine.probe_rows(&asked).unwrap(), want);
}

#[test]
fn a_filter_of_rows_saves_the_blocks() {
    let mut rows = RowBatch::new();
    for value in 0..40_000u64 {
        rows.push(b"hot", &value.to_be_bytes(), 1);
    }
    let (disk, mut spine) = spread(&rows, 1, 64 << 20);
    let mut asked = RowBatch::new();
    for value in 0..40_000u64 {
        asked.push(b"hot", &[&value.to_be_bytes()[..], &[1]].concat(), 0);
    }
    let before = disk.stats().read_bytes;
    assert!(spine.probe_rows(&asked).unwrap().iter().all(|&weight| weight == 0));
    let with_pages = disk.stats().read_bytes - before;
    // All pages, and nearly all blocks, since of so many rows a few pass in each; a second time they are cached.
    assert!(with_pages > 40_000 * 10 / 8, "{with_pages} bytes");
    let mut few = RowBatch::new();
    (0..40u64).for_each(|i| few.push(b"hot", &[&(i * 1000).to_be_bytes()[..], &[2]].concat(), 0));
    let mut fresh = Spine::open(context(&disk, 64 << 20), meta_of(&spine)).unwrap();
    let before = disk.stats().reads;
    assert_eq!(fresh.probe_rows(&few).unwrap(), [0; 40]);
    let reads = disk.stats().reads - before;
    assert!(reads <= 4 + 2, "{reads} reads for 4 pages and what passes them");
}

fn meta_of(spine: &Spine) -> SpineMeta {
    let runs = spine.shared.version().runs.iter().map(|run| run.meta.clone()).collect();
    SpineMeta { runs, ..SpineMeta::empty("s", Discipline::Weighted, 3) }
}

#[test]
fn keys_outside_of_a_run_read_nothing() {
    let (disk, mut spine) = spread(&many_rows(4), 1, 0);
    let before = disk.stats().reads;
    let mut keys = KeyBatch::new();
    [&b"a"[..], b"some", b"some key", b"some key 9", b"t"].iter().for_each(|key| keys.push(key));
    assert!(spine.probe(&keys).unwrap().rows.is_empty());
    assert_eq!(disk.stats().reads, before);
}

#[test]
fn a_short_range_reads_one_block_and_a_long_one_reads_ahead() {
    let rows = many_rows(5);
    let (disk, spine) = spread(&rows, 1, 0);
    let blocks = spine.shared.version().runs[0].index.len();
    let mut cursor = spine.cursor().unwrap();
    for i in [3_000, 9_000, 20_000] {
        let before = disk.stats().reads;
        cursor.seek_row(rows.key(i), rows.value(i)).unwrap();
        assert_eq!(disk.stats().reads - before, 1, "one block for row {i}");
    }
    for back in [false, true] {
        let before = disk.stats().reads;
        if back {
            cursor.seek_last().unwrap()
        } else {
            cursor.seek(b"").unwrap()
        }
        while cursor.valid() {
            if back { cursor.prev().unwrap() } else { cursor.next().unwrap() }
        }
        let reads = disk.stats().reads - before;
        assert!((3..blocks as u64 / 2).contains(&reads), "{reads} reads for {blocks} blocks");
    }
}

/// One wait for the device a range, whatever runs it is spread over, once the walk is known to take several blocks; and little is read that is not needed.
#[test]
fn ranges_of_a_length_are_read_at_once() {
    let rows = many_rows(7);
    for runs in [1u64, 3] {
        let (disk, spine) = spread(&rows, runs, 0);
        let mut cursor = spine.cursor().unwrap();
        let mut rng = Rng::new(runs);
        let mut range = |from: usize| {
            let before = disk.stats();
            cursor.seek_row(rows.key(from), rows.value(from)).unwrap();
            for i in from..from + 4_000 {
                assert_eq!(row(&cursor), (rows.key(i), rows.value(i), rows.weight(i)), "{runs} runs");
                cursor.next().unwrap();
            }
            let after = disk.stats();
            (after.reads - before.reads, after.read_bytes - before.read_bytes)
        };
        let first = range(10);
        range(9_000);
        let (mut reads, mut bytes) = (0, 0);
        for _ in 0..20 {
            let (more, read) = range(rng.below(rows.len() as u64 - 5_000) as usize);
            (reads, bytes) = (reads + more, bytes + read);
        }
        assert!(first.0 > runs, "{first:?} for a range of several blocks, the first time");
        // A range may take a block more than the two before it.
        assert!(reads <= 20 * runs * 3 / 2, "{runs} runs: {reads} reads of 20 ranges, {first:?} of the first");
        assert!(bytes / 20 <= first.1 * 5 / 4, "{runs} runs: {bytes} bytes of 20 ranges, {first:?} of the first");
    }
}

/// What was on its way is read again: a queue is used on its own thread only.
#[test]
fn a_cursor_may_go_on_in_another_thread() {
    let folder = tempfile::tempdir().unwrap();
    let store = SpineContext::new(
        crate::disk::system(),
        folder.path(),
        STORE,
        SpineOptions { cache_bytes: Some(0), ..SpineOptions::default() },
    );
    let mut spine = Spine::open(Arc::clone(&store), SpineMeta::empty("s", Discipline::Weighted, 3)).unwrap();
    let rows = many_rows(6);
    spine.insert_batch(&rows).unwrap();
    flush(&store, &mut spine).unwrap();
    let mut cursor = spine.cursor().unwrap();
    let mut walked = RowBatch::new();
    for part in 0..8 {
        let some = rows.len() / 8 * (part + 1);
        (cursor, walked) = std::thread::scope(|scope| {
            let on = move || {
                while cursor.valid() && (part == 7 || walked.len() < some) {
                    walked.push(cursor.key(), cursor.value(), cursor.weight());
                    cursor.next().unwrap();
                }
                (cursor, walked)
            };
            scope.spawn(on).join().unwrap()
        });
    }
    assert!(walked == rows);
}
