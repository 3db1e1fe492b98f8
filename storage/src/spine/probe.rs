//! Batched point look-ups.
//!
//! Keys are sorted, so that every source is walked once from front to back. Per chunk of keys: memory first, then the
//! filters of all runs, then one batch of reads for every block that may hold one of them.
//!
//! Known limit: the blocks of [`CHUNK`] keys (and of one key, however many rows it has) are in memory at once.

use std::ops::Range;
use std::sync::Arc;

use super::batch::prefix;
use super::context::SpineContext;
use super::filter::key_hash;
use super::memtable::Memtable;
use super::run::{Keep, Run, load};
use super::{Discipline, KeyBatch, Probe, RowBatch};
use crate::{Error, Result};

/// Keys that are looked up together.
const CHUNK: usize = 1024;

/// Some rows of one key in one source.
struct Hit<'a> {
    rows: &'a RowBatch,
    range: Range<usize>,
}

/// What is probed: tables and runs, newest first.
pub(super) struct Sources<'a> {
    pub(super) discipline: Discipline,
    pub(super) tables: Vec<&'a Memtable>,
    pub(super) runs: &'a [Arc<Run>],
    pub(super) context: Option<&'a Arc<SpineContext>>,
}

/// Looks up keys in any order, repeated or not.
pub(super) fn probe(sources: &Sources<'_>, keys: &KeyBatch) -> Result<Probe> {
    let too_many = |what| Error::Invalid(format!("a probe has more than {} {what}: split it", u32::MAX));
    let mut order: Vec<(u64, u32)> = Vec::with_capacity(keys.len());
    for i in 0..keys.len() {
        order.push((prefix(keys.get(i)), u32::try_from(i).map_err(|_| too_many("keys"))?));
    }
    let key = |at: u32| keys.get(at as usize);
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))).then(a.1.cmp(&b.1)));

    // The rows in the order of the sorted keys, and for each key asked its range of them.
    let mut sorted = RowBatch::new();
    let mut ranges: Vec<Range<usize>> = vec![0..0; keys.len()];
    let mut distinct: Vec<&[u8]> = order.iter().map(|&(_, i)| key(i)).collect();
    distinct.dedup();
    let mut asked = order.iter().map(|&(_, i)| i).peekable();
    for chunk in distinct.chunks(CHUNK) {
        let found = probe_sorted(sources, chunk, &mut sorted)?;
        for (range, &wanted) in found.into_iter().zip(chunk) {
            while let Some(i) = asked.next_if(|&i| key(i) == wanted) {
                if let Some(place) = ranges.get_mut(i as usize) {
                    *place = range.clone();
                }
            }
        }
    }
    gather(sorted, &ranges).ok_or_else(|| too_many("rows"))
}

/// Brings rows into the order of `ranges`; `None` if there are too many.
fn gather(sorted: RowBatch, ranges: &[Range<usize>]) -> Option<Probe> {
    let mut offsets = vec![0u32];
    let mut total = 0usize;
    let mut in_order = true;
    for range in ranges {
        in_order &= range.is_empty() || range.start == total;
        total += range.len();
        offsets.push(u32::try_from(total).ok()?);
    }
    if in_order && total == sorted.len() {
        return Some(Probe { rows: sorted, offsets });
    }
    let mut rows = RowBatch::with_capacity(total, sorted.bytes());
    for i in ranges.iter().cloned().flatten() {
        rows.push(sorted.key(i), sorted.value(i), sorted.weight(i));
    }
    Some(Probe { rows, offsets })
}

