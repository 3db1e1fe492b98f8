//! One appender's latency and many appenders' rate, against what the device does with one durable 4 KiB overwrite at a time.

use std::path::PathBuf;

use crate::Bench;
use crate::bytes::Noise;
use crate::contender::backstay::Backstay;
use crate::contender::raw::Raw;
use crate::direct;
use crate::figures::median;
use crate::fio::{Durable, Job, Outcome};
use crate::report::{self, Better, Report, Target};
use crate::turns::{self, Appended, Figures, Turn};

/// Bytes of fio's file.
const FIO_BYTES: u64 = 16 << 20;
/// What fio's operations and the raw overwrites write.
const BLOCK: usize = 4096;

/// One thread, records of 4 KiB, each durable before the next.
///
/// The log's record does not fit into the block that the raw write writes: its commit is two blocks.
pub fn single(bench: &Bench, report: &mut Report) {
    report::title("single: one appender, 4 KiB, each durable before the next");
    let row = "single appender, 4 KiB, p50";
    against_raw(
        bench,
        report,
        (1, 4096),
        ("p50, us", Better::Less),
        (row, Target::AtMost(1.25)),
        |a| a.p50_us,
        |o| o.p50_us,
    );
}

/// 64 threads, records of 256 bytes.
pub fn grouped(bench: &Bench, report: &mut Report) {
    report::title("grouped: 64 appenders, 256 B, each durable before its thread's next");
    let row = "64 appenders, 256 B, commits/s";
    against_raw(
        bench,
        report,
        (64, 256),
        ("durable/s", Better::More),
        (row, Target::AtLeast(8.0)),
        |a| a.per_second,
        |o| o.per_second,
    );
}

fn against_raw(
    bench: &Bench,
    report: &mut Report,
    (threads, len): (usize, usize),
    (unit, better): (&str, Better),
    (row, target): (&str, Target),
    of_appends: impl Fn(Appended) -> f64 + Copy,
    of_fio: impl Fn(Outcome) -> f64 + Copy,
) {
    let (folder, noise) = (bench.new_folder(), Noise::new());
    let log = Backstay::trimmed(&bench.disk, &folder.path().join("log"), &noise);
    let dsync = Raw::new(&folder.path().join("raw"), true);
    let fdatasync = Raw::new(&folder.path().join("raw 2"), false);
    let fio_file: PathBuf = folder.path().join("fio");
    let noise = &noise;
    let mut contenders: Vec<(String, Turn<'_>)> = vec![
        ("backstay".into(), Box::new(|| of_appends(turns::append(&log, noise, threads, len, bench.turn)))),
        ("raw overwrite, O_DSYNC".into(), Box::new(|| of_appends(turns::append(&dsync, noise, 1, BLOCK, bench.turn)))),
        (
            "raw overwrite, fdatasync".into(),
            Box::new(|| of_appends(turns::append(&fdatasync, noise, 1, BLOCK, bench.turn))),
        ),
    ];
    if bench.fio.is_some() {
        direct::make(&*bench.disk, &fio_file, FIO_BYTES, noise);
        let job = || Job {
            file: &fio_file,
            write: true,
            block: BLOCK,
            depth: 1,
            durable: Durable::Each,
            time: Some(bench.turn),
            uring: bench.disk.info().kind == "io_uring",
        };
        contenders.push(("fio overwrite, O_DSYNC".into(), Box::new(move || of_fio(job().run()))));
    }
    let figures = turns::take(bench, contenders);
    report::table(unit, &figures);
    second_guess(bench, &figures[1], &figures[2], better);
    report.ratio(row, &figures[0], report::best(&figures[1..], better), target);
}

/// The disk's probe took a moment before all this; on a noisy machine it may have chosen the slower way.
fn second_guess(bench: &Bench, dsync: &Figures, fdatasync: &Figures, better: Better) {
    let chosen = bench.disk.info().durable_write;
    let took_dsync = chosen == "RWF_DSYNC";
    let gain = match better {
        Better::More => median(&fdatasync.rounds) / median(&dsync.rounds),
        Better::Less => median(&dsync.rounds) / median(&fdatasync.rounds),
    };
    let lost = if took_dsync { gain } else { 1.0 / gain };
    if lost > 1.1 {
        println!(
            "  note: the log writes by {chosen}, which its probe found faster; here the other way is, by {lost:.2} x"
        );
    }
}
