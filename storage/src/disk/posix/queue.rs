//! The queue of a disk without asynchronous I/O: each operation is executed as it is submitted.

use std::sync::Weak;

use super::{LockedDir, Shared};
use crate::Result;
use crate::disk::shared::{check_aligned, execute};
use crate::disk::{Completion, IoQueue, Op};

#[derive(Debug)]
pub(super) struct PosixQueue {
    locks: Vec<Weak<LockedDir>>,
    done: Vec<Completion>,
}

impl PosixQueue {
    pub(super) fn new(shared: &Shared) -> Self {
        Self { locks: shared.held_locks(), done: Vec::new() }
    }
}

impl IoQueue for PosixQueue {
    fn submit(&mut self, ops: Vec<(u64, Op)>) -> Result<()> {
        // Kept until the batch is written, even if the guard is dropped by another thread meanwhile.
        let _held: Vec<_> = self.locks.iter().filter_map(Weak::upgrade).collect();
        for (token, op) in ops {
            self.done.push(match check_aligned(&op) {
                Ok(()) => execute(token, op),
                Err(e) => Completion { token, buf: op.into_buf(), result: Err(e) },
            });
        }
        Ok(())
    }

    fn wait(&mut self, _at_least: usize) -> Result<Vec<Completion>> {
        Ok(std::mem::take(&mut self.done))
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }
}
