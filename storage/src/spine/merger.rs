//! Work beside the steps: writing frozen memtables when memory is short, and merging runs. In slices, by threads of the
//! store's, and by those who insert when the threads do not keep up.
//!
//! Invariants:
//! 1. A job is in the list, or in the hands of one thread for one slice. Tables go before merges, a small merge before a large one.
//! 2. Whatever ends, moves or frees something rings the [`Bell`] after it, a reader that lets go of the last of a table included: nobody
//!    waits for what has happened.
//! 3. Locks are taken in the order: this list, a spine's version.
//! 4. The first failure stops all jobs, and the spines answer `Poisoned` from then on.
//!
//! Back-pressure: whoever inserts does [`PAY`] bytes of this work for each byte that it inserts as long as memtables fill three
//! quarters of their bound or a spine has more than [`MANY_RUNS`] runs, and waits only at the bound itself. On a disk that
//! allows no threads (the simulated one) it always pays: nobody else would.
//!
//! Rest: when a thread has found nothing to do, and nothing was inserted into any spine, for [`REST`], it merges what `policy` names for a
//! spine at rest, but for what is left to checkpoints, if that takes no more than half of the disk's room. Whatever comes meanwhile goes first, a slice later. What is merged so is like any other merge: the files that it takes the place of
//! stay until the next checkpoint, and without one it is done again after the next opening.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::bell::Bell;
use super::context::{SpineContext, lock};
use super::cursor::{Merge, Source};
use super::extent::Packing;
use super::memory::Pressure;
use super::run::{Keep, Run};
use super::version::{FlushGuard, Frozen, Merging, Shared};
use super::writer::{Encoding, NewFile};
use crate::checkpoint::garbage;
use crate::{Error, Result};

/// Bytes of rows of one slice.
const SLICE: u64 = 1 << 20;
/// Bytes of work for each byte that is inserted: more levels than a spine has.
const PAY: u64 = 12;
/// What is paid at least.
const LEAST_PAY: u64 = 16 << 10;
/// Runs of so many raw bytes stay for long, and are packed for little space.
const LARGE: u64 = 64 << 20;
/// From so many runs on, inserting pays for merges.
const MANY_RUNS: usize = 32;

/// How long nothing happens at rest.
const REST: Duration = Duration::from_millis(250);

/// See the module's head.
#[derive(Debug)]
pub(super) struct Merger {
    state: Mutex<State>,
    bell: Arc<Bell>,
    /// Counts inserts.
    inserts: AtomicU64,
    /// Counts merges that have ended.
    merges: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    jobs: Vec<Job>,
    /// Those that there are.
    spines: Vec<Known>,
    /// Jobs in somebody's hands.
    taken: usize,
    /// Those of them that write tables.
    writing: usize,
    /// Threads that do nothing else.
    threads: usize,
    stop: bool,
}

/// A spine.
#[derive(Debug)]
struct Known {
    shared: Weak<Shared>,
    /// Whether its runs have changed since it was last looked at at rest.
    changed: bool,
}

impl Known {
    fn is(&self, shared: &Arc<Shared>) -> bool {
        std::ptr::eq(self.shared.as_ptr(), Arc::as_ptr(shared))
    }
}

/// Something to do for a spine.
#[derive(Debug)]
struct Job {
    shared: Arc<Shared>,
    task: Task,
}

#[derive(Debug)]
enum Task {
    /// Write the oldest tables, whichever those are then.
    Spill,
    Spilling(Spilling),
    Merge(Merging),
    Merging(Merging, Encoding, NewFile),
}

#[derive(Debug)]
struct Spilling {
    guard: FlushGuard,
    /// Newest first.
    tables: Vec<Arc<Frozen>>,
    encoding: Encoding,
    file: NewFile,
}

impl Job {
    /// The smaller the sooner.
    fn rank(&self) -> u64 {
        match &self.task {
            Task::Spill | Task::Spilling(_) => 0,
            Task::Merge(merging) | Task::Merging(merging, ..) => merging.bytes().saturating_add(1),
        }
    }

    /// Whether it makes memory free.
    fn writes_tables(&self) -> bool {
        matches!(self.task, Task::Spill | Task::Spilling(_))
    }

    fn can_go_on(&self) -> bool {
        !matches!(self.task, Task::Spill) || self.shared.can_flush()
    }

