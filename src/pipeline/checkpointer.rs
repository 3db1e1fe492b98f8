//! Writes checkpoints on a thread of its own, one at a time, while steps go on (invariant 9).
//!
//! What it is given is frozen: spines, the pipeline's state, the outputs' pending deltas. It waits for sinks' syncs for a bounded
//! time only; what a sink does not hold by then is written into the checkpoint.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use backstay_storage::spine::Snapshot;
use backstay_storage::{Checkpoint, CheckpointInfo, Store};
use bytes::Bytes;
use crossbeam::channel::{self, Receiver, Sender};

use arrow::datatypes::SchemaRef;

use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::output::Frozen;
use crate::pipeline::pending;
use crate::pipeline::state::{OutputState, PipelineState};

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

/// The thread and its mailbox.
#[derive(Debug)]
pub struct Checkpointer {
    jobs: Option<Sender<Job>>,
    done: Receiver<Result<(u64, CheckpointInfo)>>,
    busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread.
    pub fn start(store: Arc<Store>) -> Result<Self> {
        let (jobs, inbox) = channel::bounded::<Job>(1);
        let (outbox, done) = channel::bounded(1);
        let thread = std::thread::Builder::new()
            .name("checkpointer".into())
            .spawn(move || {
                for job in inbox {
                    let step = job.state.step;
                    if outbox.send(commit(&store, job).map(|info| (step, info))).is_err() {
                        return;
                    }
                }
            })
            .map_err(|e| PipelineError::State(format!("cannot start the checkpointer's thread: {e}")))?;
        Ok(Self { jobs: Some(jobs), done, busy: false, thread: Some(thread) })
    }

    /// Whether one is being written.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Begins to write one. Must not be busy.
    pub fn begin(&mut self, job: Job) -> Result<()> {
        let gone = || PipelineError::State("the checkpointer's thread is gone".into());
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
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
            Err(channel::TryRecvError::Empty) => Ok(None),
            Err(channel::TryRecvError::Disconnected) => {
                Err(PipelineError::State("the checkpointer's thread is gone".into()))
            }
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A checkpointer that panicked has told so on its own thread.
            let _ = thread.join();
        }
    }
}

/// Writes one checkpoint, on the calling thread.
pub fn commit(store: &Store, job: Job) -> Result<CheckpointInfo> {
    let Job { spines, mut state, outputs, log_from, dropped } = job;
    let mut extras = Vec::new();
    let patience = channel::after(SINK_PATIENCE);
    let mut patient = true;
    for (frozen, schema) in outputs {
        // An answer that does not come, or a sink that is gone, leaves the position as it was last known.
        if patient {
            crossbeam::select! {
                recv(frozen.synced) -> _ => {}
                recv(patience) -> _ => patient = false,
            }
        }
        let sink = frozen.position();
        let left: Vec<_> = frozen.pending.iter().filter(|p| p.step > sink.step).cloned().collect();
        let mut output = OutputState { sink, pending: Vec::new() };
        if !left.is_empty() {
            let name = store.write_extra("pending", &pending::encode(&schema, &left)?)?;
            extras.push(name.clone());
            output.pending.push(name);
        }
        state.outputs.insert(frozen.name, output);
    }
    let blob = Bytes::from(state.encode()?);
    Ok(store.checkpoint(Checkpoint { frozen: spines, blob, log_from, dropped, extras })?)
}
