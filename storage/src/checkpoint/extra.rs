//! Extra files: bytes of the embedder's own that checkpoints name, one checksummed file each.
//!
//! `queue/<epoch>-<number>.<kind>`: a header of 72 bytes, then the payload to the end of the file (`docs/format.md`).

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::ExtraMeta;
use super::codec::{Reader, Writer};
use super::name::FileName;
use crate::disk::{Create, Disk, File, OpenOptions};
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"BSTYEXTR";
const FORMAT: u32 = 1;
/// What the header's checksum covers.
const COVERED: usize = 64;
/// Bytes before the payload.
pub(crate) const HEADER: usize = COVERED + 8;
const WHAT: &str = "extra file";

/// Writes an extra file and makes it and its name durable.
pub(crate) fn write(
    disk: &dyn Disk,
    dir: &Path,
    store_id: u128,
    name: &FileName<'_>,
    payload: &[u8],
) -> Result<ExtraMeta> {
    let checksum = xxh3_64(payload);
    let mut w = Writer::default();
    w.bytes.reserve(HEADER + payload.len());
    w.bytes.extend_from_slice(MAGIC);
    w.u32(FORMAT);
    w.u32(0);
    w.u128(store_id);
    w.u64(name.epoch);
    w.u64(name.number);
    w.u64(payload.len() as u64);
    w.u64(checksum);
    w.u64(xxh3_64(&w.bytes));
    w.bytes.extend_from_slice(payload);
    let name = name.to_string();
    let options = OpenOptions { write: true, create: Create::New, direct: false };
    let file = disk.open(&dir.join(&name), options)?;
    file.write_at(&w.bytes, 0)?;
    file.sync()?;
    disk.sync_dir(dir)?;
    Ok(ExtraMeta { name, len: w.bytes.len() as u64, checksum })
}

/// Checks what can be checked without reading the payload: that the file is there, its header is sound and belongs to
/// the store, and its length is right.
pub(crate) fn check(disk: &dyn Disk, dir: &Path, store_id: u128, meta: &ExtraMeta) -> Result<()> {
    open(disk, dir, store_id, meta).map(|_| ())
}

/// Reads an extra file's payload, checking every byte.
pub(crate) fn read(disk: &dyn Disk, dir: &Path, store_id: u128, meta: &ExtraMeta) -> Result<Bytes> {
    let file = open(disk, dir, store_id, meta)?;
    let mut payload = vec![0; (meta.len as usize).saturating_sub(HEADER)];
    let got = file.read_at(&mut payload, HEADER as u64)?;
    if got < payload.len() {
        let expected = format!("{} bytes", payload.len());
        return Err(Error::damaged(file.path(), HEADER as u64, WHAT, expected, format!("{got} bytes")));
    }
    let found = xxh3_64(&payload);
    if found != meta.checksum {
        let expected = format!("checksum {:016x}", meta.checksum);
        return Err(Error::damaged(file.path(), HEADER as u64, WHAT, expected, format!("{found:016x}")));
    }
    Ok(payload.into())
}

/// Opens an extra file and compares its header with what the manifest says.
fn open(disk: &dyn Disk, dir: &Path, store_id: u128, meta: &ExtraMeta) -> Result<Arc<dyn File>> {
    let path = dir.join(&meta.name);
    let Some(found) = disk.metadata(&path)? else {
        return Err(Error::damaged(path, 0, WHAT, format!("a file of {} bytes", meta.len), "no such file"));
    };
    if found.len != meta.len || found.is_dir {
        let got = if found.is_dir { "a directory".into() } else { format!("{} bytes", found.len) };
        return Err(Error::damaged(path, 0, WHAT, format!("a file of {} bytes", meta.len), got));
    }
    let file = disk.open(&path, OpenOptions::READ)?;
    let mut header = [0; HEADER];
    let n = file.read_at(&mut header, 0)?;
    let stated = decode_header(header.get(..n).unwrap_or_default(), &path)?;
    let of_name = FileName::parse(&meta.name).map(|n| (n.epoch, n.number));
    let expected = (store_id, of_name, (meta.len as usize).saturating_sub(HEADER) as u64, meta.checksum);
    let got = (stated.store_id, Some((stated.epoch, stated.number)), stated.len, stated.checksum);
    if expected != got {
        let show = |(id, name, len, sum): (u128, Option<(u64, u64)>, u64, u64)| {
            let (epoch, number) = name.unwrap_or_default();
            format!("store {id:032x}, epoch {epoch}, number {number}, {len} bytes, checksum {sum:016x}")
        };
        return Err(Error::damaged(path, 16, WHAT, show(expected), show(got)));
    }
    Ok(file)
}

