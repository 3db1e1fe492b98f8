//! A store driven by random operations on the simulated disk, with kills, power losses and failing operations, against maps.
//!
//! Checked after each opening: every acknowledged step is there, none that was never made is, checkpoints and epochs never go back,
//! and the spines hold what the steps make of them. Each savepoint is there or not as was promised; a copy of one holds what it kept,
//! or does not open; and the operations may go on in it.

mod saved;

use std::path::PathBuf;
use std::sync::Arc;

use backstay_storage::disk::sim::Fault;
use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::{Error, Result};

use crate::embedder::{DIR, Embedder, Model, Row};
use crate::input::Input;
use saved::{Copied, Saved};

/// Bounds one input's time.
const MOST_OPERATIONS: usize = 60;

struct World {
    disk: SimDisk,
    /// Where the store is: in a copy, once the operations go on there.
    dir: PathBuf,
    open: Option<Embedder>,
    /// The rows of every step that may be in the store.
    steps: Vec<Vec<Row>>,
    /// Steps that were acknowledged as durable.
    durable: u64,
    /// Number of the newest checkpoint that returned.
    checkpoint: u64,
    epoch: u64,
    /// The step of the open store's newest checkpoint.
    checkpointed: Option<u64>,
    saved: Saved,
    /// In `/copy-<i>`; none any more where the operations have gone on.
    copies: Vec<Option<Copied>>,
    /// Something was made to go wrong since the last opening: errors are no surprise.
    trouble: bool,
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let disk = SimDisk::new(u64::from(input.u8()));
    let mut world = World {
        disk,
        dir: DIR.into(),
        open: None,
        steps: Vec::new(),
        durable: 0,
        checkpoint: 0,
        epoch: 0,
        checkpointed: None,
        saved: Saved::default(),
        copies: Vec::new(),
        trouble: false,
    };
    for _ in 0..MOST_OPERATIONS {
        if input.is_empty() {
            break;
        }
        let operation = input.u8();
        if let Err(e) = world.operate(operation, &mut input) {
            world.check_error(&e);
            world.lose_power(u64::from(input.u8()));
        }
    }
    // Whatever happened, it opens again, and then again.
    world.lose_power(u64::from(input.u8()));
    for _ in 0..2 {
        world.ensure_open().expect("a store without trouble opens");
        world.open = None;
    }
}

impl World {
    fn operate(&mut self, operation: u8, input: &mut Input<'_>) -> Result<()> {
        match operation % 16 {
            0..=2 => {
                let rows = rows(input);
                let embedder = self.ensure_open()?;
                let step = embedder.step;
                let result = embedder.run_step(&rows);
                // Even of a failed append the record may be found later.
                self.steps.truncate(step as usize);
                self.steps.push(rows);
                result
            }
            3 => {
                self.ensure_open()?.store.compact()?;
                self.check_contents()
            }
            4 => {
                let embedder = self.ensure_open()?;
                let step = embedder.step;
                assert_eq!(embedder.store.log().commit()?, step, "a commit of another record");
                self.durable = step;
                Ok(())
            }
            5 => {
                let embedder = self.ensure_open()?;
                embedder.store.log().submit()?;
                if embedder.step > 0 && input.u8().is_multiple_of(2) {
                    let step = embedder.step;
                    embedder.store.log().wait_durable(step)?;
                    self.durable = step;
                }
                Ok(())
            }
            6 => {
                let keys: Vec<_> = (0..1 + input.u8() % 6).map(|_| key(input.u8())).collect();
                let embedder = self.ensure_open()?;
                let step = embedder.step;
                let model = Model::after(&self.steps[..step as usize]);
                self.ensure_open()?.look_up(&keys, &model)
            }
            7 => {
                let extra = input.u8();
                let bytes = vec![extra; usize::from(extra) * 20];
                let embedder = self.ensure_open()?;
                let number = embedder.checkpoint((extra % 2 == 1).then_some(&bytes))?;
                let step = embedder.step;
                assert!(number > self.checkpoint, "checkpoint {number} after {}", self.checkpoint);
                self.checkpoint = number;
                self.checkpointed = Some(step);
                self.durable = step;
                self.check_contents()
            }
            // The process is killed: the disk goes on.
            8 => {
                self.open = None;
                self.ensure_open().map(drop)
            }
            9 => {
                self.lose_power(u64::from(input.u8()));
                self.ensure_open().map(drop)
            }
            10 => {
                self.trouble = true;
                self.disk.crash_at(self.disk.ops() + 1 + u64::from(input.u8() % 64));
                Ok(())
            }
            12 => self.save(input),
            13 => self.unsave(input),
            14 => self.copy(input),
            15 => self.open_copy(input),
            _ => {
                self.trouble = true;
                let fault = match input.u8() % 3 {
                    0 => Fault::Io,
                    1 => Fault::NoSpace,
                    _ => Fault::ShortWrite,
                };
                self.disk.fail_at(self.disk.ops() + 1 + u64::from(input.u8() % 64), fault);
                Ok(())
            }
        }
    }

    fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    /// An error is a finding unless something was made to go wrong; damage is one always: nothing here damages what is durable.
    fn check_error(&self, e: &Error) {
        assert!(self.trouble, "an error without a cause: {e}");
        assert!(!matches!(e, Error::Damaged(_)), "damage without a cause: {e}");
    }

    fn lose_power(&mut self, seed: u64) {
        self.open = None;
        self.disk = self.disk.power_cycle(seed);
        self.trouble = false;
    }

    fn ensure_open(&mut self) -> Result<&mut Embedder> {
        if self.open.is_none() {
            let opened = self.reopen()?;
            self.open = Some(opened);
            self.check_contents()?;
        }
        Ok(self.open.as_mut().expect("just opened"))
    }

    /// Opens the store and compares it with what was promised.
    fn reopen(&mut self) -> Result<Embedder> {
        let mut embedder = Embedder::open_in(self.shared(), &self.dir)?;
        self.saved.opened(&embedder.store, self.trouble);
        self.checkpointed = embedder.store.recovered().map(|_| embedder.step);
        let (epoch, recovered) = (embedder.store.epoch(), embedder.store.recovered());
        assert!(epoch > self.epoch, "epoch {epoch} after {}", self.epoch);
        let number = recovered.map_or(0, |r| r.number);
        assert!(number >= self.checkpoint, "checkpoint {number} where {} was promised", self.checkpoint);
        let told = embedder.store.savepoint_warnings();
        assert!(recovered.is_none_or(|r| r.warnings == told), "warnings without damage: {recovered:?}");
        for extra in recovered.map(|r| r.extras.clone()).unwrap_or_default() {
            let bytes = embedder.store.read_extra(&extra)?;
            assert_eq!(bytes.len(), usize::from(bytes.first().copied().unwrap_or(0)) * 20, "extra file {extra}");
        }
        let base = embedder.step;
        assert!(base <= self.steps.len() as u64, "a checkpoint of step {base}, which was never made");
        for (i, rows) in embedder.replay()?.iter().enumerate() {
            let step = base as usize + i;
            assert_eq!(Some(rows), self.steps.get(step), "step {} is not what was written", step + 1);
        }
        assert!(embedder.step >= self.durable, "step {} was acknowledged, got {}", self.durable, embedder.step);
        // What was recovered is durable, what was not is void.
        self.steps.truncate(embedder.step as usize);
        (self.epoch, self.checkpoint, self.durable) = (epoch, number, embedder.step);
        Ok(embedder)
    }

    fn check_contents(&mut self) -> Result<()> {
        let Some(embedder) = &self.open else { return Ok(()) };
        let expected = Model::after(&self.steps[..embedder.step as usize]);
        assert_eq!(embedder.contents()?, expected, "contents after step {}", embedder.step);
        Ok(())
    }
}

/// Few keys, so that they meet; of several lengths, one the prefix of another.
fn key(number: u8) -> Vec<u8> {
    let number = number % 24;
    let long = if number.is_multiple_of(4) { 300 } else { usize::from(number % 4) };
    [&[number / 8][..], &vec![b'k'; long], &[number % 3]].concat()
}

fn rows(input: &mut Input<'_>) -> Vec<Row> {
    let count = 1 + input.u8() % 8;
    let row = |input: &mut Input<'_>| {
        let (kind, key_number, value) = (input.u8(), input.u8(), input.u8());
        let len = if value % 16 == 15 { 6000 } else { usize::from(value % 16) };
        let weight = [1, -1, 2, -2, 1, 1, 3, -1][usize::from(kind / 2 % 8)];
        let latest = kind % 2 == 1;
        Row { latest, key: key(key_number), value: vec![value / 16; len], weight }
    };
    (0..count).map(|_| row(input)).collect()
}
