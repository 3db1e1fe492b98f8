//! Writes checkpoints in a task of its own, one at a time, while steps go on (invariant 9).
//!
//! What it is given is frozen: spines, the pipeline's state, the outputs' pending deltas. It waits for sinks' syncs for a bounded
//! time only; what a sink does not hold by then is written into the checkpoint.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use backstay_storage::spine::Snapshot;
use backstay_storage::{Checkpoint, CheckpointInfo, Store};
use bytes::Bytes;
use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};

use arrow::datatypes::SchemaRef;

use crate::pipeline::clock::Clock;
use crate::pipeline::controller::Environment;
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::output::Frozen;
use crate::pipeline::pending;
use crate::pipeline::schedule::{Running, Task, Turn};
use crate::pipeline::state::{OutputState, PipelineState};
use crate::sabotage::{Check, checked};

/// How long a checkpoint waits for the sinks, all together, to sync before it takes their deltas along instead.
const SINK_PATIENCE: Duration = Duration::from_secs(2);

/// What one checkpoint is made of.
#[derive(Debug)]
pub struct Job {
    /// Every operator's state.
    pub spines: Vec<Snapshot>,
    /// The pipeline's part; `outputs` is filled in here.
    pub state: PipelineState,
    /// The outputs, with their views' columns.
    pub outputs: Vec<(Frozen, SchemaRef)>,
    /// Spines that the last checkpoint has and this one leaves out.
    pub dropped: Vec<String>,
    /// First log record that is still needed when this checkpoint is opened.
    pub log_from: u64,
}

/// The task and its mailbox.
#[derive(Debug)]
pub struct Checkpointer {
    /// Before the task: one that waits for a job ends when this is gone.
    jobs: Sender<Job>,
    done: Receiver<Result<(u64, CheckpointInfo)>>,
    busy: bool,
    _task: Running,
}

impl Checkpointer {
    /// Starts the task.
    pub fn start(store: &Arc<Store>, env: &Environment) -> Result<Self> {
        let (jobs, inbox) = channel::bounded::<Job>(1);
        let (outbox, done) = channel::bounded(1);
        let work = Work { store: Arc::clone(store), clock: Arc::clone(&env.clock), inbox, outbox, writing: None };
        let task = env
            .scheduler
            .start("checkpointer", Box::new(work))
            .map_err(|e| PipelineError::State(format!("cannot start the checkpointer's thread: {e}")))?;
        Ok(Self { jobs, done, busy: false, _task: task })
    }

    /// Whether one is being written.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Begins to write one. Must not be busy.
    pub fn begin(&mut self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| PipelineError::State("the checkpointer is gone".into()))?;
        self.busy = true;
        Ok(())
    }

    /// The checkpoint that was committed since the last call, with its step.
    pub fn poll(&mut self) -> Result<Option<(u64, CheckpointInfo)>> {
        match self.done.try_recv() {
            Ok(result) => {
                self.busy = false;
                result.map(Some)
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(PipelineError::State("the checkpointer is gone".into())),
        }
    }
}

/// The writing task.
struct Work {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    inbox: Receiver<Job>,
    outbox: Sender<Result<(u64, CheckpointInfo)>>,
    writing: Option<Writing>,
}

/// A checkpoint on its way: outputs move from `left` to `state`.
struct Writing {
    spines: Vec<Snapshot>,
    state: PipelineState,
    left: VecDeque<(Frozen, SchemaRef)>,
    dropped: Vec<String>,
    log_from: u64,
    extras: Vec<String>,
    /// When sinks are waited for no longer.
    deadline: Duration,
}

impl Task for Work {
    fn turn(&mut self, patience: Duration) -> Turn {
        let Some(writing) = &mut self.writing else {
            return match receive(&self.inbox, patience) {
                Ok(job) => {
                    self.writing = Some(Writing::new(job, self.clock.elapsed() + SINK_PATIENCE));
                    Turn::Again
                }
                Err(RecvTimeoutError::Timeout) => Turn::Again,
                Err(RecvTimeoutError::Disconnected) => Turn::End,
            };
        };
        if let Some((frozen, _)) = writing.left.front() {
            let time = writing.deadline.saturating_sub(self.clock.elapsed());
            // An answer that does not come, or a sink that is gone, leaves the position as it was last known.
            if !time.is_zero() && receive(&frozen.synced, patience.min(time)) == Err(RecvTimeoutError::Timeout) {
                return Turn::Again;
            }
        }
        let Some(result) = writing.go_on(&self.store).transpose() else { return Turn::Again };
        self.writing = None;
        match self.outbox.send(result) {
            Ok(()) => Turn::Again,
            Err(_) => Turn::End,
        }
    }
}

/// Waits for up to `patience`; not at all if there is none, where `recv_timeout` would spin.
fn receive<T>(from: &Receiver<T>, patience: Duration) -> Result<T, RecvTimeoutError> {
    if !patience.is_zero() {
        return from.recv_timeout(patience);
    }
    from.try_recv().map_err(|e| match e {
        TryRecvError::Empty => RecvTimeoutError::Timeout,
        TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
    })
}

impl Writing {
    fn new(job: Job, deadline: Duration) -> Self {
        let Job { spines, state, outputs, dropped, log_from } = job;
        Self { spines, state, left: outputs.into(), dropped, log_from, extras: Vec::new(), deadline }
    }

    /// Takes one output's part along, or, once all are in, commits.
    fn go_on(&mut self, store: &Store) -> Result<Option<(u64, CheckpointInfo)>> {
        let Some((frozen, schema)) = self.left.pop_front() else {
            let checkpoint = Checkpoint {
                frozen: std::mem::take(&mut self.spines),
                blob: Bytes::from(self.state.encode()?),
                log_from: self.log_from,
                dropped: std::mem::take(&mut self.dropped),
                extras: std::mem::take(&mut self.extras),
            };
            return Ok(Some((self.state.step, store.checkpoint(checkpoint)?)));
        };
        let sink = frozen.position();
        let pending: Vec<_> = frozen.pending.iter().filter(|p| p.step > sink.step).cloned().collect();
        let mut output = OutputState { sink, pending: Vec::new() };
        if !pending.is_empty() && checked(Check::PendingDeltas) {
            let name = store.write_extra("pending", &pending::encode(&schema, &pending)?)?;
            self.extras.push(name.clone());
            output.pending.push(name);
        }
        self.state.outputs.insert(frozen.name, output);
        Ok(None)
    }
}
