//! The delivering task: hands a sink what the controller has queued, one thing after the other, and again what failed for a while.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstay_storage::queue::{self, RecvTimeoutError};
use crossbeam::channel as reply;
use crossbeam::sync::Unparker;

use crate::circuit::Delta;
use crate::connector::{ConnectorError, Output, Resume, SinkPosition};
use crate::pipeline::schedule::{Task, Turn};

/// How long a sink that is hindered is left alone.
pub(in crate::pipeline) const RETRY: Duration = Duration::from_secs(1);

/// What a sink is to be handed or asked.
#[derive(Debug)]
pub(super) enum Item {
    Delta {
        step: u64,
        delta: Arc<Delta>,
    },
    ReplayDone,
    Flush,
    /// There was nothing to do for a while.
    Idle,
    Sync(Option<reply::Sender<()>>),
}

/// What the task tells the controller.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) delivered: AtomicU64,
    pub(super) synced: Mutex<SinkPosition>,
    pub(super) failed: Mutex<Option<ConnectorError>>,
    pub(super) trouble: Mutex<Option<String>>,
    /// Whether the sink was found to hold nothing beyond what was replayed.
    pub(super) is_checked: AtomicBool,
    pub(super) retries: AtomicU64,
    pub(super) turns: AtomicU64,
}

/// The delivering task.
pub(super) struct Work {
    output: Box<dyn Output>,
    items: queue::Receiver<Item>,
    /// What is to be done next: again after an error that may pass, or a flush when nothing else waits.
    at_hand: Option<Item>,
    /// Whether the sink may hold later steps than were sent in this process, which are to come again as they were.
    replayed: bool,
    /// What a sink that was away when the pipeline began is to be opened with.
    unopened: Option<Resume>,
    shared: Arc<Shared>,
    wake: Unparker,
}

impl Task for Work {
    fn turn(&mut self, patience: Duration) -> Turn {
        self.shared.turns.fetch_add(1, Ordering::AcqRel);
        if let Some(resume) = self.unopened.take() {
            return match self.output.open(&resume) {
                Ok(()) => Turn::Again,
                Err(error) => {
                    self.unopened = Some(resume);
                    self.hindered(error)
                }
            };
        }
        let item = match self.at_hand.take() {
            Some(item) => item,
            None => match self.items.recv_timeout(patience) {
                Ok(item) => item,
                Err(RecvTimeoutError::Timeout) => Item::Idle,
                Err(RecvTimeoutError::Disconnected) => return Turn::End,
            },
        };
        let turn = match self.work_off(&item) {
            Ok(()) => {
                *lock(&self.shared.trouble) = None;
                if let Some(position) = self.output.durable() {
                    self.stands_at(position);
                }
                if !matches!(item, Item::Flush | Item::Idle) && self.items.is_empty() {
                    self.at_hand = Some(Item::Flush);
                }
                Turn::Again
            }
            Err(error) => {
                self.at_hand = Some(item);
                self.hindered(error)
            }
        };
        self.wake.unpark();
        turn
    }
}

impl Work {
    /// The task of an output; one that is not open is opened first, with `unopened`.
    pub(super) fn new(
        output: Box<dyn Output>,
        items: queue::Receiver<Item>,
        (replayed, unopened): (bool, Option<Resume>),
        shared: Arc<Shared>,
        wake: Unparker,
    ) -> Self {
        Self { output, items, at_hand: None, replayed, unopened, shared, wake }
    }

    /// What comes after an error: another try, if it may pass.
    fn hindered(&mut self, error: ConnectorError) -> Turn {
        if error.retry {
            self.shared.retries.fetch_add(1, Ordering::AcqRel);
            *lock(&self.shared.trouble) = Some(error.to_string());
            return Turn::Pause(RETRY);
        }
        *lock(&self.shared.failed) = Some(error);
        self.wake.unpark();
        Turn::End
    }

    /// Tells where the sink stands durably.
    fn stands_at(&self, mut position: SinkPosition) {
        if !self.replayed {
            // Steps after the checkpoint are made anew, under the same numbers: what a sink holds of an earlier process's is none
            // of these, and nothing that it has not been sent is durable.
            position.step = position.step.min(self.shared.delivered.load(Ordering::Acquire));
        }
        *lock(&self.shared.synced) = position;
    }

    /// Does one thing.
    fn work_off(&mut self, item: &Item) -> Result<(), ConnectorError> {
        match item {
            Item::Delta { step, delta } => {
                self.output.deliver(*step, delta)?;
                self.shared.delivered.store(*step, Ordering::Release);
            }
            Item::ReplayDone => {
                self.output.replay_done()?;
                self.shared.is_checked.store(true, Ordering::Release);
            }
            Item::Flush => self.output.flush()?,
            Item::Idle => self.output.idle()?,
            Item::Sync(done) => {
                let position = self.output.sync()?;
                self.stands_at(position);
                if let Some(done) = done {
                    // The checkpointer may have stopped waiting.
                    let _ = done.try_send(());
                }
            }
        }
        Ok(())
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