    /// Does a slice; gives the job back if it is not done.
    fn step(self, context: &Arc<SpineContext>, fuel: u64) -> Result<Option<Self>> {
        let Self { shared, task } = self;
        let task = match task {
            Task::Spill => match spilling(&shared, context) {
                Some(spilling) => Task::Spilling(spilling),
                None => return Ok(None),
            },
            Task::Merge(merging) | Task::Merging(merging, ..) if shared.is_closed() => {
                shared.give_up(&merging);
                return Ok(None);
            }
            Task::Merge(merging) => {
                let runs = merging.runs.iter();
                let sources = runs.map(|run| Source::run(Arc::clone(context), Arc::clone(run), Keep::Once)).collect();
                let merge = Merge::new(shared.discipline, !merging.oldest, shared.merge_floor(), sources);
                let packing = if merging.oldest || merging.bytes() >= LARGE { Packing::Small } else { Packing::Fast };
                let encoding = Encoding::new(&shared, merge, packing, &merging.runs);
                Task::Merging(merging, encoding, NewFile::new(context))
            }
            begun => begun,
        };
        match task {
            Task::Spilling(mut job) => {
                if !job.encoding.step(&mut job.file, fuel)? {
                    return Ok(Some(Self { shared, task: Task::Spilling(job) }));
                }
                let Spilling { guard, tables, encoding, file } = job;
                let run = durable(encoding, file)?;
                guard.install(tables.first().map_or(0, |newest| newest.number), run);
                drop(tables);
                if context.memory().pressure() != Pressure::None && !shared.version().tables.is_empty() {
                    context.merger().spill(&shared);
                }
            }
            Task::Merging(merging, mut encoding, mut file) => {
                if !encoding.step(&mut file, fuel)? {
                    return Ok(Some(Self { shared, task: Task::Merging(merging, encoding, file) }));
                }
                let run = durable(encoding, file)?;
                shared.replace(&merging, run);
                context.merger().merges.fetch_add(1, Ordering::Relaxed);
            }
            Task::Spill | Task::Merge(_) => {}
        }
        shared.plan();
        Ok(None)
    }
}

/// Begins to write the oldest tables, if there are any and nobody else does: small ones, which snapshots leave, together, so that
/// they cost no file and no syncs each.
fn spilling(shared: &Arc<Shared>, context: &Arc<SpineContext>) -> Option<Spilling> {
    let guard = shared.begin_flush()?;
    let tables = guard.oldest(context.small());
    if tables.is_empty() {
        return None;
    }
    let sources = tables.iter().flat_map(|frozen| frozen.table.sorted()).map(Source::memory).collect();
    // Older runs may hold what their tombstones hide; they go when they meet the oldest run.
    let merge = Merge::new(shared.discipline, true, shared.merge_floor(), sources);
    let encoding = Encoding::new(shared, merge, Packing::Fast, &shared.version().runs);
    Some(Spilling { guard, tables, encoding, file: NewFile::new(context) })
}

fn durable(encoding: Encoding, mut file: NewFile) -> Result<Option<Arc<Run>>> {
    let run = encoding.finish(&mut file)?;
    file.finish()?;
    Ok(run)
}

impl Merger {
    /// One whose threads wait for `bell`.
    pub(super) fn new(bell: &Arc<Bell>) -> Self {
        Self {
            state: Mutex::default(),
            bell: Arc::clone(bell),
            inserts: AtomicU64::default(),
            merges: AtomicU64::default(),
        }
    }

    /// Merges that have ended.
    pub(super) fn merges(&self) -> u64 {
        self.merges.load(Ordering::Relaxed)
    }

    /// Something has happened that somebody may wait for.
    pub(super) fn changed(&self) {
        self.bell.ring();
    }

    fn push(&self, job: Job) {
        let mut state = lock(&self.state);
        if !state.stop {
            state.jobs.push(job);
        }
        drop(state);
        self.changed();
    }

    /// Of all jobs, or of those that write tables `only`.
    fn take(&self, state: &mut State, only: bool) -> Option<Job> {
        let wanted = state.jobs.iter().enumerate().filter(|(_, job)| !only || job.writes_tables());
        let startable = wanted.filter(|(_, job)| job.can_go_on());
        let (best, job) = startable.min_by_key(|(at, job)| (job.rank(), *at))?;
        state.taken += 1;
        state.writing += usize::from(job.writes_tables());
        // In order: tables of one spine are written in the order of the list.
        Some(state.jobs.remove(best))
    }

