//! One sorted input of a merge: a batch in memory, or a run's blocks one after another.
//!
//! Invariant: a source that is valid stands on a row of its own.

use std::cmp::Ordering;
use std::sync::Arc;

use super::blocks::Blocks;
use crate::Result;
use crate::spine::batch::prefix;
use crate::spine::context::SpineContext;
use crate::spine::format::block::Block;
use crate::spine::format::entry::Entry;
use crate::spine::run::{Keep, Run, load};
use crate::spine::{Discipline, RowBatch};

/// Where a source is to go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal<'a> {
    First,
    Last,
    /// The first row at or above a key and value.
    AtOrAbove(&'a [u8], &'a [u8]),
    /// The last row below.
    Below(&'a [u8], &'a [u8]),
}

impl Goal<'_> {
    /// Which way a walk is likely to go on from there.
    fn is_forward(self) -> bool {
        matches!(self, Self::First | Self::AtOrAbove(..))
    }
}

/// A place in a run.
#[derive(Debug)]
struct Walk {
    blocks: Blocks,
    block: Option<Arc<Block>>,
    /// The block's number.
    number: usize,
    /// The block in which to look for the goal first.
    start: usize,
    row: usize,
    entry: Entry,
    key: Vec<u8>,
}

impl Walk {
    /// Holds block `number`, reached on the way forward or back.
    fn hold(&mut self, number: usize, forward: bool) -> Result<Arc<Block>> {
        if let Some(block) = self.block.as_ref().filter(|_| self.number == number) {
            return Ok(Arc::clone(block));
        }
        self.block = None;
        let block = self.blocks.block(number, forward)?;
        (self.block, self.number) = (Some(Arc::clone(&block)), number);
        Ok(block)
    }

    fn go_to(&mut self, block: &Block, row: usize) -> bool {
        self.row = row;
        self.entry = block.go_to(row, &mut self.key);
        true
    }

    fn count(&self) -> usize {
        self.blocks.run().index.len()
    }

    #[inline]
    fn next(&mut self) -> Result<bool> {
        let Some(block) = &self.block else { return Ok(false) };
        if self.row + 1 < block.len() {
            self.row += 1;
            block.after(&mut self.entry, &mut self.key);
            return Ok(true);
        }
        if self.number + 1 >= self.count() {
            return Ok(false);
        }
        let block = self.hold(self.number + 1, true)?;
        Ok(self.go_to(&block, 0))
    }

    fn prev(&mut self) -> Result<bool> {
        match &self.block {
            Some(block) if self.row > 0 => {
                let block = Arc::clone(block);
                Ok(self.go_to(&block, self.row - 1))
            }
            Some(_) if self.number > 0 => self.last_of(self.number - 1),
            _ => Ok(false),
        }
    }

    /// Goes to the last row of block `number`.
    fn last_of(&mut self, number: usize) -> Result<bool> {
        let block = self.hold(number, false)?;
        Ok(self.go_to(&block, block.len().saturating_sub(1)))
    }

    /// Finds the block in which to look for a goal first, and asks for it. True if it is to be [given](Walk::give).
    fn ask(&mut self, goal: Goal<'_>) -> Result<bool> {
        let index = &self.blocks.run().index;
        self.start = match goal {
            Goal::First => 0,
            Goal::Last => index.len().saturating_sub(1),
            Goal::AtOrAbove(key, value) | Goal::Below(key, value) => index.first_reaching_row(key, value),
        };
        let forward = goal.is_forward();
        if self.block.is_some() && self.number == self.start {
            self.blocks.took(self.start, forward);
            return Ok(false);
        }
        self.blocks.ask(self.start, forward)
    }

    /// Takes the block that was to be given.
    fn give(&mut self, block: Arc<Block>, forward: bool) {
        (self.block, self.number) = (Some(block), self.start);
        self.blocks.took(self.start, forward);
    }

    /// Goes to a goal that was asked for.
    fn go(&mut self, goal: Goal<'_>) -> Result<bool> {
        match goal {
            Goal::First | Goal::Last if self.count() == 0 => Ok(false),
            Goal::First => {
                let block = self.hold(0, true)?;
                Ok(self.go_to(&block, 0))
            }
            Goal::Last => self.last_of(self.start),
            Goal::AtOrAbove(key, value) => self.seek(key, value),
            Goal::Below(key, value) => self.seek_below(key, value),
        }
    }

    /// Goes to the first row at or above `(key, value)`.
    fn seek(&mut self, key: &[u8], value: &[u8]) -> Result<bool> {
        let mut number = self.start;
        while number < self.count() {
            let block = self.hold(number, true)?;
            let spot = block.lower_bound(key, value);
            if spot.row < block.len() {
                return Ok(self.go_to(&block, spot.row));
            }
            number += 1;
        }
        Ok(false)
    }

