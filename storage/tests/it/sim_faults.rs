//! Each fault that a test can ask of the simulated disk does what it says, and no more.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use backstay_storage::Error;
use backstay_storage::disk::sim::{CrashPlan, Decay, Fault};
use backstay_storage::disk::{ALIGN, AlignedBuf, Create, Disk, File, Op, OpenOptions, SimDisk};

const RW: OpenOptions = OpenOptions { write: true, create: Create::IfAbsent, direct: false };
const RW_DIRECT: OpenOptions = OpenOptions { direct: true, ..RW };

/// A disk with the durable file /a of one block of ones, opened through the page cache and past it.
fn disk_and_file() -> (SimDisk, Arc<dyn File>, Arc<dyn File>) {
    let disk = SimDisk::new(1);
    disk.overwrite("/a", 0, &[1; ALIGN]).unwrap();
    let open = |options| disk.open(Path::new("/a"), options).unwrap();
    let (cached, direct) = (open(RW), open(RW_DIRECT));
    (disk, cached, direct)
}

fn all(file: &Arc<dyn File>) -> Vec<u8> {
    let mut buf = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), buf.len());
    buf
}

fn fail_next(disk: &SimDisk, fault: Fault) {
    disk.fail_at(disk.ops() + 1, fault);
}

/// What the next life finds, whatever becomes of what is pending.
fn survivors(disk: &SimDisk) -> BTreeSet<Vec<u8>> {
    [CrashPlan::KeepNone, CrashPlan::KeepAll].map(|plan| disk.power_cycle(plan).read_file("/a").unwrap()).into()
}

#[test]
fn a_direct_read_sees_what_a_failed_sync_lost() {
    let (disk, cached, direct) = disk_and_file();
    cached.write_at(&[2; 1024], 0).unwrap();
    assert_eq!(all(&direct)[..1024], [2; 1024], "not synced yet, but on its way");
    fail_next(&disk, Fault::Io);
    assert!(cached.sync().is_err());
    cached.write_at(&[3; 512], 2048).unwrap();
    cached.sync().unwrap(); // of what came later only
    let expected = [&[1; 2048][..], &[3; 512], &[1; 1536]].concat();
    assert_eq!(all(&cached)[..1024], [2; 1024], "the page cache goes on showing it");
    assert_eq!(all(&direct), expected);
    let mut queue = disk.queue(1).unwrap();
    let read = Op::Read { file: Arc::clone(&direct), offset: 0, buf: AlignedBuf::zeroed(ALIGN) };
    queue.submit(vec![(0, read)]).unwrap();
    assert_eq!(queue.wait(1).unwrap()[0].buf.as_ref().unwrap()[..], expected[..], "a queue's read is no other");
    assert_eq!(survivors(&disk), BTreeSet::from([expected.clone()]));
    disk.drop_caches();
    assert_eq!(all(&cached), expected, "an evicted page is read from the device");
}

#[test]
fn dropping_the_cache_loses_nothing_that_is_merely_pending() {
    let (disk, cached, _) = disk_and_file();
    cached.write_at(&[2; 512], ALIGN as u64).unwrap();
    disk.drop_caches();
    assert_eq!(all(&cached)[ALIGN..], [2; 512]);
    assert_eq!(disk.pending_units(), 1);
}

#[test]
fn a_lost_write_is_acknowledged_and_never_there() {
    for durable in [false, true] {
        let (disk, cached, direct) = disk_and_file();
        let write = |file: &Arc<dyn File>, byte: u8, at: u64| {
            fail_next(&disk, Fault::LostWrite);
            if durable { file.write_durable(&[byte; 512], at) } else { file.write_at(&[byte; 512], at) }.unwrap();
        };
        write(&cached, 2, 512);
        assert_eq!(all(&cached)[512..1024], [2; 512], "the cache hides it");
        assert_eq!(all(&direct), [1; ALIGN]);
        write(&direct, 3, ALIGN as u64); // past the cache, and behind the end
        cached.sync().unwrap();
        assert_eq!(all(&cached)[ALIGN..], [0; 512], "nothing hides it, and the length came");
        let expected = [&[1; ALIGN][..], &[0; 512]].concat();
        assert_eq!(survivors(&disk), BTreeSet::from([expected]));
    }
}

