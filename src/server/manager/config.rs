//! Feldera's runtime configuration, of which clients send every key: what is ours is passed on, what is inert is let pass, and what asks
//! for something that is not here is refused.
//!
//! Invariant: no setting is ignored. A key that does nothing here may only have the value that asks for nothing.

use serde_json::{Map, Value, json};

use crate::pipeline::PipelineConfig;
use crate::pipeline::config::KEYS;
use crate::suggest::hint;

/// Keys of Feldera's that do nothing here, and the values that ask for nothing.
fn inert() -> Vec<(&'static str, Vec<Value>)> {
    let no = json!(null);
    vec![
        ("hosts", vec![json!(1), no.clone()]),
        ("cpu_profiler", vec![json!(true), json!(false), no.clone()]),
        ("tracing", vec![json!(false), no.clone()]),
        ("tracing_endpoint_jaeger", vec![json!(""), json!("127.0.0.1:6831"), no.clone()]),
        ("clock_timezone_offset", vec![no.clone()]),
        ("provisioning_timeout_secs", vec![no.clone()]),
        ("max_parallel_connector_init", vec![no.clone()]),
        ("init_containers", vec![no.clone()]),
        ("checkpoint_during_suspend", vec![json!(true), no.clone()]),
        ("http_workers", vec![no.clone()]),
        ("io_workers", vec![no.clone()]),
        ("pin_cpus", vec![json!([]), no.clone()]),
        ("env", vec![json!({}), no.clone()]),
        ("dev_tweaks", vec![json!({}), no.clone()]),
        ("logging", vec![no.clone()]),
        ("pipeline_template_configmap", vec![no.clone()]),
        ("datafusion_memory_mb", vec![no.clone()]),
        ("max_rss_mb", vec![no]),
    ]
}

/// Keys of Feldera's `resources` and of parts of its `storage`: null only.
const NULL_STORAGE: &[&str] = &["min_storage_bytes", "min_step_storage_bytes"];

/// The configuration that a pipeline's process gets for what a client sent.
///
/// # Errors
/// What is wrong, or not here, with its key.
pub fn for_process(sent: &Value) -> Result<Value, String> {
    let empty = Map::new();
    let object = match sent {
        Value::Null => &empty,
        Value::Object(object) => object,
        other => return Err(format!("runtime_config: expected an object, got {other}")),
    };
    let inert = inert();
    let mut ours = Map::new();
    for (key, value) in object {
        match (key.as_str(), inert.iter().find(|(name, _)| name == key)) {
            ("resources", _) => only_nulls("runtime_config.resources", value)?,
            ("storage", _) => drop(ours.insert(key.clone(), storage(value)?)),
            (_, Some((_, allowed))) if allowed.contains(value) => {}
            (_, Some(_)) => {
                return Err(format!(
                    "runtime_config: \"{key}\" is not supported here, and {value} would be ignored; leave it out"
                ));
            }
            // Null is what typed clients send for a key that is not set.
            (key, None) if KEYS.contains(&key) && !value.is_null() => drop(ours.insert(key.to_owned(), value.clone())),
            (key, None) if KEYS.contains(&key) => {}
            (key, None) => {
                let names = KEYS.iter().copied().chain(inert.iter().map(|(name, _)| *name)).chain(["resources"]);
                return Err(format!("runtime_config: unknown key \"{key}\"{}", hint(key, names)));
            }
        }
    }
    // In Feldera, storage is there unless it is switched off.
    ours.entry("storage").or_insert(json!(true));
    let config = Value::Object(ours);
    PipelineConfig::from_json(&config)?;
    Ok(config)
}

fn storage(value: &Value) -> Result<Value, String> {
    let Value::Object(object) = value else { return Ok(value.clone()) };
    let mut ours = Map::new();
    for (key, value) in object {
        match key.as_str() {
            key if NULL_STORAGE.contains(&key) && value.is_null() => {}
            "compression" if value == "default" || value.is_null() => {}
            "backend" if value.get("name").is_none_or(|name| name == "default" || name == "file") => {}
            "backend" | "compression" => {
                return Err(format!("runtime_config.storage: \"{key}\" can only be the default, got {value}"));
            }
            key if NULL_STORAGE.contains(&key) => {
                return Err(format!("runtime_config.storage: \"{key}\" is not supported here; leave it out"));
            }
            key if !value.is_null() => drop(ours.insert(key.to_owned(), value.clone())),
            _ => {}
        }
    }
    Ok(Value::Object(ours))
}

