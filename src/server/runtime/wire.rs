//! What requests to a running pipeline carry, and what it answers, where that has a fixed shape.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// What a request says of the rows in its body.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Ingress {
    /// `json` or `csv`.
    #[serde(default = "json")]
    pub format: String,
    /// The JSON is one array of documents.
    #[serde(default)]
    pub array: bool,
    /// `insert_delete` or `raw`.
    pub update_format: Option<String>,
    /// `default`, or `pandas` for tables without dates and times.
    pub json_flavor: Option<String>,
    /// Whether the CSV begins with the columns' names.
    pub headers: Option<bool>,
    /// Of CSV.
    pub delimiter: Option<String>,
    /// Feldera's: rows are taken while the pipeline is paused in any case.
    #[serde(default, rename = "force")]
    pub _force: bool,
}

impl Ingress {
    /// All of it as a text, whose hash is kept beside an idempotency key: it stays as it is, or a request that is repeated behind an upgrade is another one.
    pub(super) fn text(&self) -> String {
        let Self { format, array, update_format, json_flavor, headers, delimiter, _force } = self;
        format!(
            "Asked {{ format: {format:?}, array: {array}, update_format: {update_format:?}, json_flavor: {json_flavor:?}, headers: {headers:?}, \
             delimiter: {delimiter:?}, _force: {_force} }}"
        )
    }
}

fn json() -> String {
    "json".to_owned()
}

/// By which a client asks whether its rows have gone through.
#[derive(Clone, Debug, Deserialize, Serialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub struct Token {
    /// The token of a push.
    pub token: String,
}

/// What became of a push.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Completion {
    /// `complete` once steps took the rows and outputs delivered them, else `inprogress`.
    pub status: &'static str,
}

/// How a client wants to listen.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Egress {
    /// How rows are written.
    #[serde(default)]
    #[param(inline)]
    pub format: EgressFormat,
    /// The step after which to begin; otherwise changes from now on.
    pub after_step: Option<u64>,
    /// Begin with the view's rows.
    #[serde(default)]
    pub send_snapshot: bool,
    /// Feldera's: rows always come in arrays.
    #[serde(default, rename = "array")]
    pub _array: bool,
    /// Feldera's: a listener never slows the pipeline.
    #[serde(default, rename = "backpressure")]
    pub _backpressure: bool,
}

/// How changes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressFormat {
    /// In `json_data`.
    #[default]
    Json,
    /// In `text_data`.
    Csv,
}

/// A query.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// One SELECT.
    #[serde(default)]
    pub sql: String,
    /// How rows are written; `parquet` and `hash` are Feldera's, and refused.
    #[serde(default)]
    #[param(inline)]
    pub format: QueryFormat,
    /// Whether the answer has the columns only, and no rows.
    #[serde(default)]
    pub only_columns: bool,
}

/// The formats that clients name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryFormat {
    /// A table for people.
    #[default]
    Text,
    /// An object a line.
    Json,
    /// With a header.
    Csv,
    /// Arrow's stream format.
    ArrowIpc,
    /// Feldera's.
    Parquet,
    /// Feldera's.
    Hash,
}

/// A checkpoint that was asked for.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Checkpoint {
    /// Its number among those that were asked for.
    pub checkpoint_sequence_number: u64,
    /// The process that was asked.
    pub incarnation_uuid: Uuid,
}

/// The process that a request is meant for.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OfProcess {
    /// If it is another one by now, the request is refused.
    pub incarnation_uuid: Option<Uuid>,
}

/// What became of checkpoints that were asked for.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct CheckpointStatus {
    /// The number of the last one that is there.
    pub success: Option<u64>,
    /// Always null: a checkpoint that fails ends the process.
    #[schema(value_type = Option<Object>)]
    pub failure: (),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_stands_for_is_fixed() {
        let asked: Ingress =
            serde_json::from_value(serde_json::json!({ "format": "csv", "headers": false, "delimiter": ";" })).unwrap();
        let golden = r#"Asked { format: "csv", array: false, update_format: None, json_flavor: None, headers: Some(false), delimiter: Some(";"), _force: false }"#;
        assert_eq!(asked.text(), golden);
    }
}
