//! The savepoints of the store and their copies: what was promised of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use backstay_storage::{Error, Result, Store, copy_savepoint};

use super::World;
use crate::embedder::{Embedder, Model, Row};
use crate::input::Input;

/// What is known of the savepoints.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Those that are there, and their steps.
    there: BTreeMap<String, u64>,
    /// One that was being made or removed: it may be there or not.
    doubtful: Option<(String, u64)>,
}

/// A directory that a savepoint was copied to.
#[derive(Debug)]
pub(super) struct Copied {
    name: String,
    /// The steps that it holds.
    steps: Vec<Vec<Row>>,
    /// It was acknowledged.
    whole: bool,
}

fn name(input: &mut Input<'_>) -> String {
    ["a", "b", "c"][usize::from(input.u8() % 3)].into()
}

/// A call that must be refused, with nothing done.
fn refused<T: std::fmt::Debug>(result: Result<T>, reason: &str) -> Result<()> {
    match result {
        Err(Error::Invalid(said)) if said.contains(reason) => Ok(()),
        other => other.map(|done| panic!("{done:?} where {reason:?} was to be said")),
    }
}

/// The savepoints that a store tells, and their steps.
fn told_by(store: &Store) -> BTreeMap<String, u64> {
    let step = |blob: &[u8]| u64::from_le_bytes(blob.try_into().expect("a blob that was never written"));
    store.savepoints().into_iter().map(|s| (s.name, step(&s.blob))).collect()
}

impl Saved {
    /// Compares what an opening tells with what was promised. A read may have failed, if there was `trouble`: it says so and goes on.
    pub(super) fn opened(&mut self, store: &Store, trouble: bool) {
        let (told, said) = (told_by(store), store.savepoint_warnings());
        let is_warned = |name: &str| said.iter().any(|w| w.contains(&format!("savepoint {name:?} ")));
        if let Some((name, step)) = self.doubtful.take()
            && (told.contains_key(&name) || is_warned(&name))
        {
            self.there.insert(name, step);
        }
        assert!(said.is_empty() || trouble, "warnings without damage: {said:?}");
        for (name, step) in &self.there {
            let right = told.get(name).map_or(is_warned(name), |told| told == step);
            assert!(right, "savepoint {name:?} of step {step}: {told:?}, {said:?}");
        }
        let known: BTreeSet<_> = self.there.keys().collect();
        assert!(told.keys().all(|name| known.contains(name)), "{told:?}, of {:?}", self.there);
    }
}

impl World {
    /// Makes a savepoint.
    pub(super) fn save(&mut self, input: &mut Input<'_>) -> Result<()> {
        let name = name(input);
        self.ensure_open()?;
        let Some(embedder) = &self.open else { return Ok(()) };
        if self.saved.there.contains_key(&name) {
            return refused(embedder.store.savepoint(&name), "already");
        }
        let Some(step) = self.checkpointed else {
            return refused(embedder.store.savepoint(&name), "no checkpoint yet");
        };
        self.saved.doubtful = Some((name.clone(), step));
        let info = embedder.store.savepoint(&name)?;
        self.saved.doubtful = None;
        assert_eq!((&info.name, info.blob[..] == step.to_le_bytes()), (&name, true));
        self.saved.there.insert(name.clone(), step);
        assert_eq!(told_by(&embedder.store).get(&name), Some(&step));
        Ok(())
    }

    /// Removes a savepoint.
    pub(super) fn unsave(&mut self, input: &mut Input<'_>) -> Result<()> {
        let name = name(input);
        self.ensure_open()?;
        let Some(embedder) = &self.open else { return Ok(()) };
        if !self.saved.there.contains_key(&name) {
            return refused(embedder.store.remove_savepoint(&name), "no savepoint");
        }
        self.saved.doubtful = self.saved.there.remove_entry(&name);
        embedder.store.remove_savepoint(&name)?;
        self.saved.doubtful = None;
        assert!(!told_by(&embedder.store).contains_key(&name), "savepoint {name:?} after its removal");
        Ok(())
    }

    /// Copies a savepoint, beside an open store or not.
    pub(super) fn copy(&mut self, input: &mut Input<'_>) -> Result<()> {
        let name = name(input);
        if self.saved.doubtful.is_some() {
            self.ensure_open()?;
        }
        let to = PathBuf::from(format!("/copy-{}", self.copies.len()));
        let copied = copy_savepoint(&self.shared(), &self.dir, &name, &to);
        let Some(step) = self.saved.there.get(&name) else { return refused(copied, "no savepoint") };
        let steps = self.steps[..*step as usize].to_vec();
        self.copies.push(Some(Copied { name, steps, whole: copied.is_ok() }));
        copied.map(drop)
    }

    /// Opens a copy, and goes on in it now and then.
    pub(super) fn open_copy(&mut self, input: &mut Input<'_>) -> Result<()> {
        let choice = usize::from(input.u8());
        let Some(at) = choice.checked_rem(self.copies.len()) else { return Ok(()) };
        // Taken out: whoever goes on in it makes another store of it.
        let Some(copied) = self.copies[at].take() else { return Ok(()) };
        let to = PathBuf::from(format!("/copy-{at}"));
        if !self.disk.list_all().iter().any(|file| file.starts_with(&to)) {
            assert!(!copied.whole, "copy {at} is gone");
            return Ok(());
        }
        let mut copy = match Embedder::open_in(self.shared(), &to) {
            Err(Error::Invalid(said)) if said.contains("unfinished copy") && !copied.whole => return Ok(()),
            Err(e) => {
                self.copies[at] = Some(copied);
                return Err(e);
            }
            Ok(copy) => copy,
        };
        let Copied { name, steps, .. } = copied;
        let recovered = copy.store.recovered().expect("a copy has a checkpoint");
        let (number, from) = (recovered.number, recovered.savepoint.clone());
        assert_eq!((from.as_ref(), copy.step), (Some(&name), steps.len() as u64));
        assert!(copy.replay()?.is_empty(), "records in a copy");
        assert_eq!(copy.contents()?, Model::after(&steps), "a copy of {name:?}");
        if input.u8().is_multiple_of(2) {
            self.steps = steps;
            (self.epoch, self.checkpoint, self.durable) = (copy.store.epoch(), number, copy.step);
            (self.saved, self.checkpointed) = (Saved::default(), Some(copy.step));
            (self.dir, self.open) = (to, Some(copy));
        } else {
            drop(copy);
            self.copies[at] = Some(Copied { name, steps, whole: true });
        }
        Ok(())
    }
}
