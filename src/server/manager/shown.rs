//! A pipeline as clients see it, under Feldera's names.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::server::error::ErrorBody;

/// A pipeline. `?selector=status` leaves out what is only there with `all`: program and configuration.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pipeline)]
pub struct Shown {
    /// Fixed at its creation.
    pub id: Uuid,
    /// Unique at any time.
    pub name: String,
    /// For people.
    pub description: String,
    /// For people.
    pub tags: Vec<String>,
    /// RFC 3339, as all times here.
    pub created_at: String,
    /// Counts its edits.
    pub version: u64,
    /// The version of Feldera whose API this is.
    pub platform_version: &'static str,
    /// Counts edits of its program.
    pub program_version: u64,
    /// `CompilingSql`, `Success`, `SqlError`, or `SystemError`: the compiler did not come to its end.
    pub program_status: &'static str,
    /// When the program was compiled.
    pub program_status_since: String,
    /// As `version`.
    pub refresh_version: u64,
    /// `Cleared`, `InUse` or `Clearing`.
    pub storage_status: &'static str,
    /// What it does: `Stopped`, `Provisioning`, `Initializing`, `Replaying`, `Paused`, `Running`, `Stopping` or `Unavailable`.
    pub deployment_status: &'static str,
    /// Since when.
    pub deployment_status_since: String,
    /// What it is to do: `Stopped`, `Paused` or `Running`.
    pub deployment_desired_status: &'static str,
    /// Since when.
    pub deployment_desired_status_since: String,
    /// Whether there is a process: `Stopped`, `Provisioning`, `Provisioned` or `Stopping`.
    pub deployment_resources_status: &'static str,
    /// Since when.
    pub deployment_resources_status_since: String,
    /// Whether there is to be one: `Stopped` or `Provisioned`.
    pub deployment_resources_desired_status: &'static str,
    /// Since when.
    pub deployment_resources_desired_status_since: String,
    /// Why it is stopped although that was not asked for.
    pub deployment_error: Option<ErrorBody>,
    /// Its newest figures: process, step, rows, rate and lag; null while there is no process.
    #[schema(value_type = Option<Object>)]
    pub backstay: Value,
    /// The SQL text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_code: Option<String>,
    /// Always empty: user-defined functions are not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udf_rust: Option<&'static str>,
    /// Always empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udf_toml: Option<&'static str>,
    /// Feldera's compilation settings; kept for its clients.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_config: Option<Map<String, Value>>,
    /// The runtime configuration, with what was not given.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_config: Option<Value>,
    /// Errors of the program with their places; `{}` if there are none.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_error: Option<Value>,
    /// Tables, views and connectors; null if the program does not compile.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_info: Option<Value>,
}
