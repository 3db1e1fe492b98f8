//! What every disk must do, run against each of them: posix, io_uring, simulated, and a quota over the real ones.
#![expect(clippy::disallowed_methods, reason = "the tests look at real files from outside")]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod buffers;
mod maps;

use backstay_storage::Error;
use backstay_storage::disk::{
    ALIGN, AlignedBuf, Completion, Create, Disk, File, IoQueue, Op, OpenOptions, PosixDisk, QuotaDisk, SimDisk,
    UringDisk,
};

const RW: OpenOptions = OpenOptions { write: true, create: Create::IfAbsent, direct: false };
const RW_DIRECT: OpenOptions = OpenOptions { write: true, create: Create::IfAbsent, direct: true };

/// Runs a test on each disk, in a directory of its own.
fn on_each_disk(test: impl Fn(&str, Arc<dyn Disk>, &Path)) {
    let new_dir = || tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = new_dir();
    test("posix", Arc::new(PosixDisk::new()), dir.path());
    let dir = new_dir();
    match UringDisk::new() {
        Ok(disk) => test("io_uring", Arc::new(disk), dir.path()),
        Err(e) => eprintln!("skipped on io_uring: {e}"),
    }
    let dir = new_dir();
    let quota = QuotaDisk::new(Arc::new(PosixDisk::new()), dir.path(), 1 << 30).unwrap();
    test("quota", Arc::new(quota), dir.path());
    let dir = new_dir();
    if let Ok(disk) = UringDisk::new() {
        let quota = QuotaDisk::new(Arc::new(disk), dir.path(), 1 << 30).unwrap();
        test("quota over io_uring", Arc::new(quota), dir.path());
    }
    for seed in 0..8 {
        let sim = SimDisk::new(seed);
        sim.create_dir_all(Path::new("/sim/dir")).unwrap();
        test(&format!("sim, seed {seed}"), Arc::new(sim), Path::new("/sim/dir"));
    }
}

fn kind(e: &Error) -> Option<ErrorKind> {
    match e {
        Error::Io { source, .. } => Some(source.kind()),
        _ => None,
    }
}

fn all(file: &dyn File) -> Vec<u8> {
    let mut buf = vec![0; file.len().unwrap() as usize + 10];
    let n = file.read_at(&mut buf, 0).unwrap();
    buf.truncate(n);
    buf
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) ^ (i >> 8) as u8).collect()
}

#[test]
fn open_modes() {
    on_each_disk(|name, disk, dir| {
        let a = dir.join("a");
        let e = disk.open(&a, OpenOptions::READ).unwrap_err();
        assert_eq!(kind(&e), Some(ErrorKind::NotFound), "{name}: {e}");
        assert!(e.to_string().contains(&a.display().to_string()), "{name}: the error names no file: {e}");
        disk.open(&a, OpenOptions::CREATE_DIRECT).unwrap();
        let e = disk.open(&a, OpenOptions::CREATE_DIRECT).unwrap_err();
        assert_eq!(kind(&e), Some(ErrorKind::AlreadyExists), "{name}: {e}");
        disk.open(&a, RW).unwrap().write_at(b"kept", 0).unwrap();
        assert_eq!(all(&*disk.open(&a, RW).unwrap()), b"kept", "{name}: opening again must not cut off");
        let read_only = disk.open(&a, OpenOptions::READ).unwrap();
        assert!(read_only.write_at(b"x", 0).is_err(), "{name}");
        assert_eq!(all(&*read_only), b"kept", "{name}");
        assert!(disk.open(&dir.join("none/a"), RW).is_err(), "{name}");
    });
}

