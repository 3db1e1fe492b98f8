//! A split-block Bloom filter over the keys of a run: one cache line per question.
//!
//! About 10 bits a key; a key that is not in the run passes in about 1 of 80 cases, one that is in it
//! always. Each 32-byte block has 8 lanes of 32 bits, and a key sets one bit in each lane of its block
//! (the scheme of Apache Parquet's specification, with its salts).
//!
//! Known limits: it covers the key only, not the full row; it stays in memory while its run is open
//! (`SpineStats::resident_bytes`).

use xxhash_rust::xxh3::xxh3_64;

/// Bits a key, before rounding up to whole blocks.
const BITS_PER_KEY: usize = 10;
const LANES: usize = 8;
/// Bytes of a block.
const BLOCK: usize = LANES * size_of::<u32>();
/// Odd numbers that spread a hash over the lanes.
const SALTS: [u32; LANES] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// The filter; empty means "no key".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    blocks: Vec<[u32; LANES]>,
}

/// The hash of a key that filters are asked with.
pub(super) fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

impl Filter {
    /// The filter of the keys with these hashes.
    pub(super) fn build(hashes: &[u64]) -> Self {
        let blocks = (hashes.len() * BITS_PER_KEY).div_ceil(BLOCK * 8);
        let mut filter = Self { blocks: vec![[0; LANES]; blocks] };
        for &hash in hashes {
            let place = filter.place(hash);
            if let Some(block) = filter.blocks.get_mut(place) {
                for (lane, mask) in block.iter_mut().zip(masks(hash)) {
                    *lane |= mask;
                }
            }
        }
        filter
    }

    /// Whether a key with this hash may be there.
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        self.blocks
            .get(self.place(hash))
            .is_some_and(|block| block.iter().zip(masks(hash)).all(|(lane, mask)| lane & mask != 0))
    }

    /// The block of a hash: its high half scaled to the number of blocks.
    fn place(&self, hash: u64) -> usize {
        (((hash >> 32) * self.blocks.len() as u64) >> 32) as usize
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    /// The bytes on disk: lanes in order, little endian.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.blocks.iter().flatten().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// Reads what [`Filter::encode`] wrote; `None` if the length is not a whole number of blocks.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let chunks = bytes.chunks_exact(BLOCK);
        if !chunks.remainder().is_empty() {
            return None;
        }
        let block = |chunk: &[u8]| {
            let mut block = [0; LANES];
            for (lane, bytes) in block.iter_mut().zip(chunk.as_chunks::<4>().0) {
                *lane = u32::from_le_bytes(*bytes);
            }
            block
        };
        Some(Self { blocks: chunks.map(block).collect() })
    }
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
    fn every_key_passes_and_few_others() {
        let hashes: Vec<u64> = (0..10_000u32).map(|i| key_hash(&i.to_be_bytes())).collect();
        let filter = Filter::build(&hashes);
        assert!(hashes.iter().all(|&h| filter.may_contain(h)));
        let passed = (10_000..110_000u32).filter(|i| filter.may_contain(key_hash(&i.to_be_bytes()))).count();
        assert!(passed < 2_000, "{passed} of 100000 absent keys passed");
        assert_eq!(Filter::decode(&filter.encode()), Some(filter));
    }

    #[test]
    fn an_empty_filter_passes_nothing() {
        assert!(!Filter::build(&[]).may_contain(7));
        assert_eq!(Filter::decode(&[0; 33]), None);
    }
}
