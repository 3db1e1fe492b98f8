//! Integration tests of the storage engine, as one binary.

mod disk;
mod log;
mod sim_disk;
