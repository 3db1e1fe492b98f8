//! The connectors' configuration, in Feldera's JSON: what stands in `WITH ('connectors' = '[…]')`.
//!
//! ```json
//! [{"name": "flights", "transport": {"name": "file_input", "config": {"path": "${DATA_DIR}/flights.csv"}},
//!   "format": {"name": "csv", "config": {"null_values": ["NA"]}}, "max_batch_size": 10000}]
//! ```
//!
//! Invariants:
//! 1. A key that is not known is an error that names the connector, the place, and the nearest key there is. A key of Feldera's
//!    that does nothing here yet is refused as such: no setting is ever ignored.
//! 2. A name is stable: a connector without one is called by its transport, the second of that transport `<transport>_2`, and so
//!    on, so that adding one at the end renames none. Names are unique within a relation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::options::Options;
use super::{ConnectorError, Result};

/// One connector of a table or view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectorConfig {
    /// The given name, or `<transport>`, `<transport>_2`, …; unique within its relation.
    pub name: String,
    /// What carries the bytes.
    pub transport: TransportConfig,
    /// How bytes are rows. Generators have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatConfig>,
    /// The most rows that one step takes from this connector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_batch_size: Option<u64>,
    /// The most rows that wait between an input connector and the steps, or between these and what an output's sink holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queued_records: Option<u64>,
    /// The same in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queued_bytes: Option<u64>,
    /// Whether it starts paused.
    #[serde(default)]
    pub paused: bool,
    /// Words by which others may name it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// It starts once all input connectors that have one of these labels are at their end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start_after: Vec<String>,
    /// Where a replay has an input's rows from.
    #[serde(default, skip_serializing_if = "Replay::is_source")]
    pub replay: Replay,
}

/// Where a replay has an input's rows from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// They are read again.
    #[default]
    Source,
    /// From the log, which each step writes them to.
    Bytes,
}

impl Replay {
    fn is_source(&self) -> bool {
        *self == Self::Source
    }
}

/// What carries the bytes: `{"name": "file_input", "config": {…}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransportConfig {
    /// The transport's name.
    pub name: String,
    /// Its own keys: an object, or null. The transport checks them when it is made.
    #[serde(default)]
    pub config: Value,
}

/// How bytes are rows: `{"name": "csv", "config": {…}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatConfig {
    /// The format's name.
    pub name: String,
    /// Its own keys: an object, or null. The format checks them when it is made.
    #[serde(default)]
    pub config: Value,
}

/// Keys of a connector.
const KEYS: &[&str] = &[
    "name",
    "transport",
    "format",
    "max_batch_size",
    "max_queued_records",
    "max_queued_bytes",
    "paused",
    "labels",
    "start_after",
    "replay",
];
/// Keys of Feldera's that do nothing here yet.
const LATER: &[&str] = &[
    "index",
    "send_snapshot",
    "enable_output_buffer",
    "max_output_buffer_time_millis",
    "max_output_buffer_size_records",
    "max_worker_batch_size",
    "preprocessor",
    "postprocessor",
];

impl ConnectorConfig {
    /// Reads the JSON list of one relation's connectors.
    ///
    /// # Errors
    /// The JSON does not parse (with line and column in `text`), a key is not known or of another type than it should be, or a
    /// name stands twice. The error's connector is `<relation>`, or `<relation>.<connector>` once that is known.
    ///
    /// ```
    /// use backstay::connector::config::ConnectorConfig;
    /// let text = r#"[{"transport": {"name": "file_input", "config": {"path": "a.csv"}}, "format": {"name": "csv"}}]"#;
    /// assert_eq!(ConnectorConfig::parse_list("flights", text).unwrap()[0].name, "file_input");
    /// let e = ConnectorConfig::parse_list("flights", r#"[{"transprot": {}}]"#).unwrap_err();
    /// assert!(e.to_string().contains("did you mean \"transport\"?"), "{e}");
    /// ```
    pub fn parse_list(relation: &str, text: &str) -> Result<Vec<Self>> {
        let value: Value = serde_json::from_str(text).map_err(|e| {
            ConnectorError::new(
                relation,
                format!("the JSON of 'connectors' does not parse: {e}; it is a list: [{{\"transport\": …}}]"),
            )
        })?;
        Self::from_value(relation, &value)
    }

