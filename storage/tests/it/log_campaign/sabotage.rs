//! Each check, sync and order of the log is switched off, one at a time: something must notice.

use backstay_storage::sabotage::{Check, without};

use super::game::Tally;
use super::{campaign, seed};

/// Cycles of random lives in which a switch must be noticed.
const CYCLES: u64 = 60_000;

#[test]
fn every_check_sync_and_order_is_needed() {
    let mut unnoticed = Vec::new();
    for check in Check::ALL {
        let mut tally = Tally::default();
        match without(check, || campaign(seed(), CYCLES, &mut tally)).break_value() {
            Some(why) => println!("{check}: in {} cycles: {why}", tally.cycles),
            None => unnoticed.push(check),
        }
    }
    assert!(unnoticed.is_empty(), "nothing notices that these are missing: {unnoticed:?}");
}
