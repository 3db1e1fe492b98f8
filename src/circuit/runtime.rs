//! Runs a circuit step by step on worker threads. This module alone knows Timely, whose timestamps are our step numbers.
//!
//! The controller's thread holds a [`Runtime`] and talks to the workers by channels. Each worker thread runs one Timely
//! operator a [stage](super::placement); messages are exchanged between stages, whole chunks at a time.
//!
//! Invariants:
//! 1. A stage runs at a step when no worker can send it anything more for that step: when its frontier has passed the step.
//!    It runs whether or not anything came in.
//! 2. A worker begins step n + 1 only when step n is complete on all of them.
//! 3. A worker that fails goes on passing frontiers, so that nobody waits for it; one that panics is noticed by the
//!    `Farewell` that its thread drops. After either, the runtime only says why it stopped.
//!
//! Known limit: [`Runtime::submit`] does not bound the number of steps that wait; its caller does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstay_storage::spine::Snapshot;
use crossbeam::channel::{Receiver, Sender, unbounded};
use timely::communication::{WorkerGuards, initialize_from};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::{Input, Probe};
use timely::dataflow::{InputHandle, ProbeHandle, Stream};
use timely::progress::frontier::MutableAntichain;

use super::delta::Delta;
use super::error::{CircuitError, Result};
use super::figures::NodeFigures;
use super::floors::{Floors, NodeFloor};
use super::message::Message;
use super::operator::EvalErrors;
use super::plan::CircuitPlan;
use super::row::{RowCodec, self_check};
use super::step::{OpenSpine, Pick, RuntimeOptions, StepInput, StepOutput};
use super::vnode::VNODES;
use super::worker::{TableChunk, Worker, WorkerOutput, spread};

/// How long a worker waits for the others before it looks whether the runtime was given up.
const PARK: Duration = Duration::from_millis(500);

/// A running circuit.
pub struct Runtime {
    plan: Arc<CircuitPlan>,
    engine: Engine,
    view_codecs: Vec<RowCodec>,
    workers: usize,
    /// Steps that were submitted, with what the workers answered so far.
    pending: BTreeMap<u64, Vec<Option<Result<WorkerOutput>>>>,
    last_step: u64,
    floors: Floors,
    stopped: Option<String>,
}

enum Engine {
    Threads(Threads),
    /// All workers in the caller's thread, in an order that the caller picks.
    Inline(Vec<Worker>, Pick),
}

struct Threads {
    commands: Vec<Sender<Command>>,
    replies: Receiver<Reply>,
    abandoned: Arc<AtomicBool>,
    /// Taken when the runtime is dropped.
    guards: Option<WorkerGuards<()>>,
}

enum Command {
    Step { step: u64, clock_ms: i64, floors: Arc<Vec<NodeFloor>>, input: Vec<TableChunk> },
    Freeze,
    Figures,
}

enum Reply {
    Step { worker: usize, step: u64, output: Result<WorkerOutput> },
    Frozen { worker: usize, spines: Vec<Snapshot> },
    Figures { worker: usize, figures: Vec<NodeFigures> },
    Lost { worker: usize },
}

impl Reply {
    fn worker(&self) -> usize {
        let (Self::Step { worker, .. }
        | Self::Frozen { worker, .. }
        | Self::Figures { worker, .. }
        | Self::Lost { worker }) = self;
        *worker
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Runtime");
        debug.field("workers", &self.workers).field("last_step", &self.last_step).field("stopped", &self.stopped);
        debug.finish_non_exhaustive()
    }
}

impl Runtime {
    /// Starts the workers, each on a thread of its own. `open_spine` is called in this thread, for each spine of each
    /// worker: worker, name (`<node>.<role>#<worker>`) and discipline.
    ///
    /// # Errors
    /// A number of workers outside 1 to 256, a plan that the operators cannot run, state that does not open.
    pub fn start(plan: Arc<CircuitPlan>, options: RuntimeOptions, open_spine: &mut OpenSpine<'_>) -> Result<Self> {
        let workers = Self::workers(&plan, &options, open_spine)?;
        let threads = Threads::start(workers)?;
        Self::new(plan, options, Engine::Threads(threads))
    }

