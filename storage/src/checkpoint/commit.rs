//! The commit of a manifest: the one moment at which a checkpoint begins to exist.

use std::path::Path;

use super::name::{MANIFEST, TEMPORARY, file_name};
use super::{MAX_BYTES, Manifest};
use crate::disk::{Create, Disk, OpenOptions};
use crate::{Error, Result};

/// Commits a checkpoint, and returns its manifest's length in bytes. Everything that it names must be durable already.
pub(crate) fn commit(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> Result<u64> {
    let bytes = encoded(manifest)?;
    let name = file_name(manifest.epoch, manifest.number, MANIFEST);
    let path = dir.join(&name);
    if disk.metadata(&path)?.is_some() {
        let said = format!("{} exists already: a checkpoint's name is given once", path.display());
        return Err(Error::Invalid(said));
    }
    publish(disk, dir, &name, &bytes, [true; 2])
}

/// The bytes of a manifest, if they would be read back.
pub(super) fn encoded(manifest: &Manifest) -> Result<Vec<u8>> {
    let bytes = manifest.encode();
    if bytes.len() as u64 > MAX_BYTES {
        let said = format!("a manifest of {} bytes: more than {MAX_BYTES} are not read back", bytes.len());
        return Err(Error::Invalid(said));
    }
    Ok(bytes)
}

/// Writes a file of manifest bytes so that it appears whole or not at all, and returns its length in bytes. The order is
/// what makes it atomic:
/// 1. the bytes are written under a temporary name and synced: whatever is renamed later is whole;
/// 2. the rename puts it under its own name, which no file ever had;
/// 3. the directory sync makes the rename durable. Until it returns, a crash may leave the older checkpoint or this one.
///
/// `synced`: whether the bytes and the directory are, which only a test that wants to see them missed says no to.
pub(super) fn publish(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8], synced: [bool; 2]) -> Result<u64> {
    let (path, temporary) = (dir.join(name), dir.join(format!("{name}{TEMPORARY}")));
    let [sync_bytes, sync_name] = synced;
    let file = disk.open(&temporary, OpenOptions { write: true, create: Create::New, direct: false })?;
    file.write_at(bytes, 0)?;
    if sync_bytes {
        file.sync()?;
    }
    disk.rename(&temporary, &path)?;
    if sync_name {
        disk.sync_dir(dir)?;
    }
    Ok(bytes.len() as u64)
}
