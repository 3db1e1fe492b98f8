//! Who runs what goes on beside the steps: reading inputs, delivering to outputs, writing checkpoints.
//!
//! Each of these is a [`Task`], which does its work turn by turn and knows no thread. A [`Scheduler`] says whose turn it is:
//! [`Threads`] gives each task a thread of its own; a simulation takes them all in turn on one, in an order that a seed decides.
//!
//! Invariants:
//! 1. A task waits only inside of a turn, for its own queue, no longer than that turn's patience. So with no patience it never waits.
//! 2. When a [`Running`] has been dropped, its task is gone, and with it what it held (a connector, the store).

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::sync::Parker;

use crate::circuit::Pick;

/// How long a task's thread waits in one turn before it looks whether it shall end.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a task wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another turn.
    Again,
    /// Another turn, but not before this time has passed.
    Pause(Duration),
    /// None: it has ended.
    End,
}

/// Work that goes on beside the steps.
pub trait Task: Send {
    /// Does one piece of work; waits up to `patience` for something to do.
    fn turn(&mut self, patience: Duration) -> Turn;
}

/// A started task, which ends when this is dropped; the drop waits for the turn that it has.
#[derive(Debug)]
pub struct Running {
    _guard: Box<dyn Debug + Send>,
}

impl Running {
    /// A task that runs until `guard` is dropped; that drop must keep invariant 2.
    pub fn new(guard: impl Debug + Send + 'static) -> Self {
        Self { _guard: Box::new(guard) }
    }
}

/// Runs tasks beside the controller.
pub trait Scheduler: Debug + Send + Sync {
    /// Starts a task.
    ///
    /// # Errors
    /// There is no thread for it.
    fn start(&self, name: &str, task: Box<dyn Task>) -> std::io::Result<Running>;

    /// Called by the controller when it has nothing to do: returns when it is woken or `at_most` has passed.
    fn wait(&self, parker: &Parker, at_most: Duration);

    /// Called by the controller where a thread might be suspended: others may have their turns here. Tasks that have threads of
    /// their own need no such place.
    fn pass(&self) {}

    /// The order in which the circuit's workers run and their messages come, if all of them are to run on the controller's thread.
    /// `None`: each has a thread of its own.
    fn worker_order(&self) -> Option<Pick> {
        None
    }
}

/// Each task on a thread of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

impl Scheduler for Threads {
    fn start(&self, name: &str, mut task: Box<dyn Task>) -> std::io::Result<Running> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                match task.turn(PATIENCE) {
                    Turn::Again => {}
                    // A pause that is cut short by an old token does no harm; one that is cut short by the end saves time.
                    Turn::Pause(time) => std::thread::park_timeout(time),
                    Turn::End => return,
                }
            }
        })?;
        Ok(Running::new(Thread { stop, thread: Some(thread) }))
    }

    fn wait(&self, parker: &Parker, at_most: Duration) {
        parker.park_timeout(at_most);
    }
}

/// Ends its thread when it is dropped.
#[derive(Debug)]
struct Thread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A task that panicked has told so on its own thread.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Counts its turns, and sleeps for a day after the third.
    struct Count(Arc<AtomicU64>);

    impl Task for Count {
        fn turn(&mut self, patience: Duration) -> Turn {
            assert_eq!(patience, PATIENCE);
            match self.0.fetch_add(1, Ordering::AcqRel) {
                0 | 1 => Turn::Again,
                _ => Turn::Pause(Duration::from_secs(86_400)),
            }
        }
    }

    #[test]
    fn a_task_that_pauses_ends_at_once() {
        let turns = Arc::new(AtomicU64::new(0));
        let running = Threads.start("count", Box::new(Count(Arc::clone(&turns)))).unwrap();
        while turns.load(Ordering::Acquire) < 3 {
            std::thread::yield_now();
        }
        drop(running);
        assert_eq!(Arc::strong_count(&turns), 1, "the task is gone");
    }
}
