//! Threads and tasks that wait on one real log in every way at once, with a watchdog: nobody may be left waiting.
#![expect(clippy::disallowed_methods, reason = "a watchdog needs a thread and a clock")]

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use backstay_storage::disk::{self, Disk, PosixDisk, QuotaDisk};
use backstay_storage::log::{Log, LogOptions, ScanOptions, Seq};
use backstay_storage::{Error, Result};

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The simplest executor: polls again only when it was woken.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(out) => return out,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A hang lasts for ever; a loaded machine with a slow disk, long.
const PATIENCE: Duration = Duration::from_secs(600);

/// Fails if `f` has not ended in time.
fn watched(name: &str, f: impl FnOnce() + Send + 'static) {
    let (told, done) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        f();
        let _ = told.send(());
    });
    match done.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name}: somebody waits for ever"),
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

fn options(segment_bytes: u64, window: u64, buffer_bytes: usize) -> LogOptions {
    LogOptions { segment_bytes, window, buffer_bytes, compress_over: None, ..LogOptions::default() }
}

fn open(disk: &Arc<dyn Disk>, options: LogOptions) -> (tempfile::TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(disk.clone(), dir.path(), 7, 1, options).unwrap();
    (dir, log)
}

fn disks() -> [Arc<dyn Disk>; 2] {
    [disk::system(), Arc::new(PosixDisk::new())]
}

/// The log's thread both leads for a task and makes the segment that it then needs.
#[test]
fn a_task_alone_goes_on_over_segments() {
    for disk in disks() {
        watched("a task alone", move || {
            let (_dir, log) = open(&disk, options(9 * 4096, 8 << 20, 1 << 20));
            for i in 0..200u64 {
                let seq = log.append(&vec![i as u8; 20_000]).unwrap();
                block_on(log.when_durable(seq).unwrap()).unwrap();
            }
        });
    }
}

/// A log is dropped while its thread makes a segment that a task's record needs.
#[test]
fn a_dropped_log_serves_its_task_over_a_segment_s_end() {
    for disk in disks() {
        watched("a dropped log", move || {
            for round in 0..20 {
                let (_dir, log) = open(&disk, options(4 << 20, 8 << 20, 1 << 20));
                // Past an eighth: the next segment is ordered, whose zeros take some time.
                let seq = log.append(&vec![1; 1_000_000]).unwrap();
                log.wait_durable(seq).unwrap();
                for _ in 0..3 {
                    log.append(&vec![2; 1_000_000]).unwrap();
                    log.submit().unwrap();
                }
                let last = log.append(&vec![3; 1_000_000]).unwrap();
                let future = log.when_durable(last).unwrap();
                let waiter = std::thread::spawn(move || block_on(future));
                if round % 2 == 0 {
                    std::thread::sleep(Duration::from_micros(300));
                }
                drop(log);
                waiter.join().unwrap().unwrap();
            }
        });
    }
}

#[test]
fn a_dropped_log_serves_two_tasks() {
    for disk in disks() {
        watched("two tasks", move || {
            for round in 0..200u64 {
                let (_dir, log) = open(&disk, options(1 << 20, 8 << 20, 64 << 10));
                let one = log.append(&[1; 9000]).unwrap();
                log.submit().unwrap();
                let two = log.append(&[2; 9000]).unwrap();
                let futures = [log.when_durable(one).unwrap(), log.when_durable(two).unwrap()];
                let tasks = futures.map(|future| std::thread::spawn(move || block_on(future)));
                if round % 3 == 0 {
                    std::thread::yield_now();
                }
                drop(log);
                tasks.into_iter().for_each(|task| task.join().unwrap().unwrap());
            }
        });
    }
}

/// The last owner of a log is a task, which the log's own thread wakes and then lets go of.
#[test]
fn a_log_that_its_own_thread_drops_ends_in_peace() {
    struct Owner(#[expect(dead_code, reason = "owned, for its drop")] Log, mpsc::Sender<()>);
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {
            let _ = self.1.send(());
        }
    }
    for disk in disks() {
        watched("a log in a waker", move || {
            for _ in 0..25 {
                let dir = tempfile::tempdir().unwrap();
                let options = options(1 << 20, 8 << 20, 64 << 10);
                let log = Log::open_alone(disk.clone(), dir.path(), 7, options.clone()).unwrap();
                let seq = log.append(&[1; 3000]).unwrap();
                let mut future = Box::pin(log.when_durable(seq).unwrap());
                let (told, woken) = mpsc::channel();
                let waker = Waker::from(Arc::new(Owner(log, told)));
                if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                    drop(waker);
                    woken.recv().unwrap();
                }
                drop(future);
                // The directory is free again once the thread has ended.
                let log = loop {
                    match Log::open_alone(disk.clone(), dir.path(), 7, options.clone()) {
                        Err(Error::Locked { .. }) => std::thread::yield_now(),
                        other => break other.unwrap(),
                    }
                };
                assert_eq!(log.durable(), seq);
            }
        });
    }
}

