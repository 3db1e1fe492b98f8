//! Where an input begins, when nothing was read before the process ended.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::datatypes::{DataType, Field, Schema};
use backstay::connector::config::ConnectorConfig;
use backstay::connector::{Context, Next, PartitionPosition, Position, registry};

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

#[test]
fn several_topics_begin_at_offsets_and_times_and_get_more_partitions() {
    let Some(broker) = Broker::start() else { return };
    broker.create(&[("a", 2), ("b", 1), ("timed", 1)]);
    broker.send_to("a", 0, &ids(0..10), &[]);
    broker.send_to("a", 1, &ids(100..110), &[]);
    broker.send_to("b", 0, &ids(200..210), &[]);
    // Not so long ago that retention takes them.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let times: Vec<i64> = (0..10).map(|i| now - 60_000 + i * 1000).collect();
    broker.send_to("timed", 0, &ids(300..310), &times);
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    let table = |name: &str, settings: &str| {
        format!(
            r#"CREATE TABLE {name} (id BIGINT NOT NULL) WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "kafka_input", "config":
            {{"bootstrap.servers": "{}", "topic.metadata.refresh.interval.ms": 500, {settings}}}}},
            "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]');"#,
            broker.address
        )
    };
    let sql = format!(
        r#"{}{} CREATE VIEW v WITH ('connectors' = '[{{"transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/v.ndjson"}}}},
        "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]') AS SELECT id FROM several UNION ALL SELECT id FROM timed;"#,
        table("several", r#""topics": ["a", "b"], "start_from": {"offsets": {"a/0": 4, "b/0": 8}}"#),
        table("timed", &format!(r#""topic": "timed", "start_from": {{"timestamp": {}}}"#, times[5])),
    );
    std::fs::write(path("p.sql"), sql).unwrap();
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#;
    std::fs::write(path("p.config.json"), config).unwrap();
    let start = || Running::start(&path("p.sql"), &path("data"), &["--workers", "1"]);
    let read = || {
        let text = std::fs::read_to_string(path("data/v.ndjson")).unwrap_or_default();
        let id = |line: &str| line.trim_start_matches("{\"id\":").trim_end_matches('}').parse::<u64>().unwrap();
        let mut ids: Vec<u64> = text.lines().map(id).collect();
        ids.sort_unstable();
        ids
    };
    let mut expected: Vec<u64> = [4..10, 100..110, 208..210, 305..310].into_iter().flatten().collect();
    let mut running = start();
    running.wait_until("the rows", PATIENCE, || read().len() >= expected.len());
    assert_eq!(read(), expected);

    // A partition that comes while it runs is read from its beginning, also by the next life.
    broker.extend("a", 3);
    broker.send_to("a", 2, &ids(400..410), &[]);
    expected.extend(400..410);
    running.wait_until("the new partition's rows", PATIENCE, || read().len() >= expected.len());
    assert_eq!(read(), expected);
    running.kill();
    broker.send_to("a", 2, &ids(410..415), &[]);
    broker.send_to("b", 0, &ids(210..215), &[]);
    expected.extend((410..415).chain(210..215));
    expected.sort_unstable();
    let mut running = start();
    running.wait_until("the next rows", PATIENCE, || read().len() >= expected.len());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(read(), expected);
    running.stop();
}

/// A process that ended when a step had said of some partitions where they begin: the others were there, and begin as `start_from` says; what is
/// numbered above came later, and is read from its beginning.
#[test]
fn partitions_that_no_step_has_named_begin_as_they_would_have() {
    let Some(broker) = Broker::start() else { return };
    broker.create(&[("race", 3)]);
    (0..3).for_each(|partition| broker.send_to("race", partition, &ids(0..5), &[]));
    let text = format!(
        r#"[{{"name": "in", "transport": {{"name": "kafka_input", "config": {{"bootstrap.servers": "{}", "topic": "race", "start_from": "latest"}}}},
        "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]"#,
        broker.address
    );
    let config = ConnectorConfig::parse_list("t", &text).unwrap().remove(0);
    let context = Context {
        name: "t.in".to_owned(),
        pipeline: "p".to_owned(),
        schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)])),
        declared: Vec::new(),
        primary_key: Vec::new(),
        append_only: false,
        rereads: true,
        disk: backstay_storage::disk::system(),
        base_dir: ".".into(),
        variables: Default::default(),
    };
    let input = registry::input(&config, context).unwrap();
    // What a first life says, and in which order.
    let named = |position: &Position, wanted: usize| {
        let mut reader = input.open(position).unwrap();
        let end = Instant::now() + PATIENCE;
        let mut named = Vec::new();
        while named.len() < wanted {
            assert!(Instant::now() < end, "{named:?}");
            if let Next::Chunk(chunk) = reader.next().unwrap() {
                // What was there may come in several parts.
                let end = if chunk.rows.num_rows() == 0 { chunk.end } else { chunk.start };
                named.push((chunk.partition.to_string(), chunk.start, end));
            }
        }
        named
    };
    let begun = |partition: i32| (format!("race/{partition}"), 5, 5);
    assert_eq!(named(&Position::default(), 3), [begun(2), begun(1), begun(0)]);
    let place =
        |partition: &str| PartitionPosition { partition: partition.to_owned(), offset: 5, identity: String::new() };
    assert_eq!(
        named(&Position { partitions: vec![place("race/1")] }, 2),
        [begun(0), ("race/2".to_owned(), 0, 0)],
        "the second came later"
    );
}
