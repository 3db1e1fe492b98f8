//! Reading a log of sealed segments from start to end, against sequential direct reads.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use backstay_storage::log::Log;

use crate::Bench;
use crate::bytes::Noise;
use crate::contender::backstay::{Backstay, STORE, options};
use crate::direct;
use crate::fio::{Durable, Job};
use crate::report::{self, Better, Report, Target};
use crate::row::reopen::drop_caches;
use crate::turns::{self, Turn};

/// The floors' operations: 1 MiB, so many in flight.
const BLOCK: usize = 1 << 20;
const DEPTH: usize = 4;

/// Records of 4 KiB and of 64 KiB.
pub fn run(bench: &Bench, report: &mut Report) {
    for (len, name) in [(4 << 10, "4 KiB"), (64 << 10, "64 KiB")] {
        report::title(&format!("replay: a scan of sealed segments, records of {name}, checksums verified"));
        size(bench, report, len, &format!("replay, {name}"));
    }
}

fn size(bench: &Bench, report: &mut Report, len: usize, row: &str) {
    // A second's worth for a fast device, for each second of a turn.
    let bytes = ((bench.turn.as_secs_f64() * 1024.0) as u64).clamp(128, 8192) << 20;
    let (folder, noise) = (bench.new_folder(), Noise::new());
    let path = folder.path().join("log");
    let log = Backstay::growing(&bench.disk, &path);
    let records = bytes / len as u64;
    for n in 0..records {
        log.stream(noise.payload(n, len));
    }
    log.commit();
    drop(log);
    // Opened again: all that was written is sealed, the segment that would be written is another.
    let log = Log::open(Arc::clone(&bench.disk), &path, STORE, 2, options()).expect("open the log");
    let floor = folder.path().join("floor");
    direct::make(&*bench.disk, &floor, bytes, &noise);
    if let Err(why) = drop_caches(folder.path()) {
        println!("  only the files' own pages are dropped before a turn, not all caches: {why}");
    }
    let (floor, disk) = (&floor, &*bench.disk);
    let mut contenders: Vec<(String, Turn<'_>)> = vec![
        ("backstay, Log::scan".into(), Box::new(|| scan(&log, &path, records, len))),
        (format!("own direct read, 1 MiB, depth {DEPTH}"), Box::new(move || direct::read(disk, floor, BLOCK, DEPTH))),
    ];
    if bench.fio.is_some() {
        let job = Job {
            file: floor,
            write: false,
            block: BLOCK,
            depth: DEPTH,
            durable: Durable::No,
            time: None,
            uring: disk.info().kind == "io_uring",
        };
        contenders.push((format!("fio direct read, 1 MiB, depth {DEPTH}"), Box::new(move || job.run().mb_per_second)));
    }
    let figures = turns::take(bench, contenders);
    report::table("MB/s", &figures);
    report.ratio(row, &figures[0], report::best(&figures[1..], Better::More), Target::AtLeast(0.90));
}

/// MB/s of payload.
fn scan(log: &Log, folder: &Path, records: u64, len: usize) -> f64 {
    let _ = drop_caches(folder);
    let begun = Instant::now();
    let (mut count, mut bytes) = (0, 0);
    for record in log.scan(1).expect("scan") {
        let record = record.expect("a record");
        count += 1;
        bytes += record.payload.len();
    }
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!((count, bytes), (records, records as usize * len), "the scan gives what was appended");
    bytes as f64 / seconds / 1e6
}
