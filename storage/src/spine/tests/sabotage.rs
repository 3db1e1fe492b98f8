//! Each check of the run format is switched off, one at a time: something must notice.

use super::*;
use crate::disk::{Create, File, OpenOptions};
use crate::sabotage::{Check, without};
use format::block::BlockBuilder;
use format::frame::{Codec, Kind, Packer};
use format::header::FileHeader;

const WRITE: OpenOptions = OpenOptions { write: true, create: Create::Never, direct: false };

struct Sample {
    disk: Arc<dyn Disk>,
    meta: SpineMeta,
    file: Arc<dyn File>,
    rows: RowBatch,
}

/// A run whose rows do not compress: what is forged in it has the length of what was there.
fn sample(disk: &Arc<dyn Disk>, seed: u64) -> Sample {
    let store = context(disk, 0);
    let mut spine = Spine::open(Arc::clone(&store), SpineMeta::empty("s", Discipline::Weighted, 3)).unwrap();
    let (mut keys, mut values) = (Rng::new(5), Rng::new(seed));
    let mut batch = RowBatch::new();
    for i in 0..40 {
        let noise = |rng: &mut Rng| (0..9).map(|_| rng.below(256) as u8).collect::<Vec<_>>();
        // No two keys begin alike.
        let mut key = noise(&mut keys);
        key[0] = i * 6;
        batch.push(&key, &noise(&mut values), 1);
    }
    spine.insert_batch(&batch).unwrap();
    let meta = flush(&store, &mut spine).unwrap();
    let rows = all(&spine).unwrap();
    let file = disk.open(&Path::new(DIR).join(&meta.runs[0].file), WRITE).unwrap();
    Sample { disk: Arc::clone(disk), meta, file, rows }
}

impl Sample {
    fn flip(&self, at: u64) {
        let mut byte = [0];
        self.file.read_at(&mut byte, at).unwrap();
        self.file.write_at(&[byte[0] ^ 4], at).unwrap();
    }

    fn run(&self) -> Run {
        Run::open(&context(&self.disk, 0), &self.meta, self.meta.runs[0].clone()).unwrap()
    }

    /// Puts a frame with a sound checksum in the place of one that has the same length.
    fn forge(&self, kind: Kind, (at, len): (u64, u64), count: usize, payload: &[u8]) {
        let mut frame = Vec::new();
        let ident = FileHeader::new(STORE, 1, 1).ident();
        Packer::new().unwrap().frame(&mut frame, kind, Codec::None, ident, at, count, payload).unwrap();
        assert_eq!(frame.len() as u64, len);
        self.file.write_at(&frame, at).unwrap();
    }

    /// Forges the block of changed rows, or of a changed payload.
    fn forge_block(&self, rows: &RowBatch, change: impl FnOnce(&mut Vec<u8>)) {
        let mut block = BlockBuilder::default();
        rows.iter().for_each(|(key, value, weight)| block.push(key, value, weight));
        let mut payload = block.finish().to_vec();
        change(&mut payload);
        self.forge(Kind::Block, self.run().place(0), rows.len(), &payload);
    }

    /// Changes the footer, and what the manifest says of its checksum.
    fn forge_footer(&mut self, change: impl FnOnce(&mut format::footer::Footer)) {
        let run = &mut self.meta.runs[0];
        let ident = FileHeader::new(STORE, 1, 1).ident();
        let at = run.offset + run.len - format::footer::LEN as u64;
        let mut bytes = vec![0; format::footer::LEN];
        self.file.read_at(&mut bytes, at).unwrap();
        let (mut footer, _) = format::footer::decode_footer(&bytes, ident, at).unwrap();
        change(&mut footer);
        let (bytes, checksum) = footer.encode(ident, at);
        self.file.write_at(&bytes, at).unwrap();
        run.checksum = checksum;
    }

