//! What a running pipeline tells others, and what others may ask of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};

use crate::pipeline::error::PipelineError;
use crate::pipeline::feed::Feed;
use crate::pipeline::histogram::Histogram;
use crate::pipeline::measure::Measured;
use crate::pipeline::push::Pushes;
use crate::pipeline::query::Asked;
use crate::pipeline::timed::{self, SinkTimes};

/// What a pipeline is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Opening store and connectors.
    #[default]
    Opening,
    /// Running steps again that the log has after the checkpoint.
    Replaying,
    /// Running new steps.
    Running,
    /// Every finite input is at its end and there is no other: nothing more will come.
    Finished,
    /// Draining, writing the last checkpoint.
    Stopping,
}

/// A pipeline's figures at the end of a step.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What it is doing.
    pub phase: Phase,
    /// The last step that was run.
    pub step: u64,
    /// Rows taken from inputs, over the pipeline's life.
    pub input_rows: u64,
    /// Rows taken in this process, replayed ones not included.
    pub new_rows: u64,
    /// Rows that did not parse, over the pipeline's life.
    pub parse_errors: u64,
    /// Rows that were late by a column's LATENESS, over the pipeline's life.
    pub late_rows: u64,
    /// Rows left out because an expression failed, in this process.
    pub evaluation_errors: u64,
    /// The first steps to replay and the last.
    pub replay: Option<(u64, u64)>,
    /// Rows replayed in this process.
    pub replayed_rows: u64,
    /// Rows parsed and not yet cut.
    pub buffered_rows: u64,
    /// The step of the newest checkpoint, and when it was committed on the pipeline's clock.
    pub checkpoint: Option<(u64, Duration)>,
    /// Checkpoints committed in this process.
    pub checkpoints: u64,
    /// The last request for a checkpoint that has been met.
    pub checkpoint_request: u64,
    /// The last step that every output has delivered.
    pub delivered_step: u64,
    /// Bytes of deltas that outputs hold and their sinks do not yet hold durably.
    pub pending_bytes: u64,
    /// Bytes of log on disk.
    pub log_bytes: u64,
    /// What hinders a connector now, by its name.
    pub troubles: Vec<String>,
    /// Rows that steps took from inputs, over the pipeline's life, and that all outputs have delivered.
    pub completed_rows: u64,
    /// How long the circuit took for each step of this process.
    pub step_time: Histogram,
    /// How long each step then waited for its record to be durable.
    pub commit_time: Histogram,
    /// How long checkpoints took, from the freeze to the commit.
    pub checkpoint_time: Histogram,
    /// What is looked at now and then only; none before the first look, which comes when it is running.
    pub measured: Option<Arc<Measured>>,
    /// The inputs, in the program's order.
    pub inputs: Vec<InputFigures>,
    /// The outputs, in the program's order.
    pub outputs: Vec<OutputFigures>,
}

/// One input connector's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputFigures {
    /// `<table>.<connector>`.
    pub name: Arc<str>,
    /// Rows taken, over the pipeline's life.
    pub rows: u64,
    /// Rows that did not parse, over the pipeline's life.
    pub errors: u64,
    /// Rows parsed and not yet cut, and what they take in memory.
    pub buffered_rows: u64,
    /// See `buffered_rows`.
    pub buffered_bytes: u64,
    /// What the rows that were read in this process took in memory.
    pub bytes: u64,
    /// Whether it has been read to its end.
    pub ended: bool,
    /// Whether it is paused, or waits for the end of others.
    pub paused: bool,
    /// Errors in this process that passed, or may pass.
    pub transport_errors: u64,
    /// What hinders it now.
    pub trouble: Option<String>,
}

/// One output connector's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputFigures {
    /// `<view>.<connector>`.
    pub name: Arc<str>,
    /// Rows (of any weight) that the sink came to hold durably in this process.
    pub rows: u64,
    /// What they took in memory.
    pub bytes: u64,
    /// The last step delivered, durably or not.
    pub delivered_step: u64,
    /// Steps whose deltas the sink does not yet hold durably.
    pub pending_steps: u64,
    /// Their rows.
    pub pending_rows: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// Whether it is paused.
    pub paused: bool,
    /// Errors in this process that passed, or may pass.
    pub transport_errors: u64,
    /// What hinders it now.
    pub trouble: Option<String>,
}

/// A line for people that is worth keeping.
pub type Notice = String;

/// The door between a running pipeline and its surroundings. All calls are cheap and from any thread.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    paused: AtomicBool,
    checkpoint: AtomicBool,
    checkpoints_asked: AtomicU64,
    connector_requests: Mutex<Vec<(String, bool)>>,
    asking: Mutex<Vec<Sender<Asked>>>,
    looking: Mutex<Vec<Sender<Arc<Measured>>>>,
    snapshot: Mutex<Snapshot>,
    notices: Mutex<Vec<Notice>>,
    pushes: Mutex<Option<Arc<Pushes>>>,
    has_listeners: AtomicBool,
    feed: Mutex<Option<Arc<Feed>>>,
    failure: Mutex<Option<(u8, String)>>,
    sinks: Mutex<Vec<(Arc<str>, timed::Shared)>>,
}

