//! Threads that append, submit, wait, scan and trim while an operation fails or the power goes: what any of them was told
//! to be durable is there afterwards, and the log is a contiguous prefix of what was appended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use backstay_storage::disk::SimDisk;
use backstay_storage::disk::sim::Fault;
use backstay_storage::log::{Log, LogOptions, Seq};

const THREADS: u64 = 4;
const LIVES: u64 = 6;

fn open(disk: &SimDisk, life: u64) -> backstay_storage::Result<Log> {
    let options = LogOptions {
        segment_bytes: 6 * 4096,
        compress_over: None,
        window: 8192 * (life % 3),
        buffer_bytes: 12_000,
        spare_segments: 1,
    };
    Log::open(Arc::new(disk.clone()), Path::new("/log"), 7, life, options)
}

/// What the threads appended, and the largest record that any of them was told to be durable.
#[derive(Default)]
struct Told {
    appended: Mutex<BTreeMap<Seq, Vec<u8>>>,
    durable: AtomicU64,
    trimmed: AtomicU64,
}

/// Appends until something fails or enough is done.
fn append(log: &Log, told: &Told, life: u64, thread: u64) -> backstay_storage::Result<()> {
    for i in 0..25u64 {
        let len = [10, 700, 5000, 13_000][((i * 7 + thread * 3 + life) % 4) as usize];
        let payload: Vec<u8> = format!("{life} {thread} {i} ").into_bytes().into_iter().cycle().take(len).collect();
        let seq = {
            // The number is known only behind the append; another thread may commit it in between.
            let mut appended = told.appended.lock().unwrap();
            let next = appended.keys().next_back().copied().unwrap_or(0) + 1;
            // An append that failed may be there all the same: nothing was promised either way.
            let done = log.append(&payload);
            appended.insert(next, payload);
            let seq = done?;
            assert_eq!(seq, next);
            seq
        };
        match (i + thread) % 4 {
            0 => log.submit()?,
            1 => {
                log.wait_durable(seq)?;
                told.durable.fetch_max(seq, Ordering::SeqCst);
            }
            2 => {
                let last = log.commit()?;
                assert!(last >= seq);
                told.durable.fetch_max(last, Ordering::SeqCst);
            }
            _ => {
                told.durable.fetch_max(log.durable(), Ordering::SeqCst);
            }
        }
        if thread == 0 && i % 10 == 9 {
            let before = told.durable.load(Ordering::SeqCst) / 2;
            told.trimmed.fetch_max(before, Ordering::SeqCst);
            log.trim_before(before)?;
        }
        if thread == 1 && i % 6 == 5 {
            let from = told.durable.load(Ordering::SeqCst).max(1);
            for (record, seq) in log.scan(from)?.zip(from..) {
                assert_eq!(record?.seq, seq);
            }
        }
    }
    Ok(())
}

fn check(log: &Log, told: &mut Told, at: &str) {
    let appended = told.appended.get_mut().unwrap();
    let (durable, promised) = (log.durable(), told.durable.load(Ordering::SeqCst));
    let last = appended.keys().next_back().copied().unwrap_or(0);
    assert!(durable >= promised && durable <= last, "{at}: {durable} of {last}, {promised} were promised");
    let first = log.first_seq();
    assert!(first <= told.trimmed.load(Ordering::SeqCst).max(1), "{at}: begins at {first}");
    let mut next = first;
    for record in log.scan(first).unwrap() {
        let record = record.unwrap_or_else(|e| panic!("{at}: {e}"));
        assert!(record.seq == next && record.payload == appended[&next], "{at}: record {next} differs");
        next += 1;
    }
    assert_eq!(next, durable + 1, "{at}");
    appended.retain(|seq, _| *seq <= durable);
    told.durable.store(durable, Ordering::SeqCst);
}

#[test]
fn what_any_thread_was_told_survives_a_failure_or_a_power_loss() {
    let mut failed = 0;
    for seed in 0..40u64 {
        let mut disk = SimDisk::new(seed);
        let mut told = Told::default();
        for life in 1..=LIVES {
            let at = format!("seed {seed}, life {life}");
            let log = open(&disk, life).unwrap_or_else(|e| panic!("{at}: {e}"));
            check(&log, &mut told, &at);
            let op = disk.ops() + 10 + (seed * 31 + life * 17) % 90;
            match (seed + life) % 4 {
                0 => disk.fail_at(op, Fault::Io),
                1 => disk.fail_at(op, Fault::ShortWrite),
                2 => disk.fail_at(op, Fault::NoSpace),
                _ => disk.crash_at(op),
            }
            std::thread::scope(|scope| {
                let (log, told) = (&log, &told);
                let threads: Vec<_> = (0..THREADS).map(|t| scope.spawn(move || append(log, told, life, t))).collect();
                failed += threads.into_iter().map(|t| t.join().unwrap()).filter(Result::is_err).count();
            });
            drop(log);
            if disk.is_down() || (seed + life) % 3 == 0 {
                disk = disk.power_cycle(seed << 8 | life);
            }
        }
    }
    assert!(failed > 100, "too few failures to show anything: {failed}");
}
