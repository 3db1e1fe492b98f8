//! Sound files to damage, and the seed corpus: made by the engine itself, so that both follow its format.
//!
//! `BACKSTAY_BLESS=1 cargo test` in this folder writes `corpus/<target>/seed-*` anew.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use backstay_storage::checkpoint::{ExtraMeta, Manifest};
use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::log::Log;
use backstay_storage::spine::{
    Discipline, RowBatch, RunFileWriter, RunMeta, Spine, SpineContext, SpineMeta, SpineOptions, run_file_name,
};

use crate::embedder::{Embedder, Row};
use crate::patch::Files;
use crate::{compact, log_recovery, run_decode};

/// The extra file's bytes in [`store_files`].
pub const EXTRA: &[u8] = &[9; 700];

/// The savepoint in [`store_files`].
pub const SAVEPOINT: &str = "early";

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn files_of(disk: &SimDisk) -> Files {
    disk.list_all().into_iter().map(|path| (path.clone(), disk.read_file(&path).expect("a listed file"))).collect()
}

/// A log of two openings with several segments, whose records are short, long over several blocks, and compressed.
pub fn log_files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimDisk::new(3);
        let mut rng = Rng(11);
        for epoch in 1..=2 {
            let dir = Path::new(log_recovery::DIR);
            let log = Log::open(Arc::new(disk.clone()), dir, log_recovery::STORE, epoch, log_recovery::options());
            let log = log.expect("a log on a new disk");
            for i in 0..12 {
                let payload = match i % 4 {
                    0 => rng.bytes(20),
                    1 => vec![i; 3000],
                    2 => rng.bytes(500),
                    _ => rng.bytes(5000),
                };
                log.append(&payload).expect("append");
                if i % 3 == 0 {
                    log.append(b"").expect("append");
                }
                if i % 2 == 0 {
                    log.commit().expect("commit");
                }
            }
            log.commit().expect("commit");
        }
        files_of(&disk)
    })
}

/// The sound log with what may stand beside the segments that have begun: the next one, made ahead of a file that was a segment before, and a
/// free file of old blocks. Opening gives the same records.
pub fn log_with_others() -> Files {
    let mut files = log_files().clone();
    files.retain(|(path, _)| path.extension().is_some_and(|e| e == "seg"));
    let old = files[0].1.clone();
    let number = files.len() as u64 + 1;
    let mut ahead = compact::expand(&ahead(number, old.len()));
    // Its link and its blocks are another segment's.
    ahead[4096..].copy_from_slice(&old[4096..]);
    let dir = Path::new(log_recovery::DIR);
    files.push((dir.join(format!("{number:016x}.seg")), ahead));
    files.push((dir.join(format!("{:016x}.free", 1)), files[1].1.clone()));
    files
}

/// The compact form of a segment of this number that goes on from the sound log and has not begun.
fn ahead(number: u64, len: usize) -> Vec<u8> {
    let newest = log_files().iter().rev().find(|(path, _)| path.extension().is_some_and(|e| e == "seg"));
    let mut compact = newest.expect("a segment").1[..64].to_vec();
    compact[32..40].copy_from_slice(&number.to_le_bytes());
    compact[48..56].copy_from_slice(&(len as u64).to_le_bytes());
    compact.resize(64 + 32, 0);
    compact
}

