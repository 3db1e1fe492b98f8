//! The runtime configuration of a pipeline, under Feldera's names.
//!
//! Invariant: an unknown key is an error that names the nearest known one; nothing is ignored.
//! Known limit: keys of Feldera's that are not listed in [`KEYS`] are refused rather than half obeyed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::connector::Level;
use crate::suggest::check_keys;

/// Every key of a pipeline's configuration.
pub const KEYS: &[&str] = &[
    "workers",
    "storage",
    "fault_tolerance",
    "min_batch_size_records",
    "max_buffering_delay_usecs",
    "rows_per_step",
    "max_rows_per_step",
    "on_evaluation_error",
    "on_parse_error",
    "max_pending_output_bytes",
    "clock_resolution_usecs",
    "http",
];

const STORAGE_KEYS: &[&str] = &["cache_mib", "max_log_bytes", "max_memtable_bytes", "quota_bytes"];
const HTTP_KEYS: &[&str] =
    &["egress_max_bytes", "egress_max_age_secs", "idempotency_max_keys", "idempotency_max_age_secs"];
const FAULT_TOLERANCE_KEYS: &[&str] = &["model", "checkpoint_interval_secs"];

/// What to do about one bad row or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Stop the pipeline, naming it.
    Stop,
    /// Leave that row out, count it and show the first few.
    Skip,
}

/// A pipeline's runtime configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineConfig {
    /// Worker threads. Default: the machine's cores.
    pub workers: Option<usize>,
    /// Where and how state is kept; `None`: in memory only.
    pub storage: Option<StorageConfig>,
    /// What survives a crash.
    pub fault_tolerance: FaultTolerance,
    /// A step waits for this many rows (or for the delay below). Default 0: it takes what is there.
    pub min_batch_size_records: u64,
    /// How long a step waits for `min_batch_size_records`. Default 0.
    pub max_buffering_delay: Duration,
    /// Fixes the cut: each step takes exactly this many rows of every input connector that has not ended. Two runs over the
    /// same input then make the same steps. Default: none, a step takes what is there.
    pub rows_per_step: Option<u64>,
    /// The most rows that a step takes from one connector. Default 50,000. A connector's `max_batch_size` may lower it.
    pub max_rows_per_step: u64,
    /// What to do when an expression fails for a row (a division by zero, a bad cast). Default: stop.
    pub on_evaluation_error: OnError,
    /// What to do with an input row that does not parse. Default: skip.
    pub on_parse_error: OnError,
    /// Inputs wait while the outputs' undelivered deltas take more than this many bytes. Default 256 MiB.
    pub max_pending_output_bytes: u64,
    /// The least time between a step and the next one that is made only because time has passed. Default 1 s.
    pub clock_resolution: Duration,
    /// What is kept for clients that push and listen.
    pub http: HttpConfig,
}

/// What is kept for clients that push rows and listen to views. It may change between runs: no delta depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// The most bytes of changes that are kept of a view, in memory, for listeners that come back. Default 16 MiB.
    pub egress_max_bytes: u64,
    /// The longest time that a change is kept. Default 1 h.
    pub egress_max_age: Duration,
    /// The most idempotency keys that are known of a table, of some 60 bytes of memory each. Default 1,000,000.
    pub idempotency_max_keys: u64,
    /// How long a key is known. Default 24 h.
    pub idempotency_max_age: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            egress_max_bytes: 16 << 20,
            egress_max_age: Duration::from_secs(3600),
            idempotency_max_keys: 1_000_000,
            idempotency_max_age: Duration::from_secs(24 * 3600),
        }
    }
}

/// How state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// What cached blocks of state may take, in MiB. Default 256.
    pub cache_mib: u64,
    /// The log takes a checkpoint, whatever the interval says, when it is larger than this. Default 1 GiB.
    pub max_log_bytes: u64,
    /// What rows of state that are not on disk yet may take, in bytes: beyond it they are written between checkpoints. Default
    /// 256 MiB.
    pub max_memtable_bytes: u64,
    /// The store may take at most this many bytes of disk. Default: no limit.
    pub quota_bytes: Option<u64>,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { cache_mib: 256, max_log_bytes: 1 << 30, max_memtable_bytes: 256 << 20, quota_bytes: None }
    }
}

/// What survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultTolerance {
    /// The level; `None`: state is kept at a graceful stop only.
    pub model: Level,
    /// Time between checkpoints; `None`: only on request and at a graceful stop.
    pub checkpoint_interval: Option<Duration>,
}