#[test]
fn blocking_reads_and_writes_of_any_alignment() {
    for options in [RW, RW_DIRECT] {
        on_each_disk(|name, disk, dir| {
            let file = disk.open(&dir.join("a"), options).unwrap();
            let mut model: Vec<u8> = Vec::new();
            for (i, (offset, len)) in
                [(0, 10), (5, 1), (4090, 20), (8192, 4096), (100, 9000), (12_287, 1), (20_000, 5), (3, 0)]
                    .into_iter()
                    .enumerate()
            {
                let bytes = pattern(i as u8, len);
                if i % 2 == 0 {
                    file.write_at(&bytes, offset as u64).unwrap();
                } else {
                    file.write_durable(&bytes, offset as u64).unwrap();
                }
                if len > 0 {
                    model.resize(model.len().max(offset + len), 0);
                    model[offset..offset + len].copy_from_slice(&bytes);
                }
                assert_eq!(file.len().unwrap(), model.len() as u64, "{name}, write {i}");
                assert!(all(&*file) == model, "{name}, write {i}: bytes differ");
            }
            file.sync().unwrap();
            for (offset, len) in [(0, 3), (4095, 2), (4096, 4096), (1, 8191), (19_999, 100), (20_005, 5), (1 << 40, 8)]
            {
                let mut buf = vec![0; len];
                let n = file.read_at(&mut buf, offset as u64).unwrap();
                let expected = model.get(offset..).unwrap_or_default();
                let expected = &expected[..expected.len().min(len)];
                assert!(&buf[..n] == expected, "{name}: {len} bytes at {offset}: got {n}");
            }
            file.set_len(7).unwrap();
            file.set_len(9).unwrap();
            model.truncate(7);
            model.extend([0, 0]);
            assert_eq!(all(&*file), model, "{name}");
        });
    }
}

#[test]
fn names() {
    on_each_disk(|name, disk, dir| {
        let sub = dir.join("x/y");
        assert_eq!(disk.metadata(&sub).unwrap(), None, "{name}");
        assert!(disk.list(&sub).is_err(), "{name}: an absent directory is an error");
        disk.create_dir_all(&sub).unwrap();
        disk.create_dir_all(&sub).unwrap();
        assert!(disk.metadata(&sub).unwrap().unwrap().is_dir, "{name}");
        for file in ["b", "a", "c"] {
            disk.open(&sub.join(file), RW).unwrap().write_at(file.repeat(3).as_bytes(), 0).unwrap();
        }
        let names = || -> Vec<(String, u64)> {
            disk.list(&sub).unwrap().into_iter().map(|e| (e.name, e.metadata.len)).collect()
        };
        assert_eq!(names(), [("a".into(), 3), ("b".into(), 3), ("c".into(), 3)], "{name}");
        let open = disk.open(&sub.join("c"), OpenOptions::READ).unwrap();
        disk.rename(&sub.join("a"), &sub.join("c")).unwrap();
        disk.remove(&sub.join("b")).unwrap();
        disk.sync_dir(&sub).unwrap();
        assert_eq!(names(), [("c".into(), 3)], "{name}");
        assert_eq!(all(&*disk.open(&sub.join("c"), OpenOptions::READ).unwrap()), b"aaa", "{name}");
        assert_eq!(all(&*open), b"ccc", "{name}: an open file outlives its name");
        assert!(disk.list(dir).unwrap().iter().any(|e| e.name == "x" && e.metadata.is_dir), "{name}");
        for e in
            [disk.remove(&sub.join("b")), disk.rename(&sub.join("b"), &sub.join("d")), disk.sync_dir(&dir.join("no"))]
        {
            assert_eq!(kind(&e.unwrap_err()), Some(ErrorKind::NotFound), "{name}");
        }
        let e = disk.create_dir_all(&sub.join("c/d")).unwrap_err();
        assert_eq!(kind(&e), Some(ErrorKind::NotADirectory), "{name}: {e}");
    });
}

