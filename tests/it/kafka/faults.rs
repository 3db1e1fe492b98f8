//! What goes wrong around a pipeline that runs: the broker is away, messages are spoilt or deleted, another process takes over.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::broker::{Broker, ids};
use crate::process::Running;
use crate::rng::number_from;

const PATIENCE: Duration = Duration::from_secs(60);

/// A program that copies `in`, and a file that is followed, to `out` and to a file.
pub(super) struct Copier {
    pub(super) temp: tempfile::TempDir,
    pub(super) sql: PathBuf,
}

impl Copier {
    pub(super) fn new(broker: &Broker, config: &str) -> Self {
        Self::with(broker, config, "")
    }

    /// With more keys of the input from `in`.
    fn with(broker: &Broker, config: &str, more: &str) -> Self {
        broker.create(&[("in", 1), ("out", 1)]);
        let temp = tempfile::tempdir().unwrap();
        let (sql, address) = (temp.path().join("p.sql"), &broker.address);
        let text = format!(
            r#"CREATE TABLE t (id BIGINT NOT NULL) WITH ('connectors' = '[{{"name": "in", {more} "transport": {{"name": "kafka_input", "config":
            {{"bootstrap.servers": "{address}", "topic": "in"}}}}, "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]');
            CREATE TABLE f (id BIGINT NOT NULL) WITH ('connectors' = '[{{"transport": {{"name": "file_input", "config": {{"path": "f.ndjson", "follow": true}}}},
            "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]');
            CREATE VIEW v WITH ('connectors' = '[{{"name": "out", "transport": {{"name": "kafka_output", "config": {{"bootstrap.servers": "{address}",
            "topic": "out"}}}}, "format": {{"name": "json"}}}},
            {{"name": "file", "transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/v.ndjson"}}}}, "format": {{"name": "json"}}}}]')
            AS SELECT id FROM t UNION ALL SELECT id FROM f;"#
        );
        std::fs::write(&sql, text).unwrap();
        std::fs::write(temp.path().join("p.config.json"), config).unwrap();
        std::fs::write(temp.path().join("f.ndjson"), "").unwrap();
        Self { temp, sql }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.temp.path().join("data")
    }

    pub(super) fn start(&self, data: &Path) -> Running {
        Running::start(&self.sql, data, &["--workers", "1"])
    }

    /// Rows of the file that is followed.
    pub(super) fn append(&self, rows: std::ops::Range<u64>) {
        let mut file = std::fs::OpenOptions::new().append(true).open(self.temp.path().join("f.ndjson")).unwrap();
        file.write_all((ids(rows).join("\n") + "\n").as_bytes()).unwrap();
    }

    /// Lines of the view's file.
    pub(super) fn lines(&self) -> usize {
        std::fs::read_to_string(self.data().join("v.ndjson")).unwrap_or_default().lines().count()
    }
}

pub(super) fn messages(broker: &Broker) -> usize {
    broker.read("out").values().map(Vec::len).sum()
}

