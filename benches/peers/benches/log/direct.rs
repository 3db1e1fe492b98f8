//! The bench's own direct I/O loop, several operations deep: a floor where there is no fio, and a check on fio where there is.
//!
//! It goes through the disk of backstay-storage, which adds a slot's bookkeeping to each operation and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_storage::disk::{AlignedBuf, Create, Disk, File, IoQueue, Op, OpenOptions};

use crate::bytes::Noise;

/// Bytes of the writes that make a file.
const PIECE: usize = 1 << 20;

/// Writes a file of `bytes` incompressible bytes, so that it can be overwritten or read.
pub fn make(disk: &dyn Disk, path: &Path, bytes: u64, noise: &Noise) {
    let file = disk.open(path, OpenOptions::CREATE_DIRECT).expect("a new file");
    for n in 0..bytes / PIECE as u64 {
        file.write_at(noise.payload(n, PIECE), n * PIECE as u64).expect("fill a file");
    }
    file.sync().expect("sync");
}

/// Overwrites a file from its start, over and over, for `time`, then syncs it: MB/s.
pub fn overwrite(disk: &dyn Disk, path: &Path, block: usize, depth: usize, time: Duration, noise: &Noise) -> f64 {
    let options = OpenOptions { write: true, create: Create::Never, direct: true };
    let file = disk.open(path, options).expect("the file");
    let blocks = file.len().expect("length") / block as u64;
    let mut buffers: Vec<AlignedBuf> =
        (0..depth).map(|n| AlignedBuf::from_slice(noise.payload(n as u64, block))).collect();
    let mut queue = disk.queue(depth).expect("a queue");
    let (begun, mut n) = (Instant::now(), 0);
    while begun.elapsed() < time {
        let ops = buffers.drain(..).map(|buf| {
            let offset = n % blocks * block as u64;
            n += 1;
            (n, Op::Write { file: Arc::clone(&file), offset, buf, durable: false })
        });
        queue.submit(ops.collect()).expect("submit");
        wait(&mut *queue, 1, &mut buffers);
    }
    wait(&mut *queue, depth, &mut buffers);
    queue.submit(vec![(0, Op::Sync { file })]).expect("submit a sync");
    wait(&mut *queue, 1, &mut buffers);
    (n * block as u64) as f64 / begun.elapsed().as_secs_f64() / 1e6
}

/// Reads a file from start to end: MB/s.
pub fn read(disk: &dyn Disk, path: &Path, block: usize, depth: usize) -> f64 {
    let file: Arc<dyn File> = disk.open(path, OpenOptions::READ_DIRECT).expect("the file");
    let blocks = file.len().expect("length") / block as u64;
    let mut buffers: Vec<AlignedBuf> = (0..depth).map(|_| AlignedBuf::zeroed(block)).collect();
    let mut queue = disk.queue(depth).expect("a queue");
    let (begun, mut n) = (Instant::now(), 0);
    while n < blocks {
        let most = buffers.len().min((blocks - n) as usize);
        let ops = buffers.drain(..most).map(|buf| {
            n += 1;
            (n, Op::Read { file: Arc::clone(&file), offset: (n - 1) * block as u64, buf })
        });
        queue.submit(ops.collect()).expect("submit");
        wait(&mut *queue, 1, &mut buffers);
    }
    wait(&mut *queue, depth, &mut buffers);
    (blocks * block as u64) as f64 / begun.elapsed().as_secs_f64() / 1e6
}

/// Waits for operations and takes their buffers back.
fn wait(queue: &mut dyn IoQueue, at_least: usize, buffers: &mut Vec<AlignedBuf>) {
    for done in queue.wait(at_least).expect("wait") {
        done.result.expect("I/O");
        buffers.extend(done.buf);
    }
}
