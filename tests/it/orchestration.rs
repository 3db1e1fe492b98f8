//! Which connectors are at work: `paused`, `start_after` and the bounds of what waits, over processes that are killed.

use std::time::Duration;

use serde_json::json;

use crate::cli::Place;
use crate::process::{Running, stderr};
use crate::service::server::Service;

const PATIENCE: Duration = Duration::from_secs(60);

/// A table with a history and what comes after it; `first` and `then` are more keys of the two.
fn sql(first: &str, then: &str) -> String {
    let input = |name: &str, path: &str, more: &str| {
        format!(
            r#"{{"name": "{name}", {more} "transport": {{"name": "file_input", "config": {{"path": "{path}"}}}}, "format": {{"name": "csv"}}}}"#
        )
    };
    format!(
        r#"CREATE TABLE t (k VARCHAR NOT NULL, n BIGINT) WITH ('connectors' = '[{}, {}]');
        CREATE VIEW v WITH ('connectors' = '[{{"transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/v.ndjson"}}}},
        "format": {{"name": "json"}}}}]') AS SELECT k, n FROM t;"#,
        input("then", "then.csv", then),
        input("first", "first.csv", first),
    )
}

fn place(first: &str, then: &str) -> Place {
    let place = Place::new();
    place.write("p.sql", &sql(first, then));
    let rows = |k: &str| (0..500).fold("k,n\n".to_owned(), |text, n| text + &format!("{k},{n}\n"));
    place.write("first.csv", &rows("first"));
    place.write("then.csv", &rows("then"));
    place
}

#[test]
fn an_input_starts_after_the_end_of_those_that_it_waits_for() {
    let place = place(r#""labels": ["history"], "max_batch_size": 7,"#, r#""start_after": "history","#);
    place.run();
    let out = place.out();
    let turn = out.lines().position(|l| l.contains("then"));
    assert_eq!(
        (turn, out.lines().filter(|l| l.contains("first")).count(), out.lines().count()),
        (Some(500), 500, 1000)
    );
    // What has begun does not wait again, although the history has grown.
    let more = std::fs::read_to_string(place.path("then.csv")).unwrap() + "then,500\n";
    place.write("then.csv", &more);
    assert!(place.run().contains("1 new"));
}

#[test]
fn inputs_that_wait_for_themselves_or_for_ever_are_refused() {
    let case = |first: &str, then: &str| place(first, then).fail(2);
    let said = case(r#""labels": ["a"], "start_after": "b","#, r#""labels": ["b"], "start_after": "a","#);
    assert!(said.contains("t.then waits for t.first waits for t.then") && said.contains("p.sql:1:"), "{said}");
    let said = case("", r#""start_after": "history","#);
    assert!(said.contains("no input connector has the label \"history\""), "{said}");
    let place = place(r#""labels": ["h"],"#, r#""start_after": "h","#);
    let sql = std::fs::read_to_string(place.path("p.sql")).unwrap();
    place.write("p.sql", &sql.replace(r#""path": "first.csv""#, r#""path": "first.csv", "follow": true"#));
    let said = place.fail(2);
    assert!(said.contains("t.then is to start after the end of t.first, which never ends"), "{said}");
    place.write("p.sql", &sql.replace(r#"[{"transport""#, r#"[{"start_after": "h", "transport""#));
    let said = place.fail(2);
    assert!(said.contains("connector v.file_output: \"start_after\" is for inputs"), "{said}");
}

#[test]
fn a_run_that_is_to_end_does_not_wait_for_a_connector_that_nobody_can_start() {
    let said = place(r#""paused": true,"#, "").fail(2);
    assert!(said.contains("--until-end would wait for ever: connector t.first is paused"), "{said}");
    let place = place(r#""paused": true,"#, "");
    let mut process = Running::start(&place.path("p.sql"), &place.path("data"), &[]);
    process.wait_until("the other's rows", PATIENCE, || {
        std::fs::read_to_string(place.path("data/v.ndjson")).unwrap_or_default().lines().count() == 500
    });
    process.stop();
    assert!(!place.out().contains("first"));
}

#[test]
fn little_waits_where_little_may() {
    let place = place(r#""max_queued_records": 10,"#, r#""max_queued_bytes": 100,"#);
    place.run();
    assert_eq!(place.out().lines().count(), 1000);
    place.write("p.config.json", r#"{"storage": true, "fault_tolerance": {}, "rows_per_step": 10}"#);
    let refused = crate::process::output(place.args());
    assert!(stderr(&refused).contains("t.then has \"max_queued_bytes\""), "{}", stderr(&refused));
}

const PAUSED: &str = r#"CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY) WITH ('connectors' =
    '[{"name": "g", "paused": true, "transport": {"name": "datagen", "config": {"plan": [{"limit": 1000, "fields": {"id": {}}}]}}},
      {"name": "h", "transport": {"name": "datagen", "config": {"plan": [{"limit": 1000, "fields": {"id": {"range": [1000, 2000]}}}]}}}]');
    CREATE MATERIALIZED VIEW v WITH ('connectors' =
    '[{"name": "n", "transport": {"name": "null_output"}}]') AS SELECT count(*) AS c FROM t;"#;

/// The wish is kept over a kill, goes before the configuration, and nothing is lost.
#[test]
fn a_connector_is_paused_and_started_by_the_api() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    service.create("p", PAUSED, json!({ "storage": true, "fault_tolerance": { "checkpoint_interval_secs": null } }));
    service.turn("p", "start", "Running");
    let count = |n: u64| service.until("the rows", || service.value("p", "SELECT c FROM v") == Some(json!(n)));
    let ask = |path: &str| service.post(&format!("/v0/pipelines/p/{path}")).status;
    let is_paused = |path: &str| service.get(&format!("/v0/pipelines/p/{path}/stats")).json()["paused"] == true;
    count(1000);
    assert!(is_paused("tables/t/connectors/g") && !is_paused("tables/t/connectors/h"));
    assert_eq!(ask("tables/t/connectors/g/start"), 200);
    count(2000);
    assert!(!is_paused("tables/t/connectors/g"));
    // The first one, and one for the start.
    let checkpoints = || service.stats("p").unwrap()["backstay"]["checkpoint"]["checkpoints"].as_u64();
    service.until("checkpoints before", || checkpoints() >= Some(2));
    assert_eq!(ask("views/v/connectors/n/pause"), 200);
    service.until("it is paused", || is_paused("views/v/connectors/n"));
    for (path, status) in [
        ("tables/t/connectors/none/start", 404),
        ("tables/none/connectors/g/start", 404),
        ("views/v/connectors/g/pause", 404),
        ("tables/t/connectors/g/turn", 400),
    ] {
        assert_eq!(ask(path), status, "{path}");
    }
    service.until("a checkpoint with it", || checkpoints() >= Some(3));
    let pid = service.stats("p").unwrap()["backstay"]["pid"].as_u64().unwrap();
    assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    service.until("it is started again", || {
        service
            .stats("p")
            .is_some_and(|s| s["backstay"]["pid"].as_u64() != Some(pid) && s["global_metrics"]["state"] == "Running")
    });
    service.until("it is still paused", || is_paused("views/v/connectors/n") && !is_paused("tables/t/connectors/g"));
    count(2000);
    let input = service.get("/v0/pipelines/p/tables/t/connectors/h/stats").json();
    assert_eq!(input["metrics"]["end_of_input"], true, "{input}");
}