    /// Like [`Self::start`], but runs all workers in the caller's thread: [`Self::submit`] does the work. `order` picks
    /// which worker is next to run a stage, and which message is next to arrive; it must not matter. For simulations, and
    /// for answering a query once.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_inline(
        plan: Arc<CircuitPlan>,
        options: RuntimeOptions,
        open_spine: &mut OpenSpine<'_>,
        order: Pick,
    ) -> Result<Self> {
        let workers = Self::workers(&plan, &options, open_spine)?;
        Self::new(plan, options, Engine::Inline(workers, order))
    }

    fn workers(plan: &Arc<CircuitPlan>, options: &RuntimeOptions, open: &mut OpenSpine<'_>) -> Result<Vec<Worker>> {
        self_check()?;
        if options.workers == 0 || options.workers > VNODES {
            let message = format!("\"workers\" is {}, it must be 1 to {VNODES}", options.workers);
            return Err(CircuitError::plan("circuit", message));
        }
        (0..options.workers).map(|index| Worker::new(plan, options, index, open)).collect()
    }

    fn new(plan: Arc<CircuitPlan>, options: RuntimeOptions, engine: Engine) -> Result<Self> {
        let view_codecs = plan.views.iter().map(|v| RowCodec::of_schema(&plan.nodes[v.node].schema));
        let view_codecs = view_codecs.collect::<Result<_>>()?;
        let workers = options.workers;
        let (pending, stopped) = (BTreeMap::new(), None);
        let floors = Floors::of(&plan);
        Ok(Self { plan, engine, view_codecs, workers, pending, last_step: 0, floors, stopped })
    }

    /// Hands a step to the workers and does not wait. Steps may be numbered with gaps, but must ascend.
    ///
    /// # Errors
    /// [`CircuitError::Stopped`] after an error; input that does not fit the plan.
    pub fn submit(&mut self, input: StepInput) -> Result<()> {
        self.check()?;
        let (step, clock_ms) = (input.step, input.clock_ms);
        if step <= self.last_step {
            return Err(CircuitError::Stopped(format!("step {step} was submitted after step {}", self.last_step)));
        }
        if input.tables.len() != self.plan.tables.len() {
            let message =
                format!("the input has {} tables, the program {}", input.tables.len(), self.plan.tables.len());
            return Err(CircuitError::plan("circuit", message));
        }
        self.last_step = step;
        let floors = Arc::new(self.floors.at(&input.watermarks)?);
        let shares = spread(input, self.workers);
        let answers = match &mut self.engine {
            Engine::Threads(threads) => {
                for (commands, input) in threads.commands.iter().zip(shares) {
                    // A worker that is gone says so by its farewell, which `complete` finds.
                    let _ = commands.send(Command::Step { step, clock_ms, floors: Arc::clone(&floors), input });
                }
                (0..self.workers).map(|_| None).collect()
            }
            Engine::Inline(workers, order) => match run_inline(workers, order, (step, clock_ms, &floors), shares) {
                Ok(outputs) => outputs.into_iter().map(|output| Some(Ok(output))).collect(),
                Err(error) => vec![Some(Err(error))],
            },
        };
        self.pending.insert(step, answers);
        Ok(())
    }

    /// Waits for the oldest step that was submitted and not yet completed.
    ///
    /// # Errors
    /// The first worker's error, after which the runtime is stopped for good; [`CircuitError::Stopped`] if nothing was
    /// submitted or after an earlier error.
    pub fn complete(&mut self) -> Result<StepOutput> {
        self.check()?;
        let Some(&step) = self.pending.keys().next() else {
            return Err(CircuitError::Stopped("no step was submitted".to_owned()));
        };
        let result = self.outputs(step).and_then(|outputs| self.merge(step, outputs));
        self.remember(result)
    }

    fn outputs(&mut self, step: u64) -> Result<Vec<WorkerOutput>> {
        while self.pending.get(&step).is_some_and(|answers| answers.iter().any(Option::is_none)) {
            match self.reply()? {
                Reply::Step { worker, step, output } => {
                    if let Some(answers) = self.pending.get_mut(&step) {
                        answers[worker] = Some(output);
                    }
                }
                other => return Err(CircuitError::WorkerLost { worker: other.worker() }),
            }
        }
        self.pending.remove(&step).into_iter().flatten().flatten().collect()
    }

    fn reply(&mut self) -> Result<Reply> {
        match &self.engine {
            Engine::Threads(threads) => threads.replies.recv().map_err(|_| CircuitError::WorkerLost { worker: 0 }),
            Engine::Inline(..) => Err(CircuitError::WorkerLost { worker: 0 }),
        }
    }

    /// Adds up what the workers did.
    fn merge(&mut self, step: u64, outputs: Vec<WorkerOutput>) -> Result<StepOutput> {
        let mut merged = StepOutput { step, ..StepOutput::default() };
        let mut parts: Vec<Vec<_>> = self.view_codecs.iter().map(|_| Vec::new()).collect();
        let mut eval_errors = EvalErrors::default();
        for output in outputs {
            for (parts, part) in parts.iter_mut().zip(output.views) {
                parts.push(part);
            }
            eval_errors.merge(output.eval_errors);
            merged.next_due_ms = merged.next_due_ms.into_iter().chain(output.next_due).min();
        }
        for (view, (parts, codec)) in parts.into_iter().zip(&self.view_codecs).enumerate() {
            let schema = &self.plan.nodes[self.plan.views[view].node].schema;
            let mut parts: Vec<_> = parts.into_iter().filter(|(delta, _)| !delta.is_empty()).collect();
            let (delta, hash) = match parts.len() {
                // One worker's delta is consolidated already.
                1 => parts.remove(0),
                _ => {
                    let chunks: Vec<Delta> = parts.into_iter().map(|(delta, _)| delta).collect();
                    let all =
                        Delta::concat(schema, &chunks).map_err(CircuitError::arrow(&self.plan.views[view].name))?;
                    all.consolidate(codec)?
                }
            };
            merged.views.push(delta);
            merged.view_hashes.push(hash);
        }
        merged.eval_errors = eval_errors.into_sorted();
        Ok(merged)
    }

    /// Freezes every spine of every worker, in the order of workers and nodes. All submitted steps must be complete.
    ///
    /// # Errors
    /// [`CircuitError::Stopped`] with a step under way or after an error.
    pub fn freeze(&mut self) -> Result<Vec<Snapshot>> {
        self.check()?;
        if let Some(step) = self.pending.keys().next() {
            return Err(CircuitError::Stopped(format!("step {step} is under way; complete it before freezing")));
        }
        let result = self.freeze_workers();
        self.remember(result)
    }

    /// What the nodes have done since the runtime began, and what they keep, by node id. All submitted steps must be complete.
    ///
    /// # Errors
    /// [`CircuitError::Stopped`] after an error.
    pub fn figures(&mut self) -> Result<Vec<NodeFigures>> {
        self.check()?;
        let result = self.figures_of_workers();
        self.remember(result)
    }

    fn freeze_workers(&mut self) -> Result<Vec<Snapshot>> {
        if let Engine::Inline(workers, _) = &mut self.engine {
            return Ok(workers.iter_mut().flat_map(Worker::freeze).collect());
        }
        let frozen = self.ask(&|| Command::Freeze, |reply| match reply {
            Reply::Frozen { spines, .. } => Some(spines),
            _ => None,
        })?;
        Ok(frozen.into_iter().flatten().collect())
    }

    fn figures_of_workers(&mut self) -> Result<Vec<NodeFigures>> {
        let all = match &mut self.engine {
            Engine::Inline(workers, _) => workers.iter_mut().map(Worker::figures).collect(),
            Engine::Threads(_) => self.ask(&|| Command::Figures, |reply| match reply {
                Reply::Figures { figures, .. } => Some(figures),
                _ => None,
            })?,
        };
        let mut sum = vec![NodeFigures::default(); self.plan.nodes.len()];
        for figures in &all {
            sum.iter_mut().zip(figures).for_each(|(sum, figures)| sum.add(figures));
        }
        Ok(sum)
    }

    /// One answer of each worker thread, in their order.
    fn ask<T>(&mut self, command: &dyn Fn() -> Command, wanted: impl Fn(Reply) -> Option<T>) -> Result<Vec<T>> {
        if let Engine::Threads(threads) = &self.engine {
            for commands in &threads.commands {
                // A worker that is gone says so by its farewell.
                let _ = commands.send(command());
            }
        }
        let mut answers = BTreeMap::new();
        while answers.len() < self.workers {
            let reply = self.reply()?;
            let worker = reply.worker();
            answers.insert(worker, wanted(reply).ok_or(CircuitError::WorkerLost { worker })?);
        }
        Ok(answers.into_values().collect())
    }

    fn check(&self) -> Result<()> {
        match &self.stopped {
            Some(cause) => Err(CircuitError::Stopped(cause.clone())),
            None => Ok(()),
        }
    }

    fn remember<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.stopped = Some(error.to_string());
        }
        result
    }
}