    /// Does a slice of a job, and puts back what is left of it. A failure is everybody's; who met it is told what it was.
    fn slice(&self, context: &Arc<SpineContext>, job: Job, fuel: u64) -> Result<()> {
        /// Also if the slice panics: nobody may wait for ever.
        struct Taken<'a> {
            merger: &'a Merger,
            context: &'a SpineContext,
            writes: bool,
            ended: bool,
        }
        impl Drop for Taken<'_> {
            fn drop(&mut self) {
                if !self.ended {
                    self.context.fail(&Error::panicked("wrote or merged runs"));
                }
                let mut state = lock(&self.merger.state);
                state.taken -= 1;
                state.writing -= usize::from(self.writes);
                drop(state);
                self.merger.changed();
            }
        }
        let mut taken = Taken { merger: self, context, writes: job.writes_tables(), ended: false };
        let done = context.check().and_then(|()| job.step(context, fuel.min(SLICE)));
        taken.ended = true;
        let left = done.inspect_err(|e| context.fail(e))?;
        let mut state = lock(&self.state);
        let mut left = left;
        if !state.stop
            && let Some(job) = left.take()
        {
            state.jobs.insert(0, job);
        }
        drop(state);
        // What it holds may want the lock.
        drop(left);
        Ok(())
    }

    /// Does so many bytes of work, as far as there is any.
    fn pay(&self, context: &Arc<SpineContext>, mut fuel: u64) -> Result<()> {
        while fuel > 0 {
            let Some(job) = self.take(&mut lock(&self.state), false) else { break };
            self.slice(context, job, fuel)?;
            fuel = fuel.saturating_sub(SLICE);
        }
        Ok(())
    }

    /// Writes tables, or waits for those who do, until `done` says so, nothing can bring it nearer, or something has failed. Merges
    /// are left alone: they free no memory and no table, and may take minutes.
    pub(super) fn until(&self, context: &Arc<SpineContext>, mut done: impl FnMut() -> bool) -> Result<()> {
        loop {
            // Before all that is looked at.
            let rung = self.bell.count();
            context.check()?;
            let mut state = lock(&self.state);
            // With the lock: what was true of the jobs a moment ago, and is no more, is not given up for.
            if done() {
                return Ok(());
            }
            if let Some(job) = self.take(&mut state, true) {
                drop(state);
                self.slice(context, job, SLICE)?;
            } else if state.writing > 0 || (state.threads > 0 && state.jobs.iter().any(Job::writes_tables)) {
                drop(state);
                self.bell.wait(rung);
            } else {
                return Ok(());
            }
        }
    }

    /// Fails once the store is gone: nothing that is inserted could be written any more.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        match lock(&self.state).stop {
            true => Err(Error::Invalid(format!("the store of spine {name:?} was dropped: it takes no rows any more"))),
            false => Ok(()),
        }
    }

    /// After an insert of `bytes` bytes into a spine of `runs` runs.
    pub(super) fn inserted(&self, context: &Arc<SpineContext>, bytes: u64, runs: usize) -> Result<()> {
        self.inserts.fetch_add(1, Ordering::Relaxed);
        let pressure = context.memory().pressure();
        let alone = lock(&self.state).threads == 0;
        if alone || pressure != Pressure::None || runs > MANY_RUNS {
            self.pay(context, bytes.saturating_mul(PAY).max(LEAST_PAY))?;
        }
        if pressure == Pressure::Full {
            self.until(context, || context.memory().pressure() != Pressure::Full)?;
        }
        context.check()
    }

    /// Has the oldest tables of a spine written, and others as long as memory is short.
    pub(super) fn spill(&self, shared: &Arc<Shared>) {
        let mut state = lock(&self.state);
        let is_there = |job: &Job| matches!(job.task, Task::Spill) && Arc::ptr_eq(&job.shared, shared);
        if state.stop || state.jobs.iter().any(is_there) {
            return;
        }
        state.jobs.push(Job { shared: Arc::clone(shared), task: Task::Spill });
        drop(state);
        self.changed();
    }

    /// Drops the jobs of a spine that nobody owns any more.
    pub(super) fn forget(&self, shared: &Arc<Shared>) {
        let mut state = lock(&self.state);
        let (gone, left) =
            std::mem::take(&mut state.jobs).into_iter().partition(|job| Arc::ptr_eq(&job.shared, shared));
        state.jobs = left;
        state.spines.retain(|known| !known.is(shared));
        drop(state);
        drop::<Vec<Job>>(gone);
    }

    /// Ends all work.
    fn stop(&self) {
        let mut state = lock(&self.state);
        state.stop = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        self.changed();
        drop(jobs);
    }

    /// The runs of a spine have changed.
    fn rest_later(&self, shared: &Arc<Shared>) {
        if shared.is_closed() {
            return;
        }
        let mut state = lock(&self.state);
        // Who waits without an end must know.
        let first = !state.spines.iter().any(|known| known.changed);
        match state.spines.iter_mut().find(|known| known.is(shared)) {
            Some(known) => known.changed = true,
            None => state.spines.push(Known { shared: Arc::downgrade(shared), changed: true }),
        }
        drop(state);
        if first {
            self.changed();
        }
    }

    /// Has one spine merged as is right at rest, if that makes `small` bytes: one that has changed since it was looked at last, or one of
    /// `all`. False if there is none. Fails with [`Error::NoSpace`] where a spine's would take too much of the disk, with nothing done.
    fn rest(&self, context: &SpineContext, all: bool, small: u64) -> Result<bool> {
        let room = context.disk().room(context.dir())?;
        // Freed without the lock.
        let mut spines = Vec::new();
        let mut chosen = Ok(None);
        let mut state = lock(&self.state);
        state.spines.retain(|known| known.shared.strong_count() > 0);
        for known in state.spines.iter_mut().filter(|known| all || known.changed) {
            known.changed = false;
            let Some(shared) = known.shared.upgrade() else { continue };
            chosen = shared.next_at_rest(small, room);
            spines.push(shared);
            if !matches!(chosen, Ok(None)) {
                break;
            }
        }
        let chosen = chosen?;
        let job = chosen.zip(spines.pop()).map(|(merging, shared)| Job { shared, task: Task::Merge(merging) });
        let found = job.is_some();
        // Whoever looks for jobs finds it, or the runs as they were.
        if !state.stop {
            state.jobs.extend(job);
        }
        drop(state);
        if found {
            self.changed();
        }
        Ok(found)
    }

    /// Does all that there is to do, as at rest, or waits for those who do.
    pub(super) fn settle(&self, context: &Arc<SpineContext>) -> Result<()> {
        loop {
            let rung = self.bell.count();
            context.check()?;
            let mut state = lock(&self.state);
            let job = self.take(&mut state, false);
            let busy = state.taken > 0;
            drop(state);
            match job {
                Some(job) => self.slice(context, job, SLICE)?,
                None if busy => self.bell.wait(rung),
                None if self.rest(context, true, 0)? => {}
                None => return Ok(()),
            }
        }
    }

    /// Removes run files that nothing names, but for those that are left when all work ends: the next opening does.
    fn remove(&self, context: &Arc<SpineContext>, doomed: &[String]) {
        let doomed = doomed.iter().take_while(|_| !lock(&self.state).stop);
        if let Err(e) = garbage::remove(context.disk(), context.dir(), doomed) {
            context.fail(&e);
        }
    }

    fn work(&self, context: &Arc<SpineContext>) {
        loop {
            let rung = self.bell.count();
            let mut state = lock(&self.state);
            if state.stop {
                return;
            }
            let job = self.take(&mut state, false);
            let may_rest = state.taken == 0 && state.spines.iter().any(|known| known.changed);
            drop(state);
            let Some(job) = job else {
                let inserts = self.inserts.load(Ordering::Relaxed);
                if !may_rest {
                    self.bell.wait(rung);
                } else if !self.bell.wait_for(rung, REST) && inserts == self.inserts.load(Ordering::Relaxed) {
                    // Without room it is not done; nobody was told that it would be.
                    let _ = self.rest(context, false, context.small());
                }
                continue;
            };
            // The store was told of a failure.
            let _ = self.slice(context, job, SLICE);
        }
    }
}