impl FaultTolerance {
    /// No fault tolerance.
    pub const NONE: Self = Self { model: Level::None, checkpoint_interval: None };
    /// Exactly once, a checkpoint a minute.
    pub const EXACTLY_ONCE: Self =
        Self { model: Level::ExactlyOnce, checkpoint_interval: Some(Duration::from_secs(60)) };
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            workers: None,
            storage: None,
            fault_tolerance: FaultTolerance::NONE,
            min_batch_size_records: 0,
            max_buffering_delay: Duration::ZERO,
            rows_per_step: None,
            max_rows_per_step: 50_000,
            on_evaluation_error: OnError::Stop,
            on_parse_error: OnError::Skip,
            max_pending_output_bytes: 256 << 20,
            clock_resolution: Duration::from_secs(1),
            http: HttpConfig::default(),
        }
    }
}

impl PipelineConfig {
    /// The rows of an input that a step takes, at most.
    pub(super) fn rows(&self) -> u64 {
        self.rows_per_step.unwrap_or(self.max_rows_per_step)
    }

    /// What `backstay run --data-dir` uses where there is no configuration at all: storage, exactly once.
    pub fn exactly_once() -> Self {
        Self {
            storage: Some(StorageConfig::default()),
            fault_tolerance: FaultTolerance::EXACTLY_ONCE,
            ..Self::default()
        }
    }

    /// Reads a configuration from JSON text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("config is not JSON: {e}"))?;
        Self::from_json(&value)
    }

    /// Reads a configuration; absent keys take their defaults (no storage and no fault tolerance, as in Feldera).
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let Value::Object(object) = value else {
            return Err(format!("config: expected an object, got {value}"));
        };
        check_keys(object, KEYS, "config")?;
        let mut config = Self::default();
        let keys = Object { object, place: "config" };
        if let Some(workers) = keys.number("workers")? {
            if !(1..=256).contains(&workers) {
                return Err(format!("config: \"workers\" must be from 1 to 256, got {workers}"));
            }
            config.workers = usize::try_from(workers).ok();
        }
        config.storage = match keys.get("storage") {
            None | Some(Value::Null | Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(StorageConfig::default()),
            Some(Value::Object(storage)) => Some(StorageConfig::from_json(storage)?),
            Some(other) => return Err(format!("config: \"storage\" must be true, false or an object, got {other}")),
        };
        config.fault_tolerance = FaultTolerance::from_json(keys.get("fault_tolerance"))?;
        if config.fault_tolerance.model > Level::None && config.storage.is_none() {
            return Err(
                "config: fault tolerance requires storage, but storage is not enabled; add \"storage\": true".into()
            );
        }
        if let Some(rows) = keys.number("min_batch_size_records")? {
            config.min_batch_size_records = rows;
        }
        if let Some(micros) = keys.number("max_buffering_delay_usecs")? {
            config.max_buffering_delay = Duration::from_micros(micros);
        }
        if let Some(micros) = keys.positive("clock_resolution_usecs")? {
            config.clock_resolution = Duration::from_micros(micros);
        }
        config.rows_per_step = keys.positive("rows_per_step")?;
        if let Some(rows) = keys.positive("max_rows_per_step")? {
            config.max_rows_per_step = rows;
        }
        if let Some(on_error) = keys.on_error("on_evaluation_error")? {
            config.on_evaluation_error = on_error;
        }
        if let Some(on_error) = keys.on_error("on_parse_error")? {
            config.on_parse_error = on_error;
        }
        if let Some(bytes) = keys.positive("max_pending_output_bytes")? {
            config.max_pending_output_bytes = bytes;
        }
        config.http = match keys.get("http") {
            None | Some(Value::Null) => HttpConfig::default(),
            Some(Value::Object(http)) => HttpConfig::from_json(http)?,
            Some(other) => return Err(format!("config: \"http\" must be an object, got {other}")),
        };
        Ok(config)
    }
}

impl HttpConfig {
    fn from_json(object: &Map<String, Value>) -> Result<Self, String> {
        check_keys(object, HTTP_KEYS, "config.http")?;
        let keys = Object { object, place: "config.http" };
        let default = Self::default();
        let age = |key, default| Ok::<_, String>(keys.positive(key)?.map_or(default, Duration::from_secs));
        Ok(Self {
            egress_max_bytes: keys.positive("egress_max_bytes")?.unwrap_or(default.egress_max_bytes),
            egress_max_age: age("egress_max_age_secs", default.egress_max_age)?,
            idempotency_max_keys: keys.positive("idempotency_max_keys")?.unwrap_or(default.idempotency_max_keys),
            idempotency_max_age: age("idempotency_max_age_secs", default.idempotency_max_age)?,
        })
    }
}

impl StorageConfig {
    fn from_json(object: &Map<String, Value>) -> Result<Self, String> {
        check_keys(object, STORAGE_KEYS, "config.storage")?;
        let keys = Object { object, place: "config.storage" };
        let default = Self::default();
        Ok(Self {
            cache_mib: keys.number("cache_mib")?.unwrap_or(default.cache_mib),
            max_log_bytes: keys.positive("max_log_bytes")?.unwrap_or(default.max_log_bytes),
            max_memtable_bytes: keys.positive("max_memtable_bytes")?.unwrap_or(default.max_memtable_bytes),
            quota_bytes: keys.positive("quota_bytes")?,
        })
    }
}