/// Run files of a weighted and a latest spine, of two flushes: the metas name them, the batches are what the spines hold.
pub fn run_files() -> &'static (Files, Vec<SpineMeta>, Vec<RowBatch>) {
    static FILES: OnceLock<(Files, Vec<SpineMeta>, Vec<RowBatch>)> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimDisk::new(3);
        let dir = Path::new(run_decode::DIR);
        disk.create_dir_all(dir).expect("a directory on a new disk");
        let context = SpineContext::new(
            Arc::new(disk.clone()),
            dir,
            run_decode::STORE,
            SpineOptions { memory_bytes: 1 << 20, ..SpineOptions::default() },
        );
        let open = |meta| Spine::open(context.clone(), meta).expect("a new spine");
        let mut spines =
            [Discipline::Weighted, Discipline::Latest].map(|d| open(SpineMeta::empty(&d.to_string(), d, 1)));
        let mut metas = Vec::new();
        let mut rng = Rng(12);
        for rows in [600, 60] {
            let mut writer = RunFileWriter::new(&context);
            let mut flushed = Vec::new();
            for spine in &mut spines {
                let mut batch = RowBatch::new();
                for _ in 0..rows {
                    let key = format!("key {:04}", rng.next() % 300);
                    let len = 60 + (rng.next() % 100) as usize;
                    let value = rng.bytes(len);
                    batch.push(key.as_bytes(), &value, if rng.next().is_multiple_of(4) { -1 } else { 1 });
                }
                spine.insert_batch(&batch).expect("insert");
                flushed.push(writer.flush(&spine.snapshot()).expect("flush"));
            }
            writer.finish().expect("finish");
            metas = flushed.iter().map(|f| f.meta().clone()).collect();
            flushed.into_iter().for_each(|mut f| f.install());
        }
        let rows = spines.iter().map(|spine| run_decode::walk(spine).expect("a sound spine")).collect();
        (files_of(&disk), metas, rows)
    })
}

/// A store with two checkpoints, the first of them saved, an extra file and a log behind them; and the rows of its steps.
pub fn store_files() -> &'static (Files, Vec<Vec<Row>>) {
    static FILES: OnceLock<(Files, Vec<Vec<Row>>)> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimDisk::new(3);
        let mut rng = Rng(13);
        let mut steps = Vec::new();
        for opening in 0..2 {
            let mut embedder = Embedder::open(Arc::new(disk.clone())).expect("a sound store");
            embedder.replay().expect("a sound log");
            for step in 0..8 {
                let rows: Vec<_> = (0..6).map(|_| random_row(&mut rng)).collect();
                embedder.run_step(&rows).expect("a step");
                steps.push(rows);
                if step % 3 == 0 {
                    embedder.store.log().commit().expect("commit");
                }
                if step == 4 {
                    embedder.checkpoint((opening == 1).then_some(EXTRA)).expect("checkpoint");
                    if opening == 0 {
                        embedder.store.savepoint(SAVEPOINT).expect("savepoint");
                    }
                }
            }
            embedder.store.log().commit().expect("commit");
        }
        (files_of(&disk), steps)
    })
}

fn random_row(rng: &mut Rng) -> Row {
    let len = if rng.next().is_multiple_of(5) { 2000 } else { 30 };
    let weight = if rng.next().is_multiple_of(4) { -1 } else { 1 };
    let (latest, key) = (rng.next().is_multiple_of(2), format!("key {}", rng.next() % 20).into_bytes());
    Row { latest, key, value: rng.bytes(len), weight }
}

/// A sound manifest with a bit of everything.
fn manifest() -> Manifest {
    let run = RunMeta {
        file: run_file_name(1, 2),
        offset: 4096,
        len: 900,
        checksum: 5,
        rows: 3,
        raw_bytes: 100,
        min_key: b"a".to_vec(),
        max_key: b"z".to_vec(),
    };
    let with_runs = SpineMeta { runs: vec![run.clone(), run], ..SpineMeta::empty("by key", Discipline::Latest, 1) };
    Manifest {
        store_id: 7,
        epoch: 2,
        number: 3,
        log_from: 4,
        log_durable: 9,
        extras: vec![ExtraMeta { name: "00000002-00000001.pending".into(), len: 772, checksum: 6 }],
        spines: vec![with_runs, SpineMeta::empty("by weight", Discipline::Weighted, 1)],
        blob: b"state".as_slice().into(),
        savepoint: None,
    }
}

/// A counted byte string, as [`crate::input::Input::counted`] reads it.
fn counted(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat()
}

