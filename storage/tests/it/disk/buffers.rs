//! What a queue does with parts of buffers, with slabs, and with the files that it may keep registered.

use std::sync::Arc;

use backstay_storage::Error;
use backstay_storage::disk::{ALIGN, AlignedBuf, File, IoQueue, Op, OpenOptions, Slab};

use super::{RW, RW_DIRECT, all, finish, on_each_disk, pattern, read, write};

fn write_buf(file: &Arc<dyn File>, offset: u64, buf: AlignedBuf, durable: bool) -> Op {
    Op::Write { file: Arc::clone(file), offset, buf, durable }
}

/// Runs one operation, and gives its buffer back.
fn run(queue: &mut dyn IoQueue, op: Op, expected: usize) -> AlignedBuf {
    let mut done = queue.submit_and_wait(vec![(5, op)], 1).unwrap();
    assert_eq!((done.len(), done[0].token), (1, 5));
    let completion = done.pop().unwrap();
    assert_eq!(completion.result.unwrap(), expected);
    completion.buf.unwrap()
}

#[test]
fn narrowed_buffers_move_their_part_only() {
    for options in [RW, RW_DIRECT] {
        on_each_disk(|name, disk, dir| {
            let file = disk.open(&dir.join("a"), options).unwrap();
            let mut queue = disk.queue(4).unwrap();
            for durable in [false, true] {
                let bytes = pattern(u8::from(durable), 4 * ALIGN);
                let mut buf = AlignedBuf::from_slice(&bytes);
                buf.narrow(ALIGN..3 * ALIGN).unwrap();
                let mut buf = run(&mut *queue, write_buf(&file, 2 * ALIGN as u64, buf, durable), 2 * ALIGN);
                assert_eq!(
                    (buf.len(), buf.capacity()),
                    (2 * ALIGN, 4 * ALIGN),
                    "{name}: it comes back as narrow as it was"
                );
                let found = all(&*file);
                assert_eq!(found.len(), 4 * ALIGN, "{name}");
                assert!(found[..2 * ALIGN].iter().all(|b| *b == 0), "{name}");
                assert!(found[2 * ALIGN..] == bytes[ALIGN..3 * ALIGN], "{name}: not the part that was shown");
                buf.widen();
                buf.fill(9);
                buf.narrow(2 * ALIGN..3 * ALIGN).unwrap();
                let op = Op::Read { file: Arc::clone(&file), offset: 3 * ALIGN as u64, buf };
                let mut buf = run(&mut *queue, op, ALIGN);
                buf.widen();
                assert!(buf[2 * ALIGN..3 * ALIGN] == bytes[2 * ALIGN..3 * ALIGN], "{name}");
                assert!(
                    buf[..2 * ALIGN].iter().chain(&buf[3 * ALIGN..]).all(|b| *b == 9),
                    "{name}: read beside its part"
                );
            }
        });
    }
}

#[test]
fn slab_buffers_registered_and_not() {
    for (options, registers) in [(RW, false), (RW, true), (RW_DIRECT, false), (RW_DIRECT, true)] {
        on_each_disk(|name, disk, dir| {
            let file = disk.open(&dir.join("a"), options).unwrap();
            let mut queue = disk.queue(3).unwrap();
            let (slab, mut buffers) = Slab::new(2 * ALIGN, 4);
            let (other, mut more) = Slab::new(2 * ALIGN, 1);
            if registers {
                queue.register(&slab).unwrap();
                queue.register(&slab).unwrap();
                queue.register(&other).unwrap();
            }
            drop((slab, other)); // the buffers and the queue keep what they need
            buffers.append(&mut more);
            buffers.push(AlignedBuf::zeroed(2 * ALIGN));
            let block = |i: usize| pattern(i as u8, 2 * ALIGN);
            let at = |i: usize| (i * 2 * ALIGN) as u64;
            let ops = buffers.into_iter().enumerate().map(|(i, mut buf)| {
                buf.copy_from_slice(&block(i));
                (i as u64, write_buf(&file, at(i), buf, i % 2 == 0))
            });
            queue.submit(ops.collect()).unwrap();
            let done = finish(&mut *queue);
            assert_eq!(done.len(), 6, "{name}");
            let found = all(&*file);
            let mut reads = Vec::new();
            for c in done {
                let i = c.token as usize;
                assert_eq!(c.result.unwrap(), 2 * ALIGN, "{name}, {registers}");
                assert!(found[i * 2 * ALIGN..][..2 * ALIGN] == block(i), "{name}, {registers}: buffer {i}");
                // Another buffer than the one that it was written from.
                let buf = c.buf.unwrap();
                reads.push((c.token, Op::Read { file: Arc::clone(&file), offset: at(5 - i), buf }));
            }
            for c in queue.submit_and_wait(reads, 6).unwrap() {
                assert_eq!(c.result.unwrap(), 2 * ALIGN, "{name}, {registers}");
                assert!(*c.buf.unwrap() == *block(5 - c.token as usize), "{name}, {registers}: read {}", c.token);
            }
            assert_eq!(queue.in_flight(), 0, "{name}");
        });
    }
}

