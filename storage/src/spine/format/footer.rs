//! The last 120 bytes of an extent.
//!
//! ```text
//! offset size
//!      0    8  magic "BSTYFOOT"
//!      8    4  version of the format
//!     12    1  discipline: 1 weighted, 2 latest
//!     13    3  zero
//!     16    4  the embedder's row format number
//!     20    4  number of blocks
//!     24    8  number of rows
//!     32    8  raw bytes: keys + values + 8 a row, what the merge policy weighs
//!     40    8  offset of the extent in the file
//!     48    8  bytes of all block and filter frames; the index frame follows
//!     56    8  bytes of the index frame; the footer follows
//!     64    8  bytes of the filter frames
//!     72    8  xxh3-64 of the checksums of all frames, in their order
//!     80    8  number of distinct keys
//!     88    8  rows of negative weight: in a latest run the tombstones
//!     96    8  sum of the weights, wrapping
//!    104    4  number of filter pages
//!    108    4  zero
//!    112    8  checksum: xxh3-64 of bytes 0..112, seeded with the file's identity xor the footer's offset in the file
//! ```

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::scan::Scan;
use super::{Malformed, VERSION, checksum_is};
use crate::sabotage::{Check, checked};
use crate::spine::Discipline;

/// Bytes of the footer.
pub const LEN: usize = 120;
const MAGIC: &[u8; 8] = b"BSTYFOOT";

/// What a footer says of its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The version of the format.
    pub version: u32,
    /// Which rows the run holds.
    pub discipline: Discipline,
    /// The embedder's row format number.
    pub format: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// Number of rows.
    pub rows: u64,
    /// Bytes of keys and values, and 8 a row.
    pub raw_bytes: u64,
    /// Where the extent starts in the file.
    pub extent: u64,
    /// Bytes of all block and filter frames.
    pub data_len: u64,
    /// Bytes of the index frame.
    pub index_len: u64,
    /// Bytes of the filter frames.
    pub filter_len: u64,
    /// The xxh3-64 of the checksums of all frames.
    pub content: u64,
    /// Number of distinct keys.
    pub keys: u64,
    /// Rows of negative weight: in a latest run the tombstones.
    pub negative: u64,
    /// The sum of the weights, wrapping.
    pub weight: i64,
    /// Number of filter pages.
    pub pages: u32,
}

impl Footer {
    /// The bytes, and their checksum; `offset` is the footer's own in the file.
    pub(crate) fn encode(&self, ident: u64, offset: u64) -> (Vec<u8>, u64) {
        let mut out = Vec::with_capacity(LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[self.discipline.as_u8(), 0, 0, 0]);
        out.extend_from_slice(&self.format.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        let longs = [
            self.rows,
            self.raw_bytes,
            self.extent,
            self.data_len,
            self.index_len,
            self.filter_len,
            self.content,
            self.keys,
            self.negative,
            self.weight.cast_unsigned(),
            u64::from(self.pages),
        ];
        out.extend(longs.iter().flat_map(|n| n.to_le_bytes()));
        let checksum = xxh3_64_with_seed(&out, ident ^ offset);
        out.extend_from_slice(&checksum.to_le_bytes());
        (out, checksum)
    }
}

/// Reads the footer that stands at `offset` of the file with identity `ident`; returns it with its checksum.
///
/// ```
/// use backstay_storage::spine::format::footer::decode_footer;
/// assert!(decode_footer(&[0; 120], 7, 4096).is_err());
/// ```
pub fn decode_footer(bytes: &[u8], ident: u64, offset: u64) -> Result<(Footer, u64), Malformed> {
    let cut = || Malformed::cut("a footer of 120 bytes");
    if bytes.len() != LEN {
        return Err(cut());
    }
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(cut)?;
    let sum = u64::from_le_bytes(*sum);
    let mut scan = Scan(body);
    let magic: [u8; 8] = scan.array().ok_or_else(cut)?;
    if magic != *MAGIC {
        return Err(Malformed::new(MAGIC.escape_ascii().to_string(), magic.escape_ascii().to_string()));
    }
    if checked(Check::RunFooterChecksum) {
        checksum_is(sum, xxh3_64_with_seed(body, ident ^ offset))?;
    }
    let version = scan.u32().ok_or_else(cut)?;
    if version != VERSION {
        return Err(Malformed::new(format!("version {VERSION}"), version.to_string()));
    }
    let [discipline, ..]: [u8; 4] = scan.array().ok_or_else(cut)?;
    let discipline =
        Discipline::from_u8(discipline).ok_or_else(|| Malformed::new("discipline 1 or 2", discipline.to_string()))?;
    let footer = Footer {
        version,
        discipline,
        format: scan.u32().ok_or_else(cut)?,
        blocks: scan.u32().ok_or_else(cut)?,
        rows: scan.u64().ok_or_else(cut)?,
        raw_bytes: scan.u64().ok_or_else(cut)?,
        extent: scan.u64().ok_or_else(cut)?,
        data_len: scan.u64().ok_or_else(cut)?,
        index_len: scan.u64().ok_or_else(cut)?,
        filter_len: scan.u64().ok_or_else(cut)?,
        content: scan.u64().ok_or_else(cut)?,
        keys: scan.u64().ok_or_else(cut)?,
        negative: scan.u64().ok_or_else(cut)?,
        weight: scan.u64().ok_or_else(cut)?.cast_signed(),
        pages: scan.u32().ok_or_else(cut)?,
    };
    Ok((footer, sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_is_sound_only_in_its_place() {
        let footer = Footer {
            version: VERSION,
            discipline: Discipline::Latest,
            format: 1,
            blocks: 1,
            rows: 2,
            raw_bytes: 30,
            extent: 4096,
            data_len: 100,
            index_len: 40,
            filter_len: 56,
            content: 9,
            keys: 2,
            negative: 1,
            weight: -3,
            pages: 1,
        };
        let (bytes, checksum) = footer.encode(7, 4292);
        assert_eq!(bytes.len(), LEN);
        assert_eq!(decode_footer(&bytes, 7, 4292), Ok((footer, checksum)));
        for (ident, offset) in [(8, 4292), (7, 8388)] {
            let wrong = decode_footer(&bytes, ident, offset).unwrap_err();
            assert!(wrong.expected.starts_with("checksum"), "{wrong:?}");
        }
    }
}
