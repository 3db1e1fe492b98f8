//! Copies of the savepoints of a game: made, opened, gone on in.

use std::path::PathBuf;

use backstay_storage::{Error, Store, copy_savepoint};

use super::saved::{Saved, refused};
use super::{Embedder, Game, Promised, Stop, options};

/// A directory that a savepoint was copied to.
#[derive(Clone, Debug)]
pub struct Copied {
    name: String,
    step: u64,
    /// It was acknowledged.
    whole: bool,
}

impl Game {
    /// Copies a savepoint, beside an open store or not.
    pub(super) fn copy(&mut self, name: &str) -> Result<(), Stop> {
        if self.saved.doubtful.is_some() {
            return Ok(());
        }
        self.copied += 1;
        let to = PathBuf::from(format!("/copy-{}", self.copied));
        let made = |game: &Self| game.disk.list_all().iter().any(|p| p.starts_with(&to));
        let Some(&step) = self.saved.there.get(name) else {
            refused(copy_savepoint(&self.shared(), &self.dir, name, &to), "no savepoint")?;
            return if made(self) { Err(Stop::Wrong("a copy of nothing".into())) } else { Ok(()) };
        };
        let broken = self.saved.is_broken(&self.disk, &self.dir, name);
        let copied = copy_savepoint(&self.shared(), &self.dir, name, &to);
        let whole = copied.is_ok();
        self.copies.insert(to, Copied { name: name.into(), step, whole });
        match copied {
            Ok(_) if broken => Err(Stop::Wrong(format!("savepoint {name:?} was copied with damage: {:?}", self.saved))),
            Err(Error::Damaged(_)) if broken => {
                self.tally.refused_copies += 1;
                Ok(())
            }
            Ok(_) => {
                self.tally.copies += 1;
                Ok(())
            }
            Err(e) => Err(Stop::Refused(e)),
        }
    }

    /// Opens a copy, which must be whole if it was acknowledged, and goes on in it now and then.
    pub(super) fn open_copy(&mut self) -> Result<(), Stop> {
        let at = self.rng.below(self.copies.len().max(1) as u64) as usize;
        let Some((to, copied)) = self.copies.iter().nth(at).map(|(to, copied)| (to.clone(), copied.clone())) else {
            return Ok(());
        };
        let goes_on = self.rng.below(3) == 0;
        if !self.disk.list_all().iter().any(|p| p.starts_with(&to)) {
            self.copies.remove(&to);
            return if copied.whole { Err(Stop::Wrong(format!("{copied:?} is gone"))) } else { Ok(()) };
        }
        let store = match Store::open(self.shared(), &to, options(self.seed)) {
            Err(Error::Invalid(said)) if said.contains("unfinished copy") && !copied.whole => {
                self.copies.remove(&to);
                self.tally.unfinished_copies += 1;
                return Ok(());
            }
            opened => opened?,
        };
        let number = store.recovered().map_or(0, |r| r.number);
        let from = store.recovered().and_then(|r| r.savepoint.clone());
        let mut promised = Promised { appended: u64::MAX, ..Promised::default() };
        let embedder = Embedder::take(store, self.seed, &mut promised)?;
        if (from.as_ref(), embedder.step, promised.durable) != (Some(&copied.name), copied.step, copied.step) {
            return Err(Stop::Wrong(format!("{copied:?} is a copy of {from:?} and {promised:?}")));
        }
        drop(embedder);
        self.copies.remove(&to);
        self.tally.opened_copies += 1;
        if goes_on {
            self.embedder = None;
            (self.dir, self.promised, self.damaged) = (to, promised, Some(false));
            (self.saved, self.origin) = (Saved::default(), Some((copied.name, number)));
            self.tally.moves += 1;
        }
        Ok(())
    }
}
