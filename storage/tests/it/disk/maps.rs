//! Files as memory, on every disk.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use backstay_storage::disk::sim::Fault;
use backstay_storage::disk::{ALIGN, Create, Disk, File, Map, OpenOptions, QuotaDisk, SimDisk};

use super::{RW, RW_DIRECT, finish, kind, on_each_disk, pattern, write};

#[test]
fn a_map_is_the_beginning_of_the_file() {
    for options in [RW, RW_DIRECT] {
        on_each_disk(|name, disk, dir| {
            let file = disk.open(&dir.join("a"), options).unwrap();
            let bytes = pattern(3, 3 * ALIGN + 10);
            file.write_at(&bytes, 0).unwrap();
            for len in [0, 1, ALIGN - 1, ALIGN, ALIGN + 1, 3 * ALIGN + 10] {
                let map = disk.map(&file, len as u64).unwrap();
                assert!(*map == bytes[..len], "{name}: {len} bytes");
                assert!(map.as_ref().len() == len, "{name}");
            }
            for len in [3 * ALIGN as u64 + 11, 1 << 40, u64::MAX] {
                let e = disk.map(&file, len).unwrap_err();
                assert_eq!(kind(&e), Some(ErrorKind::UnexpectedEof), "{name}: {e}");
                let told = e.to_string();
                assert!(
                    told.contains("12298 bytes") && told.contains(&len.to_string()) && told.contains("a"),
                    "{told}"
                );
            }
        });
    }
}

#[test]
fn a_map_shows_what_a_queue_wrote() {
    on_each_disk(|name, disk, dir| {
        let file = disk.open(&dir.join("a"), RW_DIRECT).unwrap();
        let mut queue = disk.queue(4).unwrap();
        for round in 1..4u8 {
            queue.submit((0..4).map(|i| (i, write(&file, i * ALIGN as u64, &[round; ALIGN], true))).collect()).unwrap();
            finish(&mut *queue);
            let map = disk.map(&file, 4 * ALIGN as u64).unwrap();
            assert!(map.iter().all(|b| *b == round), "{name}: round {round}");
        }
    });
}

#[test]
fn a_map_outlives_file_and_name_and_moves_between_threads() {
    on_each_disk(|name, disk, dir| {
        let path = dir.join("a");
        let file = disk.open(&path, RW).unwrap();
        file.write_at(b"kept bytes", 0).unwrap();
        let read_only = disk.open(&path, OpenOptions::READ).unwrap();
        let map: Map = disk.map(&read_only, 10).unwrap();
        drop((file, read_only));
        disk.remove(&path).unwrap();
        let bytes = bytes::Bytes::from_owner(map);
        let tail = std::thread::scope(|s| s.spawn(|| bytes.slice(5..)).join().unwrap());
        drop(bytes);
        assert_eq!(tail, b"bytes"[..], "{name}");
    });
}

#[test]
fn a_simulated_map_is_a_read_that_can_fail() {
    let sim = SimDisk::new(1);
    let disk = QuotaDisk::new(Arc::new(sim.clone()), Path::new("/"), 1 << 20).unwrap();
    let options = OpenOptions { write: true, create: Create::New, direct: false };
    let file: Arc<dyn File> = disk.open(Path::new("/a"), options).unwrap();
    file.write_at(b"abc", 0).unwrap();
    let map = disk.map(&file, 3).unwrap();
    file.write_at(b"xyz", 0).unwrap();
    assert_eq!(&map[..], b"abc", "a copy does not change");
    sim.fail_at(sim.ops() + 1, Fault::Io);
    assert!(disk.map(&file, 3).is_err());
    assert_eq!(&disk.map(&file, 3).unwrap()[..], b"xyz");
}
