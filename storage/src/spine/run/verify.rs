//! Reading all of a run, to see whether it is whole.

use xxhash_rust::xxh3::Xxh3Default;

use super::{Run, one};
use crate::Result;
use crate::sabotage::{Check, checked};
use crate::spine::context::SpineContext;
use crate::spine::filter::{key_hash, may_contain, row_hash};
use crate::spine::format::Malformed;
use crate::spine::format::frame::{self, Kind};
use crate::spine::{RowBatch, RunMeta, SpineMeta};

/// What is counted on the way, to be compared with the footer.
#[derive(Default)]
struct Tally {
    content: Xxh3Default,
    keys: u64,
    negative: u64,
    weight: i64,
    last_key: Vec<u8>,
    /// Hashes of the group's keys that begin in it, and of its rows.
    key_hashes: Vec<u64>,
    row_hashes: Vec<u64>,
}

impl Tally {
    fn rows(&mut self, rows: &RowBatch) {
        for (key, value, weight) in rows.iter() {
            let hash = key_hash(key);
            if self.keys == 0 || self.last_key != key {
                self.keys += 1;
                self.key_hashes.push(hash);
                self.last_key.clear();
                self.last_key.extend_from_slice(key);
            }
            self.row_hashes.push(row_hash(hash, value));
            self.negative += u64::from(weight < 0);
            self.weight = self.weight.wrapping_add(weight);
        }
    }
}

impl Run {
    /// Reads every block and page and checks them, and all of them against the footer.
    fn verify(&self, context: &SpineContext) -> Result<()> {
        let mut tally = Tally::default();
        let mut block = 0;
        for page in 0..self.index.pages().len() {
            let end = self.index.pages().get(page).map_or(0, |page| page.end);
            while block < end {
                let piece = one(context, &self.handle, self.place(block))?;
                let (rows, checksum) = self.block(context, block, piece.bytes())?;
                tally.content.update(&checksum.to_le_bytes());
                tally.rows(&rows.to_rows());
                block += 1;
            }
            for kind in [Kind::Keys, Kind::Rows] {
                self.verify_page(context, page, kind, &mut tally)?;
            }
            tally.key_hashes.clear();
            tally.row_hashes.clear();
        }
        let at = self.meta.offset + self.footer.data_len;
        let piece = one(context, &self.handle, (at, self.footer.index_len))?;
        let frame = frame::decode(piece.bytes(), Kind::Index, self.handle.ident, at)
            .map_err(|wrong| wrong.at(&self.handle.path, at, "run index"))?;
        tally.content.update(&frame.checksum.to_le_bytes());
        let wrong = |wrong: Malformed| wrong.at(&self.handle.path, self.meta.offset, "run");
        let content = tally.content.digest();
        if content != self.footer.content && checked(Check::RunContent) {
            let expected = format!("content checksum {:016x}", self.footer.content);
            return Err(wrong(Malformed::new(expected, format!("{content:016x}"))));
        }
        let expected = (self.footer.keys, self.footer.negative, self.footer.weight);
        let got = (tally.keys, tally.negative, tally.weight);
        if expected != got {
            let show = |(keys, negative, weight)| format!("{keys} keys, {negative} rows below 0, {weight} in sum");
            return Err(wrong(Malformed::new(show(expected), show(got))));
        }
        Ok(())
    }

    /// Checks that a filter page, if there is one, hides none of its group's rows.
    fn verify_page(&self, context: &SpineContext, page: usize, kind: Kind, tally: &mut Tally) -> Result<()> {
        let (at, len) = self.page_place(page, kind);
        if len == 0 && kind == Kind::Rows {
            return Ok(());
        }
        let piece = one(context, &self.handle, (at, len))?;
        let (bytes, checksum) = self.page(kind, at, piece.bytes())?;
        tally.content.update(&checksum.to_le_bytes());
        let hashes = if kind == Kind::Rows { &tally.row_hashes } else { &tally.key_hashes };
        if !hashes.iter().all(|&hash| may_contain(&bytes, hash)) {
            let wrong = Malformed::new("a filter that every entry passes", "one that hides some");
            return Err(wrong.at(&self.handle.path, at, "run filter"));
        }
        Ok(())
    }
}

/// Reads every byte of a run of `spine` and checks it: against its checksums, its order, and what `spine` (from a
/// manifest) says of it.
///
/// # Errors
/// [`Error::Damaged`](crate::Error::Damaged) with the file and the first damaged unit's offset.
///
/// ```
/// # use backstay_storage::spine::{Discipline, RowBatch, RunFileWriter, Spine, SpineContext, SpineMeta, verify_run};
/// # let dir = tempfile::tempdir().unwrap();
/// # let disk = std::sync::Arc::new(backstay_storage::disk::PosixDisk::new());
/// # let context = SpineContext::new(disk, dir.path(), 42, Default::default());
/// # let mut spine = Spine::open(context.clone(), SpineMeta::empty("s", Discipline::Weighted, 1))?;
/// # let mut rows = RowBatch::new();
/// # rows.push(b"k", b"v", 1);
/// # spine.insert_batch(&rows)?;
/// # let mut writer = RunFileWriter::new(&context);
/// # let flushed = writer.flush(&spine.snapshot())?;
/// # writer.finish()?;
/// # let meta = flushed.meta().clone();
/// for run in &meta.runs {
///     verify_run(&context, &meta, run)?;
/// }
/// # Ok::<(), backstay_storage::Error>(())
/// ```
pub fn verify_run(context: &SpineContext, spine: &SpineMeta, run: &RunMeta) -> Result<()> {
    Run::open(context, spine, run.clone())?.verify(context)
}
