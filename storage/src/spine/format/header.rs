//! The first 4096 bytes of a run file.
//!
//! ```text
//! offset size
//!      0    8  magic "BSTYRUN1"
//!      8    4  version of the format
//!     12    4  zero
//!     16   16  id of the store
//!     32    8  epoch that wrote the file
//!     40    8  number of the file in that epoch
//!     48 4040  zero
//!   4088    8  xxh3-64 of bytes 0..4088
//! ```
//! The xxh3-64 of bytes 16..48 is the file's identity, which seeds every other checksum in it.

use xxhash_rust::xxh3::xxh3_64;

use super::scan::Scan;
use super::{Malformed, VERSION, checksum_is};
use crate::sabotage::{Check, checked};

/// Bytes of the header.
pub const LEN: usize = 4096;
const MAGIC: &[u8; 8] = b"BSTYRUN1";

/// Which file a run file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// The version of the format; only [`VERSION`] is read.
    pub version: u32,
    /// The store that it belongs to.
    pub store_id: u128,
    /// The epoch that wrote it.
    pub epoch: u64,
    /// Its number in the epoch.
    pub number: u64,
}

impl FileHeader {
    /// The file's identity.
    pub(crate) fn ident(&self) -> u64 {
        let mut bytes = [0; 32];
        self.put_identity(&mut bytes);
        xxh3_64(&bytes)
    }

    fn put_identity(&self, to: &mut [u8]) {
        let store = self.store_id.to_le_bytes().into_iter();
        for (to, from) in to.iter_mut().zip(store.chain(self.epoch.to_le_bytes()).chain(self.number.to_le_bytes())) {
            *to = from;
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let mut identity = [0; 32];
        self.put_identity(&mut identity);
        out.extend_from_slice(&identity);
        out.resize(LEN - 8, 0);
        out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
        out
    }
}

/// Reads a file's header. The version is given back unread: the caller refuses what it cannot read.
///
/// ```
/// use backstay_storage::spine::format::header::decode_header;
/// assert_eq!(decode_header(b"short").unwrap_err().got, "the end of its bytes");
/// ```
pub fn decode_header(bytes: &[u8]) -> Result<FileHeader, Malformed> {
    let cut = || Malformed::cut("a header of 4096 bytes");
    let bytes = bytes.get(..LEN).ok_or_else(cut)?;
    let mut scan = Scan(bytes);
    let magic: [u8; 8] = scan.array().ok_or_else(cut)?;
    if magic != *MAGIC {
        return Err(Malformed::new(MAGIC.escape_ascii().to_string(), magic.escape_ascii().to_string()));
    }
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(cut)?;
    if checked(Check::RunHeaderChecksum) {
        checksum_is(u64::from_le_bytes(*sum), xxh3_64(body))?;
    }
    let version = scan.u32().ok_or_else(cut)?;
    let _zero = scan.u32().ok_or_else(cut)?;
    let store_id = scan.array().map(u128::from_le_bytes).ok_or_else(cut)?;
    let epoch = scan.u64().ok_or_else(cut)?;
    let number = scan.u64().ok_or_else(cut)?;
    Ok(FileHeader { version, store_id, epoch, number })
}

impl FileHeader {
    /// The header of a new file.
    pub(crate) fn new(store_id: u128, epoch: u64, number: u64) -> Self {
        Self { version: VERSION, store_id, epoch, number }
    }
}
