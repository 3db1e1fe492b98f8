//! Each check, sync and order of the savepoints and their copies is switched off, one at a time: something must notice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use backstay_storage::sabotage::{Check, without};

use super::{lives, savepoint_copy, savepoint_crash, savepoint_damage, seed};

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

/// The random lives do without a scenario for each switch. Left to the scenarios are those that answer what no life does
/// (a savepoint under another's name or of another store, a store that lost its checkpoints) or that hardly any game meets.
#[test]
fn the_random_lives_notice_most_of_them() {
    let left = [
        Check::SavepointName,
        Check::SavepointOwner,
        Check::SavepointWithout,
        Check::SavepointOpenSync,
        Check::CopyMark,
    ];
    let mut unnoticed = Vec::new();
    for check in Check::SAVEPOINTS.into_iter().filter(|check| !left.contains(check)) {
        let first = seed();
        let broken = (first..first + 40).find(|seed| {
            catch_unwind(AssertUnwindSafe(|| without(check, || lives::play(*seed))))
                .map_or(true, |played| played.is_err())
        });
        match broken {
            Some(seed) => println!("without {check}: game {}", seed - first + 1),
            None => unnoticed.push(check),
        }
    }
    assert!(unnoticed.is_empty(), "BACKSTAY_SEED={}: no game notices that these are missing: {unnoticed:?}", seed());
}
