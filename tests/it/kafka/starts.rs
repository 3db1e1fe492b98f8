//! Where an input begins, when nothing was read before the process ended.

use std::time::Duration;

use super::broker::{Broker, ids};
use crate::process::Running;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn what_comes_while_a_pipeline_is_down_that_read_nothing_yet_is_read() {
    let Some(broker) = Broker::start() else { return };
    broker.create(&[("latest", 2), ("later", 1), ("out", 1)]);
    broker.send("latest", &ids(0..10));
    broker.send("later", &ids(0..10));
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    let table = |name: &str, start: &str| {
        format!(
            r#"CREATE TABLE {name}_t (id BIGINT NOT NULL) WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "kafka_input", "config":
            {{"bootstrap.servers": "{}", "topic": "{name}", "start_from": {start}}}}}, "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]');"#,
            broker.address
        )
    };
    // A time that has no message yet.
    let future = r#"{"timestamp": 4102444800000}"#;
    let sql = format!(
        r#"{}{} CREATE VIEW v WITH ('connectors' = '[{{"transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/v.ndjson"}}}},
        "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]') AS SELECT id FROM latest_t UNION ALL SELECT id + 1000 AS id FROM later_t;"#,
        table("latest", r#""latest""#),
        table("later", future)
    );
    std::fs::write(path("p.sql"), sql).unwrap();
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#;
    std::fs::write(path("p.config.json"), config).unwrap();
    let start = || Running::start(&path("p.sql"), &path("data"), &["--workers", "1"]);
    // Three lives without a message: in the log only, in a checkpoint, and on from there.
    for life in 0..3 {
        let mut running = start();
        std::thread::sleep(Duration::from_secs(3));
        running.is_alive();
        if life == 1 {
            running.stop();
        } else {
            running.kill();
        }
    }
    broker.send("latest", &ids(10..20));
    broker.send("later", &ids(10..20));
    let mut running = start();
    let read = || std::fs::read_to_string(path("data/v.ndjson")).unwrap_or_default();
    running.wait_until("the rows", PATIENCE, || read().lines().count() >= 20);
    std::thread::sleep(Duration::from_secs(1));
    let mut lines: Vec<String> = read().lines().map(str::to_owned).collect();
    lines.sort();
    let mut expected: Vec<String> =
        (10..20).flat_map(|id| [id, id + 1000]).map(|id| format!("{{\"id\":{id}}}")).collect();
    expected.sort();
    assert_eq!(lines, expected);
    running.stop();
}