/// One step of all workers, stage by stage: what a stage sends has arrived everywhere before the next one begins, as with
/// Timely's frontiers. Which worker runs first in a stage, and what arrives first, is picked.
///
/// Timely itself cannot do it: the builders of its in-process allocators wait for one another when they are built, each on
/// its own thread, and workers that are stepped by hand would still decide the order of messages themselves.
fn run_inline(
    workers: &mut [Worker],
    pick: &mut Pick,
    (step, clock_ms, floors): (u64, i64, &[NodeFloor]),
    shares: Vec<Vec<TableChunk>>,
) -> Result<Vec<WorkerOutput>> {
    let mut messages = Vec::new();
    for (worker, input) in workers.iter_mut().zip(shares) {
        messages.extend(worker.begin(step, clock_ms, floors, input)?);
    }
    let stages = workers.first().map_or(0, Worker::stages);
    for stage in 0..stages {
        while !messages.is_empty() {
            let message: Message = messages.swap_remove(pick(messages.len()));
            workers[message.to].accept(message);
        }
        let mut left: Vec<usize> = (0..workers.len()).collect();
        while !left.is_empty() {
            let next = left.swap_remove(pick(left.len()));
            messages.extend(workers[next].run_stage(stage)?);
        }
    }
    workers.iter_mut().map(Worker::finish).collect()
}