/// Looks up distinct keys in ascending order, appends their rows to `out` and returns the range of each.
fn probe_sorted(sources: &Sources<'_>, keys: &[&[u8]], out: &mut RowBatch) -> Result<Vec<Range<usize>>> {
    let mut hits: Vec<Vec<Hit<'_>>> = keys.iter().map(|_| Vec::new()).collect();
    for table in &sources.tables {
        probe_table(table, keys, &mut hits);
    }
    let plan = plan(sources, keys, &hits);
    let wanted: Vec<(&Run, usize)> = plan.iter().map(|step| (step.run, step.block)).collect();
    let mut reads = wanted.clone();
    reads.dedup_by_key(|(run, block)| (std::ptr::from_ref(*run), *block));
    let blocks = match sources.context {
        Some(context) => load(context, &reads, Keep::Cached)?,
        None => Vec::new(),
    };
    // `plan` names the blocks in the order of `reads`, each once for every key that wants it.
    let mut at = 0;
    let mut from = 0;
    for (i, step) in plan.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|b| plan.get(b));
        if before.is_some_and(|b| !std::ptr::eq(b.run, step.run) || b.block != step.block) {
            (at, from) = (at + 1, 0);
        }
        let (Some(rows), Some(key), Some(hits)) = (blocks.get(at), keys.get(step.key), hits.get_mut(step.key)) else {
            continue;
        };
        let start = rows.lower_bound(key, from);
        let end = rows.upper_bound(key, start);
        from = start;
        if start < end {
            hits.push(Hit { rows, range: start..end });
        }
    }
    let mut ranges = Vec::with_capacity(keys.len());
    let mut several = RowBatch::new();
    for (key, hits) in keys.iter().zip(&hits) {
        let start = out.len();
        collect(sources.discipline, key, hits, &mut several, out);
        ranges.push(start..out.len());
    }
    Ok(ranges)
}

/// Appends what the hits of one key, newest first, add up to.
fn collect(discipline: Discipline, key: &[u8], hits: &[Hit<'_>], several: &mut RowBatch, out: &mut RowBatch) {
    match (discipline, hits) {
        (_, []) => {}
        (Discipline::Latest, [newest, ..]) => {
            let row = newest.range.start;
            if newest.rows.weight(row) > 0 {
                out.push(key, newest.rows.value(row), 1);
            }
        }
        (Discipline::Weighted, [only]) => {
            for row in only.range.clone() {
                out.push(key, only.rows.value(row), only.rows.weight(row));
            }
        }
        (Discipline::Weighted, all) => {
            several.clear();
            for hit in all {
                for row in hit.range.clone() {
                    several.push(key, hit.rows.value(row), hit.rows.weight(row));
                }
            }
            several.consolidate(discipline);
            for (key, value, weight) in several.iter() {
                out.push(key, value, weight);
            }
        }
    }
}

fn probe_table<'a>(table: &'a Memtable, keys: &[&[u8]], hits: &mut [Vec<Hit<'a>>]) {
    match table {
        Memtable::Weighted(table) => {
            for rows in table.stack() {
                let mut from = 0;
                for (key, hits) in keys.iter().zip(hits.iter_mut()) {
                    from = rows.lower_bound(key, from);
                    let end = rows.upper_bound(key, from);
                    if from < end {
                        hits.push(Hit { rows, range: from..end });
                    }
                }
            }
        }
        Memtable::Latest(table) => {
            for (key, hits) in keys.iter().zip(hits.iter_mut()).filter(|(_, hits)| hits.is_empty()) {
                if let Some(row) = table.find(key) {
                    hits.push(Hit { rows: table.rows(), range: row..row + 1 });
                }
            }
        }
    }
}

/// One key that is to be looked for in one block.
struct Step<'a> {
    run: &'a Run,
    block: usize,
    key: usize,
}

/// Asks the filters and indexes of all runs; newest run first, then by block and key.
fn plan<'a>(sources: &Sources<'a>, keys: &[&[u8]], hits: &[Vec<Hit<'_>>]) -> Vec<Step<'a>> {
    let mut plan = Vec::new();
    if sources.runs.is_empty() {
        return plan;
    }
    // In a latest spine what memory holds hides every run.
    let open = |i: usize| sources.discipline == Discipline::Weighted || hits.get(i).is_some_and(|h| h.is_empty());
    let wanted: Vec<(usize, &[u8], u64)> =
        keys.iter().enumerate().filter(|(i, _)| open(*i)).map(|(i, key)| (i, *key, key_hash(key))).collect();
    for run in sources.runs {
        let start = plan.len();
        for &(i, key, hash) in &wanted {
            if run.filter.may_contain(hash) {
                let blocks = run.index.blocks_of(key);
                plan.extend(blocks.map(|block| Step { run: run.as_ref(), block, key: i }));
            }
        }
        // A key over several blocks comes before later keys of its first: by block, then.
        if let Some(steps) = plan.get_mut(start..) {
            steps.sort_by_key(|step| step.block);
        }
    }
    plan
}
