//! Batched point look-ups, of keys and of whole rows.
//!
//! What is asked for is sorted, so that every source is walked once from front to back. Then, for as many targets at a time as their
//! blocks may be in memory together: the tables, the filters of all runs (their pages come from the cache or with one batch of
//! reads), and one batch of reads for every block that may hold one of them. A block is searched as it is in the cache, its
//! rows are not unpacked; a key is copied once, into the answer.
//!
//! Known limit: the blocks of one key, however many rows it has, are in memory at once.

mod plan;
mod search;

use std::ops::Range;
use std::sync::Arc;

use super::batch::prefix;
use super::context::SpineContext;
use super::memtable::Memtable;
use super::run::Run;
use super::{Discipline, KeyBatch, Probe, RowBatch};
use crate::{Error, Result};
use search::{Hit, search};

/// What is probed: tables and runs, newest first.
pub(super) struct Sources<'a> {
    pub(super) discipline: Discipline,
    pub(super) tables: Vec<&'a Memtable>,
    pub(super) runs: &'a [Arc<Run>],
    pub(super) context: Option<&'a Arc<SpineContext>>,
}

/// What is looked for: a key, or with a value one row of it.
#[derive(Clone, Copy, Debug)]
struct Target<'a> {
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

/// Looks up keys in any order, repeated or not.
pub(super) fn probe(sources: &Sources<'_>, keys: &KeyBatch) -> Result<Probe> {
    let order = sorted(keys.len(), |i| keys.get(i), |_| &[])?;
    // The rows in the order of the sorted keys, and for each key asked its range of them.
    let mut sorted = RowBatch::with_capacity(keys.len(), keys.bytes() * 2);
    let mut ranges: Vec<Range<usize>> = vec![0..0; keys.len()];
    let (targets, same) = distinct(&order, |i| Target { key: keys.get(i), value: None });
    let mut several = RowBatch::new();
    search(sources, &targets, |number, hits| {
        let (Some(target), Some(same)) = (targets.get(number), same.get(number)) else { return };
        let start = sorted.len();
        collect(sources.discipline, target.key, hits, &mut several, &mut sorted);
        for &(_, i) in order.get(same.clone()).unwrap_or(&[]) {
            if let Some(range) = ranges.get_mut(i as usize) {
                *range = start..sorted.len();
            }
        }
    })?;
    gather(sorted, &ranges).ok_or_else(|| too_many("rows"))
}

/// The weight of each row, in any order, repeated or not: 0 for one that is not there. In a latest spine it is 1 if the value is
/// the key's.
pub(super) fn probe_rows(sources: &Sources<'_>, rows: &RowBatch) -> Result<Vec<i64>> {
    let latest = sources.discipline == Discipline::Latest;
    let order = sorted(rows.len(), |i| rows.key(i), |i| rows.value(i))?;
    let mut weights = vec![0; rows.len()];
    let (targets, same) =
        distinct(&order, |i| Target { key: rows.key(i), value: Some(rows.value(i)).filter(|_| !latest) });
    search(sources, &targets, |number, hits| {
        let (Some(target), Some(same)) = (targets.get(number), same.get(number)) else { return };
        for &(_, i) in order.get(same.clone()).unwrap_or(&[]) {
            let wanted = rows.value(i as usize);
            let hits = hits.iter().take(if latest { 1 } else { hits.len() });
            let found = hits.flat_map(|hit| hit.rows(target.key).take_while(|(value, _)| *value <= wanted));
            let own = found.filter(|(value, weight)| *value == wanted && (!latest || *weight > 0));
            if let Some(weight) = weights.get_mut(i as usize) {
                *weight = own.fold(0i64, |sum, (_, weight)| sum.wrapping_add(weight));
            }
        }
    })?;
    Ok(weights)
}

fn too_many(what: &str) -> Error {
    Error::Invalid(format!("a probe has more than {} {what}: split it", u32::MAX))
}

/// The numbers of so many targets with their abbreviated keys, sorted by key, value and number.
fn sorted<'a>(
    len: usize,
    key: impl Fn(usize) -> &'a [u8],
    value: impl Fn(usize) -> &'a [u8],
) -> Result<Vec<(u64, u32)>> {
    let mut order: Vec<(u64, u32)> = Vec::with_capacity(len);
    for i in 0..len {
        order.push((prefix(key(i)), u32::try_from(i).map_err(|_| too_many("keys"))?));
    }
    order.sort_unstable_by(|&(abbreviated_a, a), &(abbreviated_b, b)| {
        abbreviated_a.cmp(&abbreviated_b).then_with(|| {
            let (i, j) = (a as usize, b as usize);
            (key(i), value(i), a).cmp(&(key(j), value(j), b))
        })
    });
    Ok(order)
}

/// The distinct targets in their order, and the range of `order` that each is.
fn distinct<'a>(order: &[(u64, u32)], target: impl Fn(usize) -> Target<'a>) -> (Vec<Target<'a>>, Vec<Range<usize>>) {
    let (mut targets, mut same): (Vec<Target<'a>>, Vec<Range<usize>>) =
        (Vec::with_capacity(order.len()), Vec::with_capacity(order.len()));
    let mut before = None;
    for (at, &(abbreviated, i)) in order.iter().enumerate() {
        let next = target(i as usize);
        let alike = before.replace(abbreviated) == Some(abbreviated);
        match (targets.last(), same.last_mut()) {
            (Some(last), Some(range)) if alike && last.key == next.key && last.value == next.value => {
                range.end = at + 1;
            }
            _ => {
                targets.push(next);
                same.push(at..at + 1);
            }
        }
    }
    (targets, same)
}

/// Brings rows into the order of `ranges`; `None` if there are too many.
fn gather(sorted: RowBatch, ranges: &[Range<usize>]) -> Option<Probe> {
    let mut offsets = Vec::with_capacity(ranges.len() + 1);
    offsets.push(0u32);
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

/// Appends what the hits of one key, newest first, add up to.
fn collect(discipline: Discipline, key: &[u8], hits: &[Hit<'_>], several: &mut RowBatch, out: &mut RowBatch) {
    match (discipline, hits) {
        (_, []) => {}
        (Discipline::Latest, [newest, ..]) => {
            if let Some((value, 1..)) = newest.rows(key).next() {
                out.push(key, value, 1);
            }
        }
        (Discipline::Weighted, [only]) => {
            for (value, weight) in only.rows(key) {
                out.push(key, value, weight);
            }
        }
        (Discipline::Weighted, all) => {
            several.clear();
            for (value, weight) in all.iter().flat_map(|hit| hit.rows(key)) {
                several.push(key, value, weight);
            }
            several.consolidate(discipline);
            for (key, value, weight) in several.iter() {
                out.push(key, value, weight);
            }
        }
    }
}
