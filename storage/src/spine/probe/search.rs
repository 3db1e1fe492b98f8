//! Looking for sorted targets in all sources at once.

use std::ops::Range;
use std::sync::Arc;

use super::plan::{Planner, Step};
use super::{Sources, Target};
use crate::Result;
use crate::spine::format::block::Block;
use crate::spine::format::search::{Spot, Start};
use crate::spine::memtable::Memtable;
use crate::spine::run::{Keep, Run, load};
use crate::spine::{Discipline, RowBatch};

/// Blocks that are held together at most, but for those of one target: 8 MiB.
const BLOCKS: usize = 256;
/// Targets that are planned together at most.
const CHUNK: usize = 16 << 10;
/// Searches that wait for memory together.
const TOGETHER: usize = 32;

/// Some rows of one key in one source.
#[derive(Clone, Debug)]
pub(super) enum Hit<'a> {
    Table(&'a RowBatch, Range<usize>),
    Block(&'a Block, Spot),
}

impl<'a> Hit<'a> {
    /// Value and weight of each row.
    pub(super) fn rows(&'a self, key: &'a [u8]) -> impl Iterator<Item = (&'a [u8], i64)> {
        let (table, block) = match self {
            Self::Table(rows, range) => (Some(range.clone().map(|row| (rows.value(row), rows.weight(row)))), None),
            Self::Block(block, spot) => (None, Some(block.rows_of(*spot, key))),
        };
        table.into_iter().flatten().chain(block.into_iter().flatten())
    }
}

/// Finds the rows of distinct, ascending targets; `visit` is called once for each in order, with what it has, newest source first. (Of
/// a latest spine only the first counts.)
pub(super) fn search<'a>(
    sources: &Sources<'a>,
    targets: &[Target<'_>],
    mut visit: impl FnMut(usize, &[Hit<'_>]),
) -> Result<()> {
    let mut planner = Planner::new(sources);
    let (mut in_tables, mut steps) = (Vec::new(), Vec::new());
    let mut from = 0;
    while from < targets.len() {
        let start = from;
        let limit = targets.len().min(start.saturating_add(CHUNK));
        let targets = targets.get(..limit).unwrap_or(targets);
        in_tables.clear();
        for table in sources.tables.iter().filter(|table| !table.is_empty()) {
            look_in(table, targets, start, &mut in_tables);
        }
        // By target; of one target as the tables stand.
        in_tables.sort_by_key(|(target, _)| *target);
        let mut closed = vec![false; if sources.discipline == Discipline::Latest { limit - start } else { 0 }];
        for (target, _) in &in_tables {
            if let Some(closed) = closed.get_mut(target - start) {
                *closed = true;
            }
        }
        let mut in_tables = in_tables.as_slice();
        while from < limit {
            let is_closed = |target: usize| closed.get(target - start).is_some_and(|&closed| closed);
            steps.clear();
            let end = planner.plan(sources, targets, from, is_closed, &mut steps)?;
            let here = in_tables.partition_point(|(target, _)| *target < end);
            let (now, later) = in_tables.split_at_checked(here).unwrap_or((in_tables, &[]));
            visit_all(sources, targets, from..end, now, &steps, &mut visit)?;
            (from, in_tables) = (end, later);
        }
    }
    Ok(())
}

/// Loads the blocks of the steps, [`BLOCKS`] at a time, and visits the targets.
///
/// Of a latest spine each target is looked for in the newest run that may hold it, and in older ones only where a filter was wrong. So a
/// key that was written many times costs one block, and few targets a second batch of reads.
fn visit_all<'a>(
    sources: &Sources<'a>,
    targets: &[Target<'_>],
    range: Range<usize>,
    in_tables: &[(usize, Hit<'a>)],
    steps: &[Step],
    visit: &mut impl FnMut(usize, &[Hit<'_>]),
) -> Result<()> {
    let newest_first = sources.discipline == Discipline::Latest;
    let mut in_tables = in_tables.iter().peekable();
    let mut steps = steps;
    let mut next = range.start;
    while next < range.end {
        let mut looked = Looked::default();
        let chosen = match newest_first {
            true => choose(sources.runs, by_target(steps).filter_map(<[Step]>::first)),
            false => choose(sources.runs, steps.iter()),
        };
        let end = chosen.left.unwrap_or(range.end);
        let (now, later) = steps.split_at(steps.partition_point(|step| step.target < end));
        looked.look(sources, targets, &chosen)?;
        if newest_first {
            let mut missed: Vec<&[Step]> = looked.missed(by_target(now)).collect();
            while !missed.is_empty() {
                let chosen = choose(sources.runs, missed.iter().filter_map(|steps| steps.first()));
                looked.look(sources, targets, &chosen)?;
                let (now, later) = missed.split_at(chosen.slots.len());
                missed = looked.missed(now.iter().copied()).chain(later.iter().copied()).collect();
            }
            looked.found.sort_by_key(|(target, ..)| *target);
        }
        let mut found = looked.found.iter().peekable();
        let mut hits: Vec<Hit<'_>> = Vec::new();
        while next < end {
            hits.clear();
            while let Some((_, hit)) = in_tables.next_if(|(target, _)| *target == next) {
                hits.push(hit.clone());
            }
            while let Some((_, slot, spot)) = found.next_if(|(target, ..)| *target == next) {
                hits.extend(looked.blocks.get(*slot).map(|block| Hit::Block(block, *spot)));
            }
            visit(next, &hits);
            next += 1;
        }
        steps = later;
    }
    Ok(())
}

/// The steps of each target.
fn by_target(steps: &[Step]) -> impl Iterator<Item = &[Step]> {
    steps.chunk_by(|a, b| a.target == b.target)
}

/// Blocks that were looked in, and what was found there: target, block and place, by target in each look.
#[derive(Default)]
struct Looked {
    blocks: Vec<Arc<Block>>,
    found: Vec<(usize, usize, Spot)>,
    /// Where the last look's begin.
    last: usize,
    places: Vec<(usize, usize)>,
    spots: Vec<Spot>,
}

impl Looked {
    /// Loads blocks, and looks for their targets in them.
    fn look(&mut self, sources: &Sources<'_>, targets: &[Target<'_>], chosen: &Chosen<'_>) -> Result<()> {
        let held = self.blocks.len();
        if let Some(context) = sources.context {
            self.blocks.extend(load(context, &chosen.wanted, Keep::Cached)?);
        }
        self.places.clear();
        let slots = chosen.slots.iter().cloned();
        self.places.extend(slots.flat_map(|(target, slots)| slots.map(move |slot| (target, held + slot))));
        look_in_blocks(targets, &self.blocks, &self.places, &mut self.spots);
        self.last = self.found.len();
        let found = self.places.iter().zip(&self.spots).filter(|(_, spot)| spot.found);
        self.found.extend(found.map(|((target, slot), spot)| (*target, *slot, *spot)));
        Ok(())
    }

    /// What is left to look in of targets whose first steps were just looked in and did not have them.
    fn missed<'s>(&self, looked_in: impl Iterator<Item = &'s [Step]>) -> impl Iterator<Item = &'s [Step]> {
        let found = self.found.get(self.last..).unwrap_or(&[]);
        let older = looked_in.filter_map(|steps| steps.split_first()).filter(|(_, older)| !older.is_empty());
        let is_found = |step: &Step| found.binary_search_by_key(&step.target, |(target, ..)| *target).is_ok();
        older.filter(move |(step, _)| !is_found(step)).map(|(_, older)| older)
    }
}

/// Searches targets in blocks, both given by number; the answers are in the order of `places`.
fn look_in_blocks(targets: &[Target<'_>], blocks: &[Arc<Block>], places: &[(usize, usize)], spots: &mut Vec<Spot>) {
    let nowhere = Start::Outside(Spot::default());
    let mut starts = [nowhere; TOGETHER];
    let searched = |&(target, slot): &(usize, usize)| {
        let (target, block) = (targets.get(target)?, blocks.get(slot)?);
        Some((block, target.key, target.value.unwrap_or(&[])))
    };
    spots.clear();
    for places in places.chunks(TOGETHER) {
        for (place, start) in places.iter().zip(&mut starts) {
            *start = searched(place).map_or(nowhere, |(block, key, value)| block.start(key, value));
        }
        for (place, start) in places.iter().zip(&starts) {
            if let Some((block, _, _)) = searched(place) {
                block.touch(*start);
            }
        }
        for (place, start) in places.iter().zip(&starts) {
            spots.push(
                searched(place).map_or_else(Spot::default, |(block, key, value)| block.finish(*start, key, value)),
            );
        }
    }
}

/// Blocks to be held together.
struct Chosen<'a> {
    /// Distinct ones.
    wanted: Vec<(&'a Run, usize)>,
    /// The target of each step that was taken, and which of them it wants.
    slots: Vec<(usize, Range<usize>)>,
    /// The target of the first step that was not taken.
    left: Option<usize>,
}

/// The blocks of the first steps, as many as are held together. Steps of one target are not parted.
fn choose<'a, 's>(runs: &'a [Arc<Run>], steps: impl Iterator<Item = &'s Step>) -> Chosen<'a> {
    let mut wanted: Vec<(&Run, usize)> = Vec::new();
    let mut slots: Vec<(usize, Range<usize>)> = Vec::new();
    // Of each run: the last block that is wanted, and its place among the wanted.
    let mut last: Vec<Option<(usize, usize)>> = vec![None; runs.len()];
    let mut target = None;
    for step in steps {
        if wanted.len() >= BLOCKS && target != Some(step.target) {
            return Chosen { wanted, slots, left: Some(step.target) };
        }
        target = Some(step.target);
        let (Some(run), Some(last)) = (runs.get(step.run), last.get_mut(step.run)) else { continue };
        let first = match *last {
            Some((block, slot)) if block == step.blocks.start => slot,
            _ => {
                wanted.push((run, step.blocks.start));
                wanted.len() - 1
            }
        };
        // The further blocks of a step follow its first; if that was wanted before, they do not, and it is wanted anew.
        let first = if step.blocks.len() > 1 && first + 1 != wanted.len() {
            wanted.push((run, step.blocks.start));
            wanted.len() - 1
        } else {
            first
        };
        wanted.extend(step.blocks.clone().skip(1).map(|block| (run.as_ref(), block)));
        let end = first + step.blocks.len();
        *last = step.blocks.end.checked_sub(1).map(|block| (block, end - 1));
        slots.push((step.target, first..end));
    }
    Chosen { wanted, slots, left: None }
}

/// Appends what a table has of the targets from `from` on.
fn look_in<'a>(table: &'a Memtable, targets: &[Target<'_>], from: usize, hits: &mut Vec<(usize, Hit<'a>)>) {
    let numbered = || targets.iter().enumerate().skip(from);
    match table {
        Memtable::Weighted(table) => {
            for rows in table.stack() {
                let mut at = 0;
                for (number, target) in numbered() {
                    at = rows.lower_bound(target.key, at);
                    let end = rows.upper_bound(target.key, at);
                    let range = match target.value {
                        Some(value) => rows.rows_of(value, at..end),
                        None => at..end,
                    };
                    if !range.is_empty() {
                        hits.push((number, Hit::Table(rows, range)));
                    }
                }
            }
        }
        Memtable::Latest(table) => {
            for (number, target) in numbered() {
                if let Some(row) = table.find(target.key) {
                    hits.push((number, Hit::Table(table.rows(), row..row + 1)));
                }
            }
        }
    }
}
