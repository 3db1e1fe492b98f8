//! Integration tests of the storage engine, as one binary.

mod disk;
mod sim_disk;
