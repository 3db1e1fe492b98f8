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
            match sources.discipline {
                Discipline::Latest => visit_newest(sources, targets, from..end, now, &steps, &mut visit)?,
                Discipline::Weighted => visit_all(sources, targets, from..end, now, &steps, &mut visit)?,
            }
            (from, in_tables) = (end, later);
        }
    }
    Ok(())
}

/// Loads the blocks of the steps, [`BLOCKS`] at a time, and visits the targets.
fn visit_all<'a>(
    sources: &Sources<'a>,
    targets: &[Target<'_>],
    range: Range<usize>,
    in_tables: &[(usize, Hit<'a>)],
    steps: &[Step],
    visit: &mut impl FnMut(usize, &[Hit<'_>]),
) -> Result<()> {
    let (mut in_tables, mut steps) = (in_tables, steps);
    let (mut places, mut spots) = (Vec::new(), Vec::new());
    let mut next = range.start;
    while next < range.end {
        let (wanted, slots) = choose(sources.runs, steps);
        let blocks = match sources.context {
            Some(context) => load(context, &wanted, Keep::Cached)?,
            None => Vec::new(),
        };
        let (now, later) = steps.split_at_checked(slots.len()).unwrap_or((steps, &[]));
        let end = later.first().map_or(range.end, |step| step.target);
        places.clear();
        places.extend(now.iter().zip(slots).flat_map(|(step, slots)| slots.map(|slot| (step.target, slot))));
        look_in_blocks(targets, &blocks, &places, &mut spots);
        let mut found = places.iter().zip(&spots).filter(|(_, spot)| spot.found).peekable();
        let mut hits: Vec<Hit<'_>> = Vec::new();
        while next < end {
            hits.clear();
            while let Some(((_, hit), rest)) = in_tables.split_first().filter(|((target, _), _)| *target <= next) {
                hits.push(hit.clone());
                in_tables = rest;
            }
            while let Some(((_, slot), spot)) = found.next_if(|((target, _), _)| *target == next) {
                hits.extend(blocks.get(*slot).map(|block| Hit::Block(block, *spot)));
            }
            visit(next, &hits);
            next += 1;
        }
        steps = later;
    }
    Ok(())
}

/// As [`visit_all`], of a latest spine: each target is looked for in the newest run that may hold it, and in older ones only
/// where a filter was wrong. So a key that was written many times costs one block, and few targets a second batch of reads.
fn visit_newest<'a>(
    sources: &Sources<'a>,
    targets: &[Target<'_>],
    range: Range<usize>,
    in_tables: &[(usize, Hit<'a>)],
    steps: &[Step],
    visit: &mut impl FnMut(usize, &[Hit<'_>]),
) -> Result<()> {
    // The steps of each target that has any.
    let all: Vec<&[Step]> = steps.chunk_by(|a, b| a.target == b.target).collect();
    let (mut in_tables, mut later) = (in_tables, all.as_slice());
    let (mut places, mut spots) = (Vec::new(), Vec::new());
    let mut round: Vec<Step> = Vec::new();
    let mut next = range.start;
    while next < range.end {
        let mut end = range.end;
        let mut blocks: Vec<Arc<Block>> = Vec::new();
        // Of each target from `next` on: where it was found.
        let mut found: Vec<Option<(usize, Spot)>> = Vec::new();
        let mut waiting = later.to_vec();
        while !waiting.is_empty() {
            round.clear();
            round.extend(waiting.iter().filter_map(|steps| steps.first().cloned()));
            let (wanted, slots) = choose(sources.runs, &round);
            if found.is_empty() {
                // What does not fit waits until these targets are visited.
                waiting.truncate(slots.len());
                later = later.get(slots.len()..).unwrap_or(&[]);
                end = round.get(slots.len()).map_or(range.end, |step| step.target);
                found.resize(end - next, None);
            }
            let held = blocks.len();
            if let Some(context) = sources.context {
                blocks.extend(load(context, &wanted, Keep::Cached)?);
            }
            let looked = slots.len();
            places.clear();
            places
                .extend(round.iter().zip(slots).flat_map(|(step, slots)| slots.map(|slot| (step.target, held + slot))));
            look_in_blocks(targets, &blocks, &places, &mut spots);
            for ((target, slot), spot) in places.iter().zip(&spots).filter(|(_, spot)| spot.found) {
                if let Some(found) = found.get_mut(target - next) {
                    *found = Some((*slot, *spot));
                }
            }
            let mut number = 0;
            waiting.retain_mut(|steps| {
                number += 1;
                if number > looked {
                    return true;
                }
                let Some((step, older)) = steps.split_first() else { return false };
                *steps = older;
                !older.is_empty() && found.get(step.target - next).is_some_and(Option::is_none)
            });
        }
        for target in next..end {
            let table = in_tables.split_first().filter(|((number, _), _)| *number == target);
            let block = found.get(target - next).and_then(|found| found.as_ref());
            match (table, block) {
                (Some(((_, hit), rest)), _) => {
                    visit(target, std::slice::from_ref(hit));
                    // The others are older.
                    in_tables = rest;
                    while let Some((_, rest)) = in_tables.split_first().filter(|((number, _), _)| *number == target) {
                        in_tables = rest;
                    }
                }
                (None, Some((slot, spot))) => match blocks.get(*slot) {
                    Some(block) => visit(target, &[Hit::Block(block, *spot)]),
                    None => visit(target, &[]),
                },
                (None, None) => visit(target, &[]),
            }
        }
        next = end;
    }
    Ok(())
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

/// The distinct blocks of the first steps, as many as are held together, and for each step which of them it wants. Steps of one target
/// are not parted.
fn choose<'a>(runs: &'a [Arc<Run>], steps: &[Step]) -> (Vec<(&'a Run, usize)>, Vec<Range<usize>>) {
    let mut wanted: Vec<(&Run, usize)> = Vec::new();
    let mut slots: Vec<Range<usize>> = Vec::with_capacity(steps.len());
    // Of each run: the last block that is wanted, and its place among the wanted.
    let mut last: Vec<Option<(usize, usize)>> = vec![None; runs.len()];
    let mut target = None;
    for step in steps {
        if wanted.len() >= BLOCKS && target != Some(step.target) {
            break;
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
        slots.push(first..end);
    }
    (wanted, slots)
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
