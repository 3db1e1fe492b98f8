//! Segment files without their padding and checksums: 64 bytes of header, 32 of link, then for each block 32 bytes of head and its payload
//! with a 16-bit length before it. Expanding puts the checksums in, by code of its own, so that a mutation reaches what lies behind them.
//! A link whose first record is 0, which no sound one has, is left away: the segment has not begun.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::input::Input;

const BLOCK: usize = 4096;
const HEADER: usize = 64;
const LINK: usize = 32;
const HEAD: usize = 40;
/// Offset of a block's payload length.
const USED: usize = 36;
/// A segment is filled up with zeros to what its header says, up to here.
const MOST: usize = 1 << 17;

/// The segment file of a compact one.
pub fn expand(compact: &[u8]) -> Vec<u8> {
    let mut input = Input(compact);
    let mut file = input.take(HEADER).to_vec();
    file.resize(BLOCK - 8, 0);
    let sum = xxh3_64(&file);
    file.extend(sum.to_le_bytes());
    // Store, segment and epoch.
    let seed = xxh3_64(&file[16..48]);
    let link = input.take(LINK);
    if link.iter().take(8).any(|b| *b != 0) {
        let mut body = link.to_vec();
        body.resize(BLOCK - 8, 0);
        put(&mut file, seed, &body);
    } else {
        file.resize(2 * BLOCK, 0);
    }
    while !input.is_empty() {
        let payload_len = usize::from(input.u16()).min(BLOCK - HEAD);
        let mut body = input.take(HEAD - 8).to_vec();
        body.resize(HEAD - 8, 0);
        body.extend(input.take(payload_len));
        body.resize(BLOCK - 8, 0);
        put(&mut file, seed, &body);
    }
    let stated = u64::from_le_bytes(file[48..56].try_into().expect("8 bytes"));
    let full = usize::try_from(stated).unwrap_or(MOST).min(MOST);
    file.resize(full.max(file.len()), 0);
    file
}

/// Puts the block of this body behind those that are there.
fn put(file: &mut Vec<u8>, seed: u64, body: &[u8]) {
    let place = ((file.len() / BLOCK) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    file.extend(xxh3_64_with_seed(body, seed.wrapping_add(place)).to_le_bytes());
    file.extend(body);
}

/// The compact form of a segment file, without what follows its last block that is not of zeros.
pub fn shrink(file: &[u8]) -> Vec<u8> {
    let (front, blocks) = file.split_at(2 * BLOCK);
    let mut compact = [&front[..HEADER], &front[BLOCK + 8..BLOCK + 8 + LINK]].concat();
    let used = blocks.chunks(BLOCK).rposition(|b| b.iter().any(|b| *b != 0)).map_or(0, |last| last + 1);
    for block in blocks.chunks(BLOCK).take(used) {
        let payload = usize::from(u16::from_le_bytes([block[USED], block[USED + 1]])).min(BLOCK - HEAD);
        compact.extend((payload as u16).to_le_bytes());
        compact.extend(&block[8..HEAD + payload]);
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_segment_comes_back() {
        for (path, file) in crate::seeds::log_files() {
            let expanded = expand(&shrink(file));
            // Opening gives back what lies behind the end of a segment.
            let (same, rest) = expanded.split_at(file.len().min(expanded.len()));
            assert_eq!(same, &file[..same.len()], "{path:?}");
            assert!(rest.iter().all(|b| *b == 0), "{path:?}");
        }
    }
}
