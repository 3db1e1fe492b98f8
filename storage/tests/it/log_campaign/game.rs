//! One game: lives of a log on one disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_storage::disk::SimDisk;
use backstay_storage::disk::sim::{CrashPlan, Fault};
use backstay_storage::log::{Log, LogOptions, ScanOptions, inspect};
use backstay_storage::{Error, Result};

use super::Rng;
use super::model::{Allowed, BROKEN, Found, Model, payload};

const ID: u128 = 42;
const BLOCK: u64 = 4096;

fn dir() -> &'static Path {
    Path::new("/store/log")
}

/// What happened in some games.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) games: u64,
    /// Recoveries after a loss of power, each compared.
    pub(super) cycles: u64,
    /// Those of them in which the power had gone in the recovery too.
    pub(super) nested: u64,
    /// Lives that a failing operation ended.
    pub(super) failures: u64,
    /// Games that ended with damage, and those of them where something was missed and reported.
    pub(super) damages: u64,
    pub(super) reported: u64,
    pub(super) recycled: u64,
    pub(super) bulk_syncs: u64,
    pub(super) trims: u64,
    /// Records that followers read.
    pub(super) follows: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.games += other.games;
        self.cycles += other.cycles;
        self.nested += other.nested;
        self.failures += other.failures;
        self.damages += other.damages;
        self.reported += other.reported;
        self.recycled += other.recycled;
        self.bulk_syncs += other.bulk_syncs;
        self.trims += other.trims;
        self.follows += other.follows;
    }

    fn note(&mut self, log: &Log) {
        let stats = log.stats();
        self.recycled += stats.segments_recycled;
        self.bulk_syncs += stats.syncs;
        self.trims += stats.segments_trimmed;
    }
}

fn options(rng: &mut Rng) -> LogOptions {
    LogOptions {
        segment_bytes: rng.of(&[3, 4, 6, 8, 9, 12, 24]) * BLOCK,
        compress_over: rng.of(&[None, Some(500), Some(3000)]),
        window: rng.of(&[0, 2 * BLOCK, 8 * BLOCK, 1 << 20]),
        buffer_bytes: rng.of(&[2000, 6000, 16_000]),
        spare_segments: rng.below(4) as usize,
    }
}

fn open(disk: &SimDisk, epoch: u64, options: &LogOptions) -> Result<Log> {
    Log::open(Arc::new(disk.clone()), dir(), ID, epoch, options.clone())
}

struct Game {
    rng: Rng,
    disk: SimDisk,
    model: Model,
    epoch: u64,
    /// The operations that were told to fail on this disk: maybe some of a later life.
    faults: Vec<u64>,
    /// Usually the same from life to life: trimmed files fit only then.
    options: LogOptions,
}

/// Plays the game of this seed.
pub(super) fn play(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let mut rng = Rng(seed);
    let disk = SimDisk::new(rng.next());
    disk.show_stale(rng.one_in(2));
    let options = options(&mut rng);
    let mut game = Game { rng, disk, model: Model::default(), epoch: 0, faults: Vec::new(), options };
    tally.games += 1;
    for life in 0..game.rng.below(6) + 2 {
        game.life(tally).map_err(|why| format!("life {life}, epoch {}, {:?}: {why}", game.epoch, game.options))?;
    }
    if game.rng.one_in(3) {
        game.damage(tally).map_err(|why| format!("damage, epoch {}, {:?}: {why}", game.epoch, game.options))?;
    }
    Ok(())
}

impl Game {
    /// One life and what ends it.
    fn life(&mut self, tally: &mut Tally) -> Result<(), String> {
        if self.rng.one_in(8) {
            self.options = options(&mut self.rng);
        }
        let ops = self.disk.ops();
        // The opening has some 10 to 25 operations; a life has 30 to 200.
        let span = self.rng.of(&[12, 30, 120, 250]);
        let at = ops + 1 + self.rng.below(span);
        let mut power = false;
        match self.rng.below(8) {
            0 => {}
            1 | 2 => {
                self.faults.push(at);
                let fault =
                    self.rng.of(&[Fault::Io, Fault::Io, Fault::NoSpace, Fault::ShortWrite, Fault::ShortNoSpace]);
                self.disk.fail_at(at, fault);
            }
            _ => {
                power = true;
                self.disk.crash_at(at);
            }
        }
        self.epoch += 1;
        let faults = self.faults.clone();
        let failed = |disk: &SimDisk| faults.iter().any(|fault| (ops + 1..=disk.ops()).contains(fault));
        let may_fail = |disk: &SimDisk| disk.is_down() || failed(disk);
        let log = match open(&self.disk, self.epoch, &self.options) {
            Ok(log) => Some(log),
            Err(_) if may_fail(&self.disk) => None,
            Err(e) => return Err(format!("opening: {e}")),
        };
        if let Some(log) = log {
            let alive = self.model.check(&log, Allowed::Nothing).and_then(|_| self.live(&log, tally));
            if let Err(why) = alive
                && (!may_fail(&self.disk) || why.contains(BROKEN))
            {
                return Err(why);
            }
            tally.note(&log);
            if power || self.rng.one_in(2) {
                // The power goes with writes in flight.
                self.power_loss(tally)?;
                return Ok(());
            }
        } else if power {
            return self.power_loss(tally);
        }
        tally.failures += u64::from(failed(&self.disk));
        Ok(())
    }

