//! A log-structured storage engine, in the making: bytes and weights, never SQL.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]
pub mod disk;
mod error;
pub mod log;
pub mod queue;
pub mod spine;
pub use error::{Damage, Error, Result};
