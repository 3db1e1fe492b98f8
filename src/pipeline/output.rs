//! An output connector at work: a task (`work`) delivers the steps' deltas in order.
//!
//! A delta is *pending* until the sink holds it durably. The controller keeps pending deltas, so that a checkpoint never waits for
//! a sink: what a slow or failing sink has not got goes into the checkpoint itself (invariant 9).
//!
//! A paused output's deltas stay pending and are not handed to its sink.
//!
//! Bounds: `max_pending_output_bytes`; at a quarter of it the sink is asked to sync, at the bound inputs wait. A connector's
//! `max_queued_records` and `max_queued_bytes` bound what is pending for it alone.
//! Known limit: a delta that is pending over several checkpoints is written by each of them.

mod work;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backstay_storage::queue;
use crossbeam::channel::{self as reply, Receiver as Reply};
use crossbeam::sync::Unparker;

use crate::circuit::Delta;
use crate::connector::config::ConnectorConfig;
use crate::connector::{Output, Resume, SinkPosition};
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::schedule::{Running, Scheduler};
use crate::pipeline::status::OutputFigures;
use crate::sabotage::{Check, checked};
pub(super) use work::RETRY;
use work::{Item, Shared, Work, lock};

const QUEUE_ITEMS: usize = 64;

/// A sink that takes longer for one thing is said not to answer: clients of servers may wait for these without an end.
const SLOW: Duration = Duration::from_secs(15);

/// One output connector of a pipeline.
#[derive(Debug)]
pub struct OutputEndpoint {
    /// `<view>.<connector>`.
    pub name: String,
    /// The name again, for those who are told figures.
    label: Arc<str>,
    /// The view, by its place in the program.
    pub view: usize,
    /// Steps up to here are not sent: the sink has them.
    skip: u64,
    pending: VecDeque<Pending>,
    pending_bytes: u64,
    pending_rows: u64,
    sent_rows: u64,
    sent_bytes: u64,
    is_paused: bool,
    /// The task's turns when they were looked at last, and since when they are that many.
    turns: (u64, Duration),
    /// Whether the sink does not answer.
    is_slow: bool,
    /// The most rows and bytes that are pending before inputs wait.
    most_rows: Option<u64>,
    most_bytes: Option<u64>,
    unsynced_bytes: u64,
    /// Whether a delta was sent since the sink was last asked to sync.
    unsynced: bool,
    /// Whether the sink was asked to check that it holds nothing beyond what was replayed.
    awaits_check: bool,
    /// Items that the queue had no room for yet.
    backlog: VecDeque<Item>,
    /// Before the task: one that waits for something to do ends when this is gone.
    sender: queue::Sender<Item>,
    shared: Arc<Shared>,
    _task: Running,
}

/// A delta that the sink does not yet hold durably.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Its step.
    pub step: u64,
    /// The change to the view.
    pub delta: Arc<Delta>,
    bytes: u64,
}

impl Pending {
    /// A pending delta.
    pub fn new(step: u64, delta: impl Into<Arc<Delta>>) -> Self {
        let delta = delta.into();
        let bytes = delta.rows.get_array_memory_size() as u64 + 8 * delta.len() as u64;
        Self { step, delta, bytes }
    }
}

/// What a checkpoint needs of an output.
#[derive(Debug)]
pub struct Frozen {
    /// The output's name.
    pub name: String,
    /// Deltas up to the checkpoint's step that the sink did not hold at the freeze.
    pub pending: Vec<Pending>,
    /// Comes when the sink has synced; not waited for without bound.
    pub synced: Reply<()>,
    shared: Arc<Shared>,
}

impl Frozen {
    /// Where the sink is known to stand durably now.
    pub fn position(&self) -> SinkPosition {
        lock(&self.shared.synced).clone()
    }
}

impl OutputEndpoint {
    /// Starts the delivering task over an output that stands at `position`; if it is not open, the task opens it.
    pub fn start(
        name: String,
        view: usize,
        output: Box<dyn Output>,
        config: &ConnectorConfig,
        (position, resume, is_open): (SinkPosition, Resume, bool),
        scheduler: &dyn Scheduler,
        wake: Unparker,
    ) -> Result<Self> {
        let (sender, items) = queue::channel(QUEUE_ITEMS);
        let skip = position.step;
        let shared = Arc::new(Shared { synced: position.into(), ..Shared::default() });
        shared.delivered.store(skip, Ordering::Release);
        let replayed = resume.replayed;
        let unopened = (!is_open).then_some(resume);
        let work = Work::new(output, items, (replayed, unopened), Arc::clone(&shared), wake);
        let task = scheduler
            .start(&format!("out {name}"), Box::new(work))
            .map_err(|e| PipelineError::State(format!("cannot start a thread for output {name}: {e}")))?;
        Ok(Self {
            label: name.as_str().into(),
            name,
            view,
            skip,
            pending: VecDeque::new(),
            pending_bytes: 0,
            pending_rows: 0,
            sent_rows: 0,
            sent_bytes: 0,
            is_paused: config.paused,
            turns: (0, Duration::ZERO),
            is_slow: false,
            most_rows: config.max_queued_records,
            most_bytes: config.max_queued_bytes,
            unsynced_bytes: 0,
            unsynced: false,
            awaits_check: false,
            backlog: VecDeque::new(),
            sender,
            shared,
            _task: task,
        })
    }