#[test]
fn a_pipeline_goes_on_while_the_broker_is_away_and_delivers_when_it_is_back() {
    if !Broker::is_own() {
        return;
    }
    let Some(broker) = Broker::start() else { return };
    let copier = Copier::new(&broker, r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#);
    let mut process = copier.start(&copier.data());
    broker.send("in", &ids(0..10));
    process.wait_until("the first rows", PATIENCE, || messages(&broker) == 10);
    broker.kill();
    // Steps and checkpoints go on, of what comes from elsewhere.
    let seconds = number_from("BACKSTAY_AWAY_SECS", 5);
    for round in 1..=seconds as usize {
        copier.append(0..10);
        process.wait_until("the file's rows", PATIENCE, || copier.lines() == 10 + round * 10);
        std::thread::sleep(Duration::from_secs(1));
    }
    // What the topic has not got is in a checkpoint by now.
    process.kill();
    broker.restart();
    let mut process = copier.start(&copier.data());
    broker.send("in", &ids(10..20));
    process.wait_until("all rows", PATIENCE, || messages(&broker) >= 20 + 10 * seconds as usize);
    std::thread::sleep(Duration::from_secs(1));
    let all = 20 + 10 * seconds as usize;
    assert_eq!((messages(&broker), copier.lines()), (all, all));
}

#[test]
fn a_spoilt_message_is_told_and_harms_no_other() {
    let Some(broker) = Broker::start() else { return };
    let copier = Copier::new(&broker, r#"{"storage": true, "fault_tolerance": true, "on_parse_error": "skip"}"#);
    let mut process = copier.start(&copier.data());
    let mut values = ids(0..10);
    values.insert(4, "{\"id\": oh}".to_owned());
    broker.send("in", &values);
    process.wait_until("the good rows", PATIENCE, || messages(&broker) == 10);
    process.wait_until_said(&["in/0"], PATIENCE);
    assert!(process.said().contains('4'), "{}", process.said());
}

#[test]
fn messages_that_retention_deleted_before_their_replay_are_missed() {
    let Some(broker) = Broker::start() else { return };
    let copier = Copier::new(&broker, r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": null}}"#);
    let mut process = copier.start(&copier.data());
    broker.send("in", &ids(0..10));
    process.wait_until("the rows", PATIENCE, || messages(&broker) == 10);
    process.kill();
    broker.delete_before("in", 20);
    broker.send("in", &ids(10..20));
    broker.delete_before("in", 15);
    let said = copier.start(&copier.data()).fails(PATIENCE);
    for word in ["connector t.in", "in/0", "retention", "step 1", "offsets 0 to", "backstay recover"] {
        assert!(said.contains(word), "no \"{word}\" in: {said}");
    }
    // The loss is accepted. What the outputs hold was made of the lost rows: they begin anew, elsewhere.
    let data = copier.data();
    crate::process::succeed(["recover", data.to_str().unwrap(), "--accept-loss", "t.in"]);
    let said = copier.start(&copier.data()).fails(PATIENCE);
    assert!(said.contains("connector v.out") && said.contains("belongs to") || said.contains("begins anew"), "{said}");
    broker.create(&[("out2", 1)]);
    let sql = std::fs::read_to_string(&copier.sql).unwrap();
    std::fs::write(
        &copier.sql,
        sql.replace(r#""topic": "out""#, r#""topic": "out2""#).replace("v.ndjson", "v2.ndjson"),
    )
    .unwrap();
    let mut process = copier.start(&copier.data());
    process.wait_until("what is left", PATIENCE, || broker.read("out2").values().map(Vec::len).sum::<usize>() == 5);
    assert!(process.said().contains("given up offsets 10 to 14 of in/0"), "{}", process.said());
    broker.send("in", &ids(20..30));
    process.wait_until("new rows", PATIENCE, || broker.read("out2").values().map(Vec::len).sum::<usize>() == 15);
}

#[test]
fn messages_whose_rows_are_in_the_log_need_not_be_there_for_a_replay() {
    let Some(broker) = Broker::start() else { return };
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": null}}"#;
    let copier = Copier::with(&broker, config, r#""replay": "bytes","#);
    let mut process = copier.start(&copier.data());
    broker.send("in", &ids(0..10));
    process.wait_until("the rows", PATIENCE, || messages(&broker) == 10);
    process.kill();
    broker.delete_before("in", 10);
    broker.send("in", &ids(10..20));
    let mut process = copier.start(&copier.data());
    process.wait_until("the other rows", PATIENCE, || messages(&broker) >= 20);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((messages(&broker), copier.lines()), (20, 20));
}

/// A client of a broker that is away may never end: the process does, and says why.
#[test]
fn a_pipeline_that_fails_while_the_broker_is_away_ends() {
    if !Broker::is_own() {
        return;
    }
    let Some(broker) = Broker::start() else { return };
    let copier = Copier::new(&broker, r#"{"storage": true, "fault_tolerance": true}"#);
    let mut process = copier.start(&copier.data());
    broker.send("in", &ids(0..10));
    process.wait_until("the first rows", PATIENCE, || messages(&broker) == 10);
    broker.kill();
    copier.append(0..10);
    process.wait_until("the file's rows", PATIENCE, || copier.lines() == 20);
    std::fs::write(copier.temp.path().join("f.ndjson"), "").unwrap();
    let said = process.fails(PATIENCE);
    assert!(said.contains("f.ndjson was truncated"), "{said}");
}

/// A sink that is away at a start: the pipeline that knows it runs, one that is to begin it waits; each says so.
#[test]
fn a_broker_that_is_away_at_the_start_is_waited_for() {
    if !Broker::is_own() {
        return;
    }
    let Some(broker) = Broker::start() else { return };
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#;
    let copier = Copier::new(&broker, config);
    let sql = std::fs::read_to_string(&copier.sql).unwrap();
    let quick = r#""topic": "out", "initialization_timeout_secs": 2"#;
    std::fs::write(&copier.sql, sql.replace(r#""topic": "out""#, quick)).unwrap();
    broker.kill();
    let mut process = copier.start(&copier.data());
    process.wait_until_said(&["waiting: connector v.out"], PATIENCE);
    assert_eq!(copier.lines(), 0);
    broker.restart();
    broker.send("in", &ids(0..10));
    process.wait_until("the first rows", PATIENCE, || messages(&broker) == 10);
    process.stop();
    broker.kill();
    copier.append(0..10);
    let mut process = copier.start(&copier.data());
    process.wait_until("the file's rows", PATIENCE, || copier.lines() == 20);
    broker.restart();
    process.wait_until("all rows", PATIENCE, || messages(&broker) == 20);
}

#[test]
fn a_process_that_was_replaced_is_fenced_and_says_so() {
    let Some(broker) = Broker::start() else { return };
    let copier = Copier::new(&broker, r#"{"storage": true, "fault_tolerance": true}"#);
    let mut first = copier.start(&copier.data());
    broker.send("in", &ids(0..10));
    first.wait_until("the rows", PATIENCE, || messages(&broker) == 10);
    // As a machine that was taken for dead: its disk was cloned, and it still runs.
    let clone = copier.temp.path().join("clone");
    assert!(std::process::Command::new("cp").arg("-a").arg(copier.data()).arg(&clone).status().unwrap().success());
    std::fs::remove_file(clone.join("v.ndjson")).unwrap();
    std::fs::copy(copier.data().join("v.ndjson"), clone.join("v.ndjson")).unwrap();
    let mut second = copier.start(&clone);
    second.wait_until("the second's start", PATIENCE, || std::fs::read_to_string(clone.join("v.ndjson")).is_ok());
    std::thread::sleep(Duration::from_secs(3));
    broker.send("in", &ids(10..20));
    let said = first.fails(PATIENCE);
    assert!(said.contains("fenced") && said.contains("connector v.out"), "{said}");
    second.wait_until("the other rows", PATIENCE, || messages(&broker) >= 20);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(messages(&broker), 20);
}
