//! Reading records over segments.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::reader::SegmentReader;
use super::segment::header_of;
use super::writer::Kept;
use super::{Record, Seq};
use crate::Result;
use crate::disk::{Disk, OpenOptions};

/// The records that [`Log::scan`](super::Log::scan) asked for, in order. It ends after the first error.
pub struct Scan {
    disk: Arc<dyn Disk>,
    /// The segments that are still to be read.
    parts: VecDeque<Kept>,
    reader: Option<SegmentReader>,
    from: Seq,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").field("from", &self.from).field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl Scan {
    pub(super) fn new(disk: Arc<dyn Disk>, parts: VecDeque<Kept>, from: Seq) -> Self {
        Self { disk, parts, reader: None, from }
    }

    fn advance(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some(reader) = &mut self.reader
                && let Some(record) = reader.next(self.from)?
            {
                return Ok(Some(record));
            }
            let Some(part) = self.parts.pop_front() else { return Ok(None) };
            let file = self.disk.open(&part.path, OpenOptions::READ)?;
            let header = header_of(&*file, &part.path)?;
            if header != part.header {
                let (expected, got) = (format!("{:?}", part.header), format!("{header:?}"));
                return Err(crate::Error::damaged(&part.path, 0, "log segment header", expected, got));
            }
            self.reader = Some(SegmentReader::new(file, &part.path, &header, part.tail));
        }
    }
}

impl Iterator for Scan {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.parts.clear();
            self.reader = None;
        }
        next
    }
}
