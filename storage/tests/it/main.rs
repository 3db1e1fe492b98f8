//! Integration tests of the storage engine, as one binary.

mod disk;
mod examples;
mod log;
mod log_campaign;
mod log_threads;
mod log_waiting;
mod sim_disk;
mod sim_explore;
mod sim_faults;
mod sim_outcomes;
mod store;
