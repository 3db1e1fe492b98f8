//! Topics whose older messages of a key go: a replay cannot have them from there.

use std::time::{Duration, Instant};

use super::broker::Broker;
use crate::process::{Running, output, stderr};

const PATIENCE: Duration = Duration::from_secs(60);

fn sql(address: &str, more: &str) -> String {
    format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL) WITH ('connectors' = '[{{"name": "in", {more} "transport": {{"name": "kafka_input", "config":
        {{"bootstrap.servers": "{address}", "topic": "in"}}}}, "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]');
        CREATE VIEW v WITH ('connectors' = '[{{"transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/v.ndjson"}}}},
        "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]') AS SELECT id FROM t;"#
    )
}

/// Ten messages, one a key.
fn round(broker: &Broker, from: u64) {
    let pair = |id: u64| (format!("key {}", id % 10), format!("{{\"id\": {id}}}"));
    broker.send_keyed("in", &(from..from + 10).map(pair).collect::<Vec<_>>());
}

#[test]
fn a_compacted_topic_is_read_exactly_once_with_its_rows_in_the_log_and_refused_without() {
    if !Broker::is_own() {
        return;
    }
    let properties = "log.cleaner.backoff.ms=100\nlog.cleaner.dedupe.buffer.size=4194304";
    let Some(broker) = Broker::start_in(&std::env::temp_dir(), properties) else { return };
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("delete.retention.ms", "100"),
    ];
    broker.create_with(&[("in", 1)], &settings);
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    std::fs::write(path("p.sql"), sql(&broker.address, "")).unwrap();
    // No checkpoint: a restart needs every row again.
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": null}}"#;
    std::fs::write(path("p.config.json"), config).unwrap();
    let refused = output(["run", path("p.sql").to_str().unwrap(), "--data-dir", path("refused").to_str().unwrap()]);
    let said = stderr(&refused);
    assert!(
        !refused.status.success() && said.contains("topic in is compacted") && said.contains("\"replay\""),
        "{said}"
    );

    std::fs::write(path("p.sql"), sql(&broker.address, r#""replay": "bytes","#)).unwrap();
    let start = |data: &str| Running::start(&path("p.sql"), &path(data), &["--workers", "1"]);
    let ids = |data: &str| {
        let text = std::fs::read_to_string(path(data).join("v.ndjson")).unwrap_or_default();
        let id = |line: &str| line.trim_start_matches("{\"id\":").trim_end_matches('}').parse::<u64>().unwrap();
        let mut ids: Vec<u64> = text.lines().map(id).collect();
        ids.sort_unstable();
        ids
    };
    let mut running = start("data");
    for (n, from) in [0, 10, 20].into_iter().enumerate() {
        round(&broker, from);
        running.wait_until("the round's rows", PATIENCE, || ids("data").len() == 10 * (n + 1));
        // The next message is in another segment; all but the last one may be cleaned.
        std::thread::sleep(Duration::from_millis(300));
    }
    running.kill();
    round(&broker, 30);
    let end = Instant::now() + PATIENCE;
    let left = || broker.read("in").values().map(Vec::len).sum::<usize>();
    while left() > 20 {
        assert!(Instant::now() < end, "{} messages are left", left());
        std::thread::sleep(Duration::from_millis(200));
        // What was written last is not cleaned before more comes.
        broker.send_keyed("in", &[("more".to_owned(), "{\"id\": 1000}".to_owned())]);
    }
    let mut running = start("data");
    let of_rounds = |data: &str| ids(data).into_iter().filter(|id| *id < 1000).collect::<Vec<_>>();
    running.wait_until("all rounds", PATIENCE, || of_rounds("data").len() >= 40);
    assert_eq!(of_rounds("data"), (0..40).collect::<Vec<_>>());
    running.stop();

    // One that begins now reads over the gaps, before and after a kill.
    let mut late = start("late");
    late.wait_until("what is left", PATIENCE, || of_rounds("late").ends_with(&(30..40).collect::<Vec<_>>()));
    late.kill();
    round(&broker, 40);
    let mut late = start("late");
    late.wait_until("the next round", PATIENCE, || of_rounds("late").ends_with(&(30..50).collect::<Vec<_>>()));
    let rows = ids("late");
    assert!(rows.windows(2).all(|pair| pair[0] < pair[1] || pair[0] == 1000), "{rows:?}");
    late.stop();
}
