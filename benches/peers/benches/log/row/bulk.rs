//! One writer at full speed, durable at the end, against sequential direct overwrites of the same size with a sync at
//! the end.

use std::path::PathBuf;
use std::time::Instant;

use crate::Bench;
use crate::bytes::Noise;
use crate::contender::backstay::Backstay;
use crate::direct;
use crate::fio::{Durable, Job};
use crate::report::{self, Better, Report, Target};
use crate::turns::{self, Turn};

/// Bytes of the floors' file; about what a trimmed log keeps on disk.
const FLOOR_BYTES: u64 = 256 << 20;
/// How many operations the floors have in flight; the better counts.
const DEPTHS: [usize; 2] = [4, 16];

/// 64 KiB and 1 MiB.
pub fn run(bench: &Bench, report: &mut Report) {
    for (len, name, least) in [(64 << 10, "64 KiB", 0.90), (1 << 20, "1 MiB", 0.97)] {
        report::title(&format!("bulk: one writer, {name} incompressible appends, durable at the end"));
        size(bench, report, len, &format!("bulk, {name}"), Target::AtLeast(least));
    }
}

fn size(bench: &Bench, report: &mut Report, len: usize, row: &str, target: Target) {
    let (folder, noise) = (bench.new_folder(), Noise::new());
    let log = Backstay::trimmed(&bench.disk, &folder.path().join("log"), &noise);
    let floor: PathBuf = folder.path().join("floor");
    direct::make(&*bench.disk, &floor, FLOOR_BYTES, &noise);
    let (noise, floor, disk) = (&noise, &floor, &*bench.disk);
    let mut contenders: Vec<(String, Turn<'_>)> = vec![
        ("backstay, trimmed behind the writer".into(), Box::new(|| write(bench, &log, noise, len))),
        (
            "backstay, not trimmed: new segments only".into(),
            Box::new(|| {
                // A log of its own, as it would only grow; removed after the turn.
                let folder = bench.new_folder();
                write(bench, &Backstay::growing(&bench.disk, &folder.path().join("log")), noise, len)
            }),
        ),
    ];
    for depth in DEPTHS {
        if bench.fio.is_some() {
            let job = Job {
                file: floor,
                write: true,
                block: len,
                depth,
                durable: Durable::AtEnd,
                time: Some(bench.turn),
                uring: disk.info().kind == "io_uring",
            };
            contenders.push((
                format!("fio overwrite, depth {depth}, sync at the end"),
                Box::new(move || job.run().mb_per_second),
            ));
        }
        contenders.push((
            format!("own overwrite, depth {depth}, sync at the end"),
            Box::new(move || direct::overwrite(disk, floor, len, depth, bench.turn, noise)),
        ));
    }
    let figures = turns::take(bench, contenders);
    report::table("MB/s", &figures);
    report.ratio(row, &figures[0], report::best(&figures[2..], Better::More), target);
}

/// MB/s, the wait for durability at the end included.
fn write(bench: &Bench, log: &Backstay, noise: &Noise, len: usize) -> f64 {
    let (begun, mut n) = (Instant::now(), 0);
    while begun.elapsed() < bench.turn {
        log.stream(noise.payload(n, len));
        n += 1;
    }
    log.commit();
    (n * len as u64) as f64 / begun.elapsed().as_secs_f64() / 1e6
}
