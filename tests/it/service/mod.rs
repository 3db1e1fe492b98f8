//! The service: `backstay serve` as a process, its API by HTTP, and kills of every process there is.

mod api;
mod cli;
mod clients;
mod compiling;
mod egress;
mod full_disk;
mod gate;
mod history;
mod kills;
mod load;
mod metrics;
mod openapi;
mod pgwire;
mod push;
pub mod security;
pub mod server;
