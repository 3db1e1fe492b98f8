//! The OpenAPI document: every operation in it is served, and refuses what is wrong with a 4xx and the standard body.

use serde_json::{Map, Value, json};

use super::security::key_file;
use super::server::{Answer, Service};
use crate::process::repository;

const SQL: &str = r#"CREATE TABLE t (id BIGINT NOT NULL) WITH ('connectors' =
    '[{"name": "c", "transport": {"name": "datagen", "config": {"plan": [{"limit": 10}]}}}]');
    CREATE MATERIALIZED VIEW v WITH ('connectors' = '[{"name": "o", "transport": {"name": "null_output"}}]')
    AS SELECT count(*) AS c FROM t;"#;

/// One method of a path.
struct Operation {
    method: String,
    path: String,
    parameters: Vec<Value>,
    /// The schema of a JSON body.
    body: Option<Value>,
    has_body: bool,
    is_open: bool,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let content = &operation["requestBody"]["content"]["application/json"]["schema"];
            let body = content["$ref"].as_str().map(|reference| {
                let name = reference.rsplit('/').next().unwrap();
                document["components"]["schemas"][name].clone()
            });
            all.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                parameters: operation["parameters"].as_array().cloned().unwrap_or_default(),
                body,
                has_body: operation["requestBody"].is_object(),
                is_open: operation["security"] == json!([{}]),
            });
        }
    }
    assert!(all.len() > 30, "only {} operations", all.len());
    all
}

impl Operation {
    /// The path with other names in it.
    fn at(&self, name: &str, relation: &str, connector: &str) -> String {
        let path = self.path.replace("{name}", name).replace("{table}", relation).replace("{view}", relation);
        path.replace("{relation}", relation).replace("{connector}", connector).replace("{savepoint}", relation)
    }

    /// Of the pipeline that is there, which has a table, a view and connectors.
    fn good(&self) -> String {
        match self.path.contains("/views/") || self.path.contains("{view}") {
            true => self.at("p", "v", "o"),
            false => self.at("p", "t", "c"),
        }
    }

    /// A body that it would take, with one key changed.
    fn body_with(&self, key: &str, value: &Value) -> String {
        let mut body = json!({ "name": "q", "program_code": "" });
        body[key] = value.clone();
        body.to_string()
    }

    /// What has another type than the schema's.
    fn wrong_values(&self) -> Vec<(String, Value)> {
        let empty = Map::new();
        let properties = self.body.as_ref().and_then(|body| body["properties"].as_object()).unwrap_or(&empty);
        let wrong = |schema: &Value| {
            let is = |kind: &str| {
                schema["type"] == kind || schema["type"].as_array().is_some_and(|t| t.contains(&json!(kind)))
            };
            if is("string") { json!(7) } else { json!("x") }
        };
        properties.iter().map(|(key, schema)| (key.clone(), wrong(schema))).collect()
    }

    /// Parameters whose values are not any text.
    fn typed_parameters(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().filter_map(|parameter| {
            let schema = &parameter["schema"];
            let kinds = [&schema["type"], &schema["oneOf"][1]["type"]];
            let is_text =
                kinds.iter().any(|t| **t == "string" || t.as_array().is_some_and(|t| t.contains(&json!("string"))));
            let is_free = is_text && schema["enum"].is_null() && schema["format"].is_null();
            (parameter["in"] == "query" && !is_free).then(|| parameter["name"].as_str().unwrap())
        })
    }
}

/// It is a 4xx, one of those that are expected, with the standard body and nothing else.
fn refused(answer: &Answer, expected: &[u16], case: &str) {
    assert!(expected.contains(&answer.status), "{case}: {} {}", answer.status, answer.body);
    let error = answer.json();
    let error = error.as_object().unwrap_or_else(|| panic!("{case}: {}", answer.body));
    assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "error_code", "details"], "{case}");
    assert!(error["message"].as_str().is_some_and(|m| m.len() > 5), "{case}: {}", answer.body);
    assert!(error["error_code"].is_string() && error["details"].is_object(), "{case}: {}", answer.body);
}

