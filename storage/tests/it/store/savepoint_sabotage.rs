//! Each check, sync and order of the savepoints and their copies is switched off, one at a time: something must notice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use backstay_storage::sabotage::{Check, without};

use super::{savepoint_copy, savepoint_crash, savepoint_damage, seed};

/// What notices a switch.
fn scenario(check: Check) -> Result<(), String> {
    let seed = seed();
    match check {
        Check::SavepointOpenSync => savepoint_crash::killed_in_between(seed),
        Check::SavepointName => savepoint_damage::strangers(seed),
        Check::SavepointOwner => savepoint_damage::foreigner(seed),
        Check::SavepointSpare => savepoint_damage::flip_and_mend(seed),
        Check::SavepointWithout => savepoint_damage::bereft(seed),
        Check::CopyVerify => savepoint_copy::damage_in_the_source(seed).map(drop),
        Check::CopyMark
        | Check::CopyRefuse
        | Check::CopyLast
        | Check::CopyBytesSync
        | Check::CopyNamesSync
        | Check::CopyEndSync => savepoint_copy::explore(seed, None).map(drop),
        _ => savepoint_crash::explore(seed, 2).map(drop),
    }
}

#[test]
fn every_check_sync_and_order_of_savepoints_is_needed() {
    let mut unnoticed = Vec::new();
    for check in Check::SAVEPOINTS {
        match catch_unwind(AssertUnwindSafe(|| without(check, || scenario(check)))) {
            Ok(Ok(())) => unnoticed.push(check),
            Ok(Err(why)) => println!("without {check}: {}", why.lines().next().unwrap_or_default()),
            Err(_) => println!("without {check}: a panic, told above"),
        }
    }
    assert!(unnoticed.is_empty(), "nothing notices that these are missing: {unnoticed:?}");
}
