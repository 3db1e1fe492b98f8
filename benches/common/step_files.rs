//! A simple store of steps: a file for each.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One thread's way into the folder.
pub struct StepFiles {
    folder: PathBuf,
    directory: File,
}

impl StepFiles {
    /// Files in `folder`, which exists.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.into(), directory: File::open(folder).expect("folder") }
    }

    /// Writes a new file, syncs it, gives it its name and syncs the directory.
    pub fn write(&self, name: &str, record: &[u8]) {
        let (new, path) = (self.folder.join(format!("{name}.new")), self.folder.join(name));
        let mut file = File::create(&new).expect("step file");
        file.write_all(record).expect("write");
        file.sync_all().expect("fsync");
        fs::rename(&new, &path).expect("rename");
        self.directory.sync_all().expect("directory fsync");
    }
}
