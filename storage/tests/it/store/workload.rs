//! An embedder in small: each step is a log record and rows for two spines; a script of steps, checkpoints and
//! re-openings; and the check of what a store says after it was opened again.

use std::path::Path;
use std::sync::Arc;

use backstay_storage::disk::Disk;
use backstay_storage::log::LogOptions;
use backstay_storage::spine::{Discipline, Spine};
use backstay_storage::{Checkpoint, Error, Store, StoreOptions};

use super::model::{Model, extra_of, record_of, rows_of};

pub const DIR: &str = "/store";

/// Why a run ended.
#[derive(Debug)]
pub enum Stop {
    /// The store said so.
    Refused(Error),
    /// The store told something that cannot be.
    Wrong(String),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Stop::Refused(e)
    }
}

/// Fails the run with a message unless the condition holds.
macro_rules! must {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(Stop::Wrong(format!($($message)+)));
        }
    };
}

/// What the store has promised so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Promised {
    /// Steps appended.
    pub appended: u64,
    /// Steps whose records were acknowledged as durable.
    pub durable: u64,
    /// The number of the newest checkpoint that returned.
    pub checkpoint: u64,
    /// The epoch of the newest opening that returned.
    pub epoch: u64,
}

pub fn options(seed: u64) -> StoreOptions {
    let log = LogOptions {
        segment_bytes: 5 * 4096,
        compress_over: None,
        window: 8192,
        buffer_bytes: 24_000,
        spare_segments: 1,
    };
    // So little, mostly, that rows are written between checkpoints, too.
    let memory_bytes = [8 << 10, 3 << 10, 2 << 20][(seed % 3) as usize];
    StoreOptions { new_id: u128::from(seed) << 64 | 1, log, memory_bytes, ..StoreOptions::default() }
}

/// An open store and what belongs to it.
#[derive(Debug)]
pub struct Embedder {
    // Dropped in this order: the lock goes with the last of them.
    weighted: Spine,
    latest: Spine,
    pub store: Arc<Store>,
    seed: u64,
    /// Steps applied to the spines.
    pub step: u64,
}

impl Embedder {
    /// Opens the store, checks everything against the model and what was promised, and replays the log.
    pub fn open(disk: Arc<dyn Disk>, seed: u64, promised: &mut Promised) -> Result<Self, Stop> {
        let store = Store::open(disk, Path::new(DIR), options(seed))?;
        Self::take(store, seed, promised)
    }

    /// The same for a store that is open already, without a warning.
    pub fn take(store: Store, seed: u64, promised: &mut Promised) -> Result<Self, Stop> {
        let warnings = store.recovered().map(|r| r.warnings.clone()).unwrap_or_default();
        must!(warnings.is_empty(), "warnings without damage: {warnings:?}");
        Self::take_warned(store, seed, promised)
    }

    /// The same for a store that may have passed over damaged checkpoints.
    pub fn take_warned(store: Store, seed: u64, promised: &mut Promised) -> Result<Self, Stop> {
        let (before, epoch) = (*promised, store.epoch());
        must!(epoch > before.epoch, "epoch {epoch} is not newer than {}", before.epoch);
        promised.epoch = epoch;
        must!(store.id() == options(seed).new_id, "the store changed its identity");
        let (mut number, mut step, mut log_from) = (0, 0, 1);
        let mut extras = Vec::new();
        if let Some(recovered) = store.recovered() {
            (number, log_from) = (recovered.number, recovered.log_from);
            step = u64::from_le_bytes(recovered.blob[..].try_into().map_err(|e| Stop::Wrong(format!("blob: {e}")))?);
            extras.clone_from(&recovered.extras);
        }
        must!(number >= before.checkpoint, "checkpoint {} was promised, got {number}", before.checkpoint);
        promised.checkpoint = promised.checkpoint.max(number);
        for name in extras {
            must!(store.read_extra(&name)?[..] == extra_of(seed, step)[..], "extra file {name} differs");
        }
        let weighted = store.spine("by weight", Discipline::Weighted, 1)?;
        let latest = store.spine("by key", Discipline::Latest, 1)?;
        let mut embedder = Self { weighted, latest, store: Arc::new(store), seed, step };
        embedder.check_state()?;
        let mut seq = log_from;
        for record in embedder.store.log().scan(log_from)? {
            let record = record?;
            must!(record.seq == seq, "record {} where {seq} should be", record.seq);
            must!(record.payload[..] == record_of(seed, seq)[..], "record {seq} differs");
            must!(seq == embedder.step + 1, "record {seq} follows step {}", embedder.step);
            embedder.apply()?;
            seq += 1;
        }
        let (last, next) = (seq - 1, embedder.store.log().next_seq());
        must!(next == seq, "the log says that record {next} is next, but {last} was the last");
        must!(last >= before.durable, "step {} was acknowledged, the log ends at {last}", before.durable);
        must!(last <= before.appended, "step {last} was never appended, {} is the last", before.appended);
        (promised.appended, promised.durable) = (last, last);
        embedder.check_state()?;
        Ok(embedder)
    }

