//! Emptying caches.

use std::fs::{self, File};
use std::path::Path;

/// Drops the pages of all files below a folder from the page cache.
pub fn drop_pages(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            drop_pages(&path);
        } else if let Ok(file) = File::open(&path) {
            // Pages that are not on disk yet cannot be dropped.
            let _ = file.sync_all();
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
}

/// The same, and every cache of the kernel where that is allowed; else why it is not.
pub fn drop_all(folder: &Path) {
    drop_pages(folder);
    if can_drop_all() {
        let _ = fs::write("/proc/sys/vm/drop_caches", "3");
    }
}

/// Whether this process may empty the kernel's caches.
pub fn can_drop_all() -> bool {
    fs::OpenOptions::new().write(true).open("/proc/sys/vm/drop_caches").is_ok()
}