impl Threads {
    fn start(workers: Vec<Worker>) -> Result<Self> {
        let spawn_error = |e: String| CircuitError::plan("circuit", format!("cannot start workers: {e}"));
        let config = match workers.len() {
            1 => timely::CommunicationConfig::Thread,
            n => timely::CommunicationConfig::Process(n),
        };
        let (builders, others) = config.try_build().map_err(spawn_error)?;
        let (answers, replies) = unbounded();
        let abandoned = Arc::new(AtomicBool::new(false));
        let (mut commands, mut posts) = (Vec::new(), Vec::new());
        for (index, worker) in workers.into_iter().enumerate() {
            let (sender, orders) = unbounded();
            commands.push(sender);
            let farewell = Farewell { worker: index, replies: answers.clone() };
            posts.push(Some(Post { worker, orders, farewell, abandoned: Arc::clone(&abandoned) }));
        }
        // Timely builds the threads and calls one function on all of them: each takes its own post.
        let posts = Mutex::new(posts);
        let guards = initialize_from(builders, others, move |allocator| {
            let post =
                posts.lock().unwrap_or_else(PoisonError::into_inner).get_mut(allocator.index()).and_then(Option::take);
            if let Some(post) = post {
                serve(timely::worker::Worker::new(timely::WorkerConfig::default(), allocator, None), post);
            }
        });
        Ok(Self { commands, replies, abandoned, guards: Some(guards.map_err(spawn_error)?) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Workers end when their commands do; one that waits in a step for a worker that is gone ends by the flag.
        self.abandoned.store(true, Ordering::Release);
        self.commands.clear();
        if let Some(guards) = self.guards.take() {
            guards.guards().iter().for_each(|guard| guard.thread().unpark());
            // A panic was reported by the thread's farewell.
            drop(guards.join());
        }
    }
}

/// What a worker's thread needs.
struct Post {
    worker: Worker,
    orders: Receiver<Command>,
    farewell: Farewell,
    abandoned: Arc<AtomicBool>,
}

/// Tells the controller when a worker's thread ends by a panic.
struct Farewell {
    worker: usize,
    replies: Sender<Reply>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.replies.send(Reply::Lost { worker: self.worker });
        }
    }
}

