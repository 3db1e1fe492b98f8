//! Topics that are made, deleted and made anew while a pipeline reads.

use std::path::PathBuf;
use std::time::Duration;

use super::broker::{Broker, ids};
use crate::process::Running;

const PATIENCE: Duration = Duration::from_secs(60);

/// A program that copies topics to a file.
struct Program {
    temp: tempfile::TempDir,
}

impl Program {
    /// `topics` are keys of the input's, as JSON.
    fn new(broker: &Broker, topics: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let sql = format!(
            r#"CREATE TABLE t (id BIGINT NOT NULL) WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "kafka_input", "config":
            {{"bootstrap.servers": "{}", "topic.metadata.refresh.interval.ms": 1000, {topics}}}}}, "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]');
            CREATE VIEW v WITH ('connectors' = '[{{"transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/v.ndjson"}}}},
            "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]') AS SELECT id FROM t;"#,
            broker.address
        );
        std::fs::write(temp.path().join("p.sql"), sql).unwrap();
        let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#;
        std::fs::write(temp.path().join("p.config.json"), config).unwrap();
        Self { temp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn start(&self) -> Running {
        Running::start(&self.path("p.sql"), &self.path("data"), &["--workers", "1"])
    }

    /// The rows that the file has.
    fn rows(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.path("data/v.ndjson")).unwrap_or_default();
        let id = |line: &str| line.trim_start_matches("{\"id\":").trim_end_matches('}').parse::<u64>().unwrap();
        let mut rows: Vec<u64> = text.lines().map(id).collect();
        rows.sort_unstable();
        rows
    }
}

#[test]
fn a_topic_that_is_made_anew_while_it_is_read_is_refused() {
    let Some(broker) = Broker::start() else { return };
    broker.create(&[("in", 2), ("other", 1)]);
    broker.send_to("in", 1, &ids(0..10), &[]);
    let program = Program::new(&broker, r#""topics": ["other", "in"]"#);
    let mut running = program.start();
    running.wait_until("the rows", PATIENCE, || program.rows().len() == 10);
    broker.delete("in");
    broker.create(&[("in", 2)]);
    // More than there were: the old offset is one of the new topic's.
    broker.send_to("in", 1, &ids(100..150), &[]);
    let said = running.fails(PATIENCE);
    for word in ["connector t.in", "in/1 has been read up to offset 10", "the topic was made anew", "data directory"] {
        assert!(said.contains(word), "no \"{word}\" in: {said}");
    }
    assert_eq!(program.rows(), (0..10).collect::<Vec<u64>>(), "nothing of the new topic has been taken");
    let said = program.start().fails(PATIENCE);
    assert!(said.contains("in/1") && said.contains("offset 9") && said.contains("made anew"), "{said}");
}

/// Of which nothing was read: as at a start.
#[test]
fn a_topic_without_messages_may_be_made_anew_while_it_is_read() {
    let Some(broker) = Broker::start() else { return };
    broker.create(&[("in", 1), ("other", 1)]);
    let program = Program::new(&broker, r#""topics": ["in", "other"]"#);
    let mut running = program.start();
    broker.send("other", &ids(0..10));
    running.wait_until("the rows", PATIENCE, || program.rows().len() == 10);
    broker.delete("in");
    broker.create(&[("in", 1)]);
    broker.send("in", &ids(10..20));
    broker.send("other", &ids(20..30));
    running.wait_until("all rows", PATIENCE, || program.rows().len() >= 30);
    broker.send("in", &ids(30..40));
    running.wait_until("the next rows", PATIENCE, || program.rows().len() >= 40);
    assert_eq!(program.rows(), (0..40).collect::<Vec<u64>>());
    running.stop();
}

#[test]
fn a_missing_topic_is_told_and_looked_for_while_the_others_are_read() {
    let Some(broker) = Broker::start() else { return };
    broker.create(&[("a", 1)]);
    broker.send("a", &ids(0..10));
    let program = Program::new(&broker, r#""topics": ["missing", "a"]"#);
    let mut running = program.start();
    running.wait_until("the rows of the other", PATIENCE, || program.rows().len() == 10);
    running.wait_until_said(&["t.in", "topic missing does not exist", "create it"], PATIENCE);
    broker.send("a", &ids(10..20));
    running.wait_until("its next rows", PATIENCE, || program.rows().len() == 20);
    // A life that never saw it, and one that sees it come.
    running.kill();
    let mut running = program.start();
    broker.send("a", &ids(20..30));
    running.wait_until("rows of the next life", PATIENCE, || program.rows().len() == 30);
    broker.create(&[("missing", 2)]);
    broker.send_to("missing", 1, &ids(30..40), &[]);
    running.wait_until("the rows of the new topic", PATIENCE, || program.rows().len() >= 40);
    running.kill();
    broker.send_to("missing", 0, &ids(40..50), &[]);
    broker.send_to("missing", 1, &ids(50..60), &[]);
    let mut running = program.start();
    running.wait_until("all rows", PATIENCE, || program.rows().len() >= 60);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(program.rows(), (0..60).collect::<Vec<u64>>());
    // One that is there no more.
    broker.delete("missing");
    running.wait_until_said(&["topic missing does not exist", "it has been read"], PATIENCE);
    broker.send("a", &ids(60..70));
    running.wait_until("rows of the other", PATIENCE, || program.rows().len() == 70);
    running.stop();
}

/// All that a topic has comes later than the moment when it was not there: `latest` has it all, also in the next life.
#[test]
fn the_latest_of_a_missing_topic_is_all_of_it() {
    let Some(broker) = Broker::start() else { return };
    broker.create(&[("a", 1)]);
    broker.send("a", &ids(0..10));
    let program = Program::new(&broker, r#""topics": ["a", "missing"], "start_from": "latest""#);
    let mut running = program.start();
    running.wait_until_said(&["topic missing does not exist"], PATIENCE);
    // What said so was made durable by a step.
    std::thread::sleep(Duration::from_secs(2));
    running.kill();
    broker.create(&[("missing", 2)]);
    broker.send_to("missing", 0, &ids(10..20), &[]);
    broker.send_to("missing", 1, &ids(20..30), &[]);
    broker.send("a", &ids(30..40));
    let mut running = program.start();
    running.wait_until("the rows", PATIENCE, || program.rows().len() >= 30);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(program.rows(), (10..40).collect::<Vec<u64>>());
    running.stop();
}

#[test]
fn a_compacted_topic_that_comes_later_is_refused_too() {
    let Some(broker) = Broker::start() else { return };
    broker.create(&[("a", 1)]);
    broker.send("a", &ids(0..10));
    let program = Program::new(&broker, r#""topics": ["a", "missing"]"#);
    let mut running = program.start();
    running.wait_until("the rows", PATIENCE, || program.rows().len() == 10);
    broker.create_with(&[("missing", 1)], &[("cleanup.policy", "compact")]);
    let said = running.fails(PATIENCE);
    assert!(said.contains("topic missing is compacted"), "{said}");
}