    /// Goes to the last row below `(key, value)`.
    fn seek_below(&mut self, key: &[u8], value: &[u8]) -> Result<bool> {
        let mut number = self.start;
        if number >= self.count() {
            return self.count().checked_sub(1).map_or(Ok(false), |last| self.last_of(last));
        }
        loop {
            let block = self.hold(number, false)?;
            let spot = block.lower_bound(key, value);
            let goes_on = spot.row == block.len() && self.blocks.run().index.may_begin_below(number + 1, key, value);
            if !goes_on {
                return match spot.row.checked_sub(1) {
                    Some(row) => Ok(self.go_to(&block, row)),
                    None => number.checked_sub(1).map_or(Ok(false), |before| self.last_of(before)),
                };
            }
            number += 1;
        }
    }
}

#[derive(Debug)]
enum Rows {
    Memory { rows: Arc<RowBatch>, at: usize },
    Run(Box<Walk>),
}

/// See the module's head.
#[derive(Debug)]
pub(in crate::spine) struct Source {
    rows: Rows,
    valid: bool,
}

impl Source {
    pub(in crate::spine) fn memory(rows: Arc<RowBatch>) -> Self {
        Self { rows: Rows::Memory { rows, at: 0 }, valid: false }
    }

    pub(in crate::spine) fn run(context: Arc<SpineContext>, run: Arc<Run>, keep: Keep) -> Self {
        let blocks = Blocks::new(context, run, keep);
        let walk = Walk { blocks, block: None, number: 0, start: 0, row: 0, entry: Entry::default(), key: Vec::new() };
        Self { rows: Rows::Run(Box::new(walk)), valid: false }
    }

    pub(super) fn valid(&self) -> bool {
        self.valid
    }

    /// The abbreviated key of the row.
    pub(super) fn prefix(&self) -> u64 {
        prefix(self.key())
    }

    pub(super) fn key(&self) -> &[u8] {
        match &self.rows {
            Rows::Memory { rows, at } => rows.key(*at),
            Rows::Run(walk) => &walk.key,
        }
    }

    pub(super) fn value(&self) -> &[u8] {
        match &self.rows {
            Rows::Memory { rows, at } => rows.value(*at),
            Rows::Run(walk) => walk.block.as_ref().map_or(&[], |block| walk.entry.value(block.bytes())),
        }
    }

    pub(super) fn weight(&self) -> i64 {
        match &self.rows {
            Rows::Memory { rows, at } => rows.weight(*at),
            Rows::Run(walk) => walk.entry.weight,
        }
    }

    /// Does what `memory` or `run` says: the former gives a row's number, if there is one.
    #[inline]
    fn step(
        &mut self,
        memory: impl FnOnce(&RowBatch, usize) -> Option<usize>,
        run: impl FnOnce(&mut Walk) -> Result<bool>,
    ) -> Result<()> {
        self.valid = false;
        self.valid = match &mut self.rows {
            Rows::Memory { rows, at } => match memory(rows, *at).filter(|&row| row < rows.len()) {
                Some(row) => {
                    *at = row;
                    true
                }
                None => false,
            },
            Rows::Run(walk) => run(walk)?,
        };
        Ok(())
    }

    pub(super) fn next(&mut self) -> Result<()> {
        self.step(|_, at| Some(at + 1), Walk::next)
    }

    pub(super) fn prev(&mut self) -> Result<()> {
        self.step(|_, at| at.checked_sub(1), Walk::prev)
    }

    /// Asks for what is needed to go to `goal`, for all sources together, so that they wait for the device once. [`Source::go`] is to follow.
    pub(super) fn ask(sources: &mut [Source], goal: Goal<'_>) -> Result<()> {
        let mut single: Vec<&mut Walk> = Vec::new();
        for source in sources {
            source.valid = false;
            if let Rows::Run(walk) = &mut source.rows
                && walk.ask(goal)?
            {
                single.push(walk);
            }
        }
        // One alone is read when it is looked at.
        let [first, _, ..] = single.as_slice() else { return Ok(()) };
        let (context, keep) = first.blocks.origin();
        let wanted: Vec<_> = single.iter().map(|walk| (walk.blocks.run(), walk.start)).collect();
        let blocks = load(context, &wanted, keep)?;
        for (walk, block) in single.into_iter().zip(blocks) {
            walk.give(block, goal.is_forward());
        }
        Ok(())
    }

    /// Goes to a goal that was asked for.
    pub(super) fn go(&mut self, goal: Goal<'_>) -> Result<()> {
        let in_memory = |rows: &RowBatch, _| match goal {
            Goal::First => Some(0),
            Goal::Last => rows.len().checked_sub(1),
            Goal::AtOrAbove(key, value) => Some(rows.lower_bound_row(key, value)),
            Goal::Below(key, value) => rows.lower_bound_row(key, value).checked_sub(1),
        };
        self.step(in_memory, |walk| walk.go(goal))
    }

    /// The order of the rows that both stand on, if their abbreviated keys are the same.
    pub(super) fn compare(&self, other: &Source, discipline: Discipline) -> Ordering {
        let by_key = self.key().cmp(other.key());
        match discipline {
            Discipline::Weighted => by_key.then_with(|| self.value().cmp(other.value())),
            Discipline::Latest => by_key,
        }
    }
}
