//! What a running pipeline is asked: figures, rows, what it says.

use std::io::{BufRead as _, Write as _};

use serde_json::{Value, json};

use super::client::{Client, escaped, of};
use super::{Common, ConnectorAction, word};
use crate::cli::Failure;
use crate::pipeline::answer::Format;

pub(super) fn stats(name: &str, common: &Common) -> Result<(), Failure> {
    let stats = common.client()?.json("GET", &format!("{}/stats", of(name)), None)?;
    common.show(&stats, |stats| {
        let number = |path: &str| stats.pointer(path).and_then(Value::as_u64).unwrap_or_default();
        let mut text = format!(
            "{}, step {} ({} delivered), {} rows taken, {} wait\n",
            stats.pointer("/global_metrics/state").and_then(Value::as_str).unwrap_or("-"),
            number("/backstay/step"),
            number("/backstay/delivered_step"),
            number("/global_metrics/total_processed_records"),
            number("/global_metrics/buffered_input_records"),
        );
        for (kind, key, figure) in [("input", "inputs", "total_records"), ("output", "outputs", "transmitted_records")]
        {
            for endpoint in stats.get(key).and_then(Value::as_array).into_iter().flatten() {
                let rows = endpoint.pointer(&format!("/metrics/{figure}")).and_then(Value::as_u64).unwrap_or_default();
                text.push_str(&format!(
                    "{kind} {}: {rows} rows{}\n",
                    word(endpoint, "endpoint_name"),
                    trouble(endpoint)
                ));
            }
        }
        text
    });
    Ok(())
}

fn trouble(endpoint: &Value) -> String {
    let trouble = endpoint.pointer("/health/description").and_then(Value::as_str);
    trouble.map(|trouble| format!("; {trouble}")).unwrap_or_default()
}

pub(super) fn connector(
    (name, relation, connector): (&str, &str, &str),
    action: ConnectorAction,
    common: &Common,
) -> Result<(), Failure> {
    let client = common.client()?;
    // Whether it is a table's or a view's, the program says.
    let shown = client.json("GET", &of(name), None)?;
    let outputs = shown.pointer("/program_info/output_connectors").and_then(Value::as_object);
    let is_output = outputs.is_some_and(|all| all.contains_key(&format!("{relation}.{connector}")));
    let kind = if is_output { "views" } else { "tables" };
    let path = format!("{}/{kind}/{}/connectors/{}", of(name), escaped(relation), escaped(connector));
    let turned = match action {
        ConnectorAction::Stats => None,
        ConnectorAction::Start => Some(("start", "started")),
        ConnectorAction::Pause => Some(("pause", "paused")),
    };
    if let Some((word, done)) = turned {
        client.text("POST", &format!("{path}/{word}"), None)?;
        client.wait(&format!("{path}/stats"), |stats| {
            Ok(stats.get("paused") == Some(&json!(matches!(action, ConnectorAction::Pause))))
        })?;
        let shown = json!({ "connector": format!("{relation}.{connector}"), "state": done });
        common.show(&shown, |_| format!("connector {relation}.{connector} of pipeline {name} is {done}"));
        return Ok(());
    }
    let stats = client.json("GET", &format!("{path}/stats"), None)?;
    common.show(&stats, |stats| {
        let metrics = stats.get("metrics").and_then(Value::as_object).into_iter().flatten();
        let lines = metrics.map(|(key, value)| format!("{key}: {value}"));
        format!("{}{}\n{}", word(stats, "endpoint_name"), trouble(stats), lines.collect::<Vec<_>>().join("\n"))
    });
    Ok(())
}

pub(super) fn logs(name: &str, watch: bool, common: &Common) -> Result<(), Failure> {
    let path = format!("{}/logs?follow={watch}", of(name));
    for line in common.client()?.stream(&path)?.lines() {
        let line = line.map_err(|e| Failure::new(1, format!("the log was cut off: {e}")))?;
        let text = if common.json { json!({ "line": line }).to_string() } else { line };
        outln!("{text}");
    }
    Ok(())
}

/// `backstay query` of a service's pipeline.
pub(in crate::cli) fn query(client: &Client, name: &str, sql: Option<&str>, format: Format) -> Result<(), Failure> {
    let Some(sql) = sql else {
        let shown = client.json("GET", &of(name), None)?;
        for kind in ["inputs", "outputs"] {
            let relations = shown.pointer(&format!("/program_info/schema/{kind}")).and_then(Value::as_array);
            for relation in relations.into_iter().flatten().filter(|r| r.get("materialized") == Some(&json!(true))) {
                outln!("{}", word(relation, "name"));
            }
        }
        return Ok(());
    };
    let wanted = match format {
        Format::Table => "text",
        Format::Json => "json",
        Format::Csv => "csv",
        Format::Arrow => "arrow_ipc",
    };
    let mut answer = client.stream(&format!("{}/query?format={wanted}&sql={}", of(name), escaped(sql)))?;
    let mut out = std::io::stdout().lock();
    match std::io::copy(&mut answer, &mut out).and_then(|_| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|e| Failure::new(1, format!("the answer cannot be read or written: {e}"))),
    }
}
