//! Recovery, spelled out: accounts whose money only moves, so that every state that a restart finds has the same sum.
//!
//! ```text
//! cargo run -p backstay-storage --example recover -- /tmp/bank 50000 &
//! kill -9 $!          # at any moment
//! cargo run -p backstay-storage --example recover -- /tmp/bank 50000
//! ```
//!
//! What a restart has is a checkpoint (the state after some transfer) and the log's records from `log_from` on. It takes
//! the one and replays the others, in order, each once: the state is that after the last record. Several transfers share a
//! durable write here, so a kill may take back the last of them, whole; those that were acknowledged stay.

use std::path::PathBuf;

use backstay_storage::spine::{Discipline, RowBatch, Spine};
use backstay_storage::{Checkpoint, Result, Store, StoreOptions, disk};

const ACCOUNTS: u64 = 100;
const EACH: i64 = 1000;
const TOGETHER: u64 = 8;
const CHECKPOINT_EVERY: u64 = 1000;

/// From, to, amount.
struct Transfer(u64, u64, i64);

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: recover DIR [TRANSFERS]")?);
    let transfers: u64 = args.next().map_or(Ok(10_000), |text| text.parse())?;

    // The identity should be 128 random bits: it keeps files of different stores apart.
    let store = Store::open(disk::system(), &dir, StoreOptions { new_id: 0xba27c, ..StoreOptions::default() })?;
    // Weights add up, and the value is empty: the weight is the balance.
    let mut balances = store.spine("balances", Discipline::Weighted, 1)?;

    // 1. The checkpoint: opening has found the newest whole one. Warnings are for people.
    let mut log_from = 1;
    match store.recovered() {
        Some(checkpoint) => {
            checkpoint.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            log_from = checkpoint.log_from;
            println!("checkpoint {}, which holds the transfers before {log_from}", checkpoint.number);
        }
        None => deposit(&mut balances)?, // the state before the first transfer
    }
    check(&balances)?;

    // 2. The log: every record from there on, by the same function that applied it the first time.
    for record in store.log().scan(log_from)? {
        let record = record?; // an error is damage, never an end
        apply(&mut balances, &decode(&record.payload)?)?;
    }
    println!("recovered {} transfers", store.log().durable());
    check(&balances)?;

    // 3. On it goes. A record is written ahead, applied, and acknowledged once it is durable.
    while store.log().next_seq() <= transfers {
        let seq = store.log().next_seq();
        let transfer = Transfer(seq * 7 % ACCOUNTS, seq * 11 % ACCOUNTS, (seq % 90) as i64);
        store.log().append(&encode(&transfer))?;
        apply(&mut balances, &transfer)?;
        if seq.is_multiple_of(TOGETHER) {
            println!("{} transfers are durable", store.log().commit()?);
        }
        // 4. A checkpoint bounds what a restart replays, and lets go of the log before it.
        if seq.is_multiple_of(CHECKPOINT_EVERY) {
            let (frozen, log_from) = (vec![balances.snapshot()], seq + 1);
            store.checkpoint(Checkpoint { frozen, log_from, ..Checkpoint::default() })?;
        }
    }
    store.log().commit()?;
    check(&balances)
}

fn deposit(balances: &mut Spine) -> Result<()> {
    let mut rows = RowBatch::new();
    (0..ACCOUNTS).for_each(|account| rows.push(&account.to_be_bytes(), b"", EACH));
    balances.insert_batch(&rows)
}

fn apply(balances: &mut Spine, Transfer(from, to, amount): &Transfer) -> Result<()> {
    let mut rows = RowBatch::new();
    rows.push(&from.to_be_bytes(), b"", -amount);
    rows.push(&to.to_be_bytes(), b"", *amount);
    balances.insert_batch(&rows)
}

/// No money comes or goes.
fn check(balances: &Spine) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (mut cursor, mut sum) = (balances.cursor()?, 0);
    while cursor.valid() {
        sum += cursor.weight();
        cursor.next()?;
    }
    let expected = ACCOUNTS as i64 * EACH;
    if sum == expected { Ok(()) } else { Err(format!("the balances sum up to {sum}, not {expected}").into()) }
}

fn encode(Transfer(from, to, amount): &Transfer) -> Vec<u8> {
    [from.to_le_bytes(), to.to_le_bytes(), amount.to_le_bytes()].concat()
}

fn decode(record: &[u8]) -> std::result::Result<Transfer, Box<dyn std::error::Error>> {
    let (fields, []) = record.as_chunks::<8>() else { return Err("a record that is none of ours".into()) };
    let [from, to, amount] = fields else { return Err("a record that is none of ours".into()) };
    Ok(Transfer(u64::from_le_bytes(*from), u64::from_le_bytes(*to), i64::from_le_bytes(*amount)))
}
