//! The commit of a manifest: the one moment at which a checkpoint begins to exist.

use std::path::Path;

use super::name::{MANIFEST, TEMPORARY, file_name};
use super::{MAX_BYTES, Manifest};
use crate::disk::{Create, Disk, OpenOptions};
use crate::{Error, Result};

/// Writes a manifest so that it appears whole or not at all, and returns its length in bytes. Everything that it names
/// must be durable already. The order is what makes it atomic:
/// 1. the bytes are written under a temporary name and synced: whatever is renamed later is whole;
/// 2. the rename puts it under its own name, which no file ever had;
/// 3. the directory sync makes the rename durable. Until it returns, a crash may leave the older checkpoint or this one.
pub(crate) fn commit(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> Result<u64> {
    let bytes = manifest.encode();
    if bytes.len() as u64 > MAX_BYTES {
        let said = format!("a manifest of {} bytes: more than {MAX_BYTES} are not read back", bytes.len());
        return Err(Error::Invalid(said));
    }
    let name = file_name(manifest.epoch, manifest.number, MANIFEST);
    let (path, temporary) = (dir.join(&name), dir.join(name + TEMPORARY));
    if disk.metadata(&path)?.is_some() {
        let said = format!("{} exists already: a checkpoint's name is given once", path.display());
        return Err(Error::Invalid(said));
    }
    let file = disk.open(&temporary, OpenOptions { write: true, create: Create::New, direct: false })?;
    file.write_at(&bytes, 0)?;
    file.sync()?;
    disk.rename(&temporary, &path)?;
    disk.sync_dir(dir)?;
    Ok(bytes.len() as u64)
}
