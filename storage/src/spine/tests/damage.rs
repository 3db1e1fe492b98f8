//! Flipped bits, cuts and swaps in run files: an error that names the place, or no effect; never wrong rows, never a panic.

use super::*;
use crate::disk::{Create, File, OpenOptions};

const WRITE: OpenOptions = OpenOptions { write: true, create: Create::Never, direct: false };

struct Sample {
    disk: Arc<dyn Disk>,
    meta: SpineMeta,
    want: RowBatch,
    file: Arc<dyn File>,
}

fn sample(discipline: Discipline) -> Sample {
    let disk = disk();
    let store = context(&disk, 64 << 20);
    let mut spine = Spine::open(Arc::clone(&store), SpineMeta::empty("s", discipline, 3)).unwrap();
    let mut batch = RowBatch::new();
    for i in 0..40u32 {
        // In a weighted run of two rows a key there is a filter of rows too.
        let key = if discipline == Discipline::Weighted { i * 7919 % 20 } else { i * 7919 % 40 };
        batch.push(format!("key {key}").as_bytes(), &i.to_be_bytes(), 1);
    }
    spine.insert_batch(&batch).unwrap();
    let meta = flush(&store, &mut spine).unwrap();
    let want = all(&spine).unwrap();
    let file = disk.open(&Path::new(DIR).join(run_file_name(1, 1)), WRITE).unwrap();
    Sample { disk, meta, want, file }
}

fn verify(sample: &Sample) -> Result<()> {
    let store = context(&sample.disk, 0);
    sample.meta.runs.iter().try_for_each(|run| verify_run(&store, &sample.meta, run))
}

/// Opens and reads everything, by cursor and probe.
fn read(sample: &Sample) -> Result<RowBatch> {
    let store = context(&sample.disk, 0);
    let mut spine = Spine::open(store, sample.meta.clone())?;
    let mut keys = KeyBatch::new();
    let mut distinct: Vec<_> = sample.want.iter().map(|(key, _, _)| key).collect();
    distinct.dedup();
    distinct.iter().for_each(|key| keys.push(key));
    keys.push(b"absent");
    let probed = spine.probe(&keys)?.rows;
    let weights = spine.probe_rows(&sample.want)?;
    let walked = all(&spine)?;
    assert_eq!(probed, walked, "probe and cursor differ");
    assert!(walked.iter().map(|(_, _, weight)| weight).eq(weights), "probe of rows and cursor differ");
    Ok(walked)
}

#[test]
fn every_flipped_bit_is_found() {
    for discipline in [Discipline::Weighted, Discipline::Latest] {
        let sample = sample(discipline);
        let run = &sample.meta.runs[0];
        let used = [0..4096, run.offset..run.offset + run.len];
        assert_eq!(read(&sample).unwrap(), sample.want);
        for at in used.into_iter().flatten() {
            let mut byte = [0];
            sample.file.read_at(&mut byte, at).unwrap();
            // The header is zeros mostly: of those one bit in some bytes will do.
            let bits: &[u8] = if (48..4088).contains(&at) {
                if at % 61 == 0 { &[3] } else { &[] }
            } else {
                &[0, 1, 2, 3, 4, 5, 6, 7]
            };
            for bit in bits {
                sample.file.write_at(&[byte[0] ^ (1 << bit)], at).unwrap();
                match verify(&sample) {
                    Err(Error::Damaged(damage)) => {
                        assert!(damage.file.ends_with(run_file_name(1, 1)), "{damage:?}");
                        assert!(damage.offset <= at, "bit {bit} of byte {at} is reported at {}", damage.offset);
                    }
                    other => panic!("bit {bit} of byte {at} flipped: {other:?}"),
                }
                // All of the file is needed to read all rows, so that reading finds it too.
                let got = read(&sample);
                assert!(matches!(got, Err(Error::Damaged(_))), "bit {bit} of byte {at} flipped: {got:?}");
            }
            sample.file.write_at(&byte, at).unwrap();
        }
        assert_eq!(read(&sample).unwrap(), sample.want);
    }
}

#[test]
fn every_cut_is_found() {
    let sample = sample(Discipline::Weighted);
    let run = &sample.meta.runs[0];
    for len in (0..run.offset + run.len).rev() {
        sample.file.set_len(len).unwrap();
        assert!(matches!(read(&sample), Err(Error::Damaged(_))), "cut to {len} bytes");
    }
}

