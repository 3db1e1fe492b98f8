//! What is refused, in words that say what to do.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use super::broker::{Broker, ids};
use crate::process::{backstay, output, repository, stderr};

fn sql(address: &str, input: &str, output: &str) -> String {
    format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL) WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "kafka_input", "config":
        {{"bootstrap.servers": "{address}", "topic": "{input}"}}}}, "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]');
        CREATE VIEW v WITH ('connectors' = '[{{"name": "out", "transport": {{"name": "kafka_output", "config": {{"bootstrap.servers": "{address}",
        "topic": "{output}", "initialization_timeout_secs": 5}}}}, "format": {{"name": "json"}}}}]') AS SELECT id FROM t;"#
    )
}

fn args<'a>(sql: &'a Path, data: &'a Path) -> [&'a str; 6] {
    ["run", sql.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--workers", "1"]
}

/// Runs until `topic` has so many messages, then ends it gracefully.
fn run_until(broker: &Broker, sql: &Path, data: &Path, topic: &str, messages: usize) {
    let mut child = backstay(args(sql, data)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while broker.read(topic).values().map(Vec::len).sum::<usize>() < messages {
        if child.try_wait().unwrap().is_some() || Instant::now() > end {
            let _ = child.kill();
            panic!("{}", stderr(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Writes the program that copies `in` to `out`, and runs it over ten messages.
fn copy_ten(broker: &Broker, sql_file: &Path, data: &Path) {
    std::fs::write(sql_file, sql(&broker.address, "in", "out")).unwrap();
    std::fs::write(sql_file.with_extension("config.json"), r#"{"storage": true, "fault_tolerance": true}"#).unwrap();
    broker.create(&[("in", 1), ("out", 1)]);
    broker.send("in", &ids(0..10));
    run_until(broker, sql_file, data, "out", 10);
}

fn refused(output: &Output, words: &[&str]) {
    let said = stderr(output);
    assert!(!output.status.success(), "{said}");
    for word in words {
        assert!(said.contains(word), "no \"{word}\" in: {said}");
    }
}

#[test]
fn a_topic_that_is_not_the_one_that_was_is_refused() {
    let Some(broker) = Broker::start() else { return };
    let temp = tempfile::tempdir().unwrap();
    let (sql_file, data) = (temp.path().join("p.sql"), temp.path().join("data"));
    copy_ten(&broker, &sql_file, &data);

    // A copy of the data directory goes on, after which the original is a zombie.
    let copy = temp.path().join("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(&data).arg(&copy).status().unwrap();
    assert!(copied.success());
    broker.send("in", &ids(10..20));
    run_until(&broker, &sql_file, &copy, "out", 20);
    let ended = output(args(&sql_file, &data));
    refused(&ended, &["connector v.out", "topic out"]);

    // Another pipeline of the same name begins anew on the same topic.
    let ended = output(args(&sql_file, &temp.path().join("anew")));
    refused(&ended, &["begins anew", "give it another topic", "backstay.p.v.out"]);

    // The output's topic is made anew.
    broker.delete("out");
    broker.create(&[("out", 1)]);
    let ended = output(args(&sql_file, &copy));
    refused(&ended, &["topic out", "has no marker", "made anew"]);
}

#[test]
fn an_input_topic_that_was_made_anew_is_refused() {
    let Some(broker) = Broker::start() else { return };
    let temp = tempfile::tempdir().unwrap();
    let (sql_file, data) = (temp.path().join("p.sql"), temp.path().join("data"));
    copy_ten(&broker, &sql_file, &data);

    broker.delete("in");
    broker.create(&[("in", 1)]);
    broker.send("in", &ids(0..5));
    refused(&output(args(&sql_file, &data)), &["connector t.in", "in/0", "ends at 5", "made anew"]);

    // As long as the old one, and longer: its content tells.
    broker.send("in", &ids(100..110));
    refused(&output(args(&sql_file, &data)), &["connector t.in", "in/0", "offset 9", "made anew"]);
}

#[test]
fn the_example_is_a_program() {
    let sql = repository().join("examples/kafka/orders.sql");
    let checked = backstay(["check", sql.to_str().unwrap()]).env("KAFKA", "localhost:9092").output().unwrap();
    assert!(checked.status.success(), "{}", stderr(&checked));
}
