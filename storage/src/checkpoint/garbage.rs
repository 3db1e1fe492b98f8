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

/// Removes the run files that are not `named`.
pub(crate) fn runs(
    disk: &dyn Disk,
    dir: &Path,
    named: &HashSet<&str>,
    is_in_use: impl Fn(&str) -> bool,
) -> Result<u64> {
    let is_run = |name: &str| FileName::parse(name).is_some_and(|n| n.kind == RUN);
    sweep(disk, dir, |name| is_run(name) && !named.contains(name) && !is_in_use(name))
}

/// Removes the extra files that `is_named` does not know. It is asked after the folder was listed, so that a file
/// which is created meanwhile is either not in the list or known.
pub(crate) fn extras(disk: &dyn Disk, dir: &Path, is_named: impl Fn(&str) -> bool) -> Result<u64> {
    sweep(disk, dir, |name| FileName::parse(name).is_some_and(|n| kind_is_valid(n.kind)) && !is_named(name))
}

fn sweep(disk: &dyn Disk, dir: &Path, is_garbage: impl Fn(&str) -> bool) -> Result<u64> {
    let entries = disk.list(dir)?;
    let mut removed = 0;
    for entry in entries.iter().filter(|e| !e.metadata.is_dir && is_garbage(&e.name)) {
        disk.remove(&dir.join(&entry.name))?;
        removed += 1;
    }
    if removed > 0 {
        disk.sync_dir(dir)?;
    }
    Ok(removed)
}
