//! The bytes of a run file, pinned: a change of the format must change `format::VERSION`, and these.

use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::disk::OpenOptions;

fn bytes(discipline: Discipline) -> Vec<u8> {
    let disk = disk();
    let store = context(&disk, 64 << 20);
    // File 1 is another's.
    let mut other = Spine::open(Arc::clone(&store), SpineMeta::empty("other", discipline, 9)).unwrap();
    other.insert_batch(&rows(&[(b"x", b"", 1)])).unwrap();
    flush(&store, &mut other).unwrap();
    let mut spine = Spine::open(Arc::clone(&store), SpineMeta::empty("golden", discipline, 9)).unwrap();
    spine.insert_batch(&rows(&[(b"ab", b"1", 1), (b"abc", b"22", -2), (b"b", b"", 3)])).unwrap();
    flush(&store, &mut spine).unwrap();
    let file = disk.open(&Path::new(DIR).join("00000001-00000002.run"), OpenOptions::READ).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_weighted_run_file() {
    let bytes = bytes(Discipline::Weighted);
    assert_eq!(bytes.len(), 8192);
    assert_eq!(bytes[..16], *b"BSTYRUN1\x01\0\0\0\0\0\0\0");
    assert_eq!(bytes[16..32], STORE.to_le_bytes());
    assert_eq!(bytes[32..48], *b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
    assert_eq!(bytes[4088..4096], xxh3_64(&bytes[..4088]).to_le_bytes());

    let extent = &bytes[4096..];
    let (block, rest) = extent.split_at(24 + 27);
    assert_eq!(block[..16], *b"\x01\0\0\0\x1b\0\0\0\x1b\0\0\0\x03\0\0\0", "block, codec none, 27 bytes, 3 rows");
    let entries = b"\0\x02\x01\x02ab1\x02\x01\x02\x03c22\0\x01\0\x06b";
    assert_eq!(block[24..], [&entries[..], b"\0\0\0\0\x01\0\0\0"].concat());
    let (index, rest) = rest.split_at(24 + 9);
    assert_eq!(index[..16], *b"\x02\0\0\0\x09\0\0\0\x09\0\0\0\x01\0\0\0", "index, codec none, 9 bytes, 1 block");
    assert_eq!(index[24..], *b"\x33\x03\x02\x01\x01ab1b", "51 bytes, 3 rows, from (ab, 1) to b");
    let (filter, rest) = rest.split_at(24 + 32);
    assert_eq!(filter[..16], *b"\x03\0\0\0\x20\0\0\0\x20\0\0\0\x03\0\0\0", "filter, codec none, 32 bytes, 3 keys");
    let (footer, padding) = rest.split_at(96);
    assert_eq!(footer[..24], *b"BSTYFOOT\x01\0\0\0\x01\0\0\0\x09\0\0\0\x01\0\0\0");
    let longs = [3, 7 + 3 * 8 + 2, 4096, 51, 33, 56];
    let want: Vec<u8> = longs.iter().flat_map(|n: &u64| n.to_le_bytes()).collect();
    assert_eq!(footer[24..72], want, "rows, raw bytes, extent, lengths of blocks, index and filter");
    let sums = [&block[16..24], &index[16..24], &filter[16..24]].concat();
    assert_eq!(footer[72..80], xxh3_64(&sums).to_le_bytes());
    assert!(padding.iter().all(|&b| b == 0));
    assert_eq!(
        xxh3_64(&bytes),
        6_514_324_650_604_365_159,
        "every byte, seeds of checksums and bits of the filter included"
    );
}

#[test]
fn a_latest_run_file() {
    // The delete of "abc" hides nothing older and is left out.
    assert_eq!(xxh3_64(&bytes(Discipline::Latest)), 3_886_144_334_652_078_889);
}