/// A task that was not polled before the log was dropped keeps others out of the directory, and still gets its record written.
#[test]
fn a_task_left_over_keeps_its_log_s_directory() {
    for disk in disks() {
        watched("a task left over", move || {
            let dir = tempfile::tempdir().unwrap();
            let open = || Log::open_alone(disk.clone(), dir.path(), 7, options(1 << 20, 8 << 20, 64 << 10));
            let log = open().unwrap();
            let seq = log.append(&[1; 3000]).unwrap();
            let future = log.when_durable(seq).unwrap();
            drop(log);
            assert!(matches!(open(), Err(Error::Locked { .. })));
            block_on(future).unwrap();
            assert_eq!(open().unwrap().durable(), seq);
        });
    }
}

/// A disk fails under threads and tasks that wait in all ways: all are told.
#[test]
fn a_failure_leaves_nobody_waiting() {
    for round in 0..16 {
        watched("a failing disk", move || {
            let dir = tempfile::tempdir().unwrap();
            let full = QuotaDisk::new(disk::system(), dir.path(), (4 + round) << 20).unwrap();
            let log = Log::open(Arc::new(full), dir.path(), 7, 1, options(1 << 20, 64 << 10, 16 << 10)).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..6u64 {
                    let log = &log;
                    scope.spawn(move || {
                        for i in 0.. {
                            let waited = log.append(&[7; 4000]).and_then(|seq| match (thread + i) % 3 {
                                0 => block_on(log.when_durable(seq)?),
                                1 => log.wait_durable(seq),
                                _ => log.submit(),
                            });
                            if waited.is_err() {
                                break;
                            }
                        }
                    });
                }
            });
            assert!(log.commit().is_err());
        });
    }
}

/// Appends records of all sizes and waits for them in all ways, until the end; tells the last that it knows durable.
fn append(log: &Log, thread: u64, end: Instant, told: &AtomicU64) -> Result<()> {
    let mut state = thread + 1;
    while Instant::now() < end {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let drawn = state >> 33;
        let len = match drawn % 7 {
            0 => 40_000,
            1 => 9000,
            _ => 8 + drawn % 300,
        };
        let seq = log.append(&vec![thread as u8; len as usize])?;
        match (drawn >> 5) % 8 {
            0 => log.submit()?,
            1 | 2 => {
                log.wait_durable(seq)?;
                told.fetch_max(seq, Ordering::Relaxed);
            }
            3 | 4 => {
                block_on(log.when_durable(seq)?)?;
                assert!(log.durable() >= seq);
                told.fetch_max(seq, Ordering::Relaxed);
            }
            // Polled once, then dropped.
            5 => drop(pin!(log.when_durable(seq)?).poll(&mut Context::from_waker(Waker::noop()))),
            6 if drawn.is_multiple_of(5) => log.trim_before(seq.saturating_sub(300))?,
            _ => {}
        }
    }
    Ok(())
}

/// Reads all that is there; it may be trimmed meanwhile, but not change.
fn read(log: &Log, mapped: bool) {
    let from: Seq = log.first_seq();
    let trimmed = |e: backstay_storage::Error| assert!(e.to_string().contains("no longer"), "{e}");
    match log.scan_with(ScanOptions { mapped, ..ScanOptions::from(from) }) {
        Ok(scan) => scan.zip(from..).for_each(|(record, seq)| match record {
            Ok(record) => assert_eq!(record.seq, seq),
            Err(e) => trimmed(e),
        }),
        Err(e) => trimmed(e),
    }
}

#[test]
fn threads_and_tasks_of_all_kinds_at_once() {
    let sizes = [(9 * 4096, 0, 1), (64 << 10, 0, 8192), (1 << 20, 8 << 20, 4096), (256 << 10, 8192, 30_000)];
    for (disk, (segment, window, buffer)) in disks().into_iter().flat_map(|disk| sizes.map(|s| (disk.clone(), s))) {
        watched(&format!("segments {segment}, window {window}, buffers {buffer}"), move || {
            let options = || options(segment, window, buffer);
            let (dir, log) = open(&disk, options());
            let told = AtomicU64::new(0);
            let end = Instant::now() + Duration::from_millis(700);
            std::thread::scope(|scope| {
                let (log, told) = (&log, &told);
                for thread in 0..8 {
                    scope.spawn(move || append(log, thread, end, told).unwrap());
                }
                scope.spawn(move || {
                    while Instant::now() < end {
                        [false, true].into_iter().for_each(|mapped| read(log, mapped));
                    }
                });
            });
            drop(log);
            let log = Log::open(disk, dir.path(), 7, 2, options()).unwrap();
            assert!(log.durable() >= told.into_inner());
            let first = log.first_seq();
            let end = log.scan(first).unwrap().fold(first, |next, record| {
                assert_eq!(record.unwrap().seq, next);
                next + 1
            });
            assert_eq!(end, log.next_seq());
        });
    }
}
