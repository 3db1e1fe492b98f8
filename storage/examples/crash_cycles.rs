//! How many losses of power with recovery a second the simulated disk allows, on a small workload of the log.
//!
//! ```sh
//! export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000
//! cargo run --release -p backstay-storage --features sim --example crash_cycles -- 5
//! ```
//! The argument is the seconds for each size of segment. The variables keep glibc from giving each buffer of a new segment
//! back to the kernel, which else is most of the time.
#![expect(clippy::disallowed_methods, reason = "a measurement looks at the clock")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_storage::Result;
use backstay_storage::disk::SimDisk;
use backstay_storage::log::{Log, LogOptions};

const OUTCOMES: u64 = 8;

fn open(disk: &SimDisk, epoch: u64, segment_bytes: u64) -> Result<Log> {
    let options = LogOptions { segment_bytes, compress_over: None, ..LogOptions::default() };
    Log::open(Arc::new(disk.clone()), Path::new("/log"), 42, epoch, options)
}

/// One life: appends of one to some blocks, each made durable. Says how many records were.
fn live(disk: &SimDisk, epoch: u64, segment_bytes: u64) -> Result<u64> {
    let log = open(disk, epoch, segment_bytes)?;
    for len in [10, 3000, 9000, 50, 5000, 700] {
        log.append(&vec![7; len])?;
        log.commit()?;
    }
    Ok(log.durable())
}

fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(5);
    for segment_bytes in [32 << 10, 256 << 10, 1 << 20] {
        let whole = SimDisk::new(1);
        live(&whole, 1, segment_bytes)?;
        let (start, mut cycles, mut lives, mut records) = (Instant::now(), 0_u64, 0_u64, 0_u64);
        while start.elapsed() < Duration::from_secs(seconds) {
            let disk = SimDisk::new(lives);
            disk.crash_at(1 + lives % whole.ops());
            let _ = live(&disk, 1, segment_bytes);
            lives += 1;
            for outcome in 0..OUTCOMES {
                let up = disk.power_cycle(lives << 8 | outcome);
                records += open(&up, 2, segment_bytes)?.durable();
                cycles += 1;
            }
        }
        let rate = cycles as f64 / start.elapsed().as_secs_f64();
        println!(
            "segments of {} KiB: {rate:.0} cycles/s ({OUTCOMES} for each of {lives} lives; {records} records came back)",
            segment_bytes >> 10
        );
    }
    Ok(())
}
