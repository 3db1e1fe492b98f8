//! Which durable write is the faster one here. By device it is one or the other, up to tenfold.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{PosixFile, Shared};
use crate::Result;
use crate::disk::shared::lock;
use crate::disk::{ALIGN, AlignedBuf, Create, File, OpenOptions};

/// Overwrites timed of each kind, in turns; the medians count.
const ROUNDS: u64 = 15;
/// The file that is written, and removed by the caller.
pub(super) const NAME: &str = ".probe";

/// Times durable overwrites of both kinds in `dir` and sets the faster one.
pub(super) fn run(shared: &Arc<Shared>, dir: &Path) -> Result<()> {
    let options = OpenOptions { write: true, create: Create::IfAbsent, direct: true };
    // Counters of its own: what the probe writes is not the work of the disk's user.
    let own = Arc::new(Shared::default());
    let file = PosixFile::open(&own, &dir.join(NAME), options)?;
    let block = AlignedBuf::zeroed(ALIGN);
    file.write_at(&AlignedBuf::zeroed(ALIGN * ROUNDS as usize), 0)?;
    file.sync()?;
    let (mut dsync, mut two_calls) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let at = round * ALIGN as u64;
        dsync.push(timed(|| file.write_durable(&block, at))?);
        two_calls.push(timed(|| file.write_at(&block, at).and_then(|()| file.sync()))?);
    }
    if own.no_dsync.load(Ordering::Relaxed) {
        shared.no_dsync.store(true, Ordering::Relaxed);
        if let Some(why) = lock(&own.note).take() {
            shared.note(|| why);
        }
        return Ok(());
    }
    shared.no_dsync.store(median(two_calls) < median(dsync), Ordering::Relaxed);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "measuring the device is what this is for; no result depends on it")]
fn timed(write: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    write()?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