#[test]
fn a_directory_is_locked_once() {
    // On the real disks this takes the 5 s for which a taker tries.
    on_each_disk(|name, disk, dir| {
        let lock = disk.lock_dir(dir).unwrap();
        // Another directory is free, and a queue that has nothing in flight does not keep the lock.
        disk.create_dir_all(&dir.join("other")).unwrap();
        let _other = disk.lock_dir(&dir.join("other")).unwrap();
        let mut queue = disk.queue(4).unwrap();
        let file = disk.open(&dir.join("a"), RW_DIRECT).unwrap();
        queue.submit(vec![(1, write(&file, 0, &[1; ALIGN], true))]).unwrap();
        assert_eq!(queue.wait(1).unwrap().len(), 1, "{name}");
        drop(lock);
        let lock = disk.lock_dir(dir).unwrap();
        if name == "posix" || name.starts_with("sim") {
            let e = disk.lock_dir(dir).unwrap_err();
            assert!(matches!(&e, Error::Locked { path, .. } if path == dir), "{name}: {e}");
            if name == "posix" {
                let told = format!("(pid {})", std::process::id());
                let found = std::fs::read_to_string("/proc/locks").is_ok_and(|l| l.contains("FLOCK"));
                assert!(!found || e.to_string().contains(&told) || !e.to_string().contains("pid"), "{e}");
            }
        }
        drop((lock, queue));
    });
}

#[test]
fn a_lock_lasts_as_long_as_what_is_in_flight() {
    on_each_disk(|name, disk, dir| {
        let is_locked = || match name.starts_with("sim") {
            true => matches!(disk.lock_dir(dir), Err(Error::Locked { .. })),
            false => std::fs::File::open(dir).unwrap().try_lock().is_err(),
        };
        let lock = disk.lock_dir(dir).unwrap();
        let mut queue = disk.queue(4).unwrap();
        let idle = disk.queue(4).unwrap();
        let file = disk.open(&dir.join("a"), RW_DIRECT).unwrap();
        queue.submit((0..4).map(|i| (i, write(&file, i * ALIGN as u64, &[1; ALIGN], true))).collect()).unwrap();
        assert!(is_locked(), "{name}");
        drop(lock);
        if !["posix", "quota"].contains(&name) {
            assert!(is_locked(), "{name}: the writes in flight lost their lock");
        }
        assert_eq!(finish(&mut *queue).len(), 4);
        assert!(!is_locked(), "{name}: a queue without work keeps the lock");
        drop(idle);
    });
}

/// Set for the child process of the test below: the kind of disk and the directory.
const CHILD: &str = "BACKSTAY_TEST_LOCK_CHILD";

/// Locks the directory, says so, and writes until it is killed.
fn lock_and_write_for_ever(kind: &str, dir: &Path) {
    let disk: Box<dyn Disk> =
        if kind == "posix" { Box::new(PosixDisk::new()) } else { Box::new(UringDisk::new().unwrap()) };
    let _lock = disk.lock_dir(dir).unwrap();
    let file = disk.open(&dir.join("a"), RW_DIRECT).unwrap();
    let mut queue = disk.queue(16).unwrap();
    println!("\nlocked");
    // Ends with its parent, should that be gone before it could kill.
    std::thread::scope(|s| {
        s.spawn(|| {
            std::io::stdin().lines().for_each(drop);
            std::process::exit(1);
        });
        write_for_ever(&mut *queue, &file);
    });
}

fn write_for_ever(queue: &mut dyn IoQueue, file: &Arc<dyn File>) {
    for i in 0u64.. {
        queue.submit(vec![(i, write(file, (i % 64) * ALIGN as u64, &[1; ALIGN], true))]).unwrap();
        if queue.in_flight() == 16 {
            queue.wait(1).unwrap();
        }
    }
}

#[test]
fn another_process_is_refused_until_it_is_killed() {
    use std::io::BufRead;
    if let Ok(child) = std::env::var(CHILD) {
        let (kind, dir) = child.split_once(' ').unwrap();
        lock_and_write_for_ever(kind, Path::new(dir));
    }
    let mut kinds = vec!["posix"];
    match UringDisk::new() {
        Ok(_) => kinds.push("io_uring"),
        Err(e) => eprintln!("skipped on io_uring: {e}"),
    }
    let check = |kind: &str| {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["disk::another_process_is_refused_until_it_is_killed", "--exact", "--nocapture"])
            .env(CHILD, format!("{kind} {}", dir.path().display()))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let locked = out.lines().any(|line| line.unwrap() == "locked");
        let refused = PosixDisk::new().lock_dir(dir.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(locked, "{kind}: the child did not come to lock");
        let Err(Error::Locked { holder, .. }) = refused else { panic!("{kind}: two holders: {refused:?}") };
        assert!(holder.is_none() || holder == Some(child.id()), "{kind}: {holder:?}, not {}", child.id());
        PosixDisk::new().lock_dir(dir.path()).unwrap();
    };
    std::thread::scope(|s| kinds.iter().for_each(|kind| drop(s.spawn(|| check(kind)))));
}