/// What the Timely operators of one worker share.
struct Local {
    worker: Worker,
    /// The step that the worker has begun, and the stage that has to run next.
    step: u64,
    next_stage: usize,
    failure: Option<CircuitError>,
}

impl Local {
    /// Runs a stage, unless the worker has failed in this step.
    fn run(&mut self, stage: usize) -> Vec<Message> {
        self.next_stage = stage + 1;
        if self.failure.is_some() {
            return Vec::new();
        }
        self.worker.run_stage(stage).unwrap_or_else(|error| {
            self.failure = Some(error);
            Vec::new()
        })
    }
}

type MessageBuilder = CapacityContainerBuilder<Vec<Message>>;

/// The life of a worker's thread.
fn serve(mut timely: timely::worker::Worker, post: Post) {
    let Post { worker, orders, farewell, abandoned } = post;
    let stages = worker.stages();
    let local = Rc::new(RefCell::new(Local { worker, step: 0, next_stage: stages, failure: None }));
    let (mut input, probe): (InputHandle<u64, MessageBuilder>, ProbeHandle<u64>) = timely.dataflow(|scope| {
        let (input, mut stream) = scope.new_input::<Vec<Message>>();
        for stage in 0..stages {
            stream = stage_operator(stream, stage, scope.peers(), Rc::clone(&local));
        }
        (input, stream.probe().0)
    });
    for command in orders {
        let reply = match command {
            Command::Step { step, clock_ms, floors, input: share } => {
                input.advance_to(step);
                {
                    let local = &mut *local.borrow_mut();
                    (local.step, local.next_stage) = (step, 0);
                    match local.worker.begin(step, clock_ms, &floors, share) {
                        Ok(messages) => messages.into_iter().for_each(|message| input.send(message)),
                        Err(error) => local.failure = Some(error),
                    }
                }
                input.advance_to(step + 1);
                while probe.less_than(input.time()) {
                    if abandoned.load(Ordering::Acquire) {
                        return;
                    }
                    timely.step_or_park(Some(PARK));
                }
                let local = &mut *local.borrow_mut();
                let output = match local.failure.take() {
                    Some(error) => Err(error),
                    None => local.worker.finish(),
                };
                Reply::Step { worker: farewell.worker, step, output }
            }
            Command::Freeze => Reply::Frozen { worker: farewell.worker, spines: local.borrow_mut().worker.freeze() },
            Command::Figures => {
                Reply::Figures { worker: farewell.worker, figures: local.borrow_mut().worker.figures() }
            }
        };
        if farewell.replies.send(reply).is_err() {
            return;
        }
    }
}

/// The Timely operator of one stage.
fn stage_operator<'scope>(
    stream: Stream<'scope, u64, Vec<Message>>,
    stage: usize,
    workers: usize,
    local: Rc<RefCell<Local>>,
) -> Stream<'scope, u64, Vec<Message>> {
    let name = format!("stage {stage}");
    // The two kinds of channel are different types, so the operator is written down once, as a macro's arms would be.
    macro_rules! build {
        ($pact:expr) => {
            stream.unary_frontier::<MessageBuilder, _, _, _>($pact, &name, move |capability, _| {
                let mut capability = Some(capability);
                move |(input, frontier): (_, &MutableAntichain<u64>), output| {
                    let local = &mut *local.borrow_mut();
                    // Step n + 1 is begun only after n is complete everywhere, so what comes in waits for the next run.
                    input.for_each_stamp(|_, containers| {
                        containers.flat_map(|c| c.drain(..)).for_each(|message| local.worker.accept(message));
                    });
                    let Some(held) = &mut capability else { return };
                    let Some(&bound) = frontier.frontier().first() else {
                        capability = None;
                        return;
                    };
                    if local.next_stage == stage && local.step < bound && local.step >= *held.time() {
                        held.downgrade(&local.step);
                        let messages = local.run(stage);
                        output.session(&*held).give_iterator(messages.into_iter());
                    }
                    if *held.time() < bound {
                        held.downgrade(&bound);
                    }
                }
            })
        };
    }
    if workers == 1 { build!(Pipeline) } else { build!(Exchange::new(|message: &Message| message.to as u64)) }
}

#[cfg(test)]
mod tests;