    /// As [`ConnectorConfig::parse_list`], from JSON that has been parsed.
    pub fn from_value(relation: &str, value: &Value) -> Result<Vec<Self>> {
        let Value::Array(items) = value else {
            return Err(ConnectorError::new(relation, "'connectors' must be a JSON list: [{\"transport\": …}]"));
        };
        let mut unnamed: BTreeMap<String, usize> = BTreeMap::new();
        let mut configs: Vec<Self> = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let config = Self::from_item(relation, i, item, &mut unnamed)?;
            if configs.iter().any(|c| c.name == config.name) {
                let message = format!("two connectors of {relation} have this name; give each its own \"name\"");
                return Err(ConnectorError::new(&format!("{relation}.{}", config.name), message));
            }
            configs.push(config);
        }
        Ok(configs)
    }

    /// One item of the list; `unnamed` counts the transports of the connectors without a name so far.
    fn from_item(relation: &str, i: usize, item: &Value, unnamed: &mut BTreeMap<String, usize>) -> Result<Self> {
        let given = item.get("name").and_then(Value::as_str);
        let provisional = match given {
            Some(name) => format!("{relation}.{name}"),
            None => format!("{relation}, number {}", i + 1),
        };
        let options = Options::new(&provisional, "the connector", item, KEYS, LATER)?;
        let (transport, config) = named(&provisional, "transport", options.require("transport")?)?;
        let format = match options.value("format") {
            None | Some(Value::Null) => None,
            Some(v) => Some(named(&provisional, "format", v)?),
        };
        let name = match options.string("name")? {
            Some("") => return Err(options.error("\"name\" is empty; leave it out, or give one")),
            Some(name) => name.to_owned(),
            None => {
                let n = unnamed.entry(transport.clone()).or_insert(0);
                *n += 1;
                if *n == 1 { transport.clone() } else { format!("{transport}_{n}") }
            }
        };
        let bound = |key: &str| match options.u64(key)? {
            Some(0) => {
                Err(options.error(format!("\"{key}\" is 0, so that no row would ever be taken; it must be at least 1")))
            }
            other => Ok(other),
        };
        Ok(Self {
            name,
            transport: TransportConfig { name: transport, config },
            format: format.map(|(name, config)| FormatConfig { name, config }),
            max_batch_size: bound("max_batch_size")?,
            max_queued_records: bound("max_queued_records")?,
            max_queued_bytes: bound("max_queued_bytes")?,
            paused: options.bool("paused")?.unwrap_or(false),
            labels: options.strings("labels")?.unwrap_or_default(),
            start_after: options.string_or_strings("start_after")?,
            replay: match options.string("replay")? {
                None | Some("source") => Replay::Source,
                Some("bytes") => Replay::Bytes,
                Some(other) => {
                    return Err(options.error(format!("\"replay\" is \"source\" or \"bytes\", not \"{other}\"")));
                }
            },
        })
    }

    /// Refuses what only an input can have; for the connector `<view>.<name>`.
    ///
    /// # Errors
    /// It is there, with its key.
    pub fn check_output(&self, connector: &str) -> Result<()> {
        let of_inputs = [
            ("max_batch_size", self.max_batch_size.is_some()),
            ("start_after", !self.start_after.is_empty()),
            ("replay", self.replay == Replay::Bytes),
        ];
        match of_inputs.iter().find(|(_, is_there)| *is_there) {
            Some((key, _)) => Err(ConnectorError::new(
                connector,
                format!("\"{key}\" is for inputs; an output has none: leave it out"),
            )),
            None => Ok(()),
        }
    }
}

/// A `{"name": …, "config": {…}}`.
fn named(connector: &str, place: &str, value: &Value) -> Result<(String, Value)> {
    let options = Options::new(connector, place, value, &["name", "config"], &[])?;
    let name = options.require_string("name")?.to_owned();
    let config = options.value("config").cloned().unwrap_or(Value::Null);
    Ok((name, config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        ConnectorConfig::parse_list("t", text).unwrap_err().to_string()
    }

    #[test]
    fn names_are_stable() {
        let text = r#"[{"transport": {"name": "nexmark"}}, {"name": "a", "transport": {"name": "nexmark"}},
            {"transport": {"name": "nexmark"}}, {"transport": {"name": "datagen"}}]"#;
        let names: Vec<String> = ConnectorConfig::parse_list("t", text).unwrap().into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["nexmark", "a", "nexmark_2", "datagen"]);
        let e = error(r#"[{"name": "x", "transport": {"name": "a"}}, {"name": "x", "transport": {"name": "b"}}]"#);
        assert!(e.contains("t.x") && e.contains("two connectors"), "{e}");
    }

    #[test]
    fn wrong_keys_are_named() {
        let e = error(r#"[{"name": "x", "transport": {"name": "a"}, "max_batch_sise": 3}]"#);
        assert!(
            e.contains("t.x") && e.contains("max_batch_sise") && e.contains("did you mean \"max_batch_size\"?"),
            "{e}"
        );
        let e = error(r#"[{"name": "x", "transport": {"name": "a", "cfg": 1}}]"#);
        assert!(e.contains("transport") && e.contains("cfg"), "{e}");
        let e = error(r#"[{"name": "x", "transport": {"name": "a"}, "index": "i"}]"#);
        assert!(e.contains("not supported yet"), "{e}");
        let e = error(r#"[{"name": "x", "transport": {"name": "a"}, "max_batch_size": "many"}]"#);
        assert!(e.contains("max_batch_size") && e.contains("whole number"), "{e}");
        let e = error(r#"[{"name": "x", "transport": {"name": "a"}, "max_batch_size": 0}]"#);
        assert!(e.contains("at least 1"), "{e}");
        let e = error(r#"[{"name": "x", "transport": {"name": "a"}, "start_after": [1]}]"#);
        assert!(e.contains("start_after") && e.contains("string"), "{e}");
        assert!(error("[{]").contains("line 1 column 3"));
        assert!(error(r#"[{"name": "x"}]"#).contains("\"transport\" is missing"));
    }
}
