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
use crate::spine::run::{Keep, Run};
use crate::spine::{Discipline, RowBatch};

/// A place in a run.
#[derive(Debug)]
struct Walk {
    blocks: Blocks,
    block: Option<Arc<Block>>,
    /// The block's number.
    number: usize,
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

    /// Goes to the first row at or above `(key, value)`.
    fn seek(&mut self, key: &[u8], value: &[u8]) -> Result<bool> {
        self.blocks.jump();
        let mut number = self.blocks.run().index.first_reaching_row(key, value);
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
        self.blocks.jump();
        let mut number = self.blocks.run().index.first_reaching_row(key, value);
        if number >= self.count() {
            return self.count().checked_sub(1).map_or(Ok(false), |last| self.last_of(last));
        }
        loop {
            let block = self.hold(number, true)?;
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
        let walk = Walk { blocks, block: None, number: 0, row: 0, entry: Entry::default(), key: Vec::new() };
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

    /// Goes to the first row.
    pub(super) fn first(&mut self) -> Result<()> {
        self.step(
            |_, _| Some(0),
            |walk| {
                walk.blocks.jump();
                if walk.count() == 0 {
                    return Ok(false);
                }
                let block = walk.hold(0, true)?;
                Ok(walk.go_to(&block, 0))
            },
        )
    }

    /// Goes to the last row.
    pub(super) fn last(&mut self) -> Result<()> {
        self.step(
            |rows, _| rows.len().checked_sub(1),
            |walk| {
                walk.blocks.jump();
                walk.count().checked_sub(1).map_or(Ok(false), |last| walk.last_of(last))
            },
        )
    }

    /// Goes to the first row at or above `(key, value)`.
    pub(super) fn seek(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.step(|rows, _| Some(rows.lower_bound_row(key, value)), |walk| walk.seek(key, value))
    }

    /// Goes to the last row below `(key, value)`.
    pub(super) fn seek_below(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.step(|rows, _| rows.lower_bound_row(key, value).checked_sub(1), |walk| walk.seek_below(key, value))
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
