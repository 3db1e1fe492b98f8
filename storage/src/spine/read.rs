//! Reading a version of a spine, and the active memtable where there is one.

use std::sync::Arc;

use super::cursor::{Merge, Source};
use super::memtable::Memtable;
use super::run::Keep;
use super::version::{Shared, Version};
use super::{Cursor, KeyBatch, Probe, RowBatch, probe};
use crate::Result;

pub(super) fn probe(shared: &Shared, active: Option<&Memtable>, version: &Version, keys: &KeyBatch) -> Result<Probe> {
    let found = probe::probe(&sources(shared, active, version)?, keys)?;
    let hidden = |i: usize| version.floor.as_ref().is_some_and(|floor| floor.hides(keys.get(i)));
    if !(0..keys.len()).any(hidden) {
        return Ok(found);
    }
    let mut shown = Probe { rows: RowBatch::new(), offsets: vec![0] };
    for (i, range) in found.offsets.windows(2).enumerate() {
        if let [from, to] = *range
            && !hidden(i)
        {
            for row in from as usize..to as usize {
                shown.rows.push(found.rows.key(row), found.rows.value(row), found.rows.weight(row));
            }
        }
        // No more than `found` has.
        shown.offsets.push(u32::try_from(shown.rows.len()).unwrap_or(u32::MAX));
    }
    Ok(shown)
}

pub(super) fn probe_rows(
    shared: &Shared,
    active: Option<&Memtable>,
    version: &Version,
    rows: &RowBatch,
) -> Result<Vec<i64>> {
    let mut weights = probe::probe_rows(&sources(shared, active, version)?, rows)?;
    if let Some(floor) = &version.floor {
        let hidden = weights.iter_mut().enumerate().filter(|(i, _)| floor.hides(rows.key(*i)));
        hidden.for_each(|(_, weight)| *weight = 0);
    }
    Ok(weights)
}

fn sources<'a>(shared: &'a Shared, active: Option<&'a Memtable>, version: &'a Version) -> Result<probe::Sources<'a>> {
    shared.context.as_ref().map_or(Ok(()), |context| context.check())?;
    Ok(probe::Sources {
        discipline: shared.discipline,
        tables: tables(active, version).collect(),
        runs: &version.runs,
        context: shared.context.as_ref(),
    })
}

pub(super) fn get(
    shared: &Shared,
    active: Option<&Memtable>,
    version: &Version,
    key: &[u8],
) -> Result<Option<Vec<u8>>> {
    let mut keys = KeyBatch::new();
    keys.push(key);
    let found = probe(shared, active, version, &keys)?;
    Ok((!found.rows.is_empty()).then(|| found.rows.value(0).to_vec()))
}

/// What is in memory, newest first.
fn tables<'a>(active: Option<&'a Memtable>, version: &'a Version) -> impl Iterator<Item = &'a Memtable> {
    active.into_iter().chain(version.tables.iter().map(|frozen| &frozen.table))
}

pub(super) fn cursor(shared: &Shared, active: Option<&Memtable>, version: &Version) -> Result<Cursor> {
    shared.context.as_ref().map_or(Ok(()), |context| context.check())?;
    let mut sources: Vec<_> = tables(active, version).flat_map(Memtable::sorted).map(Source::memory).collect();
    if let Some(context) = &shared.context {
        let runs = version.runs.iter();
        sources.extend(runs.map(|run| Source::run(Arc::clone(context), Arc::clone(run), Keep::Cached)));
    }
    Cursor::new(Merge::new(shared.discipline, false, version.floor.clone(), sources))
}
