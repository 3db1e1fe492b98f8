//! A frame: the envelope of blocks, filter pages and the index.
//!
//! ```text
//! offset size
//!      0    1  kind: 1 block, 2 index, 3 page of the keys' filter, 4 page of the rows' filter
//!      1    1  codec: 0 none, 1 zstd, 2 LZ4 (a block of it, without a frame of its own)
//!      2    2  zero
//!      4    4  stored length: bytes that follow the header
//!      8    4  raw length: bytes once decompressed
//!     12    4  count: rows, blocks or keys
//!     16    8  checksum: xxh3-64 of the stored bytes, seeded with the xxh3-64 of
//!              (file identity, offset in the file, bytes 0..16 of this header)
//! ```

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Read;
use std::ops::Deref;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::scan::Scan;
use super::{Malformed, checksum_is, to_u32};
use crate::sabotage::{Check, checked};
use crate::spine::context::Buffer;
use crate::{Error, Result};

/// Bytes of a frame's header.
pub const HEADER: usize = 24;
/// Fewer raw bytes are not worth the trouble of packing.
const SMALLEST_PACKED: usize = 64;
/// Raw bytes up to which the decompressor trusts the length enough to allocate it at once.
const TRUSTED_RAW: usize = 1 << 20;
/// A byte of LZ4 stands for at most this many: more is not allocated on a frame's word.
const LZ4_RATIO: usize = 255;
/// Level 3 takes a quarter more time and saves a few percent; merging is bound by this time.
const ZSTD_LEVEL: i32 = 1;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Rows.
    Block = 1,
    /// Where blocks and filter pages are, and which keys they span.
    Index = 2,
    /// A Bloom filter of keys.
    Keys = 3,
    /// A Bloom filter of whole rows.
    Rows = 4,
}

/// How the stored bytes become the raw ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// They are the raw ones.
    None = 0,
    /// Zstandard: small.
    Zstd = 1,
    /// LZ4: fast.
    Lz4 = 2,
}

/// A frame that was read and found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<T> {
    /// The decompressed bytes.
    pub raw: T,
    /// Rows, blocks or keys, by the kind.
    pub count: u32,
    /// The frame's checksum, which enters the footer's.
    pub checksum: u64,
}

/// Makes frames, and keeps what compressing them needs from one to the next.
pub(crate) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    lz4: lz4_flex::block::CompressTable,
    packed: Vec<u8>,
}

impl Packer {
    pub(crate) fn new() -> Result<Self> {
        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)
            .map_err(|e| Error::Invalid(format!("zstd cannot be set up at level {ZSTD_LEVEL}: {e}")))?;
        Ok(Self { zstd, lz4: lz4_flex::block::CompressTable::default(), packed: Vec::new() })
    }

    /// Appends a frame that will stand at `offset` of the file with identity `ident`; returns its checksum.
    /// The payload is compressed if it has 64 bytes and that saves an eighth.
    #[expect(clippy::too_many_arguments, reason = "a frame has as many parts, all of them numbers of one use")]
    pub(crate) fn frame(
        &mut self,
        out: &mut Vec<u8>,
        kind: Kind,
        codec: Codec,
        ident: u64,
        offset: u64,
        count: usize,
        payload: &[u8],
    ) -> Result<u64> {
        let codec = if payload.len() < SMALLEST_PACKED { Codec::None } else { codec };
        let packed = match codec {
            Codec::None => payload.len(),
            Codec::Zstd => {
                self.packed.resize(zstd::zstd_safe::compress_bound(payload.len()), 0);
                self.zstd.compress_to_buffer(payload, &mut self.packed).map_err(|e| cannot("zstd", payload, &e))?
            }
            Codec::Lz4 => {
                self.packed.resize(lz4_flex::block::get_maximum_output_size(payload.len()), 0);
                let packed = lz4_flex::block::compress_into_with_table(payload, &mut self.packed, &mut self.lz4);
                packed.map_err(|e| cannot("LZ4", payload, &e))?
            }
        };
        let (codec, stored) = match self.packed.get(..packed) {
            Some(bytes) if codec != Codec::None && packed <= payload.len() - payload.len() / 8 => (codec, bytes),
            _ => (Codec::None, payload),
        };
        let mut header = [0; HEADER - 8];
        let fields = [to_u32(stored.len(), "a frame")?, to_u32(payload.len(), "a frame")?, to_u32(count, "a count")?];
        let bytes = [kind as u8, codec as u8, 0, 0].into_iter().chain(fields.iter().flat_map(|n| n.to_le_bytes()));
        for (to, from) in header.iter_mut().zip(bytes) {
            *to = from;
        }
        let checksum = checksum(ident, offset, &header, stored);
        out.extend_from_slice(&header);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(stored);
        Ok(checksum)
    }
}

