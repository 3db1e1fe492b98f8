//! Kafka to SQL to Kafka, against a real broker (`tests/servers/kafka`).

mod avro;
pub mod broker;
mod compaction;
mod faults;
mod kills;
mod limits;
mod metadata;
mod refusals;
mod registry;
mod secure;
mod starts;
mod topics;
