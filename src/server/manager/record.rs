//! What is wanted of one pipeline: the part that survives the manager.
//!
//! Invariant: a record says what a user asked for, and what became of it for good (a failure that is not to be tried again). What a
//! pipeline does at the moment is not here: it is asked.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::server::error::ErrorBody;

/// One pipeline, as the manager keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Fixed at its creation; its directory's name.
    pub id: Uuid,
    /// Unique at any time; may be changed while it is stopped.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// For people.
    #[serde(default)]
    pub tags: Vec<String>,
    /// When it was created, in ms since 1970.
    pub created_ms: i64,
    /// Counts its edits.
    pub version: u64,
    /// Counts edits of its program.
    pub program_version: u64,
    /// The SQL text.
    pub program_code: String,
    /// When the program was last compiled, in ms since 1970.
    pub compiled_ms: i64,
    /// Feldera's compilation settings; kept for its clients, they change nothing.
    pub program_config: Map<String, Value>,
    /// The runtime configuration as it was given.
    pub runtime_config: Value,
    /// What it is to do.
    pub desired: Desired,
    /// Since when, in ms since 1970.
    pub desired_ms: i64,
    /// Why it is stopped although that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<DeploymentError>,
}

/// What a pipeline is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// Nothing.
    Stopped,
    /// To be there, and make no steps.
    Paused,
    /// To make steps.
    Running,
}

impl Desired {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "Stopped",
            Self::Paused => "Paused",
            Self::Running => "Running",
        }
    }
}

/// Why a pipeline was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentError {
    /// What its process said last.
    pub message: String,
    /// How the process ended.
    pub exit: String,
}

impl DeploymentError {
    /// The standard error body.
    pub fn body(&self) -> ErrorBody {
        let details = json!({ "exit": self.exit });
        ErrorBody { message: self.message.clone(), error_code: "PipelineFailed", details }
    }
}

/// Refuses what is no name: names are shown, put into paths of requests, and typed.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match name.len() {
        1..=100 if name.chars().all(is_plain) => Ok(()),
        _ => Err(format!("a pipeline's name has 1 to 100 letters, digits, \"_\" or \"-\" (ASCII), got {name:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        assert!(check_name("a-B_9").is_ok());
        for bad in ["", "a/b", "..", "a b", "ä", &"x".repeat(101)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
