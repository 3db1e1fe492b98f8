//! Many lives of one store, drawn by lot: steps, checkpoints, savepoints and openings, each cut off now and then by a loss of power,
//! a kill, an I/O error or a full disk, at any operation of theirs, recoveries and copies included; and between two lives, damage to
//! the newest checkpoint whenever the store says that it has an older one to fall back to, and to savepoints and what they alone
//! name. Copies of savepoints are opened, and some games go on in one.
//!
//! `BACKSTAY_LIVES` (default 6) is how many stores are played through.

mod copies;
mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_storage::disk::sim::Fault;
use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::inspect::inspect;
use backstay_storage::{Error, Store, copy_savepoint};

use super::model::Rng;
use super::savepoint::check_copy;
use super::workload::{DIR, Embedder, Promised, Stop, options};
use super::{number_from, seed};
use copies::Copied;
use saved::{NAMES, Saved, manifests, runs};

/// Turns of one game: each an action, or an opening.
const TURNS: u64 = 300;

#[derive(Debug, Default)]
pub struct Tally {
    power_losses: u64,
    failures: u64,
    full: u64,
    damaged: u64,
    openings: u64,
    checkpoints: u64,
    savepoints: u64,
    removed: u64,
    rotten: u64,
    copies: u64,
    refused_copies: u64,
    unfinished_copies: u64,
    opened_copies: u64,
    moves: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.power_losses += other.power_losses;
        self.failures += other.failures;
        self.full += other.full;
        self.damaged += other.damaged;
        self.openings += other.openings;
        self.checkpoints += other.checkpoints;
        self.savepoints += other.savepoints;
        self.removed += other.removed;
        self.rotten += other.rotten;
        self.copies += other.copies;
        self.refused_copies += other.refused_copies;
        self.unfinished_copies += other.unfinished_copies;
        self.opened_copies += other.opened_copies;
        self.moves += other.moves;
    }
}

struct Game {
    disk: SimDisk,
    /// Where the store is; not [`DIR`] any more in a copy.
    dir: PathBuf,
    seed: u64,
    rng: Rng,
    promised: Promised,
    /// Operations that are to fail.
    planned: BTreeSet<u64>,
    /// The disk has little room.
    full: bool,
    /// The newest checkpoint was damaged, and no checkpoint was taken since; `None` if one was cut off.
    damaged: Option<bool>,
    /// The step of the newest checkpoint of the open store.
    checkpointed: Option<u64>,
    /// The savepoint that the store is a copy of, and the number of its checkpoint.
    origin: Option<(String, u64)>,
    saved: Saved,
    copies: BTreeMap<PathBuf, Copied>,
    copied: u64,
    embedder: Option<Embedder>,
    tally: Tally,
}

/// The bytes of a manifest's own, or of the runs that it alone names.
fn doomed(disk: &SimDisk, dir: &Path, rng: &mut Rng) -> (PathBuf, u64) {
    let manifests = manifests(disk, dir);
    let (newest, older) = manifests.split_last().unwrap();
    let named: BTreeSet<_> = older.iter().flat_map(|m| runs(disk, m)).collect();
    let own: Vec<_> = runs(disk, newest).into_iter().filter(|run| !named.contains(run)).collect();
    if !own.is_empty() && rng.below(2) == 0 {
        let (file, offset, len) = &own[rng.below(own.len() as u64) as usize];
        // A byte of the footer: opening reads it.
        return (dir.join("runs").join(file), offset + len - 1 - rng.below(96));
    }
    let len = disk.read_file(newest).unwrap().len() as u64;
    (newest.to_path_buf(), rng.below(len))
}

impl Game {
    fn new(seed: u64) -> Self {
        Self {
            disk: SimDisk::new(seed),
            dir: DIR.into(),
            seed,
            rng: Rng(seed),
            promised: Promised::default(),
            planned: BTreeSet::new(),
            full: false,
            damaged: Some(false),
            checkpointed: None,
            origin: None,
            saved: Saved::default(),
            copies: BTreeMap::new(),
            copied: 0,
            embedder: None,
            tally: Tally::default(),
        }
    }

    fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    /// Whether an operation since was made to fail.
    fn faulty(&self, since: u64) -> bool {
        self.planned.range(since..=self.disk.ops()).count() > 0
    }

    /// Opens the store, maybe with something going wrong meanwhile.
    fn open(&mut self) -> Result<(), Stop> {
        let (mut promised, begun) = (self.promised, self.disk.ops());
        let opened = Store::open(self.shared(), &self.dir, options(self.seed)).map_err(Stop::Refused);
        let faulty = self.faulty(begun);
        let opened = opened.and_then(|store| {
            self.saved.opened(&store, &self.disk, &self.dir, faulty)?;
            let mut warnings = store.recovered().map(|r| r.warnings.clone()).unwrap_or_default();
            warnings.retain(|warning| !store.savepoint_warnings().contains(warning));
            if self.damaged.is_some_and(|damaged| damaged == warnings.is_empty()) {
                return Err(Stop::Wrong(format!("damaged: {:?}, but the warnings are {warnings:?}", self.damaged)));
            }
            self.damaged = Some(!warnings.is_empty());
            let origin =
                self.origin.as_ref().filter(|(_, number)| store.recovered().is_some_and(|r| r.number == *number));
            if store.recovered().and_then(|r| r.savepoint.as_ref()) != origin.map(|(name, _)| name) {
                return Err(Stop::Wrong(format!("a copy of {:?}: {:?}", self.origin, store.recovered())));
            }
            let step = |blob: &[u8]| u64::from_le_bytes(blob.try_into().expect("a blob of ours"));
            self.checkpointed = store.recovered().map(|r| step(&r.blob));
            Embedder::take_warned(store, self.seed, &mut promised)
        });
        // What a cut-off opening promised was told to nobody, but its epoch is used up.
        self.promised.epoch = promised.epoch;
        self.embedder = Some(opened?);
        self.promised = promised;
        self.tally.openings += 1;
        Ok(())
    }

