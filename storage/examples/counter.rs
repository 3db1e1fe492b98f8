//! A counter that survives `kill -9`.
//!
//! ```text
//! cargo run -p backstay-storage --example counter -- /tmp/counter 1000000 &
//! kill -9 $!          # at any moment; or pull the plug
//! cargo run -p backstay-storage --example counter -- /tmp/counter 1000000
//! ```
//!
//! Each increment is a record of the log, printed only once it is durable. Every 1000 increments a checkpoint makes the
//! count itself durable, and the log before it is dropped. After a kill the next run starts from the checkpoint and
//! replays the records behind it: the count goes on where the last printed line was, or one batch further.

use std::path::PathBuf;

use backstay_storage::spine::{Discipline, RowBatch, Spine};
use backstay_storage::{Checkpoint, Result, Store, StoreOptions, disk};

const BATCH: u64 = 10;
const CHECKPOINT_EVERY: u64 = 1000;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: counter DIR [UP_TO]")?);
    let up_to = args.next().map_or(Ok(10_000), |text| text.parse())?;

    // The identity should be 128 random bits: it keeps files of different stores apart.
    let options = StoreOptions { new_id: 0x00c0_ffee, ..StoreOptions::default() };
    let store = Store::open(disk::system(), &dir, options)?;
    let mut counts = store.spine("counts", Discipline::Latest, 1)?;

    let mut count = read(&mut counts)?;
    let mut log_from = 1;
    if let Some(recovered) = store.recovered() {
        for warning in &recovered.warnings {
            eprintln!("warning: {warning}");
        }
        log_from = recovered.log_from;
        println!("checkpoint {} says {count}", recovered.number);
    }
    let mut replayed = 0;
    for record in store.log().scan(log_from)? {
        count += u64::from_le_bytes(record?.payload[..].try_into()?);
        replayed += 1;
    }
    println!("replayed {replayed} records, the count is {count}");
    write(&mut counts, count)?;

    while count < up_to {
        store.log().append(&BATCH.to_le_bytes())?;
        store.log().commit()?;
        count += BATCH;
        write(&mut counts, count)?;
        println!("{count}");
        if count.is_multiple_of(CHECKPOINT_EVERY) {
            let log_from = store.log().next_seq();
            store.checkpoint(Checkpoint { frozen: vec![counts.snapshot()], log_from, ..Checkpoint::default() })?;
        }
    }
    Ok(())
}

fn read(counts: &mut Spine) -> Result<u64> {
    let value = counts.get(b"count")?;
    Ok(value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes))
}

fn write(counts: &mut Spine, count: u64) -> Result<()> {
    let mut rows = RowBatch::new();
    rows.push(b"count", &count.to_le_bytes(), 1);
    counts.insert_batch(&rows)
}
