//! Reading gzip from a [`Blob`].
//!
//! Limit: a compressed file can only be read from its start. To go on at an offset, everything before it is decompressed and thrown away
//! (about 300 MB/s a core): once per file at a restart, and once per range at a replay.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::content::Blob;

/// Compressed bytes are read in pieces of this size.
const PIECE: usize = 256 << 10;

/// The decompressed content of a file, all its members.
pub(crate) struct Gzip {
    decoder: MultiGzDecoder<BlobReader>,
}

impl Gzip {
    pub(crate) fn new(blob: Arc<dyn Blob>) -> Self {
        Self { decoder: MultiGzDecoder::new(BlobReader { blob, at: 0, piece: Vec::new(), used: 0 }) }
    }

    /// Reads up to `buf.len()` bytes, fewer only at the end.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..)
            && !rest.is_empty()
        {
            match self.decoder.read(rest)? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    /// Where in the compressed file it stands, about.
    pub(crate) fn compressed_offset(&self) -> u64 {
        self.decoder.get_ref().at
    }
}

/// A blob as a [`BufRead`].
struct BlobReader {
    blob: Arc<dyn Blob>,
    at: u64,
    piece: Vec<u8>,
    used: usize,
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used >= self.piece.len() {
            self.piece.resize(PIECE, 0);
            let n = self.blob.read_at(&mut self.piece, self.at).map_err(io::Error::other)?;
            self.piece.truncate(n);
            self.at += n as u64;
            self.used = 0;
        }
        Ok(self.piece.get(self.used..).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.used += n;
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}