fn only_nulls(place: &str, value: &Value) -> Result<(), String> {
    let Value::Object(object) = value else {
        return if value.is_null() { Ok(()) } else { Err(format!("{place}: expected an object, got {value}")) };
    };
    match object.iter().find(|(_, value)| !value.is_null()) {
        None => Ok(()),
        Some((key, value)) => Err(format!(
            "{place}: \"{key}\" is not supported here, and {value} would be ignored; leave it out (limit the process by the \
             system's own means)"
        )),
    }
}

/// What clients are shown: what was sent, with Feldera's defaults where nothing was.
pub fn shown(sent: &Value) -> Value {
    let mut shown = json!({
        "workers": std::thread::available_parallelism().map_or(1, usize::from),
        "hosts": 1,
        "storage": { "backend": { "name": "default" }, "compression": "default" },
        "fault_tolerance": { "model": "none", "checkpoint_interval_secs": 60 },
        "cpu_profiler": true,
        "tracing": false,
        "tracing_endpoint_jaeger": "",
        "min_batch_size_records": 0,
        "max_buffering_delay_usecs": 0,
        "resources": {},
        "clock_resolution_usecs": 1_000_000,
        "pin_cpus": [],
        "env": {},
        "dev_tweaks": {},
        "checkpoint_during_suspend": true,
    });
    if let (Some(shown), Some(sent)) = (shown.as_object_mut(), sent.as_object()) {
        for (key, value) in sent.iter().filter(|(_, value)| !value.is_null()) {
            shown.insert(key.clone(), value.clone());
        }
        // Typed clients want an object or null.
        match shown.get("storage") {
            Some(Value::Bool(true)) => drop(shown.insert("storage".into(), json!({}))),
            Some(Value::Bool(false)) => drop(shown.insert("storage".into(), Value::Null)),
            _ => {}
        }
        match shown.get("fault_tolerance") {
            Some(Value::Bool(true)) => {
                shown.insert(
                    "fault_tolerance".into(),
                    json!({ "model": "exactly_once", "checkpoint_interval_secs": 60 }),
                );
            }
            Some(Value::Object(object)) if !object.contains_key("model") => {
                let interval = object.get("checkpoint_interval_secs").cloned().unwrap_or(json!(60));
                let full = json!({ "model": "exactly_once", "checkpoint_interval_secs": interval });
                shown.insert("fault_tolerance".into(), full);
            }
            _ => {}
        }
    }
    shown
}

/// What a pipeline gets whose creator says nothing of its configuration.
pub fn or_default(sent: Option<Value>) -> Value {
    sent.filter(|sent| !sent.is_null()).unwrap_or_else(|| json!({ "fault_tolerance": {} }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_are_shown_they_may_send_back() {
        for sent in
            [json!({}), json!({"storage": true, "fault_tolerance": true}), json!({"workers": 2, "storage": false})]
        {
            let shown = shown(&sent);
            assert!(for_process(&shown).is_ok(), "{sent} {:?}", for_process(&shown));
        }
        let sent = shown(&or_default(None));
        let config = PipelineConfig::from_json(&for_process(&sent).unwrap()).unwrap();
        assert_eq!(PipelineConfig { workers: None, ..config }, PipelineConfig::exactly_once());
    }

    #[test]
    fn no_setting_is_ignored() {
        let cases = [
            (json!({"workrs": 2}), "did you mean \"workers\"?"),
            (json!({"tracing": true}), "\"tracing\" is not supported here"),
            (json!({"resources": {"memory_mb_max": 100}}), "\"memory_mb_max\" is not supported here"),
            (json!({"storage": {"compression": "snappy"}}), "\"compression\" can only be the default"),
            (json!({"storage": {"cache_mb": 1}}), "cache_mib"),
            (json!({"storage": false, "fault_tolerance": {"model": "exactly_once"}}), "requires storage"),
            (json!([1]), "expected an object"),
        ];
        for (sent, said) in cases {
            let error = for_process(&sent).unwrap_err();
            assert!(error.contains(said), "{sent}: {error}");
        }
    }
}