#[test]
fn the_document_and_the_routes_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    let document = service.get("/openapi.json").json();
    let operations = operations(&document);
    for operation in &operations {
        // Served: what is not, is 404 `UnknownRoute` or 405.
        let answer = service.send(&operation.method, &operation.at("none", "none", "none"), &[], "");
        let code = if answer.status >= 400 { answer.json()["error_code"].clone() } else { Value::Null };
        let case = format!("{} {}: {}", operation.method, operation.path, answer.body);
        assert!(answer.status != 405 && code != "UnknownRoute", "{case}");
        // Other methods are not there, unless the document has them.
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE"] {
            if !operations.iter().any(|o| o.path == operation.path && o.method == method) {
                refused(
                    &service.send(method, &operation.good(), &[], ""),
                    &[405],
                    &format!("{method} {}", operation.path),
                );
            }
        }
    }
    // What the page tells of is there.
    let page = std::fs::read_to_string(repository().join("docs/service.md")).unwrap();
    let table = page.lines().filter(|line| line.starts_with("| `") && line.contains('/'));
    let mut told = 0;
    for word in table.flat_map(|line| line.split(" | ").next().unwrap().split('`')) {
        let path = word.trim_start_matches(|c: char| c.is_ascii_uppercase() && !word.starts_with("P/") || c == ' ');
        let path = path.split(['?', ' ']).next().unwrap();
        if path == "/openapi.json" {
            // The document itself.
            continue;
        }
        if let Some(rest) = path.strip_prefix('/').filter(|rest| rest.contains(|c: char| c.is_ascii_alphabetic())) {
            let ends = |known: &str| {
                known
                    .split('/')
                    .map(|part| if part.starts_with('{') { "{}" } else { part })
                    .collect::<Vec<_>>()
                    .join("/")
            };
            let wanted = ends(&format!("/{rest}"));
            let known = document["paths"].as_object().unwrap().keys().any(|known| ends(known).ends_with(&wanted));
            assert!(known, "docs/service.md tells of {path}, which is not in the document");
            told += 1;
        }
    }
    assert!(told > 15, "only {told} routes are told of");
}

#[test]
fn bad_requests_of_every_kind_are_refused_by_every_route() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    service.create("p", SQL, json!(null));
    service.turn("p", "start", "Running");
    let document = service.get("/openapi.json").json();
    let send = |operation: &Operation, path: &str, body: &str| {
        let answer = service.send(&operation.method, path, &[], body);
        (answer, format!("{} {path} {}", operation.method, body.chars().take(60).collect::<String>()))
    };
    let huge = format!("\"{}\"", "x".repeat(17 << 20));
    let long = "n".repeat(5000);
    let (mut names, mut types, mut bodies) = (0, 0, 0);
    for operation in operations(&document) {
        if operation.path.contains("{name}") {
            // A PUT creates what is not there: its body must be wrong, too, so that it is not.
            for name in
                ["none", "..%2f..%2fetc%2fpasswd", "%2e%2e", "p%00", "p%2f", "%ff", "p%20", "'%20OR%201=1", &long]
            {
                let (answer, case) = send(&operation, &operation.at(name, "t", "c"), "");
                refused(&answer, &[400, 404, 414], &case);
                names += 1;
            }
            if operation.path.matches('{').count() > 1 {
                for other in ["none", "..%2f..%2fetc", "%2e%2e", "t%00"] {
                    let (answer, case) = send(&operation, &operation.at("p", other, other), "[]");
                    // What is only done with a stopped pipeline is refused before the name is looked at.
                    let is_for_stopped = operation.path.contains("{savepoint}");
                    refused(&answer, if is_for_stopped { &[400, 404] } else { &[404] }, &case);
                    names += 1;
                }
            }
        }
        for parameter in operation.typed_parameters() {
            let path = format!("{}?{parameter}=perhaps", operation.good());
            let (answer, case) = send(&operation, &path, "");
            refused(&answer, &[400], &case);
            types += 1;
        }
        if operation.has_body {
            let (answer, case) = send(&operation, &operation.good(), &huge);
            refused(&answer, &[413], &case);
            bodies += 1;
        }
        if operation.body.is_some() {
            for body in ["", "{", "[]", "7", "null", "\"x\"", "{\"name\": 7, \"program_code\": 7}", "\u{0}", "{\"a\"}"]
            {
                let (answer, case) = send(&operation, &operation.good(), body);
                refused(&answer, &[400], &case);
                bodies += 1;
            }
            for (key, value) in operation.wrong_values() {
                let (answer, case) = send(&operation, &operation.good(), &operation.body_with(&key, &value));
                refused(&answer, &[400], &case);
                bodies += 1;
            }
        }
    }
    println!("{names} names, {types} parameters, {bodies} bodies");
    assert!(names > 200 && types >= 10 && bodies > 30, "{names} names, {types} parameters, {bodies} bodies");
    assert_eq!(service.value("p", "SELECT c FROM v"), Some(json!(10)), "the pipeline goes on");
    service.turn("p", "stop?force=true", "Stopped");
}

#[test]
fn every_route_asks_for_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    key_file(&file);
    let more = ["--api-key-file", file.to_str().unwrap(), "--max-wrong-keys", "100000"];
    let service = Service::start_with(&dir.path().join("d"), &more);
    let document = service.get("/openapi.json").json();
    let mut open = Vec::new();
    for operation in operations(&document) {
        let case = format!("{} {}", operation.method, operation.path);
        if operation.is_open {
            assert_eq!(service.send(&operation.method, &operation.good(), &[], "").status, 200, "{case}");
            open.push(case);
            continue;
        }
        for key in ["", "Bearer ", "Bearer wrong", "Basic YTpi", "a-key-of-sixteen-letters"] {
            let headers = [("authorization", key)];
            let headers = if key.is_empty() { &headers[..0] } else { &headers[..] };
            refused(
                &service.send(&operation.method, &operation.good(), headers, ""),
                &[401],
                &format!("{case} {key:?}"),
            );
        }
    }
    assert_eq!(open, ["GET /healthz", "GET /readyz"]);
}
