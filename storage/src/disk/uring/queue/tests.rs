use std::time::{Duration, Instant};

use io_uring::opcode;
use io_uring::types::Fd;

use super::*;
use crate::disk::{ALIGN, AlignedBuf, Create, Disk, OpenOptions, UringDisk};

const RW: OpenOptions = OpenOptions { write: true, create: Create::IfAbsent, direct: false };

fn disk() -> Option<UringDisk> {
    UringDisk::new().inspect_err(|e| eprintln!("skipped: no io_uring here: {e}")).ok()
}

fn write(file: &Arc<dyn File>, buf: AlignedBuf) -> Op {
    Op::Write { file: Arc::clone(file), offset: 0, buf, durable: true }
}

/// For each operation in flight, whether its file and its buffer are the registered ones.
fn registered(queue: &UringQueue) -> Vec<(bool, bool)> {
    queue.slots.iter().flatten().map(|s| (s.place.is_some(), s.registered)).collect()
}

fn finish(queue: &mut UringQueue) {
    for c in queue.wait(usize::MAX).unwrap() {
        assert!(matches!(c.result, Ok(ALIGN)), "{c:?}");
    }
}

#[test]
fn durable_writes_without_dsync() {
    let Some(disk) = disk() else { return };
    let shared = Arc::new(Shared::default());
    shared.no_dsync.store(true, Ordering::Relaxed);
    let dir = tempfile::tempdir().unwrap();
    let file = disk.open(&dir.path().join("a"), RW).unwrap();
    let mut queue = UringQueue::new(&shared, 3).unwrap();
    let write = |i: u64| {
        let buf = AlignedBuf::from_slice(&[i as u8; ALIGN]);
        (i, Op::Write { file: Arc::clone(&file), offset: i * ALIGN as u64, buf, durable: true })
    };
    queue.submit((0..10).map(write).collect()).unwrap();
    let done = queue.wait(10).unwrap();
    assert!(done.len() == 10 && done.iter().all(|c| matches!(c.result, Ok(ALIGN))), "{done:?}");
    assert_eq!(shared.counters.snapshot().durable_writes, 10);
    assert_eq!(shared.counters.snapshot().syncs, 0);
}

#[test]
fn what_is_registered_is_used() {
    let Some(disk) = disk() else { return };
    let dir = tempfile::tempdir().unwrap();
    let _lock = disk.lock_dir(dir.path()).unwrap();
    let file = disk.open(&dir.path().join("a"), RW).unwrap();
    let mut queue = UringQueue::new(&disk.posix.shared, 8).unwrap();
    let (slab, mut buffers) = Slab::new(ALIGN, 2);
    let submit = |queue: &mut UringQueue, buf| {
        queue.submit(vec![(0, write(&file, buf))]).unwrap();
        let found = registered(queue);
        finish(queue);
        found
    };
    assert_eq!(submit(&mut queue, buffers.pop().unwrap()), [(false, false)], "nobody asked for it yet");
    assert_eq!(Arc::strong_count(&file), 1);
    queue.register(&slab).unwrap();
    assert_eq!(submit(&mut queue, buffers.pop().unwrap()), [(true, true)]);
    assert_eq!(submit(&mut queue, AlignedBuf::zeroed(ALIGN)), [(true, false)]);
    assert_eq!(submit(&mut queue, Slab::new(ALIGN, 1).1.pop().unwrap()), [(true, false)]);
    assert_eq!(disk.info().note, None);
    queue.submit(vec![(0, write(&file, AlignedBuf::zeroed(ALIGN)))]).unwrap();
    let places: Vec<_> = queue.slots.iter().flatten().filter_map(|s| s.place.as_ref()).map(|p| p.index).collect();
    assert_eq!(places, [1], "place 0 is the lock's");
    finish(&mut queue);
    let weak = Arc::downgrade(&slab);
    drop(slab);
    assert!(weak.upgrade().is_some(), "the ring has the memory registered");
    drop(queue);
    assert!(weak.upgrade().is_none());
    assert_eq!(Arc::strong_count(&file), 1);
}

#[test]
fn the_table_keeps_the_files_used_last() {
    let Some(disk) = disk() else { return };
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<_> = (0..=PLACES).map(|i| disk.open(&dir.path().join(format!("{i}")), RW).unwrap()).collect();
    let mut queue = UringQueue::new(&disk.posix.shared, 2 * PLACES).unwrap();
    queue.register(&Slab::new(ALIGN, 1).0).unwrap();
    let each =
        |files: &[Arc<dyn File>]| files.iter().map(|f| (0, write(f, AlignedBuf::zeroed(ALIGN)))).collect::<Vec<_>>();
    let held = || files.iter().map(|f| Arc::strong_count(f) == 2).collect::<Vec<_>>();
    // All places are in use: the last file goes by its descriptor.
    queue.submit(each(&files)).unwrap();
    assert_eq!(registered(&queue).iter().filter(|r| r.0).count(), PLACES);
    finish(&mut queue);
    assert_eq!(held(), [true, true, true, true, false]);
    // Now one is free: that of the file that was not used for longest.
    queue.submit(each(&files[..1])).unwrap();
    finish(&mut queue);
    queue.submit(each(&files[4..])).unwrap();
    assert_eq!(registered(&queue), [(true, false)]);
    finish(&mut queue);
    assert_eq!(held(), [true, false, true, true, true]);
    queue.forget(&files[2]).unwrap();
    queue.submit(each(&files[1..2])).unwrap();
    finish(&mut queue);
    assert_eq!(held(), [true, true, false, true, true], "an empty place is taken first");
}