    /// Tries some outcomes, and goes on with one of them.
    fn power_loss(&mut self, tally: &mut Tally) -> Result<(), String> {
        let outcomes = 2 + self.rng.below(6);
        let plan = |rng: &mut Rng| match rng.below(6) {
            0 => CrashPlan::KeepNone,
            1 => CrashPlan::KeepAll,
            2 => CrashPlan::Operations(u128::from(rng.next()) << 64 | u128::from(rng.next())),
            _ => CrashPlan::Seeded(rng.next()),
        };
        let epoch = self.epoch + 1;
        for _ in 0..outcomes {
            let first = plan(&mut self.rng);
            let up = self.disk.power_cycle(first);
            let found = self.recover(&up, epoch, tally).map_err(|why| format!("{first:?}: {why}"))?;
            if !self.rng.one_in(4) {
                continue;
            }
            let again = self.disk.power_cycle(first);
            let op = 1 + self.rng.below(up.ops().max(1));
            again.crash_at(op);
            if let (Err(e), false) = (open(&again, epoch, &self.options), again.is_down()) {
                return Err(format!("{first:?}, nested at {op}: {e}"));
            }
            let second = plan(&mut self.rng);
            let at = |why| format!("{first:?}, nested at {op}, {second:?}: {why}");
            let twice = self.recover(&again.power_cycle(second), epoch + 1, tally).map_err(at)?;
            tally.nested += 1;
            if twice != found {
                return Err(at(format!("found {twice:?}, without the second crash {found:?}")));
            }
        }
        self.disk = self.disk.power_cycle(plan(&mut self.rng));
        self.faults.clear();
        Ok(())
    }

    fn recover(&self, up: &SimDisk, epoch: u64, tally: &mut Tally) -> Result<Found, String> {
        tally.cycles += 1;
        let log = open(up, epoch, &self.options).map_err(|e| e.to_string())?;
        self.model.clone().check(&log, Allowed::Nothing)
    }