fn write(file: &Arc<dyn File>, offset: u64, bytes: &[u8], durable: bool) -> Op {
    Op::Write { file: Arc::clone(file), offset, buf: AlignedBuf::from_slice(bytes), durable }
}

fn read(file: &Arc<dyn File>, offset: u64, len: usize) -> Op {
    Op::Read { file: Arc::clone(file), offset, buf: AlignedBuf::zeroed(len) }
}

fn finish(queue: &mut dyn IoQueue) -> Vec<Completion> {
    let mut done = Vec::new();
    while queue.in_flight() > 0 {
        done.extend(queue.wait(1).unwrap());
    }
    done.sort_by_key(|c| c.token);
    done
}

#[test]
fn queued_batches() {
    for options in [RW, RW_DIRECT] {
        on_each_disk(|name, disk, dir| {
            let file = disk.open(&dir.join("a"), options).unwrap();
            for depth in [1, 3, 64] {
                let mut queue = disk.queue(depth).unwrap();
                let block = |i: u64| pattern(i as u8 + depth as u8, 2 * ALIGN);
                let at = |i: u64| i * 2 * ALIGN as u64;
                let writes = (0..20).map(|i| (i, write(&file, at(i), &block(i), i % 2 == 0))).collect();
                queue.submit(writes).unwrap();
                assert_eq!(queue.in_flight(), 20, "{name}");
                let done = finish(&mut *queue);
                assert_eq!(done.iter().map(|c| c.token).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>(), "{name}");
                for c in done {
                    assert_eq!(c.result.unwrap(), 2 * ALIGN, "{name}");
                    assert!(*c.buf.unwrap() == *block(c.token), "{name}: the buffer comes back as it was");
                }
                queue.submit(vec![(99, Op::Sync { file: Arc::clone(&file) })]).unwrap();
                let done = queue.wait(1).unwrap();
                assert!(done.len() == 1 && done[0].token == 99 && done[0].buf.is_none(), "{name}");
                assert!(done[0].result.is_ok(), "{name}");
                queue.submit((0..20).map(|i| (i, read(&file, at(i), 2 * ALIGN))).collect()).unwrap();
                for c in finish(&mut *queue) {
                    assert_eq!(c.result.unwrap(), 2 * ALIGN, "{name}");
                    assert!(*c.buf.unwrap() == *block(c.token), "{name}, depth {depth}: block {} differs", c.token);
                }
                assert_eq!(queue.wait(5).unwrap().len(), 0, "{name}: nothing in flight, nothing to wait for");
            }
        });
    }
}

#[test]
fn a_queued_read_is_short_only_at_the_end() {
    for options in [RW, RW_DIRECT] {
        on_each_disk(|name, disk, dir| {
            let file = disk.open(&dir.join("a"), options).unwrap();
            let bytes = pattern(3, 3 * ALIGN + 100);
            file.write_at(&bytes, 0).unwrap();
            let mut queue = disk.queue(8).unwrap();
            let reads = [(0, 4), (2, 4), (3, 1), (4, 1), (0, 3)];
            let ops = reads
                .iter()
                .enumerate()
                .map(|(i, (block, blocks))| (i as u64, read(&file, (block * ALIGN) as u64, blocks * ALIGN)));
            queue.submit(ops.collect()).unwrap();
            for (c, (block, blocks)) in finish(&mut *queue).into_iter().zip(reads) {
                let expected = bytes.get(block * ALIGN..).unwrap_or_default();
                let expected = &expected[..expected.len().min(blocks * ALIGN)];
                let n = c.result.unwrap();
                assert!(&c.buf.unwrap()[..n] == expected, "{name}: {blocks} blocks at {block}: got {n}");
            }
        });
    }
}

