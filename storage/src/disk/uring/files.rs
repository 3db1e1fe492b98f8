//! The data files that a ring has registered, so that an operation need not look up its descriptor.
//!
//! Invariants:
//! 1. An entry holds its file, so the descriptor number by which it is found means this file and no other.
//! 2. An entry that an operation in flight uses is neither replaced nor dropped.
//! 3. The places before [`Files::new`]'s `first` are the directory locks'. They are never touched.

use std::io;
use std::sync::Arc;

use io_uring::Submitter;

use crate::disk::File;

/// How many data files a ring registers.
pub(super) const PLACES: usize = 4;
/// What the kernel takes for an empty place.
pub(super) const EMPTY: i32 = -1;

#[derive(Debug)]
pub(super) struct Files {
    first: u32,
    entries: [Option<Entry>; PLACES],
    /// Counts uses, to find the entry that was not used for longest.
    uses: u64,
    /// Whether the ring's table has places for data files.
    exists: bool,
    /// Whether new files may be registered.
    open: bool,
}

#[derive(Debug)]
struct Entry {
    /// Keeps the descriptor open (invariant 1).
    _file: Arc<dyn File>,
    fd: i32,
    /// Operations in flight.
    busy: usize,
    last_use: u64,
    /// To be dropped when it is no longer busy.
    leaving: bool,
}

/// A use of a registered file, to be given back when the operation has ended.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) at: usize,
    /// The index in the ring's table.
    pub(super) index: i32,
}

impl Files {
    /// A closed table whose places start at `first` in the ring's, if that has any.
    pub(super) fn new(first: Option<usize>) -> Self {
        let exists = first.is_some();
        Self { first: first.unwrap_or(0) as u32, entries: [const { None }; PLACES], uses: 0, exists, open: false }
    }

    /// From now on, files are registered as they are used.
    pub(super) fn open(&mut self) {
        self.open = self.exists;
    }

    /// The place of a file for one operation; registers it if it has none. `None` if it is to be reached by its
    /// descriptor: the table is closed, or all of it is in use. An error closes the table for new files.
    pub(super) fn take(&mut self, ring: &Submitter<'_>, file: &Arc<dyn File>, fd: i32) -> io::Result<Option<Place>> {
        self.uses += 1;
        let known = self.entries.iter().position(|e| e.as_ref().is_some_and(|e| e.fd == fd));
        let at = match known {
            Some(at) => at,
            None if !self.open => return Ok(None),
            None => match self.vacancy() {
                Some(at) => {
                    self.set(ring, at, fd).inspect_err(|_| self.open = false)?;
                    self.put(at, Entry { _file: Arc::clone(file), fd, busy: 0, last_use: 0, leaving: false });
                    at
                }
                None => return Ok(None),
            },
        };
        let Some(entry) = self.entries.get_mut(at).and_then(Option::as_mut).filter(|e| !e.leaving) else {
            return Ok(None);
        };
        entry.busy += 1;
        entry.last_use = self.uses;
        Ok(Some(Place { at, index: self.first as i32 + at as i32 }))
    }

    /// Ends a use.
    pub(super) fn give_back(&mut self, ring: &Submitter<'_>, place: &Place) {
        let Some(entry) = self.entries.get_mut(place.at).and_then(Option::as_mut) else { return };
        entry.busy -= 1;
        if entry.leaving && entry.busy == 0 {
            self.remove(ring, place.at);
        }
    }

    /// Drops a file, now or when it is no longer in use.
    pub(super) fn forget(&mut self, ring: &Submitter<'_>, fd: i32) {
        let found =
            self.entries.iter_mut().enumerate().find_map(|(at, e)| Some((at, e.as_mut()?)).filter(|e| e.1.fd == fd));
        match found {
            Some((at, entry)) if entry.busy == 0 => self.remove(ring, at),
            Some((_, entry)) => entry.leaving = true,
            None => {}
        }
    }

    /// An empty place, or else the one whose file was not used for longest and is not in use.
    fn vacancy(&self) -> Option<usize> {
        let idle = |e: &Option<Entry>| e.as_ref().map_or(Some(0), |e| (e.busy == 0).then_some(e.last_use));
        let idle = self.entries.iter().enumerate().filter_map(|(at, e)| Some((idle(e)?, at)));
        idle.min().map(|(_, at)| at)
    }

    fn remove(&mut self, ring: &Submitter<'_>, at: usize) {
        // If it fails the ring keeps the file until the place is used again: the same as if nobody had asked.
        let _ = self.set(ring, at, EMPTY);
    }

    /// Registers a descriptor at a place, whose entry goes in any case: after an error the kernel may have emptied it.
    fn set(&mut self, ring: &Submitter<'_>, at: usize, fd: i32) -> io::Result<()> {
        if let Some(place) = self.entries.get_mut(at) {
            *place = None;
        }
        match ring.register_files_update(self.first + at as u32, &[fd])? {
            1 => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn put(&mut self, at: usize, entry: Entry) {
        if let Some(place) = self.entries.get_mut(at) {
            *place = Some(entry);
        }
    }
}
