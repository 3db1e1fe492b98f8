//! The enumeration of a power loss's outcomes: every combination is produced, and what is said to be covered is.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use backstay_storage::disk::sim::{Coverage, CrashPlan};
use backstay_storage::disk::{Create, Disk, File, OpenOptions, SimDisk};

const RW: OpenOptions = OpenOptions { write: true, create: Create::IfAbsent, direct: false };

/// A disk with a durable file of `sectors` ones.
fn prepared(sectors: usize) -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new(3);
    disk.overwrite("/a", 0, &vec![1; sectors * 512]).unwrap();
    let file = disk.open(Path::new("/a"), RW).unwrap();
    (disk, file)
}

/// What each sector of /a holds: 'o'ld (1), 'n'ew (2), or garbage, in whatever form.
fn shape(disk: &SimDisk) -> String {
    let of = |sector: &[u8]| match sector {
        s if s.iter().all(|b| *b == 1) => 'o',
        s if s.iter().all(|b| *b == 2) => 'n',
        _ => '?',
    };
    disk.read_file("/a").unwrap().chunks(512).map(of).collect()
}

fn shapes(disk: &SimDisk, limit: u64, samples: u64, seed: u64) -> (Coverage, Vec<String>) {
    let outcomes = disk.outcomes(limit, samples, seed);
    (outcomes.coverage(), outcomes.map(|plan| shape(&disk.power_cycle(plan))).collect())
}

#[test]
fn every_sector_is_old_new_and_garbage_in_every_combination() {
    let (disk, file) = prepared(5);
    file.write_at(&[2; 1024], 512).unwrap();
    file.write_at(&[2; 512], 2048).unwrap();
    let (coverage, found) = shapes(&disk, 27, 0, 1);
    assert_eq!((coverage, found.len()), (Coverage::EverySector, 27));
    let letters = ['o', 'n', '?'];
    let expected: BTreeSet<String> =
        (0..27).map(|i| format!("o{}{}o{}", letters[i % 3], letters[i / 3 % 3], letters[i / 9])).collect();
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn every_write_meets_every_fate_with_every_fate_of_the_others() {
    let (disk, file) = prepared(16);
    file.write_at(&[2; 2048], 0).unwrap();
    file.write_at(&[2; 2048], 4096).unwrap();
    disk.open(Path::new("/b"), RW).unwrap();
    // Neither write grows the file: lost, kept, garbage and torn; a name is lost or kept.
    for seed in 0..20 {
        let outcomes = disk.outcomes(100, 0, seed);
        assert_eq!(outcomes.coverage(), Coverage::EveryFate);
        let fate = |sectors: &str| match sectors {
            "oooo" => "lost",
            "nnnn" => "kept",
            s if s.contains('?') => "garbage",
            _ => "torn",
        };
        let mut seen = BTreeSet::new();
        for plan in outcomes {
            let up = disk.power_cycle(plan);
            let shape = shape(&up);
            assert_eq!((&shape[4..8], &shape[12..]), ("oooo", "oooo"), "{plan:?}: nothing was written there");
            assert_eq!(shape, self::shape(&disk.power_cycle(plan)), "{plan:?} is not one outcome");
            seen.insert((up.list_all().len(), fate(&shape[..4]), fate(&shape[8..12])));
        }
        assert_eq!(seen.len(), 2 * 4 * 4, "seed {seed}: {seen:?}");
    }
}

#[test]
fn a_write_that_grows_its_file_can_come_as_a_length_only() {
    let (disk, file) = prepared(1);
    file.write_at(&[2; 4096], 512).unwrap();
    let found: Vec<Vec<u8>> =
        disk.outcomes(16, 0, 1).map(|plan| disk.power_cycle(plan).read_file("/a").unwrap()).collect();
    assert_eq!(found.len(), 5);
    assert_eq!((found[0].len(), found[1].len()), (512, 4608));
    assert_eq!(found[4], [&[1; 512][..], &[0; 4096]].concat());
}

#[test]
fn twelve_pending_writes_are_exhausted_and_thirteen_sampled() {
    let (disk, file) = prepared(8 * 13);
    for i in 0..12 {
        file.write_at(&[2; 1024], i * 4096).unwrap();
    }
    assert_eq!(disk.pending_operations(), 12);
    let whole = |i: usize, shape: &str| &shape[8 * i..8 * i + 2] == "nn";
    let subset = |shape: &String| (0..12).filter(|i| whole(*i, shape)).map(|i| 1 << i).sum::<u32>();
    let (coverage, found) = shapes(&disk, 4096, 7, 1);
    assert_eq!((coverage, found.len()), (Coverage::EverySubset, 4096 + 12 * 2 * 2));
    assert_eq!(found[..4096].iter().map(subset).collect::<BTreeSet<_>>().len(), 4096);
    assert!(found[..4096].iter().all(|shape| !shape.contains('?')));
    // Then each write garbled and torn alone, with all others lost and with all others kept.
    for (nth, shape) in found[4096..].iter().enumerate() {
        let (others, torn, odd) = (nth % 2, nth / 2 % 2 == 1, nth / 4);
        let rest = subset(shape) & !(1 << odd);
        assert_eq!(rest, if others == 1 { 0xFFF & !(1 << odd) } else { 0 }, "{nth}: {shape}");
        let sectors = &shape[8 * odd..8 * odd + 2];
        assert!(if torn { ["no", "on"].contains(&sectors) } else { sectors.contains('?') }, "{nth}: {sectors}");
    }
    file.write_at(&[2; 1024], 12 * 4096).unwrap();
    let (coverage, found) = shapes(&disk, 4096, 7, 1);
    assert_eq!((coverage, found.len()), (Coverage::Sampled, 9));
    assert!(!found[0].contains('n') && found[1].matches('n').count() == 26);
    assert_ne!(found, shapes(&disk, 4096, 7, 2).1, "the seed draws nothing");
    assert_eq!(found, shapes(&disk, 4096, 7, 1).1, "the seed does not decide");
}

#[test]
fn a_large_write_is_one_operation() {
    let (disk, file) = prepared(1);
    file.write_at(&vec![2; 1 << 20], 0).unwrap();
    assert_eq!((disk.pending_operations(), disk.pending_units()), (1, 2048));
    let kinds = |shape: &String| (shape.contains('o'), shape.contains('n'), shape.contains('?'));
    let (coverage, found) = shapes(&disk, 8, 0, 1);
    assert_eq!((coverage, found.len()), (Coverage::EveryFate, 5));
    assert_eq!(kinds(&found[0]), (true, false, false));
    assert_eq!(kinds(&found[1]), (false, true, false));
    assert!(found[2].contains('?') && found[2].contains('n'));
    assert!(found[3].starts_with('o') || found[3].contains('n'), "torn: {}", &found[3][..9]);
}

#[test]
fn the_fate_of_one_write_leaves_the_sectors_of_another_as_they_are() {
    let (disk, file) = prepared(16);
    file.write_at(&[2; 4096], 0).unwrap();
    file.write_at(&[2; 4096], 4096).unwrap();
    // The second one torn (3), the first one in each of its four fates.
    let second: BTreeSet<String> = (0..4)
        .map(|first| CrashPlan::Fates { combination: first + 4 * 3, seed: 9 })
        .map(|plan| shape(&disk.power_cycle(plan))[8..].to_owned())
        .collect();
    assert_eq!(second.len(), 1, "{second:?}");
}