    fn append(&mut self, log: &Log) -> Result<(), String> {
        let len = match self.rng.below(16) {
            0 => 0,
            1..8 => 16 + self.rng.below(200),
            8..12 => self.rng.below(6000),
            12..14 => 4000 + self.rng.below(200),
            14 => self.rng.below(20_000),
            // More than a segment holds.
            _ => self.rng.below(2 * self.options.segment_bytes.min(9 * BLOCK)),
        };
        let count = if self.rng.one_in(4) { 1 + self.rng.below(5) } else { 1 };
        let (salt, first) = (self.rng.next(), self.model.next());
        let payloads: Vec<Vec<u8>> = (first..first + count).map(|seq| payload(salt, seq, len as usize)).collect();
        let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let result = log.append_batch(&slices);
        drop(slices);
        // One that failed may have been written nevertheless.
        let right = result.as_ref().is_ok_and(|range| *range == (first..first + count));
        self.model.append(payloads);
        match result {
            Ok(range) if !right => Err(format!("{BROKEN}: appended as {range:?}, expected from {first}")),
            Ok(_) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Random calls, until one fails or enough were made.
    fn live(&mut self, log: &Log, tally: &mut Tally) -> Result<(), String> {
        let told = |e: Error| e.to_string();
        let mut follower = log.follow(log.durable().max(1));
        let mut followed = log.durable().max(1);
        for _ in 0..4 + self.rng.below(30) {
            match self.rng.below(16) {
                0..6 => self.append(log)?,
                6 => {
                    // More than the buffers hold: plain writes.
                    for _ in 0..self.rng.below(12) {
                        self.append(log)?;
                    }
                }
                7 => {
                    for _ in 0..self.rng.below(9) {
                        self.append(log)?;
                        log.submit().map_err(told)?;
                    }
                }
                8 | 9 => log.submit().map_err(told)?,
                10 if self.model.next() > 1 => {
                    let newest = self.model.next() - 1;
                    let seq = newest - self.rng.below(newest.min(4));
                    log.wait_durable(seq).map_err(told)?;
                    self.model.acknowledge(seq);
                }
                11 => {
                    let before = self.model.acknowledged.saturating_sub(self.rng.below(8));
                    self.model.trimmed = self.model.trimmed.max(before);
                    log.trim_before(before).map_err(told)?;
                }
                12 => self.read(log)?,
                13 => {
                    while let Some(record) = match follower.try_next() {
                        Err(Error::Invalid(_)) if followed < self.model.trimmed => None,
                        other => other.map_err(told)?,
                    } {
                        if record.seq != followed || !self.model.is(record.seq, &record.payload) {
                            return Err(format!("{BROKEN}: the follower read {} for {followed}", record.seq));
                        }
                        followed += 1;
                        tally.follows += 1;
                    }
                }
                _ => {
                    let seq = log.commit().map_err(told)?;
                    self.model.acknowledge(seq);
                }
            }
            let durable = log.durable();
            if durable > 0 && durable < self.model.next() {
                self.model.acknowledge(durable);
            }
            if durable < self.model.acknowledged {
                return Err(format!("{BROKEN}: {durable} is durable, after {}", self.model.acknowledged));
            }
        }
        Ok(())
    }

    /// A scan while the log is written.
    fn read(&mut self, log: &Log) -> Result<(), String> {
        let (first, durable) = (log.first_seq(), log.durable());
        let from = first + self.rng.below(durable.saturating_sub(first) + 1);
        let how = ScanOptions { mapped: self.rng.one_in(3), read_ahead: 1, from };
        let mut next = from;
        for record in log.scan_with(how).map_err(|e| e.to_string())? {
            let record = record.map_err(|e| e.to_string())?;
            if record.seq != next || !self.model.is(next, &record.payload) {
                return Err(format!("{BROKEN}: the scan read {} for {next}", record.seq));
            }
            next += 1;
        }
        if next <= durable { Err(format!("{BROKEN}: the scan ended before {next} of {durable}")) } else { Ok(()) }
    }

    /// The last life: something is damaged, and what that loses must be reported.
    fn damage(&mut self, tally: &mut Tally) -> Result<(), String> {
        self.epoch += 1;
        if self.faults.iter().any(|fault| *fault > self.disk.ops()) {
            self.disk = self.disk.power_cycle(CrashPlan::KeepAll);
        }
        let log = open(&self.disk, self.epoch, &self.options).map_err(|e| format!("opening: {e}"))?;
        self.model.check(&log, Allowed::Nothing)?;
        tally.damages += 1;
        let rots = self.rng.one_in(2);
        let mut fault_at = 0;
        if !rots {
            let elsewhere = self.rng.below(12) * BLOCK;
            let fault = self.rng.of(&[Fault::LostWrite, Fault::Misdirect(elsewhere)]);
            fault_at = self.disk.ops() + 1 + self.rng.below(20);
            self.disk.fail_at(fault_at, fault);
        }
        let (mut noted, mut left) = (false, 6 + self.rng.below(8));
        while left > 0 {
            // Two commits more once the fault has come: a last commit that goes astray over the one before it takes the
            // proof of that along (the known limit of the log).
            left = if self.disk.ops() < fault_at { left.max(3) } else { left } - 1;
            let step = self.append(&log).and_then(|()| log.commit().map_err(|e| e.to_string()));
            match step {
                Ok(seq) => self.model.acknowledge(seq),
                Err(_) if !rots => noted = true,
                Err(why) => return Err(why),
            }
            if noted {
                break;
            }
        }
        drop(log);
        if rots {
            let files: Vec<PathBuf> = self.disk.list_all();
            let file = &files[self.rng.below(files.len() as u64) as usize];
            let len = self.disk.read_file(file).map_err(|e| e.to_string())?.len() as u64;
            let (at, bit) = (self.rng.below(len), self.rng.below(8) as u8);
            // An unfinished file may be empty.
            if len > 0 {
                self.disk.flip_bit(file, at, bit).map_err(|e| e.to_string())?;
            }
        }
        let up = if self.rng.one_in(2) { self.disk.power_cycle(CrashPlan::KeepAll) } else { self.disk.clone() };
        // Reading only, for what inspection says of the same disk.
        let told = !inspect(&up, dir(), true).map_err(|e| format!("inspecting: {e}"))?.damage.is_empty();
        let found = match open(&up, self.epoch + 1, &self.options) {
            Ok(log) => self.model.clone().check(&log, Allowed::Unproved)?,
            Err(Error::Damaged(_)) => Found::Reported,
            Err(e) => return Err(e.to_string()),
        };
        if found == Found::Reported {
            tally.reported += 1;
            if !told {
                return Err("inspection finds no damage where opening or scanning does".into());
            }
        }
        Ok(())
    }
}
