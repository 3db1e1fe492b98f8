//! A raw overwrite, one at a time: what the device can do.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{Append, Contender};
use crate::raw;

/// Overwrites of 4 KiB, whatever the payload is, by one thread.
pub struct Raw(Mutex<State>);

struct State {
    overwrite: Box<dyn FnMut(u64) + Send>,
    next: u64,
}

impl Raw {
    /// Over a new file; durable by `O_DSYNC`, or else by a sync after each.
    pub fn new(path: &Path, dsync: bool) -> Self {
        Self(Mutex::new(State { overwrite: Box::new(raw::overwrite(path, dsync)), next: 0 }))
    }
}

impl Contender for Raw {
    fn worker(&self, _thread: usize) -> Append<'_> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Box::new(move |_| {
            let n = state.next;
            (state.overwrite)(n);
            state.next += 1;
        })
    }
}
