//! The broker's limits: its disk is full, a transaction takes longer than it may.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::broker::{Broker, ids};
use super::faults::{Copier, messages};
use crate::process::Running;

const PATIENCE: Duration = Duration::from_secs(90);

/// A small disk in memory; gone when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`: this user may not mount one.
    fn mount(bytes: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap().keep();
        let size = format!("size={bytes}");
        match Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&place).output() {
            Ok(output) if output.status.success() => Some(Self(place)),
            other => {
                eprintln!("SKIPPED, no small disk can be mounted: {other:?}");
                None
            }
        }
    }

    /// Takes all the room there is.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let _ = Command::new("dd").args(["if=/dev/zero", "bs=64K"]).arg(format!("of={}", ballast.display())).output();
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_disk_at_the_broker_is_waited_for() {
    if !Broker::is_own() {
        return;
    }
    let Some(disk) = SmallDisk::mount("64m") else { return };
    let Some(broker) = Broker::start_in(&disk.0, "log.cleaner.dedupe.buffer.size=4194304") else { return };
    let copier = Copier::new(&broker, r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#);
    let mut process = copier.start(&copier.data());
    broker.send("in", &ids(0..10));
    process.wait_until("the first rows", PATIENCE, || messages(&broker) == 10);
    let ballast = disk.fill();
    // From a file that has room: the broker cannot take what comes of it, and ends.
    let end = Instant::now() + PATIENCE;
    let mut rows = 0;
    while broker.is_running() {
        assert!(Instant::now() < end, "the broker has room still");
        copier.append(rows..rows + 2000);
        rows += 2000;
        process.wait_until("the file's rows", PATIENCE, || copier.lines() == 10 + rows as usize);
    }
    process.wait_until_said(&["v.out"], PATIENCE);
    std::fs::remove_file(&ballast).unwrap();
    broker.restart();
    let all = 10 + rows as usize;
    process.wait_until("all rows", PATIENCE, || messages(&broker) >= all);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((messages(&broker), copier.lines()), (all, all));
}

/// Stops the pipeline's process for longer than a transaction may take, while rows come, until it says something or has ended.
fn interrupt(
    process: &mut Running,
    broker: &Broker,
    sent: &mut u64,
    pause: Duration,
    mut is_enough: impl FnMut(&mut Running) -> bool,
) {
    for _ in 0..40 {
        for _ in 0..20 {
            broker.send("in", &ids(*sent..*sent + 50));
            *sent += 50;
        }
        let pid = Pid::from_raw(process.id() as i32).unwrap();
        let _ = kill_process(pid, Signal::STOP);
        std::thread::sleep(pause);
        let _ = kill_process(pid, Signal::CONT);
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            if is_enough(process) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    panic!("no transaction was too slow: {}", process.said());
}

#[test]
fn a_transaction_that_takes_too_long_gets_more_time_up_to_the_brokers_bound() {
    let properties = "transaction.abort.timed.out.transaction.cleanup.interval.ms=200\ntransaction.max.timeout.ms=5000";
    if !Broker::is_own() {
        return;
    }
    let Some(broker) = Broker::start_in(&std::env::temp_dir(), properties) else { return };
    let copier = Copier::new(&broker, r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#);
    let sql = std::fs::read_to_string(&copier.sql).unwrap();
    let short = r#""topic": "out", "transaction.timeout.ms": 2000"#;
    std::fs::write(&copier.sql, sql.replace(r#""topic": "out""#, short)).unwrap();
    let mut process = copier.start(&copier.data());
    let mut sent = 0;
    interrupt(&mut process, &broker, &mut sent, Duration::from_secs(3), |p| {
        p.said().contains("trying again with 4000 ms for a transaction")
    });
    process.wait_until("all rows", PATIENCE, || messages(&broker) >= sent as usize);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((messages(&broker), copier.lines()), (sent as usize, sent as usize));
    interrupt(&mut process, &broker, &mut sent, Duration::from_secs(6), |p| p.has_ended());
    let said = process.fails(PATIENCE);
    for word in ["v.out", "take longer to send", "transaction.max.timeout.ms", "messages of"] {
        assert!(said.contains(word), "no \"{word}\" in: {said}");
    }
}