    /// Hands over a step's delta; steps that the sink has are left out.
    pub fn send(&mut self, step: u64, delta: Arc<Delta>) {
        if step <= self.skip && checked(Check::SinkSkip) {
            return;
        }
        let pending = Pending::new(step, Arc::clone(&delta));
        self.pending_bytes += pending.bytes;
        self.pending_rows += delta.len() as u64;
        self.sent_rows += delta.len() as u64;
        self.sent_bytes += pending.bytes;
        self.unsynced_bytes += pending.bytes;
        self.unsynced = true;
        self.pending.push_back(pending);
        self.backlog.push_back(Item::Delta { step, delta });
    }

    /// Says that what was sent so far is all that was replayed.
    pub fn replay_done(&mut self) {
        self.awaits_check = true;
        self.backlog.push_back(Item::ReplayDone);
    }

    /// Moves work along; called at every turn of the controller, at time `now`. `bound` is the bytes at which inputs wait.
    pub fn pump(&mut self, bound: u64, now: Duration) -> Result<()> {
        let turns = self.shared.turns.load(Ordering::Acquire);
        if turns != self.turns.0 {
            self.turns = (turns, now);
        }
        self.is_slow = now.saturating_sub(self.turns.1) > SLOW;
        if self.unsynced_bytes > bound / 4 {
            self.ask_sync(None);
        }
        while let Some(item) = self.backlog.pop_front_if(|_| !self.is_paused) {
            if let Err(full) = self.sender.try_send(item) {
                self.backlog.push_front(full.into_inner());
                break;
            }
        }
        let synced = lock(&self.shared.synced).step;
        while self.pending.front().is_some_and(|p| p.step <= synced) {
            if let Some(done) = self.pending.pop_front() {
                self.pending_bytes -= done.bytes;
                self.pending_rows -= done.delta.len() as u64;
            }
        }
        match lock(&self.shared.failed).take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// What a checkpoint after step `step` needs; asks the sink to sync, and does not wait.
    pub fn freeze(&mut self, step: u64) -> Frozen {
        let (done, synced) = reply::bounded(1);
        // What a paused one has is pending: there is nothing to wait for.
        if !self.is_paused {
            self.ask_sync(Some(done));
        }
        Frozen {
            name: self.name.clone(),
            pending: self.pending.iter().filter(|p| p.step <= step).cloned().collect(),
            synced,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Hands nothing more to the sink from now on, or goes on.
    pub fn pause(&mut self, paused: bool) {
        self.is_paused = paused;
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Whether more is pending than its connector's configuration allows.
    pub fn is_full(&self) -> bool {
        let over = |bound: Option<u64>, now: u64| bound.is_some_and(|most| now > most);
        over(self.most_rows, self.pending_rows) || over(self.most_bytes, self.pending_bytes)
    }

    /// The last step delivered to the sink, durably or not.
    pub fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::Acquire)
    }

    /// Asks the sink to sync what it has not been asked to sync yet: nothing more comes for now.
    pub fn settle(&mut self) {
        if self.unsynced {
            self.ask_sync(None);
        }
    }

    fn ask_sync(&mut self, done: Option<reply::Sender<()>>) {
        self.unsynced_bytes = 0;
        self.unsynced = false;
        self.backlog.push_back(Item::Sync(done));
    }

    /// Whether the sink holds everything that was sent, durably, and nothing else: what it says of that may still be on its way.
    pub fn is_drained(&self) -> bool {
        let is_checked = !self.awaits_check || self.shared.is_checked.load(Ordering::Acquire);
        self.backlog.is_empty() && self.pending.is_empty() && is_checked
    }

    /// Bytes of pending deltas.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Its figures of now.
    pub fn figures(&self) -> OutputFigures {
        OutputFigures {
            name: Arc::clone(&self.label),
            rows: self.sent_rows - self.pending_rows,
            bytes: self.sent_bytes - self.pending_bytes,
            delivered_step: self.delivered(),
            pending_steps: self.pending.len() as u64,
            pending_rows: self.pending_rows,
            pending_bytes: self.pending_bytes,
            paused: self.is_paused,
            transport_errors: self.shared.retries.load(Ordering::Acquire),
            trouble: self.trouble(),
        }
    }

    /// What hinders the sink now.
    pub fn trouble(&self) -> Option<String> {
        let slow = || self.is_slow.then(|| format!("connector {}: its sink does not answer", self.name));
        lock(&self.shared.trouble).clone().or_else(slow)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use arrow::datatypes::{DataType, Field, Schema};
    use crossbeam::sync::Parker;

    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::connector::{ConnectorError, Level};
    use crate::pipeline::schedule::Threads;

    /// Takes everything, and writes it only once there is room, as a file on a full disk.
    #[derive(Debug)]
    struct Full {
        room: Arc<AtomicBool>,
        step: u64,
        /// What was flushed is durable, as with a server's transactions.
        commits: bool,
        flushed: u64,
    }

    impl Full {
        fn write(&self) -> Result<(), ConnectorError> {
            if self.room.load(Ordering::Acquire) {
                return Ok(());
            }
            Err(ConnectorError { connector: "v.full".into(), message: "no space left".into(), retry: true })
        }
    }

    impl Output for Full {
        fn level(&self) -> Level {
            Level::ExactlyOnce
        }

        fn open(&mut self, _: &Resume) -> Result<(), ConnectorError> {
            Ok(())
        }

        fn deliver(&mut self, step: u64, _: &Delta) -> Result<(), ConnectorError> {
            self.step = step;
            Ok(())
        }

        fn flush(&mut self) -> Result<(), ConnectorError> {
            self.write()?;
            self.flushed = self.step;
            Ok(())
        }

        fn durable(&self) -> Option<SinkPosition> {
            self.commits.then(|| SinkPosition { step: self.flushed, ..SinkPosition::default() })
        }

        fn replay_done(&mut self) -> Result<(), ConnectorError> {
            Ok(())
        }

        fn sync(&mut self) -> Result<SinkPosition, ConnectorError> {
            self.write()?;
            Ok(SinkPosition { step: self.step, ..SinkPosition::default() })
        }
    }

    /// An endpoint over a sink that takes everything, and has been sent one step.
    fn endpoint(room: &Arc<AtomicBool>, commits: bool, wake: Unparker) -> OutputEndpoint {
        let sink = Box::new(Full { room: Arc::clone(room), step: 0, commits, flushed: 0 });
        let resume = Resume {
            checkpoint: None,
            step: 0,
            last_step: 0,
            replayed: true,
            copy: false,
            incarnation: uuid::Uuid::nil(),
            epoch: 1,
        };
        let at = (SinkPosition::default(), resume, true);
        let config = ConnectorConfig::parse_list("v", r#"[{"transport": {"name": "full"}}]"#).unwrap().remove(0);
        let mut endpoint = OutputEndpoint::start("v.full".into(), 0, sink, &config, at, &Threads, wake).unwrap();
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        endpoint.send(1, Arc::new(Delta { rows: RecordBatch::new_empty(schema), weights: Vec::new() }));
        endpoint
    }

    fn turn(endpoint: &mut OutputEndpoint, parker: &Parker) {
        endpoint.pump(1 << 20, Duration::ZERO).unwrap();
        parker.park_timeout(Duration::from_millis(10));
    }

    #[test]
    fn what_a_sink_holds_back_is_not_drained() {
        let (room, parker) = (Arc::new(AtomicBool::new(false)), Parker::new());
        let mut endpoint = endpoint(&room, false, parker.unparker().clone());
        endpoint.settle();
        while endpoint.trouble().is_none() {
            turn(&mut endpoint, &parker);
        }
        assert_eq!(endpoint.delivered(), 1);
        assert!(!endpoint.is_drained());
        room.store(true, Ordering::Release);
        while !endpoint.is_drained() {
            turn(&mut endpoint, &parker);
        }
    }

    /// Nobody asks it to sync: without a checkpoint it would be pending for ever.
    #[test]
    fn what_a_sink_has_committed_is_not_pending() {
        let (room, parker) = (Arc::new(AtomicBool::new(false)), Parker::new());
        let mut endpoint = endpoint(&room, true, parker.unparker().clone());
        while endpoint.trouble().is_none() {
            turn(&mut endpoint, &parker);
        }
        assert_eq!((endpoint.delivered(), endpoint.figures().pending_steps), (1, 1), "it is not committed");
        room.store(true, Ordering::Release);
        let is_committed = |_| {
            turn(&mut endpoint, &parker);
            endpoint.figures().pending_steps == 0
        };
        assert!((0..2000).any(is_committed), "it is still pending");
    }
}
