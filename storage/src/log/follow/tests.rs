use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::disk::sim::Fault;
use crate::disk::{PosixDisk, SimDisk};
use crate::log::LogOptions;
use crate::log::format::BLOCK_BYTES;
use crate::log::scan::End;
use crate::log::tail::Tail;

fn open(disk: Arc<dyn Disk>, dir: &Path) -> Log {
    Log::open(
        disk,
        dir,
        7,
        1,
        LogOptions { segment_bytes: 8 * BLOCK_BYTES, compress_over: None, ..LogOptions::default() },
    )
    .unwrap()
}

fn payload(seq: Seq) -> Vec<u8> {
    vec![seq as u8; (seq * 997 % 9000) as usize]
}

#[test]
fn a_follower_sees_what_is_durable_and_goes_on_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(Arc::new(PosixDisk::new()), dir.path());
    let (mut follower, mut seen) = (log.follow(0), 0);
    for round in 1..=40_u64 {
        for _ in 0..round % 4 {
            log.append(&payload(log.next_seq())).unwrap();
        }
        assert_eq!(follower.try_next().unwrap(), None, "nothing is durable in round {round}");
        log.commit().unwrap();
        // Now and then it falls behind.
        while round % 7 != 0
            && let Some(record) = follower.try_next().unwrap()
        {
            seen += 1;
            assert_eq!((record.seq, &record.payload[..]), (seen, &payload(seen)[..]));
        }
        if round % 7 == 0 {
            while seen < log.durable() {
                seen += 1;
                assert_eq!(follower.try_next().unwrap().map(|r| r.seq), Some(seen));
            }
        }
        assert_eq!(follower.next_seq(), log.durable() + 1);
    }
    assert!(seen > 50 && log.stats().segments_created > 5);
}

/// A log whose durable tail is set by hand.
struct Stepped<'a> {
    log: &'a Log,
    tails: Mutex<VecDeque<Tail>>,
}

impl Durable for Stepped<'_> {
    fn durable(&self) -> Result<Seq> {
        Ok(self.tails.lock().unwrap().front().map_or(0, |tail| tail.last_seq))
    }

    fn part_with(&self, seq: Seq) -> Result<Option<Part>> {
        let tail = self.tails.lock().unwrap().pop_front().unwrap();
        Ok(self.log.part_with(seq)?.map(|part| Part { end: End::Tail(tail), ..part }))
    }
}

#[test]
fn no_block_beyond_the_durable_tail_is_read() {
    let disk = SimDisk::new(1);
    let log = open(Arc::new(disk.clone()), Path::new("/log"));
    for _ in 0..4 {
        log.append(b"x").unwrap();
        log.commit().unwrap();
    }
    let tail = |n: u64| Tail { end: super::super::format::DATA_START + n * BLOCK_BYTES, last_seq: n };
    let tails = Mutex::new([tail(1), tail(3), tail(4)].into());
    let mut follower = Follower::new(Arc::new(disk.clone()), Stepped { log: &log, tails }, 1);
    for (blocks, front) in [(1, 2), (2, 0), (0, 0), (1, 0)] {
        let before = disk.stats().read_bytes;
        follower.try_next().unwrap().unwrap();
        assert_eq!(disk.stats().read_bytes - before, (blocks + front) * BLOCK_BYTES);
    }
    assert_eq!(follower.try_next().unwrap(), None);
}

#[test]
fn a_trimmed_record_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(Arc::new(PosixDisk::new()), dir.path());
    for _ in 0..3 {
        log.append_batch(&[&[1], &[2; 20_000]]).unwrap();
        log.commit().unwrap();
    }
    let mut behind = log.follow(1);
    assert_eq!(behind.try_next().unwrap().map(|r| r.seq), Some(1));
    let mut late = log.follow(1);
    log.trim_before(5).unwrap();
    // The segment that it reads is still held, the next one is gone.
    assert_eq!(behind.try_next().unwrap().map(|r| r.seq), Some(2));
    for (follower, record) in [(&mut behind, 3), (&mut late, 1)] {
        let error = follower.try_next().unwrap_err().to_string();
        assert!(error.contains(&format!("record {record} is no longer in the log: the first kept is 5")), "{error}");
    }
}

#[test]
fn after_a_failed_read_it_tries_again() {
    let disk = SimDisk::new(1);
    let log = open(Arc::new(disk.clone()), Path::new("/log"));
    log.append_batch(&[b"a", b"b"]).unwrap();
    log.commit().unwrap();
    let mut follower = log.follow(2);
    // The open, the header, the first blocks: each fails once.
    let mut failed = 0;
    for op in 1..10 {
        disk.fail_at(disk.ops() + op, Fault::Io);
        match follower.try_next() {
            Err(crate::Error::Io { .. }) => failed += 1,
            Err(other) => panic!("{other}"),
            Ok(record) => {
                assert_eq!(record.map(|r| r.payload), Some("b".into()));
                break;
            }
        }
    }
    assert!(failed >= 2, "only {failed} operations failed");
}

#[test]
fn a_log_that_failed_tells_its_follower() {
    let disk = SimDisk::new(1);
    let log = open(Arc::new(disk.clone()), Path::new("/log"));
    log.append(b"a").unwrap();
    log.commit().unwrap();
    let mut follower = log.follow(1);
    assert_eq!(follower.try_next().unwrap().map(|r| r.seq), Some(1));
    log.append(b"b").unwrap();
    disk.fail_at(disk.ops() + 1, Fault::Io);
    log.commit().unwrap_err();
    assert!(matches!(follower.try_next(), Err(crate::Error::Poisoned { .. })));
}

#[test]
fn it_follows_a_writer_in_another_thread() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(crate::disk::system(), dir.path());
    const RECORDS: u64 = 300;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 1..=RECORDS {
                log.append(&payload(seq)).unwrap();
                log.submit().unwrap();
                if seq % 3 == 0 {
                    log.commit().unwrap();
                }
            }
            log.commit().unwrap();
        });
        let (mut follower, mut seen) = (log.follow(1), 0);
        while seen < RECORDS {
            let Some(record) = follower.try_next().unwrap() else {
                std::thread::yield_now();
                continue;
            };
            seen += 1;
            assert_eq!((record.seq, &record.payload[..]), (seen, &payload(seen)[..]));
        }
    });
}