#[test]
fn more_files_than_a_queue_registers() {
    on_each_disk(|name, disk, dir| {
        let files: Vec<_> = (0..7).map(|i| disk.open(&dir.join(format!("{i}")), RW_DIRECT).unwrap()).collect();
        let mut queue = disk.queue(8).unwrap();
        let (slab, _buffers) = Slab::new(ALIGN, 1);
        queue.register(&slab).unwrap();
        for round in 0..20u64 {
            let (offset, first) = (round * ALIGN as u64, round as usize);
            // At times all at once, at times few, so that files come, stay and go.
            let some = files.iter().enumerate().cycle().skip(first).take(1 + first * 3 % 7);
            let ops =
                some.map(|(i, f)| (i as u64, write(f, offset, &[(round * 7) as u8 + i as u8; ALIGN], round % 2 == 0)));
            let (mut ops, n): (Vec<_>, _) = (ops.collect(), 1 + first * 3 % 7);
            ops.push((99, Op::Sync { file: Arc::clone(&files[first % 7]) }));
            if round % 5 == 4 {
                queue.forget(&files[first % 7]).unwrap();
            }
            let done = queue.submit_and_wait(ops, n + 1).unwrap();
            assert!(done.len() == n + 1 && done.iter().all(|c| c.result.is_ok()), "{name}: {done:?}");
            for i in (0..n).map(|k| (first + k) % 7) {
                let mut got = [0; ALIGN];
                assert_eq!(files[i].read_at(&mut got, offset).unwrap(), ALIGN, "{name}");
                assert_eq!(got, [(round * 7) as u8 + i as u8; ALIGN], "{name}: file {i}, round {round}");
            }
        }
    });
}

#[test]
fn a_forgotten_file_can_be_used_again() {
    on_each_disk(|name, disk, dir| {
        let open = |file: &str| disk.open(&dir.join(file), RW_DIRECT).unwrap();
        let (a, b) = (open("a"), open("b"));
        let mut queue = disk.queue(16).unwrap();
        queue.register(&Slab::new(ALIGN, 1).0).unwrap();
        queue.forget(&b).unwrap(); // it was never used
        queue.submit((0..8).map(|i| (i, write(&a, i * ALIGN as u64, &[1; ALIGN], true))).collect()).unwrap();
        queue.forget(&a).unwrap(); // in flight
        queue.submit((8..16).map(|i| (i, write(&a, i * ALIGN as u64, &[1; ALIGN], true))).collect()).unwrap();
        let done = finish(&mut *queue);
        assert!(done.len() == 16 && done.iter().all(|c| c.result.is_ok()), "{name}: {done:?}");
        queue.forget(&a).unwrap();
        queue.forget(&a).unwrap();
        assert_eq!(all(&*a), vec![1; 16 * ALIGN], "{name}");
        // The next file gets the descriptor of the last, and must not be taken for it.
        drop(a);
        let c = open("c");
        for (file, byte) in [(&c, 3), (&b, 2), (&c, 4)] {
            queue
                .submit_and_wait(vec![(0, write(file, 0, &[byte; ALIGN], true))], 1)
                .unwrap()
                .pop()
                .unwrap()
                .result
                .unwrap();
        }
        assert_eq!((all(&*b), all(&*c)), (vec![2; ALIGN], vec![4; ALIGN]), "{name}");
        let a = disk.open(&dir.join("a"), OpenOptions::READ).unwrap();
        assert_eq!(all(&*a), vec![1; 16 * ALIGN], "{name}");
    });
}

#[test]
fn submitting_and_waiting_in_one() {
    on_each_disk(|name, disk, dir| {
        let file = disk.open(&dir.join("a"), RW_DIRECT).unwrap();
        for depth in [1, 4, 32] {
            let mut queue = disk.queue(depth).unwrap();
            assert_eq!(queue.submit_and_wait(Vec::new(), 3).unwrap().len(), 0, "{name}");
            for (n, at_least) in [(1, 1), (8, 0), (8, 3), (8, 8), (8, 100), (0, 1)] {
                let before = queue.in_flight();
                let writes = (0..n).map(|i| (i, write(&file, i * ALIGN as u64, &[i as u8; ALIGN], true)));
                let done = queue.submit_and_wait(writes.collect(), at_least).unwrap();
                let all = before + n as usize;
                assert!(done.len() >= at_least.min(all), "{name}: {} of {all}, not {at_least}", done.len());
                assert_eq!(queue.in_flight(), all - done.len(), "{name}");
                assert!(done.iter().all(|c| matches!(c.result, Ok(ALIGN)) && c.buf.is_some()), "{name}: {done:?}");
            }
            finish(&mut *queue);
            // What is refused counts, and comes back like any other.
            let ops = vec![(1, write(&file, 512, &[1; ALIGN], true)), (2, read(&file, 0, ALIGN))];
            let mut done = queue.submit_and_wait(ops, 2).unwrap();
            done.sort_by_key(|c| c.token);
            assert_eq!(done.len(), 2, "{name}");
            assert!(matches!(done[0].result, Err(Error::Invalid(_))) && done[0].buf.is_some(), "{name}: {done:?}");
            assert!(matches!(done[1].result, Ok(ALIGN)), "{name}: {done:?}");
        }
    });
}
