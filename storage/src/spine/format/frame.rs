//! A frame: the envelope of blocks, indexes and filters.
//!
//! ```text
//! offset size
//!      0    1  kind: 1 block, 2 index, 3 filter
//!      1    1  codec: 0 none, 1 zstd
//!      2    2  zero
//!      4    4  stored length: bytes that follow the header
//!      8    4  raw length: bytes once decompressed
//!     12    4  count: rows, blocks or keys
//!     16    8  checksum: xxh3-64 of the stored bytes, seeded with the xxh3-64 of
//!              (file identity, offset in the file, bytes 0..16 of this header)
//! ```

use std::borrow::Cow;
use std::io::Read;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::scan::Scan;
use super::{Malformed, checksum_is, to_u32};
use crate::{Error, Result};

/// Bytes of a frame's header.
pub const HEADER: usize = 24;
/// Raw bytes up to which the decompressor trusts the length enough to allocate it at once.
const TRUSTED_RAW: usize = 1 << 20;
const ZSTD_LEVEL: i32 = 1;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Rows.
    Block = 1,
    /// Where the blocks are and which keys they span.
    Index = 2,
    /// The Bloom filter.
    Filter = 3,
}

/// A frame that was read and found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The decompressed bytes.
    pub raw: Cow<'a, [u8]>,
    /// Rows, blocks or keys, by the kind.
    pub count: u32,
    /// The frame's checksum, which enters the footer's.
    pub checksum: u64,
}

/// Appends a frame that will stand at `offset` of the file with identity `ident`; returns its checksum.
/// The payload is compressed if `compress` and that saves an eighth.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    kind: Kind,
    ident: u64,
    offset: u64,
    count: usize,
    payload: &[u8],
    compress: bool,
) -> Result<u64> {
    let packed = match compress {
        true => zstd::bulk::compress(payload, ZSTD_LEVEL)
            .map_err(|e| Error::Invalid(format!("zstd cannot compress {} bytes: {e}", payload.len())))?,
        false => Vec::new(),
    };
    let use_packed = compress && packed.len() <= payload.len() - payload.len() / 8;
    let stored = if use_packed { packed.as_slice() } else { payload };
    let mut header = [0; HEADER - 8];
    let fields = [to_u32(stored.len(), "a frame")?, to_u32(payload.len(), "a frame")?, to_u32(count, "a count")?];
    let bytes = [kind as u8, u8::from(use_packed), 0, 0].into_iter().chain(fields.iter().flat_map(|n| n.to_le_bytes()));
    for (to, from) in header.iter_mut().zip(bytes) {
        *to = from;
    }
    let checksum = checksum(ident, offset, &header, stored);
    out.extend_from_slice(&header);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(stored);
    Ok(checksum)
}

/// Reads the frame that is exactly `bytes`, from `offset` of the file with identity `ident`.
///
/// ```
/// use backstay_storage::spine::format::frame::{Kind, decode};
/// let wrong = decode(&[1; 30], Kind::Block, 7, 4096).unwrap_err();
/// assert_eq!(wrong.got, "16843009"); // the stored length
/// ```
pub fn decode(bytes: &[u8], kind: Kind, ident: u64, offset: u64) -> Result<Frame<'_>, Malformed> {
    let mut scan = Scan(bytes);
    let header: [u8; HEADER - 8] = scan.array().ok_or_else(|| Malformed::cut("a frame header"))?;
    let want = scan.u64().ok_or_else(|| Malformed::cut("a frame checksum"))?;
    let stored = scan.0;
    let mut fields = Scan(&header);
    let cut = || Malformed::cut("a frame header");
    let [found_kind, codec, zero_a, zero_b]: [u8; 4] = fields.array().ok_or_else(cut)?;
    let len = fields.u32().ok_or_else(cut)?;
    let raw_len = fields.u32().ok_or_else(cut)? as usize;
    let count = fields.u32().ok_or_else(cut)?;
    if len as usize != stored.len() {
        return Err(Malformed::new(format!("a stored length of {}", stored.len()), len.to_string()));
    }
    checksum_is(want, checksum(ident, offset, &header, stored))?;
    // From here on only a file made on purpose, or by a faulty writer, goes wrong.
    if (found_kind, zero_a, zero_b) != (kind as u8, 0, 0) {
        return Err(Malformed::new(format!("frame kind {}", kind as u8), format!("{found_kind}, {zero_a}, {zero_b}")));
    }
    let raw = match codec {
        0 => Cow::Borrowed(stored),
        1 => Cow::Owned(decompress(stored, raw_len)?),
        other => return Err(Malformed::new("codec 0 or 1", other.to_string())),
    };
    if raw.len() != raw_len {
        return Err(Malformed::new(format!("{raw_len} raw bytes"), raw.len().to_string()));
    }
    Ok(Frame { raw, count, checksum: want })
}

/// Decompresses at most `raw_len + 1` bytes.
fn decompress(stored: &[u8], raw_len: usize) -> Result<Vec<u8>, Malformed> {
    let failed = |e: std::io::Error| Malformed::new("zstd data", e.to_string());
    if raw_len <= TRUSTED_RAW {
        return zstd::bulk::decompress(stored, raw_len).map_err(failed);
    }
    let mut raw = Vec::new();
    let limit = (raw_len as u64).saturating_add(1);
    zstd::stream::read::Decoder::with_buffer(stored)
        .and_then(|decoder| decoder.take(limit).read_to_end(&mut raw))
        .map_err(failed)?;
    Ok(raw)
}

fn checksum(ident: u64, offset: u64, header: &[u8; HEADER - 8], stored: &[u8]) -> u64 {
    let mut place = [0; 32];
    let bytes = ident.to_le_bytes().into_iter().chain(offset.to_le_bytes()).chain(*header);
    for (to, from) in place.iter_mut().zip(bytes) {
        *to = from;
    }
    xxh3_64_with_seed(stored, xxh3_64(&place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_sound_only_in_its_place() {
        for payload in [vec![7; 5000], (0..=255).collect::<Vec<u8>>(), vec![], vec![9; TRUSTED_RAW * 2]] {
            let mut out = Vec::new();
            let sum = encode(&mut out, Kind::Block, 1, 4096, 3, &payload, true).unwrap();
            let frame = decode(&out, Kind::Block, 1, 4096).unwrap();
            assert_eq!((frame.raw.as_ref(), frame.count, frame.checksum), (payload.as_slice(), 3, sum));
            assert!(decode(&out, Kind::Block, 2, 4096).is_err());
            assert!(decode(&out, Kind::Block, 1, 8192).is_err());
            assert!(decode(&out, Kind::Index, 1, 4096).is_err());
        }
    }

    #[test]
    fn repetitive_bytes_are_compressed_and_others_left() {
        let mut out = Vec::new();
        encode(&mut out, Kind::Block, 1, 0, 1, &[7; 5000], true).unwrap();
        assert!(out.len() < 200);
        out.clear();
        encode(&mut out, Kind::Block, 1, 0, 1, &(0..=255).collect::<Vec<u8>>(), true).unwrap();
        assert_eq!(out.len(), HEADER + 256);
    }
}
