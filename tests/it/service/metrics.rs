//! `/metrics`: named by Prometheus' conventions, and all that the Grafana dashboard asks for is there.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::{Value, json};

use super::server::Service;
use crate::process::repository;

const SQL: &str = r#"CREATE TABLE t (id BIGINT NOT NULL) WITH ('connectors' =
    '[{"name": "g", "transport": {"name": "datagen", "config": {"plan": [{"limit": 1000}]}}}]');
    CREATE MATERIALIZED VIEW v WITH ('connectors' = '[{"name": "o", "transport": {"name": "null_output"}}]')
    AS SELECT count(*) AS c FROM t;"#;

/// Samples' names, each with the labels that it has.
fn samples(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let sample = Regex::new(r#"^(\w+)\{(.*)\} (\S+)$"#).unwrap();
    let label = Regex::new(r#"(\w+)="(?:[^"\\]|\\.)*""#).unwrap();
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let parts = sample.captures(line).unwrap_or_else(|| panic!("not a sample: {line}"));
        parts[3].parse::<f64>().unwrap_or_else(|e| panic!("{line}: {e}"));
        all.entry(parts[1].to_owned()).or_default().extend(label.captures_iter(&parts[2]).map(|l| l[1].to_owned()));
    }
    all
}

fn metrics(service: &Service) -> String {
    service.create("p", SQL, json!(null));
    service.turn("p", "start", "Running");
    service.until("all rows are there", || service.value("p", "SELECT c FROM v") == Some(json!(1000)));
    let asked = service.post("/v0/pipelines/p/checkpoint").json()["checkpoint_sequence_number"].clone();
    service
        .until("a checkpoint is there", || service.get("/v0/pipelines/p/checkpoint_status").json()["success"] == asked);
    service.until("it is told", || service.get("/metrics").body.contains("backstay_checkpoint_age_seconds{"));
    service.get("/metrics").body
}

#[test]
fn names_are_by_convention_and_the_dashboard_knows_them() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    let text = metrics(&service);
    let samples = samples(&text);
    let mut families = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(name.starts_with("backstay_") && text.contains(&format!("# HELP {name} ")), "{line}");
        assert_eq!(
            kind == "counter",
            name.ends_with("_total"),
            "{line}: a counter's name ends with _total, no other's"
        );
        let parts: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for part in parts {
            assert!(samples.contains_key(&format!("{name}{part}")), "{line}: no sample of {name}{part}");
        }
        // Base units only.
        for unit in ["_ms", "_msecs", "_micros", "_mb", "_mib", "_percent"] {
            assert!(!name.contains(unit), "{line}");
        }
        families += 1;
    }
    assert!(families >= 20, "{families} families");

    let path = repository().join("examples/grafana/pipelines.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (name, matcher, by) = (
        Regex::new(r"backstay_\w+").unwrap(),
        Regex::new(r"(\w+)=~?").unwrap(),
        Regex::new(r"by \(([^)]*)\)").unwrap(),
    );
    let shown = Regex::new(r"\{\{(\w+)\}\}").unwrap();
    let (mut expressions, mut asked) = (0, BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let (expression, legend) = (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
            let legend = shown.captures_iter(legend).map(|l| l[1].to_owned()).collect::<Vec<_>>();
            for found in name.find_iter(expression) {
                let labels = samples.get(found.as_str());
                let labels = labels.unwrap_or_else(|| panic!("{expression}: /metrics has no {}", found.as_str()));
                let matched = matcher.captures_iter(expression).map(|l| l[1].to_owned());
                let grouped =
                    by.captures_iter(expression).flat_map(|l| l[1].split(", ").map(str::to_owned).collect::<Vec<_>>());
                for label in matched.chain(grouped).chain(legend.clone()) {
                    assert!(labels.contains(&label), "{expression}: {} has no label {label}", found.as_str());
                }
                asked.insert(found.as_str().to_owned());
            }
            expressions += 1;
        }
    }
    assert!(expressions >= 20 && asked.len() >= 18, "{expressions} expressions of {} names", asked.len());
    service.turn("p", "stop?force=true", "Stopped");
}

/// Lines of the manager and of the pipelines' processes, as text and as JSON.
#[test]
fn logs_are_text_or_json() {
    for (format, is_json) in [("text", false), ("json", true)] {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::start_with(dir.path(), &["--log-format", format]);
        service.create("p", SQL, json!(null));
        service.turn("p", "start", "Running");
        let said = service.get("/v0/pipelines/p/logs?follow=false").body;
        for line in said.lines() {
            let line = serde_json::from_str::<Value>(line);
            assert_eq!(line.is_ok(), is_json, "{format}: {said}");
            assert!(
                line.is_err()
                    || line.is_ok_and(|line| line["message"].is_string()
                        && line["level"] == "INFO"
                        && line["timestamp"].is_string())
            );
        }
        assert!(said.contains("exactly once"), "{said}");
        // A failure is found in either.
        service.create("bad", &SQL.replace("count(*) AS c", "sum(1 / (id - 500)) AS c"), json!(null));
        service.post("/v0/pipelines/bad/start");
        service.until("it is given up", || service.pipeline("bad")["deployment_error"].is_object());
        let error = service.pipeline("bad")["deployment_error"]["message"].as_str().unwrap().to_owned();
        assert!(error.contains("ivide by zero") && !error.contains("\"timestamp\""), "{error}");
        service.turn("p", "stop?force=true", "Stopped");
    }
}
