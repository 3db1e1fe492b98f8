//! Waiting without blocking a thread.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Seq;
use super::core::{Core, Wish};
use crate::Result;
use crate::disk::DirLock;
use crate::queue::lead::Note;

/// Ends when a record is durable, or the log has failed. [`Log::when_durable`](super::Log::when_durable) makes one.
///
/// The log's own thread does the work. On a disk that allows no threads (the simulated one), and once the log has been
/// dropped, a poll does it itself, and blocks. What a poll waited for before that, the drop makes durable.
///
/// While one lives that [`Log::open_alone`](super::Log::open_alone)'s log made, the directory stays locked.
#[must_use = "a future does nothing unless it is polled"]
pub struct WhenDurable {
    core: Arc<Core>,
    seq: Seq,
    note: Option<(Note<Wish>, Waker)>,
    /// Of a log that stands alone: a poll may write after the log was dropped.
    _lock: Option<Arc<DirLock>>,
}

impl WhenDurable {
    pub(super) fn new(core: Arc<Core>, seq: Seq, lock: Option<Arc<DirLock>>) -> Self {
        Self { core, seq, note: None, _lock: lock }
    }

    fn outcome(&self) -> Option<Result<()>> {
        match self.core.check() {
            Err(e) => Some(Err(e)),
            Ok(()) => (self.core.durable() >= self.seq).then_some(Ok(())),
        }
    }

    fn leave(&mut self) {
        if let Some((note, _)) = self.note.take() {
            note.leave();
        }
    }
}

impl Future for WhenDurable {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        let Some(mail) = self.core.mail.clone().filter(|mail| !mail.has_stopped()) else {
            return Poll::Ready(self.core.wait_durable(self.seq));
        };
        if self.note.as_ref().is_none_or(|(_, waker)| !waker.will_wake(context.waker())) {
            self.leave();
            let waker = context.waker().clone();
            self.note = Some((self.core.note(self.seq, waker.clone()), waker));
            // It may have become durable, or failed, before the note was there.
            if let Some(outcome) = self.outcome() {
                return Poll::Ready(outcome);
            }
            mail.lead();
            if mail.has_stopped() {
                // The thread may have looked for notes before this one was there.
                return Poll::Ready(self.core.wait_durable(self.seq));
            }
        }
        Poll::Pending
    }
}

impl Drop for WhenDurable {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for WhenDurable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WhenDurable").field("seq", &self.seq).finish_non_exhaustive()
    }
}
