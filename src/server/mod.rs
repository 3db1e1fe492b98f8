//! The service: a pipeline's own API on a Unix socket ([`runtime`]), and the manager in front of many ([`manager`]),
//! with a console in the browser.
//!
//! ```text
//! client ──HTTP──▶ backstay serve (manager) ──HTTP over a Unix socket──▶ backstay run (one process a pipeline)
//! ```
//!
//! The manager keeps what is wanted (programs, configurations, desired states) in a store of its own; what *is*, it asks the
//! pipelines. A pipeline that dies harms no other, and the manager's death harms none: pipelines run on, and are found again by
//! their sockets.
//!
//! The wire is Feldera's REST API as far as it goes, so that Feldera's own clients work (`docs/service.md` lists the routes).

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod console;
pub mod error;
mod extract;
pub mod manager;

pub mod runtime;