#[test]
fn a_bad_operation_fails_alone() {
    on_each_disk(|name, disk, dir| {
        let file = disk.open(&dir.join("a"), RW_DIRECT).unwrap();
        let read_only = disk.open(&dir.join("a"), OpenOptions::READ).unwrap();
        let mut queue = disk.queue(2).unwrap();
        let ops = vec![
            (0, write(&file, 512, &[1; ALIGN], false)),
            (1, write(&file, 0, &[2; ALIGN], true)),
            (2, write(&read_only, 0, &[3; ALIGN], true)),
        ];
        queue.submit(ops).unwrap();
        let done = finish(&mut *queue);
        assert!(matches!(&done[0].result, Err(Error::Invalid(why)) if why.contains("512")), "{name}: {:?}", done[0]);
        assert!(done[0].buf.is_some(), "{name}: a refused operation gives its buffer back");
        assert_eq!(done[1].result.as_ref().ok(), Some(&ALIGN), "{name}");
        assert!(matches!(&done[2].result, Err(Error::Io { .. })), "{name}: {:?}", done[2]);
        assert_eq!(all(&*file), [2; ALIGN], "{name}");
    });
}

#[test]
fn a_dropped_queue_has_written() {
    on_each_disk(|name, disk, dir| {
        let file = disk.open(&dir.join("a"), RW_DIRECT).unwrap();
        let mut queue = disk.queue(16).unwrap();
        queue.submit((0..16).map(|i| (i, write(&file, i * ALIGN as u64, &[i as u8; ALIGN], true))).collect()).unwrap();
        drop(queue);
        let found = all(&*file);
        for (i, block) in found.chunks_exact(ALIGN).enumerate() {
            assert!(block == [i as u8; ALIGN], "{name}: block {i}");
        }
        assert_eq!(found.len(), 16 * ALIGN, "{name}");
    });
}

#[test]
fn a_durable_write_counts_once() {
    on_each_disk(|name, disk, dir| {
        let file = disk.open(&dir.join("a"), RW_DIRECT).unwrap();
        let mut queue = disk.queue(4).unwrap();
        queue
            .submit(vec![(0, write(&file, 0, &[1; ALIGN], true)), (1, write(&file, 8192, &[1; ALIGN], false))])
            .unwrap();
        finish(&mut *queue);
        file.write_durable(b"x", 1).unwrap();
        file.sync().unwrap();
        queue.submit(vec![(0, read(&file, 0, ALIGN))]).unwrap();
        finish(&mut *queue);
        disk.sync_dir(dir).unwrap();
        let stats = disk.stats();
        assert_eq!((stats.durable_writes, stats.writes, stats.syncs), (2, 1, 1), "{name}: {stats:?}");
        assert_eq!((stats.written_bytes, stats.reads, stats.read_bytes), (8193, 1, 4096), "{name}: {stats:?}");
        assert!(stats.dir_syncs >= 1, "{name}: {stats:?}");
    });
}

#[test]
fn a_queue_moves_between_threads() {
    on_each_disk(|name, disk, dir| {
        let file = disk.open(&dir.join("a"), RW_DIRECT).unwrap();
        let queue = std::sync::Mutex::new(disk.queue(4).unwrap());
        std::thread::scope(|s| {
            for i in 0..4u64 {
                let (queue, file) = (&queue, &file);
                s.spawn(move || {
                    let mut queue = queue.lock().unwrap();
                    queue.submit(vec![(i, write(file, i * ALIGN as u64, &[i as u8 + 1; ALIGN], true))]).unwrap();
                });
            }
        });
        let done = finish(&mut **queue.lock().unwrap());
        assert!(done.len() == 4 && done.iter().all(|c| c.result.is_ok()), "{name}: {done:?}");
        assert_eq!(file.len().unwrap(), 4 * ALIGN as u64, "{name}");
    });
}