/// The payload of a whole extra file's bytes. For tools and fuzzing: any bytes give a payload or an error.
///
/// ```
/// assert!(backstay_storage::checkpoint::decode_extra(b"not an extra file", "x".as_ref()).is_err());
/// ```
#[doc(hidden)]
pub fn decode_extra(bytes: &[u8], file: &Path) -> Result<Bytes> {
    let header = decode_header(bytes, file)?;
    let payload = bytes.get(HEADER..).unwrap_or_default();
    if payload.len() as u64 != header.len {
        let (expected, got) = (format!("a payload of {} bytes", header.len), format!("{} bytes", payload.len()));
        return Err(Error::damaged(file, HEADER as u64, WHAT, expected, got));
    }
    let found = xxh3_64(payload);
    if found != header.checksum {
        let expected = format!("checksum {:016x}", header.checksum);
        return Err(Error::damaged(file, HEADER as u64, WHAT, expected, format!("{found:016x}")));
    }
    Ok(Bytes::copy_from_slice(payload))
}

/// What an extra file's header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    store_id: u128,
    epoch: u64,
    number: u64,
    len: u64,
    checksum: u64,
}

/// Decodes a header from any bytes.
fn decode_header(bytes: &[u8], file: &Path) -> Result<Header> {
    let mut r = Reader::new(bytes, 0, file, WHAT);
    let covered = r.take(COVERED)?;
    let (stated, computed) = (r.u64()?, xxh3_64(covered));
    if stated != computed {
        return Err(r.damaged(0, format!("header checksum {stated:016x}"), format!("{computed:016x}")));
    }
    let mut r = Reader::new(covered, 0, file, WHAT);
    let magic = r.take(8)?;
    if magic != MAGIC {
        return Err(r.damaged(0, format!("magic {MAGIC:02x?}"), format!("{magic:02x?}")));
    }
    let (version, flags) = (r.u32()?, r.u32()?);
    if version != FORMAT || flags != 0 {
        let (path, expected) = (file.to_path_buf(), format!("{FORMAT} with flags 0x0"));
        let got = format!("{version} with flags {flags:#x}");
        return Err(Error::Unsupported { path, what: "format version", expected, got });
    }
    Ok(Header { store_id: r.u128()?, epoch: r.u64()?, number: r.u64()?, len: r.u64()?, checksum: r.u64()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;

    /// Two extra files of equal length.
    fn two() -> (SimDisk, [ExtraMeta; 2]) {
        let disk = SimDisk::new(1);
        let names = [1, 2].map(|number| FileName { epoch: 3, number, kind: "x" });
        let metas = names.map(|name| write(&disk, Path::new("/"), 7, &name, &[name.number as u8; 40]).unwrap());
        (disk, metas)
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let (disk, [meta, _]) = two();
        let path = Path::new("/").join(&meta.name);
        for bit in 0..meta.len * 8 {
            disk.flip_bit(&path, bit / 8, (bit % 8) as u8).unwrap();
            let found = read(&disk, Path::new("/"), 7, &meta);
            assert!(matches!(found, Err(Error::Damaged(_))), "bit {bit}: {found:?}");
            let opened = check(&disk, Path::new("/"), 7, &meta);
            assert_eq!(opened.is_err(), bit < 8 * HEADER as u64, "bit {bit}: opening reads the header only");
            let decoded = decode_extra(&disk.read_file(&path).unwrap(), &path);
            assert!(matches!(decoded, Err(Error::Damaged(_))), "bit {bit}: {decoded:?}");
            disk.flip_bit(&path, bit / 8, (bit % 8) as u8).unwrap();
        }
        assert_eq!(read(&disk, Path::new("/"), 7, &meta).unwrap(), [1; 40].as_slice());
    }

    #[test]
    fn a_sound_file_in_anothers_place_is_damage() {
        let (disk, [one, other]) = two();
        let bytes = disk.read_file(Path::new("/").join(&other.name)).unwrap();
        disk.overwrite(Path::new("/").join(&one.name), 0, &bytes).unwrap();
        assert!(matches!(check(&disk, Path::new("/"), 7, &one), Err(Error::Damaged(_))));
        assert!(check(&disk, Path::new("/"), 7, &other).is_ok());
        assert!(matches!(check(&disk, Path::new("/"), 8, &other), Err(Error::Damaged(_))), "another store's");
    }

    #[test]
    fn a_file_of_another_length_is_damage_at_opening() {
        for len in [0, HEADER as u64, HEADER as u64 + 39, HEADER as u64 + 41] {
            let (disk, [meta, _]) = two();
            let options = OpenOptions { write: true, create: Create::Never, direct: false };
            disk.open(&Path::new("/").join(&meta.name), options).unwrap().set_len(len).unwrap();
            let found = check(&disk, Path::new("/"), 7, &meta);
            assert!(matches!(found, Err(Error::Damaged(_))), "{len} bytes: {found:?}");
        }
    }

    #[test]
    fn any_header_bytes_are_decoded_or_refused() {
        let mut seed = 1u64;
        for len in 0..=HEADER {
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (seed >> 56) as u8
                })
                .collect();
            assert!(decode_header(&bytes, Path::new("x")).is_err(), "{len} random bytes");
        }
    }
}