fn cannot(codec: &str, payload: &[u8], why: &dyn std::fmt::Display) -> Error {
    Error::Invalid(format!("{codec} cannot compress {} bytes: {why}", payload.len()))
}

/// Reads the frame that is exactly `bytes`, from `offset` of the file with identity `ident`.
///
/// ```
/// use backstay_storage::spine::format::frame::{Kind, decode};
/// let wrong = decode(&[1; 30], Kind::Block, 7, 4096).unwrap_err();
/// assert_eq!(wrong.got, "16843009"); // the stored length
/// ```
pub fn decode(bytes: &[u8], kind: Kind, ident: u64, offset: u64) -> Result<Frame<Cow<'_, [u8]>>, Malformed> {
    let packed = open(bytes, kind, ident, offset)?;
    let raw = match packed.codec {
        0 => Cow::Borrowed(packed.stored),
        _ => {
            let mut raw = Vec::with_capacity(packed.trusted());
            packed.unpack(&mut raw)?;
            Cow::Owned(raw)
        }
    };
    packed.frame(raw)
}

/// The same, into a buffer that `make` makes with room for so many bytes.
pub(crate) fn decode_into(
    bytes: &[u8],
    kind: Kind,
    ident: u64,
    offset: u64,
    make: impl FnOnce(usize) -> Buffer,
) -> Result<Frame<Buffer>, Malformed> {
    let packed = open(bytes, kind, ident, offset)?;
    let mut raw = make(packed.trusted());
    packed.unpack(&mut raw.bytes)?;
    packed.frame(raw)
}

/// A frame whose checksum is right.
struct Packed<'a> {
    stored: &'a [u8],
    codec: u8,
    raw_len: usize,
    count: u32,
    checksum: u64,
}

impl Packed<'_> {
    /// Bytes to be allocated before any is unpacked.
    fn trusted(&self) -> usize {
        if self.raw_len <= TRUSTED_RAW { self.raw_len } else { 0 }
    }

    fn unpack(&self, raw: &mut Vec<u8>) -> Result<(), Malformed> {
        match self.codec {
            0 => raw.extend_from_slice(self.stored),
            1 => unzstd(self.stored, self.raw_len, raw)?,
            2 => unlz4(self.stored, self.raw_len, raw)?,
            other => return Err(Malformed::new("codec 0, 1 or 2", other.to_string())),
        }
        Ok(())
    }

    fn frame<T: Deref<Target = [u8]>>(&self, raw: T) -> Result<Frame<T>, Malformed> {
        if raw.len() != self.raw_len {
            return Err(Malformed::new(format!("{} raw bytes", self.raw_len), raw.len().to_string()));
        }
        Ok(Frame { raw, count: self.count, checksum: self.checksum })
    }
}

fn open(bytes: &[u8], kind: Kind, ident: u64, offset: u64) -> Result<Packed<'_>, Malformed> {
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
    if checked(Check::RunFrameChecksum) {
        checksum_is(want, checksum(ident, offset, &header, stored))?;
    }
    // From here on only a file made on purpose, or by a faulty writer, goes wrong.
    if (found_kind, zero_a, zero_b) != (kind as u8, 0, 0) {
        return Err(Malformed::new(format!("frame kind {}", kind as u8), format!("{found_kind}, {zero_a}, {zero_b}")));
    }
    Ok(Packed { stored, codec, raw_len, count, checksum: want })
}

