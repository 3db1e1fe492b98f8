//! Reading a log while it is written: each record as soon as it is durable, over one segment after the other.
//!
//! Invariants:
//! 1. Nothing beyond the durable end is read: of the newest segment a follower learns a durable tail, reads up to there,
//!    and asks again.
//! 2. It reads past the page cache, as the writer writes: what it sees is what the device has.
//! 3. After an error it stands where it stood: the next call tries that record again.
//!
//! Known limit: only the segment that is being read is pinned. A follower that falls behind a trim is told so.

use std::fmt;
use std::sync::Arc;

use super::reader::SegmentReader;
use super::scan::Part;
use super::source::{READ_AHEAD, ReadAhead};
use super::{Log, Record, Seq};
use crate::Result;
use crate::disk::Disk;

/// What a follower asks of the log that it follows.
pub(super) trait Durable: Send + Sync {
    /// The last record that is durable by now. Asked for each time that the follower has caught up: cheap.
    fn durable(&self) -> Result<Seq>;
    /// The segment that holds the durable record `seq`, with its durable tail as it is now; `None` if there is no such
    /// record yet, an error if it was trimmed. A later answer never has less of a segment than an earlier one.
    fn part_with(&self, seq: Seq) -> Result<Option<Part>>;
}

impl<T: Durable + ?Sized> Durable for &T {
    fn durable(&self) -> Result<Seq> {
        (**self).durable()
    }

    fn part_with(&self, seq: Seq) -> Result<Option<Part>> {
        (**self).part_with(seq)
    }
}

impl Durable for Log {
    fn durable(&self) -> Result<Seq> {
        self.core.check()?;
        Ok(Log::durable(self))
    }

    fn part_with(&self, seq: Seq) -> Result<Option<Part>> {
        Ok(self.parts_from(seq)?.into_iter().next())
    }
}

/// The records of a log from some number on, those that are still to be appended included. [`Log::follow`] makes one.
///
/// As with a [`Scan`](super::Scan), a payload keeps what was read with it, up to 1 MiB.
pub struct Follower<'a> {
    disk: Arc<dyn Disk>,
    log: Box<dyn Durable + 'a>,
    /// The segment that is read: its part as it was when it was last asked for.
    current: Option<(Part, SegmentReader)>,
    /// The next record.
    next: Seq,
}

impl fmt::Debug for Follower<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segment = self.current.as_ref().map(|(part, _)| part.kept.id);
        f.debug_struct("Follower").field("next", &self.next).field("segment", &segment).finish_non_exhaustive()
    }
}

impl<'a> Follower<'a> {
    pub(super) fn new(disk: Arc<dyn Disk>, log: impl Durable + 'a, from: Seq) -> Self {
        Self { disk, log: Box::new(log), current: None, next: from.max(1) }
    }

    /// The next record if it is durable by now; `None` if it is not. Waits for the disk, never for a record.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the record was trimmed; [`Error::Damaged`](crate::Error::Damaged) if it
    /// is not sound; [`Error::Poisoned`](crate::Error::Poisoned) once it has caught up with a log that has failed. The next
    /// call tries the same record again.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// let mut follower = log.follow(1);
    /// log.append_batch(&[b"a", b"b"])?;
    /// assert!(follower.try_next()?.is_none()); // not durable
    /// log.commit()?;
    /// while let Some(record) = follower.try_next()? {
    ///     assert!(record.seq <= log.durable());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_next(&mut self) -> Result<Option<Record>> {
        let next = self.advance();
        match &next {
            Ok(Some(record)) => self.next = record.seq + 1,
            Ok(None) => {}
            Err(_) => self.current = None,
        }
        next
    }

    fn advance(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some((_, reader)) = &mut self.current
                && let Some(record) = reader.next(self.next)?
            {
                return Ok(Some(record));
            }
            if self.log.durable()? < self.next {
                return Ok(None);
            }
            let Some(part) = self.log.part_with(self.next)? else { return Ok(None) };
            let reader = match self.current.take() {
                Some((old, mut reader)) if old.kept.id == part.kept.id => {
                    reader.extend(part.tail(&*self.disk)?);
                    reader
                }
                old => {
                    let io = match old.and_then(|(_, reader)| reader.into_read_ahead()) {
                        Some(io) => io,
                        None => ReadAhead::new(&*self.disk, READ_AHEAD)?,
                    };
                    part.open(&*self.disk, self.next, false, io)?
                }
            };
            self.current = Some((part, reader));
        }
    }

    /// The number of the record that [`Follower::try_next`] gives next.
    ///
    /// ```
    /// # use backstay_storage::log::{Log, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
    /// # let log = Log::open(backstay_storage::disk::system(), dir.path(), 7, 1, options)?;
    /// assert_eq!(log.follow(0).next_seq(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_seq(&self) -> Seq {
        self.next
    }
}

#[cfg(test)]
mod tests;