/// Only what a worker reads, without the verification of everything: damage in a block shows when that block is read.
#[test]
fn a_damaged_block_is_an_error_when_it_is_read_and_not_before() {
    let sample = sample(Discipline::Weighted);
    sample.file.write_at(b"x", sample.meta.runs[0].offset + 30).unwrap();
    let mut spine = Spine::open(context(&sample.disk, 0), sample.meta.clone()).unwrap();
    assert_eq!(spine.get(b"absent").unwrap(), None);
    assert!(matches!(spine.get(b"key 1"), Err(Error::Damaged(_))));
    assert!(matches!(spine.cursor(), Err(Error::Damaged(_))));
}

#[test]
fn a_block_in_another_place_is_found() {
    let disk = disk();
    let store = context(&disk, 64 << 20);
    let mut metas = Vec::new();
    for number in 1..=2 {
        let mut spine = Spine::open(Arc::clone(&store), SpineMeta::empty("s", Discipline::Weighted, 3)).unwrap();
        spine.insert_batch(&rows(&[(b"k", &[number as u8], 1)])).unwrap();
        metas.push(flush(&store, &mut spine).unwrap());
    }
    // The first file's bytes where the second's should be: as a misdirected write, or a renamed file.
    let [first, second] = [1, 2].map(|n| disk.open(&Path::new(DIR).join(run_file_name(1, n)), WRITE).unwrap());
    let mut bytes = vec![0; 4096];
    first.read_at(&mut bytes, 4096).unwrap();
    second.write_at(&bytes, 4096).unwrap();
    let misdirected = Spine::open(context(&disk, 64 << 20), metas[1].clone());
    assert!(matches!(misdirected, Err(Error::Damaged(_))), "{misdirected:?}");
    first.read_at(&mut bytes, 0).unwrap();
    second.write_at(&bytes, 0).unwrap();
    let renamed = Spine::open(context(&disk, 64 << 20), metas[1].clone());
    assert!(matches!(renamed, Err(Error::Damaged(_))), "{renamed:?}");
}

#[test]
fn a_manifest_that_names_something_else_is_refused() {
    let sample = sample(Discipline::Weighted);
    let wrong: [fn(&mut SpineMeta); 9] = [
        |m| m.discipline = Discipline::Latest,
        |m| m.format = 4,
        |m| m.runs[0].checksum ^= 1,
        |m| m.runs[0].rows += 1,
        |m| m.runs[0].raw_bytes += 1,
        |m| m.runs[0].len -= 1,
        |m| m.runs[0].offset = 0,
        |m| m.runs[0].min_key.push(0),
        |m| (m.runs[0].offset, m.runs[0].len) = (u64::MAX - 4095, u64::MAX),
    ];
    for (i, change) in wrong.iter().enumerate() {
        let mut meta = sample.meta.clone();
        change(&mut meta);
        let opened = Spine::open(context(&sample.disk, 0), meta);
        assert!(matches!(opened, Err(Error::Damaged(_))), "change {i}: {opened:?}");
    }
    let other_store = SpineContext::new(Arc::clone(&sample.disk), Path::new(DIR), STORE + 1, SpineOptions::default());
    assert!(matches!(Spine::open(other_store, sample.meta.clone()), Err(Error::Damaged(_))));
}

/// Frames that are sound each for itself must be the ones that the footer was written for.
#[test]
fn frames_of_another_content_are_found() {
    let mut sample = sample(Discipline::Weighted);
    let run = &mut sample.meta.runs[0];
    let ident = format::header::FileHeader::new(STORE, 1, 1).ident();
    let at = run.offset + run.len - format::footer::LEN as u64;
    let mut bytes = vec![0; format::footer::LEN];
    sample.file.read_at(&mut bytes, at).unwrap();
    let (mut footer, _) = format::footer::decode_footer(&bytes, ident, at).unwrap();
    footer.content ^= 1;
    let (bytes, checksum) = footer.encode(ident, at);
    sample.file.write_at(&bytes, at).unwrap();
    run.checksum = checksum;
    let error = verify(&sample).unwrap_err();
    assert!(matches!(&error, Error::Damaged(d) if d.expected.starts_with("content checksum")), "{error}");
}

#[test]
fn another_version_is_unsupported_and_no_damage() {
    let sample = sample(Discipline::Weighted);
    let header = format::header::FileHeader { version: 1, store_id: STORE, epoch: 1, number: 1 };
    sample.file.write_at(&header.encode(), 0).unwrap();
    let error = read(&sample).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}