impl FaultTolerance {
    fn from_json(value: Option<&Value>) -> Result<Self, String> {
        let object = match value {
            None | Some(Value::Null | Value::Bool(false)) => return Ok(Self::NONE),
            Some(Value::Bool(true)) => return Ok(Self::EXACTLY_ONCE),
            Some(Value::Object(object)) => object,
            Some(other) => {
                return Err(format!("config: \"fault_tolerance\" must be true, false or an object, got {other}"));
            }
        };
        check_keys(object, FAULT_TOLERANCE_KEYS, "config.fault_tolerance")?;
        let keys = Object { object, place: "config.fault_tolerance" };
        let model = match object.get("model") {
            None => Level::ExactlyOnce,
            Some(Value::Null) => Level::None,
            Some(value) => serde_json::from_value(value.clone()).map_err(|_| {
                format!("config.fault_tolerance: \"model\" must be \"none\", \"at_least_once\" or \"exactly_once\", got {value}")
            })?,
        };
        let checkpoint_interval = match object.get("checkpoint_interval_secs") {
            Some(Value::Null) => None,
            // Feldera's bounds.
            _ => Some(Duration::from_secs(keys.number("checkpoint_interval_secs")?.unwrap_or(60).clamp(1, 3600))),
        };
        Ok(if model == Level::None { Self::NONE } else { Self { model, checkpoint_interval } })
    }
}

/// A JSON object with its place, for error messages.
struct Object<'a> {
    object: &'a Map<String, Value>,
    place: &'a str,
}

impl Object<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key)
    }

    fn number(&self, key: &str) -> Result<Option<u64>, String> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(format!("{}: \"{key}\" must be a whole number, got {value}", self.place)),
            },
        }
    }

    fn positive(&self, key: &str) -> Result<Option<u64>, String> {
        match self.number(key)? {
            Some(0) => Err(format!("{}: \"{key}\" must be at least 1", self.place)),
            other => Ok(other),
        }
    }

    fn on_error(&self, key: &str) -> Result<Option<OnError>, String> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match serde_json::from_value(value.clone()) {
                Ok(on_error) => Ok(Some(on_error)),
                Err(_) => Err(format!("{}: \"{key}\" must be \"stop\" or \"skip\", got {value}", self.place)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_tolerance_means_what_feldera_means() {
        let parse = |text: &str| PipelineConfig::parse(text).map(|c| c.fault_tolerance);
        assert_eq!(parse("{}").unwrap(), FaultTolerance::NONE);
        assert_eq!(parse(r#"{"storage": true, "fault_tolerance": {}}"#).unwrap(), FaultTolerance::EXACTLY_ONCE);
        assert_eq!(parse(r#"{"storage": true, "fault_tolerance": true}"#).unwrap(), FaultTolerance::EXACTLY_ONCE);
        assert_eq!(parse(r#"{"storage": true, "fault_tolerance": null}"#).unwrap(), FaultTolerance::NONE);
        assert_eq!(
            parse(
                r#"{"storage": {}, "fault_tolerance": {"model": "at_least_once", "checkpoint_interval_secs": null}}"#
            )
            .unwrap(),
            FaultTolerance { model: Level::AtLeastOnce, checkpoint_interval: None }
        );
        let clamped = parse(r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 0}}"#).unwrap();
        assert_eq!(clamped.checkpoint_interval, Some(Duration::from_secs(1)));
        assert!(
            parse(r#"{"fault_tolerance": true}"#).unwrap_err().contains("requires storage, but storage is not enabled")
        );
    }

    #[test]
    fn wrong_keys_and_values_are_named() {
        let error = |text: &str| PipelineConfig::parse(text).unwrap_err();
        assert!(error(r#"{"worker": 2}"#).contains("did you mean \"workers\"?"));
        assert!(error(r#"{"storage": {"cache": 2}}"#).starts_with("config.storage: unknown key \"cache\""));
        assert!(error(r#"{"http": {"egress_max_byte": 2}}"#).contains("did you mean \"egress_max_bytes\"?"));
        assert_eq!(
            error(r#"{"http": {"idempotency_max_keys": 0}}"#),
            "config.http: \"idempotency_max_keys\" must be at least 1"
        );
        assert_eq!(error(r#"{"workers": 0}"#), "config: \"workers\" must be from 1 to 256, got 0");
        assert_eq!(error(r#"{"rows_per_step": 0}"#), "config: \"rows_per_step\" must be at least 1");
        assert!(error(r#"{"on_parse_error": "ignore"}"#).contains("\"stop\" or \"skip\""));
    }
}
