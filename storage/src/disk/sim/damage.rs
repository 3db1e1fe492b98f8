//! Damage that a test does to a simulated disk. None of these calls counts as an operation.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::SimDisk;
use super::content::Content;
use super::image::SECTOR;
use super::names::Node;
use super::rng::Rng;
use super::state::{failed, key};
use crate::disk::shared::lock;
use crate::{Error, Result};

/// What becomes of sectors that decay ([`SimDisk::decay`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decay {
    /// Random bytes, drawn by this seed.
    Garbage(u64),
    /// Reading them fails with EIO until they are written anew. A write to a part of such a sector fails too.
    Unreadable,
}

impl SimDisk {
    /// Flips one bit (0–7) of the byte at `offset`, in what readers see and in what is durable. Fails if neither has
    /// that byte.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Disk, OpenOptions, SimDisk};
    /// let disk = SimDisk::new(7);
    /// disk.overwrite("/a", 0, b"a")?;
    /// disk.flip_bit("/a", 0, 1)?;
    /// assert_eq!(disk.read_file("/a")?, b"c");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64, bit: u8) -> Result<()> {
        let path = key(path.as_ref());
        let mut state = lock(&self.shared.state);
        let id = state.file_id("flip a bit of", &path)?;
        let content = state.content("flip a bit of", &path, id)?;
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let bits = 1_u8.checked_shl(u32::from(bit)).unwrap_or(0);
        let seen = content.live.flip(at, bits);
        if !(content.durable.flip(at, bits) || seen) || bits == 0 {
            return Err(Error::Invalid(format!("{} has no bit {bit} at offset {offset}", path.display())));
        }
        content.hiding = true;
        Ok(())
    }

    /// Puts bytes into a file, durably and without any trace of a write, as damage does. A file that is not there is
    /// created durably, if its directory is.
    ///
    /// ```
    /// # use backstay_storage::disk::{SimDisk, sim::CrashPlan};
    /// let disk = SimDisk::new(7);
    /// disk.overwrite("/a", 1, b"x")?;
    /// assert_eq!(disk.power_cycle(CrashPlan::KeepNone).read_file("/a")?, b"\0x");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn overwrite(&self, path: impl AsRef<Path>, offset: u64, bytes: &[u8]) -> Result<()> {
        let path = key(path.as_ref());
        let mut state = lock(&self.shared.state);
        if state.node(&path).is_none() {
            let id = state.next_id;
            let (dir, name) = state.place("overwrite", &path)?;
            dir.live.insert(name.clone(), Node::File(id));
            dir.durable.insert(name, Node::File(id));
            state.files.insert(id, Content::default());
            state.next_id += 1;
        }
        let id = state.file_id("overwrite", &path)?;
        let content = state.content("overwrite", &path, id)?;
        let at = usize::try_from(offset).ok().filter(|at| *at < 1 << 40);
        let at = at.ok_or_else(|| failed("overwrite", &path, io::ErrorKind::FileTooLarge))?;
        content.live.put(at, bytes);
        content.durable.put(at, bytes);
        let (from, to) = (at.div_ceil(SECTOR), (at + bytes.len()) / SECTOR);
        content.unreadable.retain(|sector| !(from..to).contains(sector));
        content.hiding |= !content.pending.is_empty();
        Ok(())
    }

    /// Lets the sectors that hold these bytes of a file decay at rest, in what readers see and in what is durable. It
    /// lasts over losses of power. Fails if the file ends before the range does.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Disk, OpenOptions, SimDisk, sim::Decay};
    /// let disk = SimDisk::new(7);
    /// disk.overwrite("/a", 0, &[1; 1536])?;
    /// disk.decay("/a", 600..601, Decay::Unreadable)?;
    /// let file = disk.open(Path::new("/a"), OpenOptions::READ)?;
    /// let mut buf = [0; 512];
    /// assert!(file.read_at(&mut buf, 0).is_ok());
    /// assert!(file.read_at(&mut buf, 512).is_err());
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn decay(&self, path: impl AsRef<Path>, range: Range<u64>, how: Decay) -> Result<()> {
        let path = key(path.as_ref());
        let mut state = lock(&self.shared.state);
        let id = state.file_id("let decay", &path)?;
        let content = state.content("let decay", &path, id)?;
        let len = content.live.len();
        let bounds = |at: u64| usize::try_from(at).ok().filter(|at| *at <= len);
        let (Some(start), Some(end)) = (bounds(range.start), bounds(range.end)) else {
            let why = format!("{} has {len} bytes, not {}", path.display(), range.end);
            return Err(Error::Invalid(why));
        };
        let mut rng = Rng::new(if let Decay::Garbage(seed) = how { seed } else { 0 });
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            if how == Decay::Unreadable {
                content.unreadable.insert(sector);
            } else {
                content.live.garble(sector, &mut rng.clone());
                content.durable.garble(sector, &mut rng);
            }
        }
        // A sync of what is pending would bring it back on the device, but not in what was read of it.
        content.hiding |= !content.pending.is_empty();
        Ok(())
    }

    /// Empties the page cache: from now on readers see what the device has. What a failed sync or a lost write
    /// ([`super::Fault`]) left in the cache only is gone. What is merely not synced yet stays.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Create, Disk, OpenOptions, SimDisk, sim::Fault};
    /// let disk = SimDisk::new(7);
    /// disk.overwrite("/a", 0, b"old")?;
    /// let file = disk.open(Path::new("/a"), OpenOptions { write: true, ..OpenOptions::READ })?;
    /// disk.fail_at(disk.ops() + 1, Fault::LostWrite);
    /// file.write_durable(b"new", 0)?; // answers success
    /// assert_eq!(disk.read_file("/a")?, b"new");
    /// disk.drop_caches();
    /// assert_eq!(disk.read_file("/a")?, b"old");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn drop_caches(&self) {
        lock(&self.shared.state).files.values_mut().for_each(Content::drop_cache);
    }

    /// Lets files show stale bytes from now on, also after a loss of power: what a file grows by is not zeros, but what the
    /// last deleted (or cut off) file has left there. So does a device whose preallocated space nobody has overwritten,
    /// if the file system does not hide it.
    ///
    /// ```
    /// # use std::path::Path;
    /// # use backstay_storage::disk::{Disk, OpenOptions, SimDisk};
    /// let disk = SimDisk::new(7);
    /// disk.overwrite("/old", 0, b"secret")?;
    /// disk.remove(Path::new("/old"))?;
    /// disk.sync_dir(Path::new("/"))?;
    /// disk.show_stale(true);
    /// disk.open(Path::new("/new"), OpenOptions::CREATE_DIRECT)?.set_len(8)?;
    /// assert_eq!(disk.read_file("/new")?, b"secret\0\0");
    /// # Ok::<(), backstay_storage::Error>(())
    /// ```
    pub fn show_stale(&self, show: bool) {
        lock(&self.shared.state).show_stale = show;
    }
}
