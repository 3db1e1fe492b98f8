//! Removal of what no kept manifest names.
//!
//! Invariants:
//! 1. Only names of our own shape are touched; a stranger's file stays.
//! 2. Every step can be cut off by a crash and done again: removals need no order among themselves. What needs one is
//!    between the folders: a manifest's removal is durable before a file that only it named is removed.

use hashbrown::HashSet;
use std::path::Path;

use super::name::{FileName, MANIFEST, RUN, TEMPORARY, kind_is_valid};
use super::recover::damaged_name;
use crate::Result;
use crate::disk::Disk;
use crate::store::is_absent;

/// Removes old manifests, puts damaged ones aside and removes what a crash left half-written, then makes all that
/// durable. Returns how many files were removed.
pub(crate) fn manifests(disk: &dyn Disk, dir: &Path, old: &[String], damaged: &[String]) -> Result<u64> {
    let leftover = format!("{MANIFEST}{TEMPORARY}");
    let mut doomed = old.to_vec();
    for entry in disk.list(dir)? {
        if FileName::parse(&entry.name).is_some_and(|n| n.kind == leftover) {
            doomed.push(entry.name);
        }
    }
    for name in &doomed {
        disk.remove(&dir.join(name))?;
    }
    for name in damaged {
        disk.rename(&dir.join(name), &dir.join(damaged_name(name)))?;
    }
    if !doomed.is_empty() || !damaged.is_empty() {
        disk.sync_dir(dir)?;
    }
    Ok(doomed.len() as u64)
}

/// The run files that are not `named`, and their lengths.
pub(crate) fn runs(
    disk: &dyn Disk,
    dir: &Path,
    named: &HashSet<&str>,
    is_in_use: impl Fn(&str) -> bool,
) -> Result<Vec<(String, u64)>> {
    let is_run = |name: &str| FileName::parse(name).is_some_and(|n| n.kind == RUN);
    list(disk, dir, |name| is_run(name) && !named.contains(name) && !is_in_use(name))
}

/// Removes the extra files that `is_named` does not know. It is asked after the folder was listed, so that a file
/// which is created meanwhile is either not in the list or known.
pub(crate) fn extras(disk: &dyn Disk, dir: &Path, is_named: impl Fn(&str) -> bool) -> Result<u64> {
    let is_extra = |name: &str| FileName::parse(name).is_some_and(|n| kind_is_valid(n.kind));
    let doomed = list(disk, dir, |name| is_extra(name) && !is_named(name))?;
    remove(disk, dir, doomed.iter().map(|(name, _)| name))
}

fn list(disk: &dyn Disk, dir: &Path, is_garbage: impl Fn(&str) -> bool) -> Result<Vec<(String, u64)>> {
    let files = disk.list(dir)?.into_iter().filter(|e| !e.metadata.is_dir && is_garbage(&e.name));
    Ok(files.map(|e| (e.name, e.metadata.len)).collect())
}

/// Removes files, makes that durable, and returns how many went. One that is gone already was another thread's.
pub(crate) fn remove(disk: &dyn Disk, dir: &Path, doomed: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<u64> {
    let mut removed = 0;
    for name in doomed {
        match disk.remove(&dir.join(name)) {
            Err(e) if is_absent(&e) => {}
            done => {
                done?;
                removed += 1;
            }
        }
    }
    if removed > 0 {
        disk.sync_dir(dir)?;
    }
    Ok(removed)
}
