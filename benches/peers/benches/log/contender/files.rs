//! One file a step: write, fsync, rename, directory fsync. What programs without a log do.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Append, Contender};
use crate::step_files::StepFiles;

/// The folder of files.
pub struct Files {
    folder: PathBuf,
    next: AtomicU64,
}

impl Files {
    /// A new folder.
    pub fn new(folder: &Path) -> Self {
        fs::create_dir(folder).expect("folder");
        Self { folder: folder.into(), next: AtomicU64::new(0) }
    }
}

impl Contender for Files {
    fn worker(&self, _thread: usize) -> Append<'_> {
        let files = StepFiles::new(&self.folder);
        Box::new(move |payload| {
            files.write(&format!("{:016}.step", self.next.fetch_add(1, Ordering::Relaxed)), payload);
        })
    }

    /// Old steps are removed, as such a store would: a large directory is no part of the comparison.
    fn settle(&self) {
        for entry in fs::read_dir(&self.folder).expect("folder") {
            fs::remove_file(entry.expect("entry").path()).expect("remove a step");
        }
        fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).expect("directory fsync");
    }
}