#[test]
fn probing_leaves_nothing_behind() {
    on_each_disk(|name, disk, dir| {
        let before = disk.stats().durable_writes;
        disk.probe(dir).unwrap();
        assert_eq!(disk.list(dir).unwrap(), [], "{name}");
        assert_eq!(disk.stats().durable_writes, before, "{name}");
        // Whatever was found, durable writes go on working, and count once.
        let file = disk.open(&dir.join("a"), RW_DIRECT).unwrap();
        let mut queue = disk.queue(1).unwrap();
        queue.submit(vec![(7, write(&file, 0, &[9; ALIGN], true))]).unwrap();
        assert_eq!(finish(&mut *queue)[0].result.as_ref().ok(), Some(&ALIGN), "{name}");
        assert_eq!(disk.stats().durable_writes, before + 1, "{name}");
    });
}

#[test]
fn what_a_killed_probe_left_is_no_obstacle() {
    on_each_disk(|name, disk, dir| {
        if name.starts_with("sim") {
            return; // it has nothing to probe
        }
        std::fs::write(dir.join(".probe"), [7; 100]).unwrap();
        disk.probe(dir).unwrap();
        assert_eq!(disk.list(dir).unwrap(), [], "{name}");
    });
}

#[test]
fn only_the_simulated_disk_forbids_threads() {
    on_each_disk(|name, disk, _| assert_eq!(disk.threads(), !name.starts_with("sim"), "{name}"));
    let quota = QuotaDisk::new(Arc::new(SimDisk::new(1)), Path::new("/"), 0).unwrap();
    assert!(!quota.threads());
}

#[test]
fn quota_refuses_growth_and_nothing_else() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    std::fs::create_dir(at("sub")).unwrap();
    std::fs::write(at("sub/old"), [1; 5000]).unwrap();
    let disks: [Arc<dyn Disk>; 2] = [
        Arc::new(PosixDisk::new()),
        UringDisk::new().map_or_else(|_| Arc::new(PosixDisk::new()) as Arc<dyn Disk>, |d| Arc::new(d)),
    ];
    for inner in disks {
        let disk = QuotaDisk::new(inner, dir.path(), 5000 + 8192).unwrap();
        assert_eq!(disk.used(), 5000);
        let file = disk.open(&at("a"), OpenOptions::CREATE_DIRECT).unwrap();
        let mut queue = disk.queue(4).unwrap();
        queue.submit((0..3).map(|i| (i, write(&file, i * ALIGN as u64, &[7; ALIGN], true))).collect()).unwrap();
        let done = finish(&mut *queue);
        assert!(done[0].result.is_ok() && done[1].result.is_ok(), "{done:?}");
        let again =
            vec![(3, write(&file, 2 * ALIGN as u64, &[7; ALIGN], true)), (4, write(&file, 0, &[7; ALIGN], true))];
        let mut told = queue.submit_and_wait(again, 2).unwrap();
        told.sort_by_key(|c| c.token);
        assert!(matches!(&told[..], [c, d] if c.result.is_err() && c.buf.is_some() && d.result.is_ok()), "{told:?}");
        let e = done[2].result.as_ref().unwrap_err();
        assert!(matches!(e, Error::NoSpace { path, detail } if *path == at("a") && detail.contains("13192")), "{e}");
        assert_eq!((disk.used(), file.len().unwrap()), (13_192, 8192));
        // Overwriting is not growth; cutting off, removing and replacing make room.
        file.write_at(&[8; 8192], 0).unwrap();
        assert!(matches!(file.set_len(8193), Err(Error::NoSpace { .. })));
        file.set_len(8000).unwrap();
        file.write_at(&[8; 100], 8092).unwrap();
        disk.rename(&at("a"), &at("b")).unwrap();
        assert_eq!(disk.used(), 13_192, "a rename moves the claim");
        let small = disk.open(&at("sub/new"), RW).unwrap();
        assert!(matches!(small.write_durable(b"x", 0), Err(Error::NoSpace { .. })));
        disk.set_limit(14_000);
        small.write_durable(b"x", 0).unwrap();
        disk.rename(&at("sub/new"), &at("b")).unwrap();
        assert_eq!(disk.used(), 5001, "what was replaced no longer counts");
        file.write_at(&[1; 100_000], 0).unwrap(); // it has no name any more
        assert_eq!(disk.used(), 5001);
        disk.remove(&at("b")).unwrap();
        assert_eq!(disk.used(), 5000);
    }
}
