//! Little-endian writing, and reading that cannot run over the end.

use std::path::Path;

use crate::{Error, Result};

/// Appends little-endian values.
#[derive(Default)]
pub(super) struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    pub fn u8(&mut self, v: u8) {
        self.bytes.push(v);
    }
    pub fn u32(&mut self, v: u32) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    pub fn u64(&mut self, v: u64) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    pub fn u128(&mut self, v: u128) {
        self.bytes.extend_from_slice(&v.to_le_bytes());
    }
    /// A `u64` length, then the bytes.
    pub fn counted(&mut self, v: &[u8]) {
        self.u64(v.len() as u64);
        self.bytes.extend_from_slice(v);
    }
}

/// Reads little-endian values; an error names the file and the offset where the value should have stood.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    offset: u64,
    file: &'a Path,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which start at `offset` of `file`.
    pub fn new(bytes: &'a [u8], offset: u64, file: &'a Path, what: &'static str) -> Self {
        Self { rest: bytes, offset, file, what }
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Damage at `offset` of this file.
    pub fn damaged(&self, offset: u64, expected: impl Into<String>, got: impl Into<String>) -> Error {
        Error::damaged(self.file, offset, self.what, expected, got)
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let Some((head, rest)) = self.rest.split_at_checked(n) else {
            return Err(self.damaged(self.offset, format!("{n} bytes"), format!("{} to the end", self.rest.len())));
        };
        self.rest = rest;
        self.offset += n as u64;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (offset, taken) = (self.offset, self.take(N)?);
        <[u8; N]>::try_from(taken).map_err(|_| self.damaged(offset, format!("{N} bytes"), format!("{}", taken.len())))
    }

    pub fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_le_bytes)
    }
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
    pub fn u128(&mut self) -> Result<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// A `u64` length, then the bytes.
    pub fn counted(&mut self) -> Result<&'a [u8]> {
        let offset = self.offset;
        let len = self.u64()?;
        match usize::try_from(len) {
            Ok(n) if n <= self.rest.len() => self.take(n),
            _ => Err(self.damaged(offset, format!("a length of at most {}", self.rest.len()), len.to_string())),
        }
    }

    /// [`Reader::counted`] as text.
    pub fn text(&mut self) -> Result<String> {
        let offset = self.offset;
        let bytes = self.counted()?;
        match str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(e) => Err(self.damaged(offset + 8, "UTF-8 text", e.to_string())),
        }
    }

    /// A `u32` count of items that take at least `least` bytes each, so that a wild count allocates nothing.
    pub fn count(&mut self, least: usize) -> Result<usize> {
        let offset = self.offset;
        let count = self.u32()?;
        let most = self.rest.len() / least.max(1);
        match usize::try_from(count) {
            Ok(n) if n <= most => Ok(n),
            _ => Err(self.damaged(offset, format!("a count of at most {most}"), count.to_string())),
        }
    }
}