#[test]
fn a_stale_read_gives_what_was_there_before_the_last_write() {
    let (disk, cached, _) = disk_and_file();
    cached.write_durable(&[2; 512], 0).unwrap();
    cached.write_durable(&[3; 512], 0).unwrap();
    let read = |file: &Arc<dyn File>| {
        let mut buf = [0; 512];
        file.read_at(&mut buf, 0).unwrap();
        buf
    };
    fail_next(&disk, Fault::StaleRead);
    assert_eq!(read(&cached), [2; 512], "the one before, not the oldest");
    assert_eq!(read(&cached), [3; 512], "once");
    // The recovery may be the one that reads stale.
    let after = disk.power_cycle(CrashPlan::KeepAll);
    let file = after.open(Path::new("/a"), OpenOptions::READ).unwrap();
    fail_next(&after, Fault::StaleRead);
    assert_eq!((read(&file), read(&file)), ([2; 512], [3; 512]));
    // What was never written over has no older content.
    let (disk, cached, _) = disk_and_file();
    fail_next(&disk, Fault::StaleRead);
    assert_eq!(read(&cached), [1; 512]);
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_write() {
    let (disk, cached, _) = disk_and_file();
    fail_next(&disk, Fault::ShortNoSpace);
    assert!(matches!(cached.write_durable(&[2; 2048], 0), Err(Error::NoSpace { .. })));
    assert_eq!(all(&cached), [[2; 1024], [1; 1024], [1; 1024], [1; 1024]].concat());
    assert!(survivors(&disk).contains(&vec![1; ALIGN]), "what fitted is not durable");
}

#[test]
fn decayed_sectors_are_garbage_over_lives_until_they_are_written() {
    let (disk, cached, _) = disk_and_file();
    disk.decay("/a", 511..513, Decay::Garbage(5)).unwrap();
    let found = all(&cached);
    assert!(found[..512] != [1; 512] && found[512..1024] != [1; 512] && found[1024..] == [1; 3072]);
    assert_eq!(survivors(&disk), BTreeSet::from([found]));
    cached.write_durable(&[4; 1024], 0).unwrap();
    assert_eq!(survivors(&disk), BTreeSet::from([[[4; 1024], [1; 1024], [1; 1024], [1; 1024]].concat()]));
    assert!(disk.decay("/a", 0..ALIGN as u64 + 1, Decay::Unreadable).is_err(), "behind the end");
}

#[test]
fn unreadable_sectors_fail_until_a_durable_write_has_mended_them() {
    let (disk, cached, direct) = disk_and_file();
    disk.decay("/a", 1024..1025, Decay::Unreadable).unwrap();
    let reads = |file: &Arc<dyn File>, at: u64| {
        let e = file.read_at(&mut [0; 512], at).err();
        assert!(e.iter().all(|e| e.to_string().contains("EIO") && e.to_string().contains("/a")), "{e:?}");
        e.is_none()
    };
    for file in [&cached, &direct] {
        assert!(reads(file, 512) && !reads(file, 513) && !reads(file, 1535) && reads(file, 1536));
    }
    assert!(cached.write_at(&[2; 10], 1024).is_err(), "the rest of the sector cannot be read");
    assert!(cached.write_at(&[2; 1000], 512).is_err());
    cached.write_at(&[2; 512], 1024).unwrap();
    assert!(reads(&cached, 1024), "the cache has it");
    let lost = disk.power_cycle(CrashPlan::KeepNone).open(Path::new("/a"), RW).unwrap();
    assert!(!reads(&lost, 1024), "the write that mended it is gone");
    let kept = disk.power_cycle(CrashPlan::KeepAll).open(Path::new("/a"), RW).unwrap();
    assert!(reads(&kept, 1024));
    cached.sync().unwrap();
    let synced = disk.power_cycle(CrashPlan::KeepNone).open(Path::new("/a"), RW).unwrap();
    assert!(reads(&synced, 1024));
}

#[test]
fn a_new_file_shows_what_a_deleted_one_left_if_the_disk_does_so() {
    let fresh = |show| {
        let (disk, cached, direct) = disk_and_file();
        drop((cached, direct));
        disk.remove(Path::new("/a")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk.show_stale(show);
        let file = disk.open(Path::new("/b"), RW).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.set_len(512).unwrap();
        file.write_at(&[7; 10], 2048).unwrap();
        (disk, file)
    };
    let (disk, file) = fresh(false);
    assert_eq!(all(&file), [&[0; 2048][..], &[7; 10]].concat());
    drop(disk);
    let (disk, file) = fresh(true);
    assert_eq!(all(&file), [&[1; 2048][..], &[7; 10]].concat(), "by its length, and in the gap of a write");
    file.sync().unwrap();
    let after = disk.power_cycle(CrashPlan::KeepNone);
    assert_eq!(after.read_file("/b").unwrap(), [&[1; 2048][..], &[7; 10]].concat());
    after.open(Path::new("/b"), RW).unwrap().set_len(0).unwrap();
    let again = after.open(Path::new("/c"), RW).unwrap();
    again.set_len(2058).unwrap();
    assert_eq!(all(&again)[2048..], [7; 10], "what was cut off is left behind too, and the disk goes on showing it");
}

#[test]
fn a_power_loss_can_leave_a_length_with_stale_bytes() {
    let (disk, cached, direct) = disk_and_file();
    drop((cached, direct));
    disk.remove(Path::new("/a")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let file = disk.open(Path::new("/b"), RW).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_at(&[2; 512], 0).unwrap();
    let seen: BTreeSet<Vec<u8>> = (0..500).map(|seed| disk.power_cycle(seed).read_file("/b").unwrap()).collect();
    for wanted in [vec![], vec![0; 512], vec![1; 512], vec![2; 512]] {
        assert!(seen.contains(&wanted), "{:?} never came up", wanted.first());
    }
    // A file whose name was lost leaves its bytes behind as well.
    let down = disk.power_cycle(CrashPlan::KeepAll);
    down.open(Path::new("/lost"), RW).unwrap().write_durable(&[9; 512], 0).unwrap();
    let up = down.power_cycle(CrashPlan::KeepNone);
    up.show_stale(true);
    up.open(Path::new("/c"), RW).unwrap().set_len(3).unwrap();
    assert_eq!(up.read_file("/c").unwrap(), [9; 3]);
}

#[test]
fn a_torn_sector_can_be_half_new() {
    let (disk, cached, _) = disk_and_file();
    cached.write_at(&[2; 512], 0).unwrap();
    let half = [[2; 256], [1; 256]].concat();
    assert!((0..500).any(|seed| disk.power_cycle(seed).read_file("/a").unwrap()[..512] == half));
}

#[test]
fn power_cycles_share_what_they_do_not_change() {
    // 4000 outcomes of 64 MiB each would be 256 GB if any were copied.
    let disk = SimDisk::new(1);
    for i in 0..64 {
        disk.overwrite(format!("/{i}"), 0, &vec![i + 1; 1 << 20]).unwrap();
    }
    let outcomes: Vec<SimDisk> = (0..4000_u64).map(|seed| disk.power_cycle(seed)).collect();
    outcomes[0].flip_bit("/5", 4096, 0).unwrap();
    assert_eq!(outcomes[0].read_file("/5").unwrap()[4095..4098], [6, 7, 6]);
    assert!(outcomes[1].read_file("/5").unwrap() == vec![6; 1 << 20], "one outcome's change is another's");
}
