//! An open file of a simulated disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Shared;
use super::fault::{Fault, SyncKind};
use super::image::SECTOR;
use super::state::{Gate, State, eio, failed, power_loss};
use crate::Result;
use crate::disk::File;
use crate::disk::shared::lock;

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) writable: bool,
    /// Whether it passes the page cache by.
    pub(super) direct: bool,
}

/// A byte position as an index. The simulation keeps files in memory, so what does not fit cannot be there.
fn index(op: &'static str, path: &Path, at: u64) -> Result<usize> {
    usize::try_from(at).ok().filter(|at| *at < 1 << 40).ok_or_else(|| failed(op, path, io::ErrorKind::FileTooLarge))
}

impl SimFile {
    fn check_writable(&self, op: &'static str) -> Result<()> {
        if self.writable { Ok(()) } else { Err(failed(op, &self.path, io::ErrorKind::PermissionDenied)) }
    }

    fn write(&self, buf: &[u8], offset: u64, durable: bool) -> Result<()> {
        let path = &self.path;
        self.check_writable("write")?;
        let mut at = index("write", path, offset)?;
        self.shared.counters.write(buf.len(), durable);
        let mut guard = lock(&self.shared.state);
        let state: &mut State = &mut guard;
        let gate = state.begin("write", path)?;
        let mut bytes = buf;
        let mut outcome = Ok(());
        let mut lost = false;
        match gate {
            Gate::Open => {}
            Gate::PowerLoss => outcome = Err(power_loss("write", path)),
            Gate::Fault(Fault::Misdirect(elsewhere)) => at = index("write", path, elsewhere)?,
            Gate::Fault(fault @ (Fault::ShortWrite | Fault::ShortNoSpace)) => {
                let half = (buf.len() / 2).next_multiple_of(SECTOR).min(buf.len().saturating_sub(1));
                bytes = buf.get(..half).unwrap_or_default();
                let full = fault == Fault::ShortNoSpace;
                outcome =
                    Err(if full { failed("write", path, io::ErrorKind::StorageFull) } else { eio("write", path) });
            }
            Gate::Fault(Fault::Io) => return Err(eio("write", path)),
            Gate::Fault(fault) => lost = fault == Fault::LostWrite,
        }
        let room = state.room(self.id).saturating_sub(at as u64);
        let grows = state.content("write", path, self.id)?.live.len() < at + bytes.len();
        if grows && (bytes.len() as u64) > room {
            // What fits is there, as on a real disk.
            bytes = bytes.get(..room as usize).unwrap_or_default();
            outcome = outcome.and_then(|()| Err(failed("write", path, io::ErrorKind::StorageFull)));
        }
        let keeps_word = durable && !state.is_sabotaged(SyncKind::DurableWrite, path);
        let content = state.content("write", path, self.id)?;
        let mut partial = [at, at + bytes.len()].into_iter().filter(|end| end % SECTOR != 0);
        if outcome.is_ok() && partial.any(|end| content.unreadable_in(end, 1).is_some()) {
            // The rest of the sector would have to be read first.
            return Err(eio("write", path));
        }
        let gap = content.live.len();
        if state.show_stale && at > gap && !bytes.is_empty() {
            state.set_len(self.id, at);
        }
        let content = state.content("write", path, self.id)?;
        if lost {
            content.lose_write(at, bytes, self.direct);
        } else {
            content.write(at, bytes, outcome.is_ok() && keeps_word);
        }
        outcome
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        let mut state = lock(&self.shared.state);
        state.check_up("length of", &self.path)?;
        Ok(state.content("length of", &self.path, self.id)?.live.len() as u64)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.check_writable("set length of")?;
        let to = index("set length of", &self.path, len)?;
        let mut state = lock(&self.shared.state);
        let power_goes = state.begin_simple("set length of", &self.path)?;
        if len > state.room(self.id) && to > state.content("set length of", &self.path, self.id)?.live.len() {
            return Err(failed("set length of", &self.path, io::ErrorKind::StorageFull));
        }
        state.set_len(self.id, to);
        if power_goes { Err(power_loss("set length of", &self.path)) } else { Ok(()) }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut state = lock(&self.shared.state);
        let (mut at, mut stale) = (offset, false);
        match state.begin("read", &self.path)? {
            Gate::Open => {}
            Gate::PowerLoss => return Err(power_loss("read", &self.path)),
            Gate::Fault(Fault::Misdirect(elsewhere)) => at = elsewhere,
            Gate::Fault(Fault::Io) => return Err(eio("read", &self.path)),
            Gate::Fault(fault) => stale = fault == Fault::StaleRead,
        }
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let content = state.content("read", &self.path, self.id)?;
        if content.unreadable_in(at, buf.len()).is_some() {
            return Err(eio("read", &self.path));
        }
        let n = match (stale, self.direct && content.hiding) {
            (true, _) => content.stale().read(buf, at),
            (false, true) => content.device().read(buf, at),
            (false, false) => content.live.read(buf, at),
        };
        self.shared.counters.read(n);
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write(buf, offset, false)
    }

    fn sync(&self) -> Result<()> {
        self.shared.counters.sync();
        let mut state = lock(&self.shared.state);
        let gate = state.begin("sync", &self.path)?;
        let turned_off = state.is_sabotaged(SyncKind::File, &self.path);
        let content = state.content("sync", &self.path, self.id)?;
        match gate {
            Gate::PowerLoss => return Err(power_loss("sync", &self.path)),
            Gate::Fault(Fault::Io) => {
                content.lose_pending();
                return Err(eio("sync", &self.path));
            }
            _ if turned_off => {}
            _ => content.sync(),
        }
        Ok(())
    }

    fn write_durable(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write(buf, offset, true)
    }

    fn sim_id(&self) -> Option<u64> {
        Some(self.id)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        if let Some(content) = state.files.get_mut(&self.id) {
            content.handles = content.handles.saturating_sub(1);
            if content.handles == 0 {
                state.collect();
            }
        }
    }
}
