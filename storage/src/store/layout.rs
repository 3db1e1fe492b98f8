//! Where a store's files lie.

use std::path::{Path, PathBuf};

/// The folders of one store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub root: PathBuf,
    pub log: PathBuf,
    pub runs: PathBuf,
    pub checkpoints: PathBuf,
    pub queue: PathBuf,
    pub savepoints: PathBuf,
    /// Stands in a directory whose copying has not ended.
    pub unfinished: PathBuf,
}

impl Layout {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            log: root.join("log"),
            runs: root.join("runs"),
            checkpoints: root.join("checkpoints"),
            queue: root.join("queue"),
            savepoints: root.join("savepoints"),
            unfinished: root.join("copy.unfinished"),
        }
    }

    /// The folders whose names this crate gives by epoch and number.
    pub fn numbered(&self) -> [&Path; 3] {
        [&self.checkpoints, &self.runs, &self.queue]
    }
}
