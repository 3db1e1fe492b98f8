//! Kafka to SQL to Kafka, against a real broker (`tests/servers/kafka`).

pub mod broker;
mod faults;
mod kills;
mod limits;
mod metadata;
mod refusals;
mod secure;
mod starts;