    fn act(&mut self) -> Result<(), Stop> {
        let name = NAMES[self.rng.below(3) as usize];
        match self.rng.below(18) {
            0..=1 => return self.copy(name),
            2 => return self.open_copy(),
            _ => {}
        }
        let Some(embedder) = &mut self.embedder else { return self.open() };
        match self.rng.below(14) {
            0..=2 => embedder.steps(1 + self.rng.below(4), &mut self.promised)?,
            3..=4 => embedder.submit_steps(1 + self.rng.below(3), &mut self.promised)?,
            5..=7 => {
                embedder.checkpoint(&mut self.promised)?;
                self.damaged = Some(false);
                self.checkpointed = Some(embedder.step);
                self.tally.checkpoints += 1;
            }
            8 => self.embedder = None,
            9..=10 => self.tally.savepoints += u64::from(self.saved.save(&embedder.store, name, self.checkpointed)?),
            11 => self.tally.removed += u64::from(self.saved.remove(&embedder.store, &self.dir, name)?),
            12 => {
                self.embedder = None;
                if self.damaged == Some(false) && self.saved.doubtful.is_none() {
                    self.tally.rotten += u64::from(self.saved.rot(&self.disk, &self.dir, &mut self.rng));
                }
            }
            _ => {
                let kept = embedder.store.stats().kept_checkpoints;
                self.embedder = None;
                if kept >= 2 && self.damaged == Some(false) {
                    let (path, offset) = doomed(&self.disk, &self.dir, &mut self.rng);
                    let bit = self.rng.below(8) as u8;
                    self.disk.flip_bit(&path, offset, bit).unwrap();
                    (self.damaged, self.promised.checkpoint) = (Some(true), 0);
                    self.saved.damaged(path, offset, bit);
                    self.tally.damaged += 1;
                }
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Stop> {
        let begun = self.disk.ops();
        let at = begun + 1 + self.rng.below(40);
        match self.rng.below(8) {
            0 => self.plan(at, Fault::Io),
            1 => self.plan(at, Fault::ShortWrite),
            // Fails without effect and ends what is in flight, as a kill does.
            2 => self.plan(at, Fault::NoSpace),
            3..=4 => self.disk.crash_at(at),
            5 => {
                let len = |path: &PathBuf| self.disk.read_file(path).map_or(0, |bytes| bytes.len() as u64);
                let used: u64 = self.disk.list_all().iter().map(len).sum();
                self.full = true;
                self.disk.set_capacity(Some(used + self.rng.below(60_000)));
            }
            _ => {}
        }
        match self.act() {
            Ok(()) => {}
            Err(Stop::Refused(Error::Damaged(damage))) => return Err(Stop::Wrong(format!("damaged: {damage:?}"))),
            Err(Stop::Refused(Error::NoSpace { .. } | Error::Poisoned { .. })) if self.full => {
                self.tally.full += 1;
                self.embedder = None;
                self.damaged = self.damaged.filter(|damaged| !damaged);
            }
            Err(Stop::Refused(_)) if self.disk.is_down() || self.faulty(begun) => {
                self.tally.failures += 1;
                self.embedder = None;
                // The cut-off action may have been the checkpoint that puts the damaged one aside.
                self.damaged = self.damaged.filter(|damaged| !damaged);
            }
            Err(stop) => return Err(stop),
        }
        if self.disk.is_down() || self.rng.below(12) == 0 {
            self.embedder = None;
            self.disk = self.disk.power_cycle(self.rng.next());
            self.planned.clear();
            self.tally.power_losses += 1;
        }
        self.disk.crash_at(u64::MAX);
        self.disk.set_capacity(None);
        self.full = false;
        Ok(())
    }

    fn plan(&mut self, at: u64, fault: Fault) {
        self.disk.fail_at(at, fault);
        self.planned.insert(at);
    }

    /// With nothing more going wrong: all that is whole can be copied, and without savepoints nothing is left over.
    fn end(&mut self) -> Result<(), Stop> {
        self.embedder = None;
        self.disk = self.disk.power_cycle(self.rng.next());
        self.planned.clear();
        while !self.copies.is_empty() {
            self.open_copy()?;
        }
        self.open()?;
        for name in self.saved.there.keys().filter(|name| !self.saved.is_broken(&self.disk, &self.dir, name)) {
            let to = format!("/end-{name}");
            copy_savepoint(&self.shared(), &self.dir, name, Path::new(&to))?;
            check_copy(&self.shared(), &to, self.seed, name, self.saved.there[name]).map_err(Stop::Wrong)?;
        }
        let Some(embedder) = &mut self.embedder else { return Ok(()) };
        for name in NAMES {
            self.saved.remove(&embedder.store, &self.dir, name)?;
        }
        for _ in 0..3 {
            embedder.steps(1, &mut self.promised)?;
            embedder.checkpoint(&mut self.promised)?;
        }
        (self.embedder, self.damaged) = (None, Some(false));
        self.open()?;
        let report = inspect(&self.shared(), &self.dir, true)?;
        let named = report.runs.iter().chain(&report.extras).all(|file| file.named);
        match report.is_sound() && named && report.savepoints.is_empty() {
            true => Ok(()),
            false => Err(Stop::Wrong(format!("not clean at the end: {report:#?}"))),
        }
    }
}

/// Plays one store through.
pub fn play(seed: u64) -> Result<Tally, String> {
    let mut game = Game::new(seed);
    for turn in 0..=TURNS {
        let played = if turn < TURNS { game.turn() } else { game.end() };
        played.map_err(|stop| format!("turn {turn}: {stop:?}\n{:#?}", game.disk.list_all()))?;
    }
    Ok(game.tally)
}

#[test]
fn many_lives_with_everything_that_can_happen() {
    let games = number_from("BACKSTAY_LIVES", 6);
    let first = seed();
    let mut all = Tally::default();
    for seed in first..first + games {
        let played = play(seed).unwrap_or_else(|failure| panic!("BACKSTAY_SEED={seed} BACKSTAY_LIVES=1, {failure}"));
        all.add(&played);
    }
    println!("BACKSTAY_SEED={first}: {games} games: {all:?}");
    assert!(all.power_losses > games && all.damaged > games && all.checkpoints > games, "too little happened: {all:?}");
    let least = [all.removed, all.rotten, all.refused_copies, all.opened_copies].into_iter().min();
    assert!(all.savepoints > games && all.copies > games && least > Some(0), "too little of savepoints: {all:?}");
}
