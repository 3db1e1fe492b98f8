//! An extra file's bytes: even first byte = as they are, odd = with length and both checksums made right.

use std::path::Path;

use backstay_storage::checkpoint::decode_extra;
use xxhash_rust::xxh3::xxh3_64;

const COVERED: usize = 64;
const HEADER: usize = COVERED + 8;

pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if mode % 2 == 1 && bytes.len() >= HEADER {
        let payload = &bytes[HEADER..];
        let (len, sum) = (payload.len() as u64, xxh3_64(payload));
        bytes[48..56].copy_from_slice(&len.to_le_bytes());
        bytes[56..64].copy_from_slice(&sum.to_le_bytes());
        let header = xxh3_64(&bytes[..COVERED]);
        bytes[COVERED..HEADER].copy_from_slice(&header.to_le_bytes());
    }
    if let Ok(payload) = decode_extra(&bytes, Path::new("x.pending")) {
        assert_eq!(payload[..], bytes[HEADER..]);
    }
}
