//! A changelog table: upserts and deletes go in, the table as it is and each of its changes come out, and both resume
//! exactly after `kill -9`.
//!
//! ```text
//! cargo run -p backstay-storage --example changelog -- /tmp/changelog 3000 > /tmp/changes &
//! kill -9 $!          # at any moment
//! cargo run -p backstay-storage --example changelog -- /tmp/changelog 3000 > /tmp/changes
//! ```
//!
//! A step is a log record of some upserts and deletes. The table is a *latest* spine: what a key held before the step is
//! probed, so that a change tells what goes (`-`) and what comes (`+`). A step's changes are printed once its record is
//! durable. After a restart the steps behind the checkpoint are replayed, and their changes printed once more, the same as
//! before: whoever reads keeps the last step that it has seen, and skips what is not newer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use backstay_storage::spine::{Discipline, KeyBatch, RowBatch, Spine};
use backstay_storage::{Checkpoint, Result, Store, StoreOptions, disk};

const KEYS: u64 = 50;
const CHECKPOINT_EVERY: u64 = 100;

/// What a step does to a key: a value that it gets, or `None` for a delete.
type Step = BTreeMap<String, Option<String>>;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: changelog DIR [STEPS]")?);
    let steps: u64 = args.next().map_or(Ok(1000), |text| text.parse())?;

    // The identity should be 128 random bits: it keeps files of different stores apart.
    let options = StoreOptions { new_id: 0x7ab1e, ..StoreOptions::default() };
    let store = Store::open(disk::system(), &dir, options)?;
    let mut table = store.spine("table", Discipline::Latest, 1)?;
    let log_from = store.recovered().map_or(1, |checkpoint| checkpoint.log_from);
    for record in store.log().scan(log_from)? {
        let record = record?;
        apply(&mut table, record.seq, &decode(&record.payload)?)?;
    }
    while store.log().next_seq() <= steps {
        let step = input(store.log().next_seq());
        let seq = store.log().append(encode(&step).as_bytes())?;
        store.log().wait_durable(seq)?; // before anybody hears of it
        apply(&mut table, seq, &step)?;
        if seq.is_multiple_of(CHECKPOINT_EVERY) {
            let (frozen, log_from) = (vec![table.snapshot()], seq + 1);
            store.checkpoint(Checkpoint { frozen, log_from, ..Checkpoint::default() })?;
        }
    }
    let mut cursor = table.cursor()?;
    while cursor.valid() {
        println!("= {} {}", String::from_utf8_lossy(cursor.key()), String::from_utf8_lossy(cursor.value()));
        cursor.next()?;
    }
    Ok(())
}

/// Applies a step and prints what changes by it: `step -key old` and `step +key new`.
fn apply(table: &mut Spine, seq: u64, step: &Step) -> Result<()> {
    let (mut keys, mut rows) = (KeyBatch::new(), RowBatch::new());
    step.keys().for_each(|key| keys.push(key.as_bytes()));
    let before = table.probe(&keys)?;
    let mut changes = String::new();
    for (i, (key, new)) in step.iter().enumerate() {
        let old = before.range(i).next().map(|row| String::from_utf8_lossy(before.rows.value(row)).into_owned());
        if old == *new {
            continue;
        }
        if let Some(old) = old {
            changes += &format!("{seq} -{key} {old}\n");
        }
        if let Some(new) = new {
            changes += &format!("{seq} +{key} {new}\n");
        }
        let weight = if new.is_some() { 1 } else { -1 };
        rows.push(key.as_bytes(), new.as_deref().unwrap_or_default().as_bytes(), weight);
    }
    table.insert_batch(&rows)?;
    print!("{changes}");
    Ok(())
}

/// The input of a step: here a function of its number; elsewhere what a queue or a socket gave.
fn input(seq: u64) -> Step {
    let draw = |i: u64| (seq.wrapping_mul(5).wrapping_add(i)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    let one = |i| (format!("k{:02}", draw(i) % KEYS), (draw(i) % 4 > 0).then(|| (draw(i) % 1000).to_string()));
    (0..5).map(one).collect()
}

fn encode(step: &Step) -> String {
    step.iter().map(|(key, new)| format!("{key} {}\n", new.as_deref().unwrap_or("-"))).collect()
}

fn decode(record: &[u8]) -> std::result::Result<Step, Box<dyn std::error::Error>> {
    let row = |line: &str| {
        let (key, new) = line.split_once(' ').ok_or("a record that is none of ours")?;
        Ok((key.to_owned(), (new != "-").then(|| new.to_owned())))
    };
    std::str::from_utf8(record)?.lines().map(row).collect()
}