/// A block of three rows in the format of a run, and an input that makes a run of two such.
fn made_run() -> Vec<u8> {
    let mut input = vec![2, 0, 2];
    for first in [b'a', b'd'] {
        let mut payload = Vec::new();
        for (i, key) in (first..first + 3).enumerate() {
            // shared, rest, value length, weight +1, then key and value
            payload.extend([0, 1, 1, 2, key, i as u8]);
        }
        // Where the only restart is; its abbreviated key; 0 bytes in common, 1 restart.
        payload.extend([0; 4]);
        payload.extend((u64::from(first) << 56).to_be_bytes());
        payload.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        input.extend(3u16.to_le_bytes());
        for part in [&[first][..], &[], &[first + 2], &payload] {
            input.extend(counted(part));
        }
    }
    // A page of 6 keys that all pass, and none of rows.
    input.extend(6u16.to_le_bytes());
    input.extend(counted(&[0xff; 32]));
    input
}

/// The seed corpus: target, name, bytes.
pub fn corpus() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut corpus: Vec<(&'static str, String, Vec<u8>)> = Vec::new();
    let mut add = |target, name: &str, bytes: Vec<u8>| corpus.push((target, format!("seed-{name}"), bytes));

    let logs = log_files();
    let compacts: Vec<_> = logs.iter().map(|(_, file)| compact::shrink(file)).collect();
    for (i, compact) in compacts.iter().enumerate().take(2) {
        add("log_segment", &format!("compact-{i}"), [&[1], &compact[..]].concat());
    }
    add("log_segment", "raw-header", [&[0], &logs[0].1[..8192]].concat());
    let segments = |files: &[Vec<u8>]| files.iter().flat_map(|f| [&[0][..], &counted(f)].concat()).collect::<Vec<u8>>();
    add("log_recovery", "compact", [&[1, 0], &segments(&compacts[..2])[..]].concat());
    add("log_recovery", "raw-header", [&[2, 0], &segments(&[logs[0].1[..8192].to_vec()])[..]].concat());
    // The first two segments; the third was made ahead, and its first commit was in flight when the power went.
    let mut third = ahead(3, 6 * 4096);
    third.extend(1_u16.to_le_bytes().iter().map(|b| b * 21));
    third.extend([4096_u64, 99].iter().flat_map(|f| f.to_le_bytes()));
    third.extend([1_u32, 1, 0, 21].iter().flat_map(|f| f.to_le_bytes()));
    third.extend([1_u32, 0, 99, 0, 1].iter().flat_map(|f| f.to_le_bytes()));
    third.push(b'x');
    let in_flight = segments(&[&compacts[..2], &[third]].concat());
    add("log_recovery", "in-flight", [&[1, 0], &in_flight[..]].concat());
    let free = [&[14][..], &counted(&compacts[0])].concat();
    add("log_recovery", "free", [&[1, 0], &segments(&compacts[..2])[..], &free].concat());
    let others = log_with_others();
    let (newest, ahead, spare) = (others.len() as u8 - 3, others.len() as u8 - 2, others.len() as u8 - 1);
    add("log_recovery", "link", vec![0, 0, newest, 20, 16, 0, 0, 0, 1]);
    add("log_recovery", "ahead-flip", vec![0, 0, ahead, 20, 0, 0, 0, 0, 1]);
    add("log_recovery", "ahead-lost", vec![0, 7, ahead, 0, 0, 0, 0, 0]);
    add("log_recovery", "newest-lost", vec![0, 7, ahead, 0, 0, 0, 0, 0, 7, newest, 0, 0, 0, 0, 0]);
    add("log_recovery", "newest-cut", vec![0, 7, ahead, 0, 0, 0, 0, 0, 5, newest, 0, 16, 0, 0, 0]);
    add("log_recovery", "ahead-stale", vec![0, 3, ahead, 0, 0x20, 0, 0, newest, 2]);
    add("log_recovery", "free-cut", vec![0, 5, spare, 9, 0, 0, 0, 0]);
    add("log_recovery", "sound", vec![0]);
    // Patches: kind, file, offset (32 bits), other file, and what the kind needs.
    add("log_recovery", "flip", vec![0, 0, 0, 100, 0, 0, 0, 0, 1]);
    add("log_recovery", "stale", vec![0, 3, 1, 0, 0x10, 0, 0, 0, 1]);
    add("log_recovery", "cut", vec![0, 5, 1, 0, 0x20, 0, 0, 0]);
    add("log_recovery", "lost", vec![0, 7, 0, 0, 0, 0, 0, 0]);

    add("manifest_decode", "raw", [&[0], &manifest().encode()[..]].concat());
    add("manifest_decode", "sealed", [&[1], &manifest().encode()[..]].concat());
    let saved = Manifest { savepoint: Some("before-upgrade".into()), ..manifest() };
    add("manifest_decode", "savepoint-raw", [&[0], &saved.encode()[..]].concat());
    add("manifest_decode", "savepoint-sealed", [&[1], &saved.encode()[..]].concat());

    let (stores, _) = store_files();
    let extra = stores.iter().find(|(path, _)| path.extension().is_some_and(|e| e == "pending"));
    let extra = &extra.expect("an extra file").1[..100];
    add("extra_decode", "sealed", [&[1], extra].concat());
    add("extra_decode", "raw", [&[0], extra].concat());

    let runs = run_files();
    add("run_decode", "sound", vec![1]);
    add("run_decode", "flip", vec![1, 0, 0, 0, 0x20, 0, 0, 0, 1]);
    add("run_decode", "stale", vec![1, 3, 1, 0, 0x10, 0, 0, 0, 9]);
    add("run_decode", "made", made_run());
    let foot = &runs.0[1].1;
    add("run_decode", "header", [&[0, 1, 0, 0, 0], &foot[..48]].concat());

    add("store_damage", "sound", vec![]);
    for (i, _) in stores.iter().enumerate() {
        add("store_damage", &format!("flip-{i}"), vec![0, i as u8, 60, 0, 0, 0, 0, 1]);
        add("store_damage", &format!("lost-{i}"), vec![7, i as u8, 0, 0, 0, 0, 0]);
    }

    let steps = |n: u8| (0..n).flat_map(|i| [0, 2, i, i, 3 + i, i + 7, i, 0x1f, 9, 3, 2]).collect::<Vec<u8>>();
    add(
        "store_ops",
        "checkpoints",
        [&[1][..], &steps(3), &[4, 7, 1], &steps(3), &[7, 2, 6, 3, 1, 2, 3, 8, 7, 4], &steps(2)].concat(),
    );
    add(
        "store_ops",
        "power",
        [&[2][..], &steps(2), &[5, 1, 9, 7], &steps(3), &[4, 9, 8, 7, 3, 10, 40], &steps(5)].concat(),
    );
    add(
        "store_ops",
        "fault",
        [&[3][..], &steps(4), &[11, 0, 5, 4, 5], &steps(3), &[11, 2, 9, 7, 3], &steps(2)].concat(),
    );
    add(
        "store_ops",
        "savepoints",
        [
            &[4][..],
            &steps(3),
            &[7, 2, 12, 0],
            &steps(2),
            &[7, 3, 14, 0, 12, 1, 7, 2, 7, 4, 15, 0, 1, 14, 1, 13, 0],
            &[15, 1, 0],
            &steps(2),
            &[7, 1],
        ]
        .concat(),
    );
    add(
        "store_ops",
        "savepoint-power",
        [&[5][..], &steps(2), &[7, 1, 10, 9, 12, 0, 10, 30, 14, 0, 9, 3, 15, 0, 1, 10, 7, 13, 0, 8], &steps(2)]
            .concat(),
    );
    corpus
}