thread_local! {
    /// A decompressor's tables are larger than most blocks.
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses at most `raw_len + 1` bytes, or as many as there is room for, into an empty vector.
fn unzstd(stored: &[u8], raw_len: usize, raw: &mut Vec<u8>) -> Result<(), Malformed> {
    let failed = |e: std::io::Error| Malformed::new("zstd data", e.to_string());
    if raw_len <= TRUSTED_RAW {
        return ZSTD.with_borrow_mut(|kept| {
            let zstd = match kept {
                Some(zstd) => zstd,
                none => none.insert(zstd::bulk::Decompressor::new().map_err(failed)?),
            };
            zstd.decompress_to_buffer(stored, raw).map_err(failed).map(drop)
        });
    }
    let limit = (raw_len as u64).saturating_add(1);
    zstd::stream::read::Decoder::with_buffer(stored)
        .and_then(|decoder| decoder.take(limit).read_to_end(raw))
        .map_err(failed)
        .map(drop)
}

fn unlz4(stored: &[u8], raw_len: usize, raw: &mut Vec<u8>) -> Result<(), Malformed> {
    if raw_len / LZ4_RATIO > stored.len() {
        return Err(Malformed::new(format!("{raw_len} raw bytes"), format!("{} bytes of LZ4", stored.len())));
    }
    raw.resize(raw_len, 0);
    let len = lz4_flex::block::decompress_into(stored, raw).map_err(|e| Malformed::new("LZ4 data", e.to_string()))?;
    raw.truncate(len);
    Ok(())
}

fn checksum(ident: u64, offset: u64, header: &[u8; HEADER - 8], stored: &[u8]) -> u64 {
    let (ident, offset) = if checked(Check::RunFramePlace) { (ident, offset) } else { (0, 0) };
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

    const CODECS: [Codec; 3] = [Codec::None, Codec::Zstd, Codec::Lz4];

    fn packed(codec: Codec, payload: &[u8]) -> (Vec<u8>, u64) {
        let mut out = Vec::new();
        let sum = Packer::new().unwrap().frame(&mut out, Kind::Block, codec, 1, 4096, 3, payload).unwrap();
        (out, sum)
    }

    #[test]
    fn a_frame_is_sound_only_in_its_place() {
        for codec in CODECS {
            for payload in [vec![7; 5000], (0..=255).collect::<Vec<u8>>(), vec![], vec![9; TRUSTED_RAW * 2]] {
                let (out, sum) = packed(codec, &payload);
                let frame = decode(&out, Kind::Block, 1, 4096).unwrap();
                assert_eq!((frame.raw.as_ref(), frame.count, frame.checksum), (payload.as_slice(), 3, sum));
                assert!(decode(&out, Kind::Block, 2, 4096).is_err());
                assert!(decode(&out, Kind::Block, 1, 8192).is_err());
                assert!(decode(&out, Kind::Index, 1, 4096).is_err());
            }
        }
    }

    #[test]
    fn repetitive_bytes_are_compressed_and_others_left() {
        for codec in CODECS {
            let (out, _) = packed(codec, &[7; 5000]);
            assert_eq!((out.len() < 200, out[1]), (codec != Codec::None, codec as u8));
            let (out, _) = packed(codec, &(0..=255).collect::<Vec<u8>>());
            assert_eq!((out.len(), out[1]), (HEADER + 256, 0));
        }
    }

    #[test]
    fn a_length_that_lz4_cannot_reach_allocates_nothing() {
        let mut raw = Vec::new();
        let wrong = unlz4(&[0; 100], u32::MAX as usize, &mut raw).unwrap_err();
        assert_eq!(raw.capacity(), 0);
        assert_eq!(wrong.got, "100 bytes of LZ4");
    }
}
