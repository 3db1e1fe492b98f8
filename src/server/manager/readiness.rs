//! Whether changes can be kept and pipelines started: what `/readyz` answers.
//!
//! Where it is asked, files are tried to be written: one on every file system that the catalog and the pipelines' directories are on. That tells a full
//! disk before a change meets it, and that there is room again without one.
//!
//! Invariant: however often it is asked, nothing is written within [`EVERY`] of the last try; answers between tell what that found.
//!
//! Known limits: a pipeline may need more room than is tried, and one with a quota of its own (`storage.quota_bytes`) may have used it up: that is told by
//! its `deployment_error`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::{Manager, lock};

/// How long what was found is believed.
const EVERY: Duration = Duration::from_secs(10);
/// How long the disk may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is written: what the catalog's log takes when it grows.
const BYTES: u64 = 1 << 20;
/// The name of the file that is written, and removed.
const FILE: &str = "room.probe";

/// What was found last, and when: why not, if so.
pub(super) type Found = Mutex<Option<(Duration, Result<(), String>)>>;

impl Manager {
    /// Whether it is ready; why not.
    pub(super) async fn readiness(self: &Arc<Self>) -> Result<(), String> {
        if self.is_ending() {
            return Err("the service is ending".to_owned());
        }
        // In a task of its own: one look at a disk that does not answer is not followed by others.
        let manager = Arc::clone(self);
        let look = tokio::spawn(async move { manager.look_at_disks().await });
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(look) => look.unwrap_or_else(|e| Err(format!("the task that looks at the disk failed: {e}"))),
            Err(_) => Err(format!("the disk has not answered for {} s", PATIENCE.as_secs())),
        }
    }

    async fn look_at_disks(self: &Arc<Self>) -> Result<(), String> {
        // Those who ask meanwhile wait for the same look.
        let mut found = self.disks.lock().await;
        let now = self.clock.elapsed();
        if let Some((at, found)) = found.as_ref()
            && now.saturating_sub(*at) < EVERY
        {
            return match self.has_written() {
                true => found.clone(),
                false => found.clone().and(Err("the catalog did not take the last change".to_owned())),
            };
        }
        let look = self.try_disks().await;
        *found = Some((now, look.clone()));
        look
    }

    async fn try_disks(self: &Arc<Self>) -> Result<(), String> {
        for dir in self.file_systems().await {
            let tried = try_to_write(&dir.join(FILE)).await;
            tried.map_err(|e| format!("{} cannot be written: {e}; make room there", dir.display()))?;
        }
        // What the catalog did not take may have had another reason than room.
        let manager = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || {
            let opened = manager.catalog().reopen();
            manager.note_write(&opened);
            opened
        });
        let opened = opened.await.map_err(|e| format!("the thread that opens the catalog failed: {e}"))?;
        opened.map_err(|e| format!("the catalog cannot be written: {e}"))
    }

    /// One directory of each file system that stores are on.
    async fn file_systems(&self) -> Vec<PathBuf> {
        let pipelines: Vec<_> = lock(&self.pipelines).values().map(|managed| managed.place.clone()).collect();
        let stores = pipelines.iter().map(|place| place.data());
        let mut found: BTreeMap<u64, PathBuf> = BTreeMap::new();
        for dir in [self.root.clone(), self.root.join("catalog"), self.root.join("pipelines")].into_iter().chain(stores)
        {
            // What is not there yet comes to be on its parent's.
            if let Ok(metadata) = tokio::fs::metadata(&dir).await {
                found.entry(metadata.dev()).or_insert(dir);
            }
        }
        found.into_values().collect()
    }
}

/// Bytes that no file system makes small.
fn bytes() -> Vec<u8> {
    (0..BYTES / 8).flat_map(|n| xxh3_64(&n.to_le_bytes()).to_le_bytes()).collect()
}

/// Writes a file durably, and removes it.
async fn try_to_write(path: &Path) -> std::io::Result<()> {
    let written = async {
        let mut file = tokio::fs::File::create(path).await?;
        file.write_all(&bytes()).await?;
        // Only this tells of what was written behind it.
        file.flush().await?;
        file.sync_all().await
    };
    let written = written.await;
    // Also what came to be of it where there was no room.
    let removed = tokio::fs::remove_file(path).await;
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_tried_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        try_to_write(&path).await.unwrap();
        assert!(bytes().len() as u64 == BYTES && !path.exists());
        assert!(try_to_write(&dir.path().join("none").join(FILE)).await.is_err());
    }
}
