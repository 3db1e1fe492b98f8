//! The segment after the one that is written: ordered while there is time, taken when the old one is full.

use super::core::Core;
use super::format::{DATA_START, Header, LINK_AT};
use super::lock;
use super::maker::{Made, Maker};
use super::recovery::segment_bytes;
use super::segment::{Name, put_aside};
use super::writer::Writer;
use crate::Result;
use crate::sabotage::{Check, checked};

/// How far the next segment is.
#[derive(Debug)]
pub(super) enum Ahead {
    /// Not ordered.
    Idle,
    /// Being made by whoever leads, a step with each commit: the log has no thread.
    Making(Maker),
    /// Being made by the log's thread.
    Ordered,
    /// There.
    Ready(Made),
}

/// The next segment is ordered once this part of the active one is used.
const USED: u64 = 8;

impl Core {
    /// Orders the next segment if it is time, or goes on making it.
    pub(super) fn prepare_next(&self, writer: &mut Writer) -> Result<()> {
        let next = match std::mem::replace(&mut writer.ahead, Ahead::Idle) {
            // Not before the active one has begun durably: at most one segment has not (recovery counts on it).
            Ahead::Idle
                if (writer.active.durable > LINK_AT || !checked(Check::LogAheadOrder))
                    && writer.active.next > writer.active.header.segment_bytes / USED =>
            {
                let maker = self.maker(writer, 0);
                match &self.mail {
                    Some(mail) => {
                        mail.order(maker);
                        Ahead::Ordered
                    }
                    None => Ahead::Making(maker),
                }
            }
            Ahead::Making(mut maker) => match maker.step().map_err(|e| self.fail(e))? {
                Some(made) => Ahead::Ready(made),
                None => Ahead::Making(maker),
            },
            other => other,
        };
        writer.ahead = next;
        Ok(())
    }

    /// The segment after the active one, with room for a commit of `commit` bytes.
    pub(super) fn next_segment(&self, writer: &mut Writer, commit: u64) -> Result<Made> {
        let made = match std::mem::replace(&mut writer.ahead, Ahead::Idle) {
            Ahead::Idle => self.maker(writer, commit).finish(),
            Ahead::Making(maker) => maker.finish(),
            Ahead::Ready(made) => Ok(made),
            Ahead::Ordered => match self.mail.as_ref().and_then(|mail| mail.made()) {
                Some(made) => made,
                None => self.maker(writer, commit).finish(),
            },
        };
        let made = made.map_err(|e| self.fail(e))?;
        if made.header.segment_bytes >= DATA_START.saturating_add(commit) {
            return Ok(made);
        }
        self.set_aside(made).map_err(|e| self.fail(e))?;
        self.maker(writer, commit).finish().map_err(|e| self.fail(e))
    }

    fn maker(&self, writer: &Writer, commit: u64) -> Maker {
        let active = &writer.active.header;
        let header = Header {
            segment: active.segment + 1,
            segment_bytes: segment_bytes(&self.options, commit),
            window: self.options.window,
            ..active.clone()
        };
        let free = self.take_free(header.segment_bytes);
        self.counters.segment(free.is_some());
        Maker::new(self.disk.clone(), &self.dir, header, free)
    }

    /// A file of this size to make a segment of.
    fn take_free(&self, bytes: u64) -> Option<Name> {
        let free = &mut lock(&self.segments).free;
        let at = free.iter().position(|name| name.file_len == bytes)?;
        Some(free.swap_remove(at))
    }

    /// Takes the name from a segment that was made and is too small, so that another can have it.
    fn set_aside(&self, made: Made) -> Result<()> {
        let Made { header, path, file } = made;
        drop(file);
        let name = Name { id: header.segment, path, file_len: header.segment_bytes };
        let free = put_aside(&*self.disk, &self.dir, name, Check::LogGiveUpSync)?;
        lock(&self.segments).free.extend(free);
        Ok(())
    }
}
