//! Many lives of one store, drawn by lot: steps, checkpoints and openings, each cut off now and then by a loss of power, a
//! kill, an I/O error or a full disk, at any operation of theirs, recoveries included; and between two lives, damage to
//! the newest checkpoint whenever the store says that it has an older one to fall back to.
//!
//! `BACKSTAY_LIVES` (default 6) is how many stores are played through.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_storage::checkpoint::Manifest;
use backstay_storage::disk::sim::Fault;
use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::{Error, Store};

use super::model::Rng;
use super::workload::{DIR, Embedder, Promised, Stop, options};
use super::{number_from, seed};

/// Turns of one game: each an action, or an opening.
const TURNS: u64 = 120;

#[derive(Debug, Default)]
struct Tally {
    power_losses: u64,
    failures: u64,
    full: u64,
    damaged: u64,
    openings: u64,
    checkpoints: u64,
}

struct Game {
    disk: SimDisk,
    seed: u64,
    rng: Rng,
    promised: Promised,
    /// Operations that are to fail.
    planned: BTreeSet<u64>,
    /// The disk has little room.
    full: bool,
    /// The newest checkpoint was damaged, and no checkpoint was taken since; `None` if one was cut off.
    damaged: Option<bool>,
    embedder: Option<Embedder>,
    tally: Tally,
}

/// The bytes of a manifest's own, or of the runs that it alone names.
fn doomed(disk: &SimDisk, rng: &mut Rng) -> (PathBuf, u64) {
    let all = disk.list_all();
    let manifests: Vec<_> = all.iter().filter(|p| p.extension().is_some_and(|e| e == "manifest")).collect();
    let read = |path: &Path| Manifest::decode(&disk.read_file(path).unwrap(), path).unwrap();
    let runs = |m: &Manifest| -> BTreeSet<(String, u64, u64)> {
        m.spines.iter().flat_map(|s| &s.runs).map(|r| (r.file.clone(), r.offset, r.len)).collect()
    };
    let (newest, older) = manifests.split_last().unwrap();
    let named: BTreeSet<_> = older.iter().flat_map(|m| runs(&read(m))).collect();
    let own: Vec<_> = runs(&read(newest)).into_iter().filter(|run| !named.contains(run)).collect();
    if !own.is_empty() && rng.below(2) == 0 {
        let (file, offset, len) = &own[rng.below(own.len() as u64) as usize];
        // A byte of the footer: opening reads it.
        return (Path::new(DIR).join("runs").join(file), offset + len - 1 - rng.below(96));
    }
    let len = disk.read_file(newest).unwrap().len() as u64;
    (newest.to_path_buf(), rng.below(len))
}

impl Game {
    fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    /// Opens the store, maybe with something going wrong meanwhile.
    fn open(&mut self) -> Result<(), Stop> {
        let mut promised = self.promised;
        let opened = Store::open(self.shared(), Path::new(DIR), options(self.seed)).map_err(Stop::Refused);
        let opened = opened.and_then(|store| {
            let warnings = store.recovered().map(|r| r.warnings.clone()).unwrap_or_default();
            if self.damaged.is_some_and(|damaged| damaged == warnings.is_empty()) {
                return Err(Stop::Wrong(format!("damaged: {:?}, but the warnings are {warnings:?}", self.damaged)));
            }
            self.damaged = Some(!warnings.is_empty());
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
        let Some(embedder) = &mut self.embedder else { return self.open() };
        match self.rng.below(10) {
            0..=2 => embedder.steps(1 + self.rng.below(4), &mut self.promised)?,
            3..=4 => embedder.submit_steps(1 + self.rng.below(3), &mut self.promised)?,
            5..=7 => {
                embedder.checkpoint(&mut self.promised)?;
                self.damaged = Some(false);
                self.tally.checkpoints += 1;
            }
            8 => self.embedder = None,
            _ => {
                let kept = embedder.store.stats().kept_checkpoints;
                self.embedder = None;
                if kept >= 2 && self.damaged == Some(false) {
                    let (path, offset) = doomed(&self.disk, &mut self.rng);
                    self.disk.flip_bit(&path, offset, self.rng.below(8) as u8).unwrap();
                    (self.damaged, self.promised.checkpoint) = (Some(true), 0);
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
            Err(Stop::Refused(_)) if self.disk.is_down() || self.planned.range(begun..=self.disk.ops()).count() > 0 => {
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
}

#[test]
fn many_lives_with_everything_that_can_happen() {
    let games = number_from("BACKSTAY_LIVES", 6);
    let first = seed();
    let mut all = Tally::default();
    for seed in first..first + games {
        let mut game = Game {
            disk: SimDisk::new(seed),
            seed,
            rng: Rng(seed),
            promised: Promised::default(),
            planned: BTreeSet::new(),
            full: false,
            damaged: Some(false),
            embedder: None,
            tally: Tally::default(),
        };
        for turn in 0..TURNS {
            if let Err(stop) = game.turn() {
                let files = game.disk.list_all();
                panic!("BACKSTAY_SEED={seed} BACKSTAY_LIVES=1, turn {turn}: {stop:?}\n{files:#?}");
            }
        }
        let t = game.tally;
        all.power_losses += t.power_losses;
        all.failures += t.failures;
        all.full += t.full;
        all.damaged += t.damaged;
        all.openings += t.openings;
        all.checkpoints += t.checkpoints;
    }
    println!("BACKSTAY_SEED={first}: {games} games: {all:?}");
    assert!(all.power_losses > games && all.damaged > games && all.checkpoints > games, "too little happened: {all:?}");
}
