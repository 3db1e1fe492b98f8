//! The harness that embedders explore crashes with: it catches toy logs that are wrong, passes one that is right, and tells
//! where.

use std::collections::BTreeSet;
use std::path::Path;

use backstay_storage::disk::sim::{CrashPlan, Explore, Moment, Tally};
use backstay_storage::disk::{Create, Disk, OpenOptions, SimDisk};

const RECORD: usize = 1024;
const RECORDS: u8 = 4;

/// What a toy log does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    NoSync,
    NoDirSync,
    /// It trusts a record without a checksum, whose first byte says that it is there.
    NoChecksum,
    /// A record shares a sector with the one before, which a torn write of it takes along.
    SharesSectors,
    /// Recovery overwrites the last record that it finds, and counts it.
    RecoveryForgets,
}

impl Flaw {
    fn place(self, record: u8) -> u64 {
        let distance = if self == Flaw::SharesSectors { RECORD - 100 } else { RECORD };
        u64::from(record) * distance as u64
    }
}

/// A record: its number 900 times, a checksum, zeros.
fn record(number: u8) -> [u8; RECORD] {
    let mut record = [number; RECORD];
    let sum = record[..900].iter().map(|b| u32::from(*b)).sum::<u32>().wrapping_mul(0x9E37_79B9);
    record[900..904].copy_from_slice(&sum.to_le_bytes());
    record[904..].fill(0);
    record
}

fn open(disk: &SimDisk, flaw: Flaw) -> backstay_storage::Result<std::sync::Arc<dyn backstay_storage::disk::File>> {
    let file = disk.open(Path::new("/log"), OpenOptions { write: true, create: Create::IfAbsent, direct: false })?;
    if flaw != Flaw::NoDirSync {
        disk.sync_dir(Path::new("/"))?;
    }
    Ok(file)
}

/// Appends the records; says how many were acknowledged.
fn append(disk: &SimDisk, flaw: Flaw) -> u8 {
    let Ok(file) = open(disk, flaw) else { return 0 };
    let done = (0..RECORDS).take_while(|number| {
        file.write_at(&record(number + 1), flaw.place(*number)).is_ok() && (flaw == Flaw::NoSync || file.sync().is_ok())
    });
    done.count() as u8
}

/// How many records there are.
fn recover(disk: &SimDisk, acknowledged: u8, flaw: Flaw) -> Result<u8, String> {
    let file = open(disk, flaw).map_err(|e| e.to_string())?;
    let mut buf = [0; RECORD];
    let mut count = 0;
    while count < RECORDS {
        buf.fill(0);
        file.read_at(&mut buf, flaw.place(count)).map_err(|e| e.to_string())?;
        buf[904..].fill(0); // where the next one may begin
        let there = if flaw == Flaw::NoChecksum { buf[0] == count + 1 } else { buf == record(count + 1) };
        if !there {
            break;
        }
        if buf != record(count + 1) {
            return Err(format!("record {} is garbage", count + 1));
        }
        count += 1;
    }
    if flaw == Flaw::RecoveryForgets && count > 0 && count < RECORDS {
        file.write_durable(&[0; RECORD], flaw.place(count - 1)).map_err(|e| e.to_string())?;
    }
    if count < acknowledged { Err(format!("{count} of {acknowledged} acknowledged records")) } else { Ok(count) }
}

fn explore(flaw: Flaw) -> Result<Tally, backstay_storage::disk::sim::Failure> {
    let explore = Explore::new(11).outcomes(4096, 20).nested(1, u64::MAX);
    explore.run(|disk| Ok(append(disk, flaw)), |disk, acknowledged, _| recover(disk, *acknowledged, flaw))
}

#[test]
fn a_right_log_passes() {
    let tally = explore(Flaw::None).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(tally.operations, 2 + 2 * u64::from(RECORDS));
    assert_eq!((tally.crash_points, tally.exhausted), (tally.operations + 1, tally.operations + 1));
    assert!(tally.recoveries > 40 && tally.nested > 3 * tally.recoveries, "{tally:?}");
    assert_eq!(tally, explore(Flaw::None).unwrap(), "one seed, one exploration");
}