impl Shared {
    /// Has merged what the policy names.
    pub(super) fn plan(self: &Arc<Self>) {
        let Some(context) = &self.context else { return };
        self.drop_hidden();
        while let Some(merging) = self.next_merge(context.small()) {
            context.merger().push(Job { shared: Arc::clone(self), task: Task::Merge(merging) });
        }
        context.merger().rest_later(self);
    }
}

/// The threads that work for the spines of a store. Dropping it ends them, and all work that is not done: what was not
/// installed is garbage.
#[derive(Debug)]
pub(crate) struct Mergers {
    context: Arc<SpineContext>,
    threads: Vec<JoinHandle<()>>,
}

impl Mergers {
    /// Starts `threads` threads, if the disk allows any. The first one begins with removing the run files `doomed`, which nothing names.
    pub(crate) fn start(context: &Arc<SpineContext>, threads: usize, mut doomed: Vec<String>) -> Result<Self> {
        let mut mergers = Self { context: Arc::clone(context), threads: Vec::new() };
        let wanted = if context.disk().threads() { threads } else { 0 };
        for number in 0..wanted {
            let theirs = Arc::clone(context);
            let doomed = std::mem::take(&mut doomed);
            let thread = std::thread::Builder::new()
                .name(format!("backstay-merge-{number}"))
                .spawn(move || {
                    theirs.merger().remove(&theirs, &doomed);
                    theirs.merger().work(&theirs);
                })
                .map_err(|e| Error::io("start a thread for", context.dir(), e))?;
            mergers.threads.push(thread);
            lock(&context.merger().state).threads += 1;
        }
        Ok(mergers)
    }
}

impl Drop for Mergers {
    fn drop(&mut self) {
        let merger = self.context.merger();
        merger.stop();
        for thread in self.threads.drain(..) {
            // A panic of it was told as a failure.
            let _ = thread.join();
        }
        lock(&merger.state).threads = 0;
    }
}
