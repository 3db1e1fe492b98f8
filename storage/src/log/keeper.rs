//! The log's own thread. It makes segments ahead of their need, and leads for tasks, whose polls must not block. On a disk
//! that allows no threads (the simulated one) there is none, and both are done by the callers.
//!
//! Invariant: it ends before the log's [`Core`] is let go of by the `Log`, so that a dropped log leaves nothing running.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::core::Core;
use super::lock;
use super::maker::{Made, Maker};
use crate::{Error, Result};

/// What the thread is asked for, and what it answers.
#[derive(Debug, Default)]
pub(super) struct Mail {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    order: Option<Maker>,
    made: Option<Result<Made>>,
    lead: bool,
    stop: bool,
}

impl Mail {
    /// Asks for a segment.
    pub(super) fn order(&self, maker: Maker) {
        lock(&self.state).order = Some(maker);
        self.changed.notify_all();
    }

    /// Waits for the segment that was asked for.
    pub(super) fn made(&self) -> Result<Made> {
        let mut state = lock(&self.state);
        loop {
            if let Some(made) = state.made.take() {
                return made;
            }
            if state.stop {
                return Err(Error::Invalid("the log's thread has ended".into()));
            }
            state = self.wait(state);
        }
    }

    /// Asks the thread to lead for those who cannot.
    pub(super) fn lead(&self) {
        lock(&self.state).lead = true;
        self.changed.notify_all();
    }

    /// Whether the thread has ended, or is about to.
    pub(super) fn has_stopped(&self) -> bool {
        lock(&self.state).stop
    }

    fn stop(&self) {
        lock(&self.state).stop = true;
        self.changed.notify_all();
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The thread's handle; dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Keeper {
    mail: Arc<Mail>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(core: Arc<Core>, mail: Arc<Mail>) -> Result<Self> {
        let theirs = mail.clone();
        let path = core.dir.clone();
        let thread = std::thread::Builder::new()
            .name("backstay-log".into())
            .spawn(move || keep(&core, &theirs))
            .map_err(|e| Error::io("start a thread for", &path, e))?;
        Ok(Self { mail, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.mail.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of it has poisoned the log, or broken a lead, which says the same.
            let _ = thread.join();
        }
    }
}

fn keep(core: &Core, mail: &Mail) {
    let mut making: Option<Maker> = None;
    loop {
        let mut state = lock(&mail.state);
        while !state.stop && !state.lead && state.order.is_none() && making.is_none() {
            state = mail.wait(state);
        }
        if state.stop {
            drop(state);
            // Who waits for what was appended is not left alone.
            return core.release_tasks();
        }
        making = state.order.take().or(making);
        let lead = std::mem::take(&mut state.lead);
        drop(state);
        if lead {
            core.lead_for_tasks();
        }
        if let Some(mut maker) = making.take() {
            let made = match maker.step() {
                Ok(None) => {
                    making = Some(maker);
                    continue;
                }
                Ok(Some(made)) => Ok(made),
                Err(e) => Err(core.fail(e)),
            };
            lock(&mail.state).made = Some(made);
            mail.changed.notify_all();
        }
    }
}