#[test]
fn each_flaw_is_caught_and_told_with_all_that_is_needed_to_see_it_again() {
    for (flaw, why) in [
        (Flaw::NoSync, "acknowledged records"),
        (Flaw::NoDirSync, "acknowledged records"),
        (Flaw::NoChecksum, "is garbage"),
        (Flaw::SharesSectors, "acknowledged records"),
        (Flaw::RecoveryForgets, "without the second crash"),
    ] {
        let failure = explore(flaw).expect_err(&format!("{flaw:?} was not caught"));
        let text = failure.to_string();
        assert!(text.contains("seed 11, crash at operation ") && text.contains(why), "{flaw:?}: {text}");
        let moment = failure.moment.unwrap();
        assert_eq!(moment.nested.is_some(), flaw == Flaw::RecoveryForgets, "{text}");
        // By hand, as the text says.
        let down = SimDisk::new(moment.seed);
        down.crash_at(moment.op);
        let acknowledged = append(&down, flaw);
        let mut up = down.power_cycle(moment.plan);
        if let Some((op, plan)) = moment.nested {
            up.crash_at(op);
            let _ = recover(&up, acknowledged, flaw);
            up = up.power_cycle(plan);
        }
        let again = recover(&up, acknowledged, flaw);
        assert!(moment.nested.is_some() || again == Err(failure.why), "{flaw:?}: {again:?}");
    }
}

#[test]
fn a_sampled_share_of_the_operations_is_drawn_by_the_seed() {
    let points = |explore: Explore| {
        let mut points = BTreeSet::new();
        let note = |_: &SimDisk, _: &u8, moment: &Moment| {
            points.insert((moment.op, moment.nested.map(|(op, _)| op)));
            Ok(())
        };
        explore.run(|disk| Ok(append(disk, Flaw::None)), note).unwrap();
        points
    };
    let ops = |points: &BTreeSet<(u64, Option<u64>)>| points.iter().map(|(op, _)| *op).collect::<BTreeSet<_>>();
    assert_eq!(ops(&points(Explore::new(1))), (1..=11).collect());
    let thirds: Vec<BTreeSet<u64>> = (0..20).map(|seed| ops(&points(Explore::new(seed).crash_every(3)))).collect();
    assert!(thirds.iter().all(|ops| (4..=5).contains(&ops.len()) && ops.contains(&11)), "{thirds:?}");
    assert_eq!(thirds.iter().flatten().copied().collect::<BTreeSet<_>>(), (1..=11).collect());
    assert_eq!(ops(&points(Explore::new(1).only(5))), BTreeSet::from([5]));
    assert!(points(Explore::new(1)).iter().all(|(_, nested)| nested.is_none()));
}

#[test]
fn work_goes_on_after_every_recovery_and_no_crash_is_tried_in_it() {
    let (mut recoveries, mut went_on) = (0, 0);
    let tally = Explore::new(1)
        .nested(2, 1)
        .run_on(
            |disk| Ok(append(disk, Flaw::None)),
            |disk, acknowledged, _| {
                recoveries += 1;
                recover(disk, *acknowledged, Flaw::None)
            },
            |disk, _, found, moment| {
                went_on += 1;
                assert!(*found <= RECORDS && moment.op <= 11 && !disk.is_down());
                append(disk, Flaw::None);
                let after = recover(&disk.power_cycle(CrashPlan::KeepNone), RECORDS, Flaw::None)?;
                if after == RECORDS { Ok(()) } else { Err(format!("{after} records")) }
            },
        )
        .unwrap();
    assert_eq!(went_on, tally.recoveries + tally.nested);
    assert!(tally.nested > 0 && recoveries > went_on, "the cut-off recoveries come on top: {tally:?}");
}

#[test]
fn a_workload_that_fails_or_does_not_repeat_itself_is_told() {
    let failure = Explore::new(5).run(|_| Err::<(), _>("refused".into()), |_, (), _| Ok(())).unwrap_err();
    assert_eq!(failure.to_string(), "seed 5, before the crash at operation 1: refused");
    let mut runs = 0;
    let shrinking = |disk: &SimDisk| {
        runs += 1;
        (runs..4).for_each(|_| drop(disk.list(Path::new("/"))));
        Ok(())
    };
    let failure = Explore::new(5).run(shrinking, |_, (), _| Ok(())).unwrap_err();
    assert!(failure.why.contains("did 3 operations at first, now"), "{failure}");
}

/// The example in docs/testing.md is the one that runs as a test of the documentation.
#[test]
fn the_example_of_the_guide_is_the_tested_one() {
    let guide = include_str!("../../../docs/testing.md");
    let tested = include_str!("../../src/disk/sim/explore.rs");
    let example = guide.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let doc: String = example.lines().map(|line| format!("    /// {line}").trim_end().to_owned() + "\n").collect();
    assert!(example.lines().count() > 20 && tested.contains(&doc), "they differ:\n{doc}");
}
