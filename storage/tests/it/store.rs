//! The store on the simulated disk: crashes at every I/O, failures, a full disk, damage, and syncs turned off.
//!
//! `BACKSTAY_SEED` (a number) changes the workload's rows and the crashes' outcomes, `BACKSTAY_CRASH_RUNS` (default 1) is
//! how many outcomes are drawn for each crash point beside "nothing pending was kept" and "all of it was".

mod beside;
mod crash;
mod damage;
mod failure;
mod history;
mod kill;
mod lives;
mod misdirect;
mod model;
mod open;
mod reader;
mod rest;
mod sabotage;
mod savepoint;
mod savepoint_copy;
mod savepoint_crash;
mod savepoint_damage;
mod savepoint_sabotage;
mod stall;
mod threads;
mod workload;

pub use model::Rng;

/// A number from the environment.
pub fn number_from(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{variable}={text:?} is not a number: {e}")),
        Err(_) => default,
    }
}

/// The seed of this run.
pub fn seed() -> u64 {
    number_from("BACKSTAY_SEED", 20_260_101)
}
