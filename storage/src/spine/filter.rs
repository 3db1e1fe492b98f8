//! Split-block Bloom filters over the keys of a run, and over its whole rows: one cache line per question.
//!
//! About 10 bits an entry; one that is not there passes in about 1 of 80 cases, one that is there always. Each 32-byte block has 8
//! lanes of 32 bits, and an entry sets one bit in each lane of its block (the scheme of Apache Parquet's specification, with
//! its salts).
//!
//! A filter is cut into *pages*, one a group of neighbouring blocks with about [`PAGE_ROWS`] rows, which stand behind them in the
//! file. A page is read through the block cache, like a block: nothing of a filter stays in memory on its own. The index says
//! which block a key would be in, and so which page to ask. (Pages chosen by a hash would need all hashes of a run in memory until
//! the last row is written; and sorted keys, or those of one vnode, would ask all pages where they now ask a few.)
//!
//! A key is in the page of the group in which its first row is. The rows' filter is written for the groups of weighted runs in which
//! there are [`ROWS_PER_KEY`] rows a key or more: where most keys have one row, the keys' filter says nearly the same.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bits an entry, before rounding up to whole blocks.
const BITS: usize = 10;
const LANES: usize = 8;
/// Bytes of a block.
const BLOCK: usize = LANES * size_of::<u32>();
/// Rows after which a group of blocks is closed: the page has 15 KiB then, and 25 at most (a block has up to 8192 rows).
pub(super) const PAGE_ROWS: usize = 12_000;
/// Rows a key, on average, from which on a group has a filter of rows.
pub(super) const ROWS_PER_KEY: usize = 2;
/// Odd numbers that spread a hash over the lanes.
const SALTS: [u32; LANES] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// The hash of a key that filters of keys are asked with.
pub(super) fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The hash of a row, whose key has the hash `key`, that filters of rows are asked with.
pub(super) fn row_hash(key: u64, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, key)
}

/// Bytes of the page of so many entries.
pub(super) fn page_bytes(entries: usize) -> usize {
    entries.saturating_mul(BITS).div_ceil(BLOCK * 8) * BLOCK
}

/// The page of the entries with these hashes.
pub(super) fn build(hashes: &[u64]) -> Vec<u8> {
    let mut page = vec![0; page_bytes(hashes.len())];
    let (blocks, _) = page.as_chunks_mut::<BLOCK>();
    for &hash in hashes {
        let place = place(hash, blocks.len());
        if let Some(block) = blocks.get_mut(place) {
            for (lane, mask) in block.as_chunks_mut::<4>().0.iter_mut().zip(masks(hash)) {
                *lane = (u32::from_le_bytes(*lane) | mask).to_le_bytes();
            }
        }
    }
    page
}

/// Whether an entry with this hash may be in the page; an empty page has none.
pub(super) fn may_contain(page: &[u8], hash: u64) -> bool {
    let (blocks, _) = page.as_chunks::<BLOCK>();
    blocks.get(place(hash, blocks.len())).is_some_and(|block| {
        let lanes = block.as_chunks::<4>().0.iter();
        // All lanes, without a branch at each.
        lanes.zip(masks(hash)).fold(0, |missing, (lane, mask)| missing | (mask & !u32::from_le_bytes(*lane))) == 0
    })
}

/// A byte of what [`may_contain`] will read. Asked of many entries first, the processor fetches their lines at a time; one question after another would
/// wait for memory most of its time.
pub(super) fn touch(page: &[u8], hash: u64) -> u8 {
    page.get(place(hash, page.len() / BLOCK) * BLOCK).copied().unwrap_or_default()
}

/// The block of a hash: its high half scaled to the number of blocks.
fn place(hash: u64, blocks: usize) -> usize {
    (((hash >> 32) * blocks as u64) >> 32) as usize
}

/// One bit for each lane.
fn masks(hash: u64) -> [u32; LANES] {
    let low = hash as u32;
    SALTS.map(|salt| 1 << (low.wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_passes_and_few_others() {
        let hashes: Vec<u64> = (0..10_000u32).map(|i| key_hash(&i.to_be_bytes())).collect();
        let page = build(&hashes);
        assert_eq!(page.len(), page_bytes(10_000));
        assert!(hashes.iter().all(|&h| may_contain(&page, h)));
        let passed = (10_000..110_000u32).filter(|i| may_contain(&page, key_hash(&i.to_be_bytes()))).count();
        assert!(passed < 2_000, "{passed} of 100000 absent keys passed");
    }

    #[test]
    fn rows_of_one_key_are_told_apart() {
        let key = key_hash(b"hot");
        let hashes: Vec<u64> = (0..5_000u32).map(|i| row_hash(key, &i.to_be_bytes())).collect();
        let page = build(&hashes);
        assert!(hashes.iter().all(|&h| may_contain(&page, h)));
        let passed = (5_000..55_000u32).filter(|i| may_contain(&page, row_hash(key, &i.to_be_bytes()))).count();
        assert!(passed < 1_000, "{passed} of 50000 absent rows passed");
    }

    #[test]
    fn an_empty_page_passes_nothing() {
        assert!(build(&[]).is_empty() && !may_contain(&[], 7));
    }
}
