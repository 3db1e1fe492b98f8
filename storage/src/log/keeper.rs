//! The log's own thread. It makes segments ahead of their need, and leads for tasks, whose polls must not block. On a disk
//! that allows no threads (the simulated one) there is none, and both are done by the callers.
//!
//! Invariant: it ends before the log's [`Core`] is let go of by the `Log`, so that a dropped log leaves nothing running;
//! only if the thread itself drops the log, it ends soon after, and holds the directory's lock until then.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::core::Core;
use super::lock;
use super::maker::{Made, Maker};
use crate::disk::DirLock;
use crate::{Error, Result};

/// What the thread is asked for, and what it answers.
#[derive(Debug, Default)]
pub(super) struct Mail {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The segment that is being made, between two steps.
    making: Option<Maker>,
    /// The thread has it, for a step.
    stepping: bool,
    made: Option<Result<Made>>,
    lead: bool,
    stop: bool,
}

impl Mail {
    /// Asks for a segment.
    pub(super) fn order(&self, maker: Maker) {
        lock(&self.state).making = Some(maker);
        self.changed.notify_all();
    }

    /// The segment that was asked for. If it is not there yet, the caller makes the rest of it itself: the thread may be
    /// the caller, or have ended. `None` if none was asked for.
    pub(super) fn made(&self) -> Option<Result<Made>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(made) = state.made.take() {
                return Some(made);
            }
            if let Some(maker) = state.making.take() {
                drop(state);
                return Some(maker.finish());
            }
            if !state.stepping {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// Does a step of what is being made.
    fn step(&self, core: &Core, mut maker: Maker) {
        /// Lets go also if the step panics: nobody may wait for ever.
        struct Stepping<'a>(&'a Mail, Option<State>);
        impl Drop for Stepping<'_> {
            fn drop(&mut self) {
                let mut state = lock(&self.0.state);
                state.stepping = false;
                let failed = || Some(Err(Error::panicked("made a segment")));
                match self.1.take() {
                    Some(State { making, made, .. }) => (state.making, state.made) = (making, made),
                    None => state.made = failed(),
                }
                self.0.changed.notify_all();
            }
        }
        let mut stepping = Stepping(self, None);
        let (making, made) = match maker.step() {
            Ok(None) => (Some(maker), None),
            Ok(Some(made)) => (None, Some(Ok(made))),
            Err(e) => (None, Some(Err(core.fail(e)))),
        };
        stepping.1 = Some(State { making, made, ..State::default() });
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
    /// `lock` is let go of by the thread too, not before it ends.
    pub(super) fn start(core: Arc<Core>, mail: Arc<Mail>, lock: Option<Arc<DirLock>>) -> Result<Self> {
        let theirs = mail.clone();
        let path = core.dir.clone();
        let thread = std::thread::Builder::new()
            .name("backstay-log".into())
            .spawn(move || {
                keep(&core, &theirs);
                drop(lock);
            })
            .map_err(|e| Error::io("start a thread for", &path, e))?;
        Ok(Self { mail, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.mail.stop();
        // A task that this thread woke, or whose waker it dropped, may have been the log's last owner: the thread then ends by
        // itself, soon after.
        let is_own = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(|thread| !is_own(thread)) {
            // A panic of it has poisoned the log, or broken a lead, which says the same.
            let _ = thread.join();
        }
    }
}

fn keep(core: &Core, mail: &Mail) {
    loop {
        let mut state = lock(&mail.state);
        while !state.stop && !state.lead && state.making.is_none() {
            state = mail.wait(state);
        }
        if state.stop {
            drop(state);
            // Who waits for what was appended is not left alone.
            return core.release_tasks();
        }
        if std::mem::take(&mut state.lead) {
            drop(state);
            core.lead_for_tasks();
        } else if let Some(maker) = state.making.take() {
            state.stepping = true;
            drop(state);
            mail.step(core, maker);
        }
    }
}