#[test]
fn a_forgotten_file_goes_after_its_last_operation() {
    let Some(disk) = disk() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let file = disk.open(&path, RW).unwrap();
    let mut queue = UringQueue::new(&disk.posix.shared, 8).unwrap();
    queue.register(&Slab::new(ALIGN, 1).0).unwrap();
    // A lock of the open file shows, by a second opening, whether the ring has it.
    // SAFETY: a test's: the descriptor is open, and the call takes no pointer.
    assert_eq!(unsafe { libc::flock(file.raw_fd().unwrap(), libc::LOCK_EX | libc::LOCK_NB) }, 0);
    let is_held = || {
        let second = disk.open(&path, RW).unwrap();
        // SAFETY: a test's: as above.
        unsafe { libc::flock(second.raw_fd().unwrap(), libc::LOCK_EX | libc::LOCK_NB) != 0 }
    };
    queue.submit(vec![(0, write(&file, AlignedBuf::zeroed(ALIGN)))]).unwrap();
    queue.forget(&file).unwrap();
    queue.submit(vec![(1, write(&file, AlignedBuf::zeroed(ALIGN)))]).unwrap();
    assert_eq!(registered(&queue).iter().filter(|r| r.0).count(), 1, "no new use of a file that leaves");
    assert_eq!(Arc::strong_count(&file), 4, "ours, two slots', the table's");
    finish(&mut queue);
    assert_eq!(Arc::strong_count(&file), 1);
    // It may come back, and then be held until it is forgotten again.
    queue.submit(vec![(2, write(&file, AlignedBuf::zeroed(ALIGN)))]).unwrap();
    assert!(registered(&queue)[0].0);
    finish(&mut queue);
    let fd_owner = Arc::downgrade(&file);
    drop(file);
    assert!(is_held());
    queue.forget(&fd_owner.upgrade().unwrap()).unwrap();
    assert!(fd_owner.upgrade().is_none());
    // The kernel lets go of it in its own time.
    #[expect(clippy::disallowed_methods, reason = "a bound on a wait for the kernel")]
    let start = Instant::now();
    while is_held() {
        assert!(start.elapsed() < Duration::from_secs(20), "the ring keeps a forgotten file open");
        std::thread::yield_now();
    }
}

#[test]
fn a_refused_slab_is_used_all_the_same() {
    let Some(disk) = disk() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = disk.open(&dir.path().join("a"), RW).unwrap();
    let mut queue = UringQueue::new(&disk.posix.shared, 2).unwrap();
    // More than a ring takes as one buffer.
    let (slab, mut buffers) = Slab::new((1 << 30) + ALIGN, 1);
    queue.register(&slab).unwrap();
    let note = disk.info().note.unwrap();
    assert!(note.contains("not registered") && note.contains("1073745920"), "{note}");
    let mut buf = buffers.pop().unwrap();
    buf.narrow(1 << 30..(1 << 30) + ALIGN).unwrap();
    buf.fill(3);
    queue.submit(vec![(0, write(&file, buf))]).unwrap();
    assert_eq!(registered(&queue), [(true, false)]);
    finish(&mut queue);
    let mut found = [0; ALIGN];
    assert_eq!(file.read_at(&mut found, 0).unwrap(), ALIGN);
    assert_eq!(found, [3; ALIGN]);
}

#[test]
fn the_kernel_looks_at_the_flags_of_a_registered_write() {
    let Some(disk) = disk() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = disk.open(&dir.path().join("a"), RW).unwrap();
    let (slab, buffers) = Slab::new(ALIGN, 1);
    let mut queue = UringQueue::new(&disk.posix.shared, 2).unwrap();
    queue.register(&slab).unwrap();
    let ring = &mut queue.ring;
    for (flags, expected) in [(libc::RWF_DSYNC, ALIGN as i32), (1 << 30, -libc::EOPNOTSUPP)] {
        let entry = opcode::WriteFixed::new(Fd(file.raw_fd().unwrap()), buffers[0].as_ptr(), ALIGN as u32, 0);
        // SAFETY: a test's: buffer and file live to its end, and the answer is waited for.
        unsafe { ring.submission().push(&entry.rw_flags(flags).build()).unwrap() };
        ring.submit_and_wait(1).unwrap();
        let answer = ring.completion().next().unwrap();
        assert_eq!(answer.result(), expected, "flags {flags:#x}: were they ignored, RWF_DSYNC would be too");
    }
}
