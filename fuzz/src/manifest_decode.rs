//! A manifest's bytes: even first byte = as they are, odd = with both checksums and the body's length made right.
//!
//! What decodes encodes to the same bytes.

use std::path::Path;

use backstay_storage::checkpoint::Manifest;
use xxhash_rust::xxh3::xxh3_64;

const HEADER: usize = 56;

pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if mode % 2 == 1 {
        seal(&mut bytes);
    }
    if let Ok(manifest) = Manifest::decode(&bytes, Path::new("x.manifest")) {
        assert_eq!(manifest.encode(), bytes, "a manifest has two encodings");
    }
}

/// Makes length and checksums right, if it is long enough to have them.
fn seal(bytes: &mut [u8]) {
    let Some(body) = bytes.len().checked_sub(HEADER + 16) else { return };
    bytes[48..56].copy_from_slice(&(body as u64).to_le_bytes());
    let header = xxh3_64(&bytes[..HEADER]);
    bytes[HEADER..HEADER + 8].copy_from_slice(&header.to_le_bytes());
    let end = bytes.len() - 8;
    let whole = xxh3_64(&bytes[..end]);
    bytes[end..].copy_from_slice(&whole.to_le_bytes());
}
