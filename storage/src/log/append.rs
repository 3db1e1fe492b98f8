//! Appending: a record is framed, and copied once, from the caller's memory to where the device will read it.
//!
//! Invariant: records of one call get consecutive numbers and lie in one commit.

use std::borrow::Cow;
use std::ops::Range;

use zstd::bulk::Compressor;

use super::core::Core;
use super::format::{RECORD_HEAD, RecordHead, STRIPES, encode_record_head};
use super::writer::Ready;
use super::{MOST_RECORD, Seq, lock};
use crate::disk::AlignedBuf;
use crate::queue::gather::Full;
use crate::queue::striped::Striped;
use crate::{Error, Result};

/// zstd's fastest standard level: the log is written at the speed of the input.
const ZSTD_LEVEL: i32 = 1;

/// A payload as it will be stored.
struct Stored<'a> {
    bytes: Cow<'a, [u8]>,
    raw: u32,
    zstd: bool,
}

impl Stored<'_> {
    /// Its bytes in a commit.
    fn framed(&self) -> usize {
        RECORD_HEAD + self.bytes.len()
    }

    fn head(&self, seq: Seq) -> [u8; RECORD_HEAD] {
        let stored = self.bytes.len() as u32; // no longer than `raw`
        encode_record_head(RecordHead { seq, stored, raw: self.raw, zstd: self.zstd })
    }
}

impl Core {
    pub(super) fn append(&self, payload: &[u8]) -> Result<Seq> {
        // The hot path allocates nothing.
        let stored = [self.stored(payload)?];
        let first = self.put(&stored)?;
        self.counters.records(1, payload.len() as u64);
        Ok(first)
    }

    pub(super) fn append_batch(&self, payloads: &[&[u8]]) -> Result<Range<Seq>> {
        if payloads.is_empty() {
            let next = self.gather.next_seq();
            return Ok(next..next);
        }
        let stored = payloads.iter().map(|payload| self.stored(payload)).collect::<Result<Vec<_>>>()?;
        let first = self.put(&stored)?;
        let records = stored.len() as u64;
        self.counters.records(records, payloads.iter().map(|p| p.len() as u64).sum());
        Ok(first..first + records)
    }

    /// Puts records into the open buffer, or, if they are too large for any, into one of their own.
    fn put(&self, records: &[Stored<'_>]) -> Result<Seq> {
        let len = records.iter().map(Stored::framed).fold(0, usize::saturating_add);
        if len > self.gather.room() {
            return self.put_large(records, len);
        }
        loop {
            match self.gather.reserve(records.len() as u64, len) {
                Ok(mut place) => {
                    let first = place.first_seq;
                    for (seq, stored) in (first..).zip(records) {
                        place.write(&stored.head(seq));
                        place.write(&stored.bytes);
                    }
                    return Ok(first);
                }
                Err(Full { seals }) => self.wait_for_room(seals)?,
            }
        }
    }

    #[cold]
    fn put_large(&self, records: &[Stored<'_>], len: usize) -> Result<Seq> {
        let count = u32::try_from(records.len()).ok().filter(|_| len <= MOST_COMMIT).ok_or_else(|| {
            Error::Invalid(format!(
                "{} records of {len} bytes in all are too many for one commit of at most {MOST_COMMIT}: use smaller batches",
                records.len()
            ))
        })?;
        // Others go on while this is copied; the heads have to wait for the numbers.
        let mut buffer = Striped::new(AlignedBuf::zeroed(STRIPES.buffer(len)), STRIPES);
        let mut at = 0;
        for stored in records {
            buffer.fill_alone(at + RECORD_HEAD, &stored.bytes);
            at += stored.framed();
        }
        self.lead(|led| {
            let first_seq = self.queue_large(led, count)?;
            let mut at = 0;
            for (seq, stored) in (first_seq..).zip(records) {
                buffer.fill_alone(at, &stored.head(seq));
                at += stored.framed();
            }
            self.start_large(led, Ready { buf: buffer.into_buf(), first_seq, records: count, stream: len })?;
            Ok(first_seq)
        })
    }

    /// A payload as it is stored: compressed if it is long and that makes it smaller.
    fn stored<'a>(&self, payload: &'a [u8]) -> Result<Stored<'a>> {
        let raw = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MOST_RECORD).ok_or_else(|| {
            Error::Invalid(format!(
                "a record of {} bytes is too large: the limit is {MOST_RECORD} bytes",
                payload.len()
            ))
        })?;
        let plain = Stored { bytes: Cow::Borrowed(payload), raw, zstd: false };
        if self.options.compress_over.is_none_or(|over| payload.len() <= over) {
            return Ok(plain);
        }
        let kept = lock(&self.compressors).pop();
        // A compressor that cannot be made, or fails, costs space only.
        let Some(mut compressor) = kept.or_else(|| Compressor::new(ZSTD_LEVEL).ok()) else { return Ok(plain) };
        let compressed = compressor.compress(payload);
        lock(&self.compressors).push(compressor);
        Ok(match compressed {
            Ok(bytes) if bytes.len() < payload.len() => Stored { bytes: Cow::Owned(bytes), raw, zstd: true },
            _ => plain,
        })
    }
}

/// The most bytes of records in one commit.
const MOST_COMMIT: usize = 2 << 30;
