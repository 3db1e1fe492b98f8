//! Making the next segment ahead of its need, one disk operation a step, so that a thread can do it beside the log's
//! writes, and a simulation between them.
//!
//! From nothing: create `.seg.new`, write the header and zeros to the full size, sync, rename to `.seg`, sync the
//! directory. From a file that was a segment before: write the header over the old one durably, rename, sync the
//! directory. Either way the file's blocks are mapped and written, so that a commit overwrites and changes nothing
//! of the file system's own; and either way the name stands durably only over a durable header (invariant 1 of
//! `segment`).
//!
//! What an old file holds behind its header is void: its blocks' checksums are of another segment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{BLOCK_BYTES, Header};
use super::segment::{Name, new_path_of, path_of};
use crate::Result;
use crate::disk::{AlignedBuf, Create, Disk, File, OpenOptions};
use crate::sabotage::{Check, checked};

/// Zeros are written in pieces of this many bytes, one after another: the log's own writes come first.
const ZEROS: u64 = 256 << 10;

const WRITE_DIRECT: OpenOptions = OpenOptions { write: true, create: Create::Never, direct: true };

/// A segment that can begin: durable header, durable name, no link.
#[derive(Debug)]
pub(super) struct Made {
    pub header: Header,
    pub path: PathBuf,
    pub file: Arc<dyn File>,
}

/// A segment that is being made.
#[derive(Debug)]
pub(super) struct Maker {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    header: Header,
    /// The name that the file has now.
    path: PathBuf,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Create,
    /// Zeros from here on, then the header.
    Zeros(Arc<dyn File>, u64),
    Sync(Arc<dyn File>),
    Reuse,
    Rename,
    SyncDir,
    Open,
}

impl Maker {
    /// Makes the segment of this header, from `free` if that has the right size.
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, header: Header, free: Option<Name>) -> Self {
        let (path, stage) = match free {
            Some(name) => (name.path, Stage::Reuse),
            None => (new_path_of(dir, header.segment), Stage::Create),
        };
        Self { disk, dir: dir.into(), header, path, stage }
    }

    /// Does the next step; gives the segment after the last.
    pub(super) fn step(&mut self) -> Result<Option<Made>> {
        let to = path_of(&self.dir, self.header.segment);
        let next = match std::mem::replace(&mut self.stage, Stage::Create) {
            Stage::Create => Stage::Zeros(self.disk.open(&self.path, OpenOptions::CREATE_DIRECT)?, BLOCK_BYTES),
            Stage::Zeros(file, offset) => {
                let len = ZEROS.min(self.header.segment_bytes - offset);
                if len == 0 {
                    file.write_at(&AlignedBuf::from_slice(&self.header.encode()), 0)?;
                    Stage::Sync(file)
                } else {
                    file.write_at(&AlignedBuf::zeroed(len as usize), offset)?;
                    Stage::Zeros(file, offset + len)
                }
            }
            Stage::Sync(file) => {
                if checked(Check::LogNewSync) {
                    file.sync()?;
                }
                Stage::Rename
            }
            Stage::Reuse => {
                let file = self.disk.open(&self.path, WRITE_DIRECT)?;
                let header = AlignedBuf::from_slice(&self.header.encode());
                match checked(Check::LogReuseWrite) {
                    true => file.write_durable(&header, 0)?,
                    false => file.write_at(&header, 0)?,
                }
                Stage::Rename
            }
            Stage::Rename => {
                self.disk.rename(&self.path, &to)?;
                Stage::SyncDir
            }
            Stage::SyncDir => {
                if checked(Check::LogNameSync) {
                    self.disk.sync_dir(&self.dir)?;
                }
                Stage::Open
            }
            Stage::Open => {
                let file = self.disk.open(&to, WRITE_DIRECT)?;
                return Ok(Some(Made { header: self.header.clone(), path: to, file }));
            }
        };
        self.stage = next;
        Ok(None)
    }

    /// Does all steps that are left.
    pub(super) fn finish(mut self) -> Result<Made> {
        loop {
            if let Some(made) = self.step()? {
                return Ok(made);
            }
        }
    }
}
