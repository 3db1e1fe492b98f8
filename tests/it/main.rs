//! Tests of whole pipelines, as one binary: most run the real program as a process of its own.

#![expect(
    clippy::disallowed_methods,
    reason = "tests stand outside of the pipeline: they make and read files as a user would, and wait"
)]

mod changes;
mod cli;
mod commit_cost;
#[path = "../connectors/mod.rs"]
mod connectors;
mod console;
mod damage;
mod demo;
mod differential;
mod flights;
mod formats;
mod full_disk;
mod kafka;
mod kill;
mod late;
mod objects;
mod orchestration;
mod parquet;
mod postgres;
mod process;
mod query;
mod recover;
mod rest;
mod rng;
mod s3;
mod savepoint;
mod secrets;
mod service;
mod simulation;
mod skipped;
mod sqllogic;
mod types;
mod url;
