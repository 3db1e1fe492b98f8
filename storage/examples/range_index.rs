//! An ordered index with range scans that survives `kill -9`: readings of sensors by (sensor, time).
//!
//! ```text
//! cargo run -p backstay-storage --example range_index -- /tmp/index 20000 &
//! kill -9 $!          # at any moment
//! cargo run -p backstay-storage --example range_index -- /tmp/index 20000
//! ```
//!
//! Keys are compared as bytes. So numbers go in big-endian, and what is scanned together shares a prefix: here the sensor.
//! A scan seeks the range's start and goes on to its end. Each step adds readings and drops those that have become too old,
//! found by a scan of their own.

use std::path::PathBuf;

use backstay_storage::spine::{Discipline, RowBatch, Spine};
use backstay_storage::{Checkpoint, Result, Store, StoreOptions, disk};

const SENSORS: u32 = 16;
/// Readings older than this are dropped.
const KEEP: u64 = 2000;
const CHECKPOINT_EVERY: u64 = 500;

fn key(sensor: u32, time: u64) -> Vec<u8> {
    [&sensor.to_be_bytes()[..], &time.to_be_bytes()].concat()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: range_index DIR [UP_TO]")?);
    let up_to: u64 = args.next().map_or(Ok(10_000), |text| text.parse())?;

    // The identity should be 128 random bits: it keeps files of different stores apart.
    let options = StoreOptions { new_id: 0x001d_ea5e, ..StoreOptions::default() };
    let store = Store::open(disk::system(), &dir, options)?;
    let mut index = store.spine("readings", Discipline::Latest, 1)?;
    let log_from = store.recovered().map_or(1, |checkpoint| checkpoint.log_from);
    for record in store.log().scan(log_from)? {
        add(&mut index, record?.seq)?;
    }
    println!("goes on at time {}", store.log().next_seq());
    while store.log().next_seq() <= up_to {
        // The time stands for the readings, which a function gives here; elsewhere the record holds them.
        let time = store.log().append(b"")?;
        add(&mut index, time)?; // while the record is written
        store.log().wait_durable(time)?;
        if time.is_multiple_of(CHECKPOINT_EVERY) {
            let (frozen, log_from) = (vec![index.snapshot()], time + 1);
            store.checkpoint(Checkpoint { frozen, log_from, ..Checkpoint::default() })?;
            println!("{time}");
        }
    }
    let end = store.log().next_seq();
    for sensor in 0..SENSORS {
        let of_sensor = scan(&index, &key(sensor, 0), &key(sensor + 1, 0))?;
        let newest = scan(&index, &key(sensor, end.saturating_sub(100)), &key(sensor, end))?;
        let sum: u64 = newest.iter().map(|(_, value)| value).sum();
        println!(
            "sensor {sensor}: {} readings, {} of the last 100 times, which sum up to {sum}",
            of_sensor.len(),
            newest.len()
        );
    }
    Ok(())
}

/// The rows whose keys are at least `from` and below `to`, in order.
fn scan(index: &Spine, from: &[u8], to: &[u8]) -> Result<Vec<(Vec<u8>, u64)>> {
    let mut rows = Vec::new();
    let mut cursor = index.cursor()?;
    cursor.seek(from)?;
    while cursor.valid() && cursor.key() < to {
        let value = cursor.value().try_into().map_or(0, u64::from_le_bytes);
        rows.push((cursor.key().to_vec(), value));
        cursor.next()?;
    }
    Ok(rows)
}

/// The readings of one time, and the end of those that have become too old.
fn add(index: &mut Spine, time: u64) -> Result<()> {
    let mut rows = RowBatch::new();
    for sensor in (0..SENSORS).filter(|sensor| !(time + u64::from(*sensor)).is_multiple_of(3)) {
        rows.push(&key(sensor, time), &(time * 31 % (7 + u64::from(sensor))).to_le_bytes(), 1);
    }
    // Each time some sensors have their turn: old readings stay a little longer.
    let sensor = (time % u64::from(SENSORS)) as u32;
    for (old, _) in scan(index, &key(sensor, 0), &key(sensor, time.saturating_sub(KEEP)))? {
        rows.push(&old, b"", -1);
    }
    index.insert_batch(&rows)
}
