//! `size`: bytes on disk, and bytes written for each byte that came in, after an ingest and updates of half as many events.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::rmw::Events;
use super::{KEYS, Watch, load};
use crate::data::{ROW, key};
use crate::engine::{Given, Shape, open};
use crate::limits;
use crate::task::Task;

/// How often the folder is measured for its peak.
const SAMPLE: Duration = Duration::from_millis(50);

pub fn child(task: &Task) {
    let given = Given { small: true, ..Given::budget(task.memory) };
    task.begin(given.total());
    let mut engine = open(&task.contender, &task.folder, Shape::Latest, given);
    engine.settle();
    let beside: Vec<PathBuf> = engine.beside().iter().map(|name| task.folder.join(name)).collect();
    let before = limits::written();
    let done = AtomicBool::new(false);
    let mut came_in = task.rows * ROW;
    let peak = thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = on_disk(&task.folder, &beside).max(peak);
                thread::sleep(SAMPLE);
            }
            peak
        });
        load(&mut *engine, task.rows, &mut Watch::default(), |n| (key(n), 0));
        engine.finish();
        let mut events = Events::new(task.rows);
        for _ in 0..task.rows / 2 / KEYS as u64 {
            let batch = events.next();
            came_in += batch.len() as u64 * ROW;
            engine.add(batch);
        }
        engine.finish();
        engine.settle();
        done.store(true, Ordering::Relaxed);
        sampler.join().expect("the sampler")
    });
    rustix::fs::sync();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    task.figure("disk", mb(on_disk(&task.folder, &beside)));
    task.figure("disk-peak", mb(peak));
    task.figure("amplification", (limits::written() - before) as f64 / came_in as f64);
}

/// Bytes that the files below a folder take, but for some folders. Files may go while it looks.
fn on_disk(folder: &Path, beside: &[PathBuf]) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| entry.path()).filter(|path| !beside.contains(path)).fold(0, |sum, path| {
        sum + match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => on_disk(&path, beside),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        }
    })
}