impl Control {
    /// How long each sink took so far, by its output's name.
    pub fn sink_times(&self) -> Vec<(Arc<str>, SinkTimes)> {
        let sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let times = |times: &timed::Shared| *times.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.iter().map(|(name, shared)| (Arc::clone(name), times(shared))).collect()
    }

    /// Where the times of an output's sink are to be counted: at one place, however often the pipeline is opened.
    pub(crate) fn time_sink(&self, name: &str) -> timed::Shared {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, shared)) = sinks.iter().find(|(known, _)| **known == *name) {
            return Arc::clone(shared);
        }
        let shared = timed::Shared::default();
        sinks.push((name.into(), Arc::clone(&shared)));
        shared
    }

    /// Where rows can be pushed, once the pipeline is running.
    pub fn pushes(&self) -> Option<Arc<Pushes>> {
        self.pushes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for the views' changes to be kept for listeners. To be called before the pipeline is run.
    pub fn keep_changes(&self) {
        self.has_listeners.store(true, Ordering::Release);
    }

    pub(crate) fn keeps_changes(&self) -> bool {
        self.has_listeners.load(Ordering::Acquire)
    }

    /// What views have changed lately, once the pipeline is running, if it is [kept](Self::keep_changes).
    pub fn feed(&self) -> Option<Arc<Feed>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where rows are pushed and changes kept from now on; nowhere, once the pipeline has ended: they hold its store.
    pub(crate) fn set_doors(&self, pushes: Option<Arc<Pushes>>, feed: Option<Arc<Feed>>) {
        *self.pushes.lock().unwrap_or_else(PoisonError::into_inner) = pushes;
        *self.feed.lock().unwrap_or_else(PoisonError::into_inner) = feed;
    }

    /// Asks for a graceful stop: no more cuts, finish the step, checkpoint, end.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether a stop was asked for.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Why the pipeline ends, with the binary's exit code, once that is known: what it still waits for then may never come, such as the end of a
    /// client of a server that is away.
    pub fn failure(&self) -> Option<(u8, String)> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn fail(&self, error: &PipelineError) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some((error.exit_code(), error.to_string()));
    }

    /// Makes no steps from now on, until [`Control::resume`]. What is under way goes on: the step, outputs, checkpoints.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Release);
    }

    /// Makes steps again.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::Release);
    }

    /// Whether no steps are to be made.
    pub fn paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Takes nothing more from an input connector, or hands nothing more to an output: `<relation>.<connector>`. Nothing is lost by it.
    pub fn pause_connector(&self, name: &str) {
        self.connector_requests.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), true));
    }

    /// Goes on with a connector. An input that waits for the end of others starts now.
    pub fn start_connector(&self, name: &str) {
        self.connector_requests.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), false));
    }

    /// Connectors to pause (true) and to start, in the order in which that was asked for.
    pub(crate) fn take_connector_requests(&self) -> Vec<(String, bool)> {
        std::mem::take(&mut self.connector_requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks for a checkpoint after the current step. Requests are numbered from 1: this one's number.
    pub fn request_checkpoint(&self) -> u64 {
        let number = self.checkpoints_asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.checkpoint.store(true, Ordering::Release);
        number
    }

    /// Requests for a checkpoint so far.
    pub(crate) fn checkpoints_asked(&self) -> u64 {
        self.checkpoints_asked.load(Ordering::Acquire)
    }

    /// Asks for the state after the current step, for queries. It comes once the pipeline is running, at the latest between two steps;
    /// the channel is closed without an answer if the pipeline ends.
    pub fn ask(&self) -> Receiver<Asked> {
        let (sender, answer) = channel::bounded(1);
        self.asking.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        answer
    }

    /// Those that wait for the state.
    pub(crate) fn take_asking(&self) -> Vec<Sender<Asked>> {
        std::mem::take(&mut self.asking.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks for the operators' figures of now. They come as the state for queries does, but nothing is frozen for them.
    pub fn look(&self) -> Receiver<Arc<Measured>> {
        let (sender, answer) = channel::bounded(1);
        self.looking.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        answer
    }

    /// Those that wait for figures.
    pub(crate) fn take_looking(&self) -> Vec<Sender<Arc<Measured>>> {
        std::mem::take(&mut self.looking.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn take_checkpoint_request(&self) -> bool {
        self.checkpoint.swap(false, Ordering::AcqRel)
    }

    /// The figures of now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.snapshot.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Leaves a line for people.
    pub(crate) fn notice(&self, line: impl Into<Notice>) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(line.into());
    }

    /// The lines left since the last call, oldest first.
    pub fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
