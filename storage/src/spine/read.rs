//! Reading a version of a spine, and the active memtable where there is one.

use std::sync::Arc;

use super::cursor::{Merge, Source};
use super::memtable::Memtable;
use super::run::Keep;
use super::version::{Shared, Version};
use super::{Cursor, KeyBatch, Probe, RowBatch, probe};
use crate::Result;

pub(super) fn probe(shared: &Shared, active: Option<&Memtable>, version: &Version, keys: &KeyBatch) -> Result<Probe> {
    probe::probe(&sources(shared, active, version)?, keys)
}

pub(super) fn probe_rows(
    shared: &Shared,
    active: Option<&Memtable>,
    version: &Version,
    rows: &RowBatch,
) -> Result<Vec<i64>> {
    probe::probe_rows(&sources(shared, active, version)?, rows)
}

fn sources<'a>(shared: &'a Shared, active: Option<&'a Memtable>, version: &'a Version) -> Result<probe::Sources<'a>> {
    shared.context.as_ref().map_or(Ok(()), |context| context.check())?;
    Ok(probe::Sources {
        discipline: shared.discipline,
        tables: active.into_iter().chain(version.tables.iter().map(|frozen| &frozen.table)).collect(),
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

pub(super) fn cursor(shared: &Shared, active: Option<&Memtable>, version: &Version) -> Result<Cursor> {
    shared.context.as_ref().map_or(Ok(()), |context| context.check())?;
    let frozen = version.tables.iter().map(|frozen| &frozen.table);
    let tables = active.into_iter().chain(frozen).flat_map(Memtable::sorted);
    let mut sources: Vec<_> = tables.map(Source::memory).collect();
    if let Some(context) = &shared.context {
        let runs = version.runs.iter();
        sources.extend(runs.map(|run| Source::run(Arc::clone(context), Arc::clone(run), Keep::Cached)));
    }
    Cursor::new(Merge::new(shared.discipline, false, sources))
}
