//! The queue of a simulated disk: operations take effect in seeded random order, when they are waited for.
//!
//! Invariant: no operation is dropped while the state is locked. It holds a file, whose drop takes the lock.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use super::Shared;
use super::state::power_loss;
use crate::disk::shared::{check_aligned, execute, lock};
use crate::disk::{Completion, IoQueue, Op};
use crate::{Error, Result};

/// The held lock of a simulated directory.
#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) shared: Arc<Shared>,
    pub(super) path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        lock(&self.shared.state).locked.remove(&self.path);
    }
}

#[derive(Debug)]
pub(super) struct SimQueue {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) depth: usize,
    /// What has ended and was not asked for yet.
    pub(super) done: Vec<Completion>,
    pub(super) locks: Vec<Weak<SimLock>>,
    /// Kept while something is in flight.
    pub(super) held: Vec<Arc<SimLock>>,
}

impl SimQueue {
    fn flying(&self) -> usize {
        lock(&self.shared.state).queues.get(&self.id).map_or(0, Vec::len)
    }

    /// Ends one operation, drawn by lot. False if there is none.
    fn complete_one(&mut self) -> bool {
        let drawn = {
            let mut state = lock(&self.shared.state);
            let flying = state.queues.get(&self.id).map_or(0, Vec::len);
            let lot = state.rng.below(flying);
            state.queues.get_mut(&self.id).filter(|q| !q.is_empty()).map(|q| q.swap_remove(lot))
        };
        let Some((token, op)) = drawn else {
            self.held.clear();
            return false;
        };
        self.done.push(execute(token, op));
        true
    }
}

impl IoQueue for SimQueue {
    fn submit(&mut self, ops: Vec<(u64, Op)>) -> Result<()> {
        for (token, op) in ops {
            while self.flying() >= self.depth {
                self.complete_one();
            }
            if self.held.is_empty() {
                self.held = self.locks.iter().filter_map(Weak::upgrade).collect();
            }
            let refused = check_aligned(&op).err().or_else(|| {
                let foreign = op.file().sim_id().is_none();
                foreign.then(|| Error::Invalid(format!("{} is not of a simulated disk", op.file().path().display())))
            });
            let down = lock(&self.shared.state).down;
            let refused = refused.or_else(|| down.then(|| power_loss("submit to", op.file().path())));
            match refused {
                Some(e) => self.done.push(Completion { token, buf: op.into_buf(), result: Err(e) }),
                None => lock(&self.shared.state).queues.entry(self.id).or_default().push((token, op)),
            }
        }
        Ok(())
    }

    fn wait(&mut self, at_least: usize) -> Result<Vec<Completion>> {
        let flying = self.flying();
        let wanted = at_least.saturating_sub(self.done.len()).min(flying);
        // Some more than asked for may have ended meanwhile.
        let extra = lock(&self.shared.state).rng.below(flying - wanted + 1);
        for _ in 0..wanted + extra {
            self.complete_one();
        }
        if self.flying() == 0 {
            self.held.clear();
        }
        Ok(std::mem::take(&mut self.done))
    }

    fn in_flight(&self) -> usize {
        self.flying() + self.done.len()
    }
}

impl Drop for SimQueue {
    fn drop(&mut self) {
        // As with a real queue, what is in flight ends first.
        while self.complete_one() {}
        lock(&self.shared.state).queues.remove(&self.id);
    }
}