    /// Compares the spines' contents with the model.
    pub fn check_state(&mut self) -> Result<(), Stop> {
        let mut got = Model::default();
        let mut cursor = self.weighted.cursor()?;
        while cursor.valid() {
            got.weighted.insert((cursor.key().to_vec(), cursor.value().to_vec()), cursor.weight());
            cursor.next()?;
        }
        let mut cursor = self.latest.cursor()?;
        while cursor.valid() {
            got.latest.insert(cursor.key().to_vec(), cursor.value().to_vec());
            cursor.next()?;
        }
        let expected = Model::after(self.seed, self.step);
        must!(got == expected, "state after step {} is\n{got:?}, not\n{expected:?}", self.step);
        Ok(())
    }

    fn apply(&mut self) -> Result<(), Stop> {
        self.step += 1;
        let (weighted, latest) = rows_of(self.seed, self.step);
        self.weighted.insert_batch(&weighted)?;
        self.latest.insert_batch(&latest)?;
        Ok(())
    }

    /// Does `count` steps and makes their records durable together.
    pub fn steps(&mut self, count: u64, promised: &mut Promised) -> Result<(), Stop> {
        for _ in 0..count {
            self.append_step(promised)?;
        }
        self.store.log().commit()?;
        promised.durable = self.step;
        Ok(())
    }

    fn append_step(&mut self, promised: &mut Promised) -> Result<(), Stop> {
        promised.appended = self.step + 1;
        let seq = self.store.log().append(&record_of(self.seed, self.step + 1))?;
        must!(seq == self.step + 1, "step {} got record {seq}", self.step + 1);
        self.apply()
    }

    /// Does `count` steps and starts to write each one's record, waiting for none.
    pub fn submit_steps(&mut self, count: u64, promised: &mut Promised) -> Result<(), Stop> {
        for _ in 0..count {
            self.append_step(promised)?;
            self.store.log().submit()?;
        }
        promised.durable = promised.durable.max(self.store.log().durable());
        Ok(())
    }

    /// Takes a checkpoint, then compares the state, which is read from the new runs now.
    pub fn checkpoint(&mut self, promised: &mut Promised) -> Result<(), Stop> {
        self.take_checkpoint(promised)?;
        self.check_state()
    }

    /// Takes a checkpoint. Every second one has an extra file, and leaves another one to the garbage collection.
    pub fn take_checkpoint(&mut self, promised: &mut Promised) -> Result<(), Stop> {
        let checkpoint = self.prepare_checkpoint()?;
        let done = self.store.checkpoint(checkpoint)?;
        must!(done.number > promised.checkpoint, "checkpoint {} after {}", done.number, promised.checkpoint);
        promised.checkpoint = done.number;
        Ok(())
    }

    /// Freezes the state, for a checkpoint that any thread may take.
    pub fn prepare_checkpoint(&mut self) -> Result<Checkpoint, Stop> {
        let mut extras = Vec::new();
        if self.step % 2 == 1 {
            extras.push(self.store.write_extra("pending", &extra_of(self.seed, self.step))?);
            let given_up = self.store.write_extra("pending", b"sent meanwhile")?;
            self.store.discard_extra(&given_up);
        }
        let frozen = vec![self.weighted.snapshot(), self.latest.snapshot()];
        let blob = self.step.to_le_bytes().to_vec().into();
        Ok(Checkpoint { frozen, blob, log_from: self.step + 1, extras, ..Checkpoint::default() })
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Action {
    Steps(u64),
    Checkpoint,
    Compact,
    Reopen,
}

/// Appends and group commits, checkpoints with and without extras, more of them than are kept, two re-openings, one
/// after a checkpoint and one with records behind it, and runs merged as at rest, of which one is lost and one is in a checkpoint.
pub const SCRIPT: &[Action] = {
    use Action::{Checkpoint, Compact, Reopen, Steps};
    &[
        Steps(1),
        Steps(2),
        Checkpoint,
        Steps(1),
        Steps(3),
        Checkpoint,
        Steps(1),
        Compact,
        Reopen,
        Steps(1),
        Checkpoint,
        Steps(2),
        Checkpoint,
        Reopen,
        Steps(2),
        Compact,
        Checkpoint,
        Steps(1),
    ]
};

/// Opens the store and carries out a script.
pub fn run(disk: &Arc<dyn Disk>, seed: u64, script: &[Action], promised: &mut Promised) -> Result<(), Stop> {
    let mut embedder = Embedder::open(Arc::clone(disk), seed, promised)?;
    for action in script {
        match action {
            Action::Steps(count) => embedder.steps(*count, promised)?,
            Action::Checkpoint => embedder.checkpoint(promised)?,
            Action::Compact => {
                embedder.store.compact()?;
                embedder.check_state()?;
            }
            Action::Reopen => {
                drop(embedder);
                embedder = Embedder::open(Arc::clone(disk), seed, promised)?;
            }
        }
    }
    Ok(())
}
