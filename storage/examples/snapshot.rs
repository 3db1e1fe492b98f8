//! Reading a frozen state on other threads while the owner goes on writing, and naming one for ever.
//!
//! ```text
//! cargo run --release -p backstay-storage --example snapshot -- /tmp/snapshot
//! cargo run --release -p backstay-storage --example snapshot -- /tmp/snapshot   # goes on; also after a kill
//! ```
//!
//! Each step writes its number to every key. Whoever reads a snapshot must therefore see one number only, however many
//! steps were done since. Taking a snapshot swaps a table, whatever the state's size; it is what a checkpoint is taken of,
//! too. A savepoint then keeps that checkpoint, and its copy opens as a store of its own.
#![expect(clippy::disallowed_methods, reason = "the reader is a thread of the example's own")]

use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

use backstay_storage::spine::{Discipline, RowBatch, Snapshot, Spine};
use backstay_storage::{Checkpoint, Store, StoreOptions, copy_savepoint, disk};

const KEYS: u64 = 2000;
const STEPS: u64 = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: snapshot DIR")?);
    // The identity should be 128 random bits: it keeps files of different stores apart.
    let options = || StoreOptions { new_id: 0x5a95, ..StoreOptions::default() };
    let store = Store::open(disk::system(), &dir.join("store"), options())?;
    let mut state = store.spine("state", Discipline::Latest, 1)?;
    let log_from = store.recovered().map_or(1, |checkpoint| checkpoint.log_from);
    for record in store.log().scan(log_from)? {
        write(&mut state, record?.seq)?;
    }
    let begun = store.log().durable();
    println!("goes on behind step {begun}");

    let (to_reader, snapshots) = sync_channel::<(u64, Snapshot)>(4);
    let reader = std::thread::spawn(move || -> Result<u64, String> {
        let mut read = 0;
        for (step, snapshot) in snapshots {
            let seen = read_all(&snapshot).map_err(|e| e.to_string())?;
            if seen != (KEYS, step, step) {
                return Err(format!("a snapshot of step {step} holds {seen:?}"));
            }
            read += 1;
        }
        Ok(read)
    });
    for step in begun + 1..=begun + STEPS {
        let seq = store.log().append(b"")?;
        write(&mut state, step)?;
        store.log().wait_durable(seq)?;
        if step % 10 == 0 {
            // Cheap, and it does not wait for the reader, who may be several steps behind.
            to_reader.send((step, state.snapshot()))?;
        }
        if step % 50 == 0 {
            let (frozen, log_from) = (vec![state.snapshot()], step + 1);
            store.checkpoint(Checkpoint { frozen, log_from, ..Checkpoint::default() })?;
        }
    }
    drop(to_reader);
    println!("{} snapshots were read while {STEPS} steps were written", reader.join().expect("no panic")?);

    // A snapshot lasts as long as the process. A savepoint lasts until it is removed, and its copy goes its own way.
    let end = begun + STEPS;
    let (frozen, log_from) = (vec![state.snapshot()], end + 1);
    store.checkpoint(Checkpoint { frozen, log_from, ..Checkpoint::default() })?;
    let name = format!("step-{end}");
    store.savepoint(&name)?;
    let copied = copy_savepoint(&disk::system(), &dir.join("store"), &name, &dir.join(&name))?;
    let copy = Store::open(disk::system(), &dir.join(&name), options())?;
    let mut then = copy.spine("state", Discipline::Latest, 1)?;
    assert_eq!(read_all(&then.snapshot())?, (KEYS, end, end));
    println!("savepoint {name} was copied ({} bytes) and holds step {end}", copied.bytes);
    store.remove_savepoint(&name)?;
    Ok(())
}

/// Writes a step's number to every key.
fn write(state: &mut Spine, step: u64) -> backstay_storage::Result<()> {
    let mut rows = RowBatch::new();
    (0..KEYS).for_each(|key| rows.push(&key.to_be_bytes(), &step.to_be_bytes(), 1));
    state.insert_batch(&rows)
}

/// How many keys there are, and the smallest and the largest step that one of them holds.
fn read_all(snapshot: &Snapshot) -> backstay_storage::Result<(u64, u64, u64)> {
    let (mut keys, mut least, mut most) = (0, u64::MAX, 0);
    let mut cursor = snapshot.cursor()?;
    while cursor.valid() {
        let step = cursor.value().try_into().map_or(0, u64::from_be_bytes);
        (keys, least, most) = (keys + 1, step.min(least), step.max(most));
        cursor.next()?;
    }
    Ok((keys, least, most))
}
