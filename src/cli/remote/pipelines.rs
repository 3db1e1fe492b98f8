//! Pipelines as things: listed, created, shown, configured.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};

use super::client::{of, status_of};
use super::{Common, word};
use crate::cli::{Failure, read_text};

pub(super) fn list(common: &Common) -> Result<(), Failure> {
    let all = common.client()?.json("GET", "/v0/pipelines?selector=status", None)?;
    common.show(&all, |all| {
        let lines = all.as_array().into_iter().flatten().map(line);
        lines.collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

/// A pipeline on a line.
fn line(shown: &Value) -> String {
    let mut line =
        format!("{:24} {:12} {}", word(shown, "name"), word(shown, "deployment_status"), word(shown, "storage_status"));
    match word(shown, "program_status") {
        "Success" => {}
        "CompilingSql" => line.push_str("; its program is being compiled"),
        _ => line.push_str("; its program does not compile"),
    }
    if let Some(error) = shown.pointer("/deployment_error/message").and_then(Value::as_str) {
        line.push_str(&format!("; it failed: {}", error.lines().next().unwrap_or_default()));
    }
    line
}

pub(super) fn status(name: &str, common: &Common) -> Result<(), Failure> {
    let shown = common.client()?.json("GET", &status_of(name), None)?;
    common.show(&shown, |shown| {
        let mut text = line(shown);
        if let Some(error) = shown.pointer("/deployment_error/message").and_then(Value::as_str) {
            // The first line stands there already.
            error.lines().skip(1).for_each(|line| text.push_str(&format!("\n{line}")));
        }
        text
    });
    Ok(())
}

pub(super) fn create(name: &str, program: &Path, config: Option<&Path>, common: &Common) -> Result<(), Failure> {
    let mut body = json!({ "name": name, "program_code": program_text(program)? });
    if let Some(path) = config {
        let text = read_text(path, "configuration")?;
        let config: Value =
            serde_json::from_str(&text).map_err(|e| Failure::usage(format!("{}: not JSON: {e}", path.display())))?;
        if let Some(body) = body.as_object_mut() {
            body.insert("runtime_config".to_owned(), config);
        }
    }
    let shown = common.client()?.json("POST", "/v0/pipelines", Some(&body))?;
    told(&shown, common, &format!("pipeline {name} is created"))
}

pub(super) fn program(name: &str, common: &Common) -> Result<(), Failure> {
    let shown = common.client()?.json("GET", &of(name), None)?;
    let program = json!({ "program_code": shown.get("program_code"), "program_error": shown.get("program_error") });
    common.show(&program, |program| word(program, "program_code").to_owned());
    Ok(())
}

pub(super) fn set_program(name: &str, program: &Path, common: &Common) -> Result<(), Failure> {
    let body = json!({ "program_code": program_text(program)? });
    let shown = common.client()?.json("PATCH", &of(name), Some(&body))?;
    told(&shown, common, &format!("the program of pipeline {name} is set"))
}

/// Tells that it is done; or, if the program does not compile, why.
fn told(shown: &Value, common: &Common, done: &str) -> Result<(), Failure> {
    common.show(shown, |_| done.to_owned());
    if let Some(why) = shown.pointer("/program_error/system_error").and_then(Value::as_str) {
        return Err(Failure::usage(why));
    }
    let errors = shown.pointer("/program_error/sql_compilation/messages").and_then(Value::as_array);
    let Some(errors) = errors.filter(|errors| !errors.is_empty()) else { return Ok(()) };
    let number = |error: &Value, key: &str| error.get(key).and_then(Value::as_u64).unwrap_or_default();
    let lines = errors.iter().map(|error| {
        let (line, column) = (number(error, "start_line_number"), number(error, "start_column"));
        format!("{line}:{column}: error: {}\n{}", word(error, "message"), word(error, "snippet"))
    });
    Err(Failure::usage(lines.collect::<Vec<_>>().join("\n")))
}

pub(super) fn config(name: &str, common: &Common) -> Result<(), Failure> {
    let shown = common.client()?.json("GET", &of(name), None)?;
    let config = shown.get("runtime_config").unwrap_or(&Value::Null);
    common.show(config, |config| format!("{config:#}"));
    Ok(())
}

pub(super) fn set_config(name: &str, key: &str, value: &str, common: &Common) -> Result<(), Failure> {
    let client = common.client()?;
    let shown = client.json("GET", &of(name), None)?;
    let mut config = shown.get("runtime_config").cloned().unwrap_or_else(|| json!({}));
    let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    if let Some(config) = config.as_object_mut() {
        config.insert(key.to_owned(), value);
    }
    let shown = client.json("PATCH", &of(name), Some(&json!({ "runtime_config": config })))?;
    let set = shown.get("runtime_config").and_then(|config| config.get(key)).unwrap_or(&Value::Null);
    common.show(set, |set| format!("{key} of pipeline {name} is {set}"));
    Ok(())
}

fn program_text(path: &Path) -> Result<String, Failure> {
    if path != Path::new("-") {
        return read_text(path, "SQL file");
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|e| Failure::new(1, format!("standard input: {e}")))?;
    Ok(text)
}