    /// All that a worker reads.
    fn read(&self, store: u128) -> Result<()> {
        let context = SpineContext::new(
            Arc::clone(&self.disk),
            Path::new(DIR),
            store,
            SpineOptions { cache_bytes: Some(0), ..SpineOptions::default() },
        );
        let mut spine = Spine::open(context, self.meta.clone())?;
        let mut keys = KeyBatch::new();
        self.rows.iter().for_each(|(key, _, _)| keys.push(key));
        spine.probe(&keys)?;
        all(&spine).map(drop)
    }
}

/// The rows with number `i` changed.
fn changed(rows: &RowBatch, i: usize, with: (&[u8], &[u8], i64)) -> RowBatch {
    let mut out = RowBatch::new();
    for (number, row) in rows.iter().enumerate() {
        let (key, value, weight) = if number == i { with } else { row };
        out.push(key, value, weight);
    }
    out
}

/// Does the damage that the check is there to find. Whoever reads must be told.
fn scenario(check: Check) -> Result<()> {
    let disk = disk();
    let mut it = sample(&disk, 7);
    let run = it.meta.runs[0].clone();
    let rows = it.rows.clone();
    match check {
        Check::RunHeaderChecksum => it.flip(3000),
        Check::RunFileIdentity => return it.read(STORE + 1),
        // Zeros that no field is read from.
        Check::RunFooterChecksum => it.flip(run.offset + run.len - format::footer::LEN as u64 + 14),
        Check::RunFooterNamed => it.meta.runs[0].checksum ^= 1,
        Check::RunFooterFields => it.forge_footer(|footer| footer.raw_bytes += 1),
        Check::RunFrameChecksum => it.flip(run.offset + 24 + 14),
        Check::RunFramePlace => {
            // Its twin has the same keys and other values.
            let other = sample(&disk, 8);
            let (at, len) = it.run().place(0);
            let mut frame = vec![0; len as usize];
            other.file.read_at(&mut frame, at).unwrap();
            it.file.write_at(&frame, at).unwrap();
        }
        Check::RunContent => {
            it.forge_footer(|footer| footer.content ^= 1);
            return verify_run(&context(&disk, 0), &it.meta, &it.meta.runs[0]);
        }
        Check::RunIndexFields => it.meta.runs[0].min_key.push(0),
        Check::RunBlockBounds => {
            let mut other_key = rows.key(0).to_vec();
            other_key[8] ^= 1;
            it.forge_block(&changed(&rows, 0, (&other_key, rows.value(0), 1)), |_| ());
        }
        Check::RunBlockOrder => {
            let swapped = changed(&rows, 4, (rows.key(5), rows.value(5), 1));
            it.forge_block(&changed(&swapped, 5, (rows.key(4), rows.value(4), 1)), |_| ());
        }
        Check::RunBlockWeights => it.forge_block(&changed(&rows, 4, (rows.key(4), rows.value(4), 0)), |_| ()),
        // Of three restarts the second's abbreviated key.
        Check::RunBlockRestarts => it.forge_block(&rows, |payload| {
            let at = payload.len() - 8 - 16 + 7;
            payload[at] ^= 1;
        }),
        Check::RunPageSize => {
            let page = it.run().index.pages()[0].keys;
            let mut bytes = vec![0; page.1 as usize - format::frame::HEADER];
            let at = run.offset + page.0;
            it.file.read_at(&mut bytes, at + format::frame::HEADER as u64).unwrap();
            it.forge(Kind::Keys, (at, page.1), 400, &bytes);
        }
        other => panic!("{other} is not of a run"),
    }
    it.read(STORE)
}

#[test]
fn every_check_is_needed() {
    for check in Check::ALL.into_iter().filter(|check| check.to_string().starts_with("Run")) {
        let found = scenario(check);
        assert!(matches!(found, Err(Error::Damaged(_))), "{check}: {found:?}");
        let found = without(check, || scenario(check));
        assert!(!matches!(found, Err(Error::Damaged(_))), "without {check} something else finds it: {found:?}");
    }
}
