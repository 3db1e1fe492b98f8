//! State written by one number of workers, opened by another.

use backstay_storage::spine::{Discipline, RowBatch, Spine};
use backstay_storage::{Error, Result};

use super::vnode::worker_of;

/// Rows copied at a time.
const BATCH_ROWS: usize = 16384;

/// Copies the rows of one operator's spine, as each of the old workers left it, to the new workers' empty spines. A row
/// goes to the owner of its vnode, the first byte of its key. `discipline` is that of all the spines.
///
/// # Errors
/// Storage errors, and a row without a vnode.
pub fn reshard(read: Vec<Spine>, discipline: Discipline, write: &mut [Spine]) -> Result<()> {
    let workers = write.len();
    for source in read {
        let mut cursor = source.cursor()?;
        let mut batches: Vec<RowBatch> = (0..workers).map(|_| RowBatch::new()).collect();
        while cursor.valid() {
            let Some(&vnode) = cursor.key().first() else {
                return Err(Error::Invalid(
                    "a row of the circuit's state has an empty key; it must start with a vnode".into(),
                ));
            };
            let weight = match discipline {
                Discipline::Weighted => cursor.weight(),
                Discipline::Latest => 1,
            };
            let worker = worker_of(vnode, workers);
            let batch = &mut batches[worker];
            batch.push(cursor.key(), cursor.value(), weight);
            if batch.len() >= BATCH_ROWS {
                write[worker].insert_batch(batch)?;
                *batch = RowBatch::new();
            }
            cursor.next()?;
        }
        for (batch, spine) in batches.iter().zip(write.iter_mut()) {
            if !batch.is_empty() {
                spine.insert_batch(batch)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use backstay_storage::spine::KeyBatch;

    use super::*;

    #[test]
    fn every_row_lands_on_the_owner_of_its_vnode() -> Result<()> {
        let mut old: Vec<Spine> = (0..3).map(|_| Spine::ephemeral(Discipline::Weighted)).collect();
        for vnode in 0..=255u8 {
            let mut batch = RowBatch::new();
            batch.push(&[vnode, 7], b"value", i64::from(vnode) - 300);
            old[worker_of(vnode, 3)].insert_batch(&batch)?;
        }
        let mut new: Vec<Spine> = (0..5).map(|_| Spine::ephemeral(Discipline::Weighted)).collect();
        reshard(old, Discipline::Weighted, &mut new)?;
        for vnode in 0..=255u8 {
            let mut keys = KeyBatch::new();
            keys.push(&[vnode, 7]);
            for (worker, spine) in new.iter_mut().enumerate() {
                let probe = spine.probe(&keys)?;
                let weights: Vec<i64> = (0..probe.rows.len()).map(|i| probe.rows.weight(i)).collect();
                let expected = if worker == worker_of(vnode, 5) { vec![i64::from(vnode) - 300] } else { vec![] };
                assert_eq!(weights, expected, "vnode {vnode} on worker {worker}");
            }
        }
        Ok(())
    }
}
