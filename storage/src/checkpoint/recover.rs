//! Finding out what a directory holds: which manifests are whole, and which epoch comes next.

use std::path::Path;

use super::name::{DAMAGED, FileName, MANIFEST};
use super::{MAX_BYTES, Manifest};
use crate::disk::{DirEntry, Disk, OpenOptions};
use crate::spine::RunMeta;
use crate::store::{Layout, is_absent};
use crate::{Error, Result};

/// A manifest file: what it says, or what is wrong with it.
#[derive(Debug)]
pub(crate) struct Found {
    /// The file's name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The manifest, or why it cannot be used.
    pub manifest: Result<Manifest>,
}

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The manifests, oldest first.
    pub manifests: Vec<Found>,
    /// The largest epoch that any file name of the numbered folders bears, 0 if there is none.
    pub epoch: u64,
    /// The largest checkpoint number that a manifest bears, damaged ones and unfinished ones included.
    pub number: u64,
}

impl Survey {
    /// The manifests that can be read, newest first.
    pub fn sound(&self) -> impl Iterator<Item = &Manifest> {
        self.manifests.iter().rev().filter_map(|found| found.manifest.as_ref().ok())
    }
}

/// Reads every manifest and every file name of the numbered folders. What is wrong with a manifest is kept in the survey.
pub(crate) fn survey(disk: &dyn Disk, layout: &Layout) -> Result<Survey> {
    let mut survey = Survey::default();
    for dir in layout.numbered() {
        let names = list(disk, dir)?;
        let parsed = names.iter().filter(|e| !e.metadata.is_dir).filter_map(|e| FileName::parse(&e.name));
        survey.epoch = parsed.map(|name| name.epoch).max().unwrap_or(0).max(survey.epoch);
    }
    let mut names = list(disk, &layout.checkpoints)?;
    names.retain(|e| FileName::parse(&e.name).is_some_and(|n| n.kind.starts_with(MANIFEST)));
    names.sort_by(|a, b| FileName::parse(&a.name).cmp(&FileName::parse(&b.name)));
    for entry in names {
        let Some(name) = FileName::parse(&entry.name) else { continue };
        survey.number = survey.number.max(name.number);
        if name.kind == MANIFEST {
            let path = layout.checkpoints.join(&entry.name);
            let manifest = read(disk, &path).and_then(|manifest| named_rightly(manifest, &path));
            // Removed since it was listed: an inspected store may be in use.
            if !manifest.as_ref().is_err_and(is_absent) {
                survey.manifests.push(Found { bytes: entry.metadata.len, name: entry.name, manifest });
            }
        }
    }
    refuse_strangers(&mut survey, layout);
    Ok(survey)
}

/// The entries of a folder; none if it does not exist.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<DirEntry>> {
    match disk.metadata(dir)? {
        Some(metadata) if metadata.is_dir => disk.list(dir),
        _ => Ok(Vec::new()),
    }
}

/// Reads one manifest.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<Manifest> {
    let file = disk.open(path, OpenOptions::READ)?;
    let len = file.len()?;
    if len > MAX_BYTES {
        let (expected, got) = (format!("at most {MAX_BYTES} bytes"), format!("{len} bytes"));
        return Err(Error::damaged(path, 0, "manifest", expected, got));
    }
    let mut bytes = vec![0; len as usize];
    let got = file.read_at(&mut bytes, 0)?;
    bytes.truncate(got);
    Manifest::decode(&bytes, path)
}

/// Checks that a manifest is the one that its name promises.
fn named_rightly(manifest: Manifest, path: &Path) -> Result<Manifest> {
    let name = path.file_name().and_then(|n| n.to_str()).and_then(FileName::parse);
    match name {
        Some(name) if (name.epoch, name.number) != (manifest.epoch, manifest.number) => {
            let expected = format!("epoch {} and number {}", name.epoch, name.number);
            let got = format!("epoch {} and number {}", manifest.epoch, manifest.number);
            Err(Error::damaged(path, 32, "manifest", expected, got))
        }
        _ => Ok(manifest),
    }
}

/// Takes manifests of another store than the newest one's for damaged: someone copied them there.
fn refuse_strangers(survey: &mut Survey, layout: &Layout) {
    let Some(id) = survey.sound().next().map(|m| m.store_id) else { return };
    for found in &mut survey.manifests {
        if let Some(other) = found.manifest.as_ref().ok().map(|m| m.store_id).filter(|other| *other != id) {
            let path = layout.checkpoints.join(&found.name);
            let (expected, got) = (format!("store {id:032x}"), format!("store {other:032x}"));
            found.manifest = Err(Error::damaged(path, 16, "manifest", expected, got));
        }
    }
}

/// The name that a damaged manifest is put aside under.
pub(crate) fn damaged_name(name: &str) -> String {
    format!("{name}{DAMAGED}")
}

/// Checks that the file of a run is there and long enough, which opening the run takes for granted.
pub(crate) fn check_run_file(disk: &dyn Disk, layout: &Layout, run: &RunMeta) -> Result<()> {
    let path = layout.runs.join(&run.file);
    let (end, len) = (run.offset.saturating_add(run.len), disk.metadata(&path)?.map(|m| m.len));
    if len.is_some_and(|len| len >= end) {
        return Ok(());
    }
    let got = len.map_or("no such file".into(), |len| format!("{len} bytes"));
    Err(Error::damaged(path, run.offset, "run file", format!("at least {end} bytes"), got))
}
