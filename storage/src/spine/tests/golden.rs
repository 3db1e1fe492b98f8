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
    assert_eq!(bytes[..16], *b"BSTYRUN1\x02\0\0\0\0\0\0\0");
    assert_eq!(bytes[16..32], STORE.to_le_bytes());
    assert_eq!(bytes[32..48], *b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
    assert_eq!(bytes[4088..4096], xxh3_64(&bytes[..4088]).to_le_bytes());

    let extent = &bytes[4096..];
    let (block, rest) = extent.split_at(24 + 39);
    assert_eq!(block[..16], *b"\x01\0\0\0\x27\0\0\0\x27\0\0\0\x03\0\0\0", "block, codec none, 39 bytes, 3 rows");
    let entries = b"\0\x02\x01\x02ab1\x02\x01\x02\x03c22\0\x01\0\x06b";
    // One restart, at 0; behind the 0 bytes that all keys share its key is ab, and zeros.
    let trailer = b"\0\0\0\0ab\0\0\0\0\0\0\0\0\0\0\x01\0\0\0";
    assert_eq!(block[24..], [&entries[..], trailer].concat());
    let (filter, rest) = rest.split_at(24 + 32);
    assert_eq!(filter[..16], *b"\x03\0\0\0\x20\0\0\0\x20\0\0\0\x03\0\0\0", "keys, codec none, 32 bytes, 3 keys");
    let (index, rest) = rest.split_at(24 + 11);
    assert_eq!(index[..16], *b"\x02\0\0\0\x0b\0\0\0\x0b\0\0\0\x01\0\0\0", "index, codec none, 11 bytes, 1 block");
    assert_eq!(index[24..], *b"\x01\x38\0\x3f\x03\x02\0\x01abb", "1 block, 56 and 0 bytes; 63 bytes, 3 rows, ab to b");
    let (footer, padding) = rest.split_at(120);
    assert_eq!(footer[..24], *b"BSTYFOOT\x02\0\0\0\x01\0\0\0\x09\0\0\0\x01\0\0\0");
    let longs = [3, 7 + 3 * 8 + 2, 4096, 63 + 56, 35, 56];
    let want: Vec<u8> = longs.iter().flat_map(|n: &u64| n.to_le_bytes()).collect();
    assert_eq!(
        footer[24..72],
        want,
        "rows, raw bytes, extent, lengths of blocks and filters, of the index, of filters"
    );
    let sums = [&block[16..24], &filter[16..24], &index[16..24]].concat();
    assert_eq!(footer[72..80], xxh3_64(&sums).to_le_bytes());
    let want: Vec<u8> = [3, 1, 2, 1].iter().flat_map(|n: &u64| n.to_le_bytes()).collect();
    assert_eq!(footer[80..112], want, "keys, rows below 0, sum of weights, pages");
    assert!(padding.iter().all(|&b| b == 0));
    assert_eq!(
        xxh3_64(&bytes),
        11_833_852_817_298_871_098,
        "every byte, seeds of checksums and bits of the filter included"
    );
}

#[test]
fn a_latest_run_file() {
    // The delete of "abc" hides nothing older and is left out.
    assert_eq!(xxh3_64(&bytes(Discipline::Latest)), 1_891_791_293_700_623_569);
}

/// Two rows a key: the group has a filter of rows.
#[test]
fn a_filter_of_rows() {
    let disk = disk();
    let store = context(&disk, 0);
    let mut spine = Spine::open(Arc::clone(&store), SpineMeta::empty("golden", Discipline::Weighted, 9)).unwrap();
    spine.insert_batch(&rows(&[(b"k", b"1", 1), (b"k", b"2", 1)])).unwrap();
    let meta = flush(&store, &mut spine).unwrap();
    let run = Run::open(&store, &meta, meta.runs[0].clone()).unwrap();
    let page = run.index.pages()[0];
    let mut bytes = [0; 56];
    run.handle.file.read_at(&mut bytes, 4096 + page.rows.0).unwrap();
    assert_eq!(bytes[..16], *b"\x04\0\0\0\x20\0\0\0\x20\0\0\0\x02\0\0\0", "rows, codec none, 32 bytes, 2 rows");
    assert_eq!(xxh3_64(&bytes[24..]), 15_657_054_271_545_231_865, "the bits");
}
