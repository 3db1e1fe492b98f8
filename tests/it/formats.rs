//! Change events and raw lines through the real process under SIGKILL: what comes out adds up to what the events say, each once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::process::{Victim, files, integrate, succeed};
use crate::rng::{Rng, number_from};

const SQL: &str = r#"
CREATE TABLE keyed (id BIGINT NOT NULL PRIMARY KEY, name VARCHAR) WITH ('connectors' = '[{"transport": {"name": "file_input", "config": {"path": "events.ndjson"}},
    "format": {"name": "json", "config": {"update_format": "debezium"}}}]');
CREATE TABLE bag (id BIGINT NOT NULL, name VARCHAR) WITH ('connectors' = '[{"transport": {"name": "file_input", "config": {"path": "events.ndjson"}},
    "format": {"name": "json", "config": {"update_format": "debezium"}}}]');
CREATE TABLE lines (line VARCHAR) WITH ('connectors' = '[{"transport": {"name": "file_input", "config": {"path": "events.ndjson"}},
    "format": {"name": "raw", "config": {"mode": "lines"}}}]');
CREATE VIEW k WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/k.ndjson"}},
    "format": {"name": "json", "config": {"update_format": "debezium"}}}]') AS SELECT * FROM keyed;
CREATE VIEW b WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/b.csv"}},
    "format": {"name": "csv"}}]') AS SELECT id, name FROM bag;
CREATE VIEW l WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/l.txt"}},
    "format": {"name": "raw"}}]') AS SELECT line FROM lines;
"#;

/// Change events of rows, with the rows that they come to.
fn events(random: &mut Rng, count: u64) -> (String, BTreeMap<u64, u64>) {
    let mut rows: BTreeMap<u64, u64> = BTreeMap::new();
    let mut text = String::new();
    let row = |id: u64, name: u64| format!(r#"{{"id": {id}, "name": "n{name}"}}"#);
    for name in 0..count {
        let id = random.below(300);
        let (before, after) = match (rows.get(&id).copied(), random.below(4)) {
            (Some(old), 0) => (Some((id, old)), None),
            // The key becomes another one, if that is free.
            (Some(old), 1) => (Some((id, old)), Some((if rows.contains_key(&(id + 1)) { id } else { id + 1 }, name))),
            (Some(old), _) => (Some((id, old)), Some((id, name))),
            (None, _) => (None, Some((id, name))),
        };
        let op = match (before, after) {
            (None, _) => "c",
            (Some(_), None) => "d",
            (Some(_), Some(_)) => "u",
        };
        if let Some((id, _)) = before {
            rows.remove(&id);
        }
        rows.extend(after);
        let image = |image: Option<(u64, u64)>| image.map_or("null".to_owned(), |(id, name)| row(id, name));
        let event = format!(r#"{{"before": {}, "after": {}, "op": "{op}"}}"#, image(before), image(after));
        text += &if random.once_in(2) { format!("{{\"payload\": {event}}}\n") } else { event + "\n" };
        if after.is_none() {
            text += "null\n";
        }
    }
    (text, rows)
}

/// The rows that a file of change events adds up to, with their weights.
fn add_up(file: &[u8]) -> BTreeMap<String, i64> {
    let mut rows = BTreeMap::new();
    for line in std::str::from_utf8(file).unwrap().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        for (image, weight) in [("before", -1), ("after", 1)] {
            if !event[image].is_null() {
                *rows.entry(event[image].to_string()).or_default() += weight;
            }
        }
    }
    rows.retain(|_, weight| *weight != 0);
    rows
}

fn sorted(text: &[u8]) -> Vec<&str> {
    let mut lines: Vec<&str> = std::str::from_utf8(text).unwrap().lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn change_events_and_lines_are_taken_once_under_kills() {
    let (mut random, seed) = Rng::from_env(41);
    let kills = number_from("BACKSTAY_KILLS", 6);
    let temp = tempfile::tempdir().unwrap();
    let (text, rows) = events(&mut random, 8_000);
    std::fs::write(temp.path().join("events.ndjson"), &text).unwrap();
    std::fs::write(temp.path().join("p.sql"), SQL).unwrap();
    // Steps of odd sizes, so that many a cut is asked for in the middle of an update.
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}, "max_rows_per_step": 17}"#;
    std::fs::write(temp.path().join("p.config.json"), config).unwrap();
    let sql = temp.path().join("p.sql");
    let args = |data: &Path| -> Vec<String> {
        let workers = "2".to_owned();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            "run".into(),
            text(&sql),
            "--data-dir".into(),
            text(data),
            "--until-end".into(),
            "--workers".into(),
            workers,
        ]
    };
    let calm = temp.path().join("calm");
    succeed(args(&calm));
    let total: u64 = files(&calm.join("out")).values().map(|f| f.len() as u64).sum();

    let data = temp.path().join("data");
    let out = data.join("out");
    let arguments = args(&data);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut moments: Vec<u64> = (0..kills).map(|_| random.below(total * 9 / 10)).collect();
    moments.sort_unstable();
    let mut killed = 0;
    for moment in moments {
        let later = Duration::from_millis(random.below(30));
        killed += u64::from(Victim::start(&arguments, &out).kill_at(moment, later));
    }
    assert!(killed * 2 >= kills, "seed {seed}: only {killed} kills hit");
    succeed(&arguments);

    let expected: BTreeMap<(u64, u64), i64> = rows.into_iter().map(|row| (row, 1)).collect();
    for dir in [calm.join("out"), out] {
        let files = files(&dir);
        let json = expected.iter().map(|((id, n), w)| (format!(r#"{{"id":{id},"name":"n{n}"}}"#), *w));
        assert_eq!(add_up(&files["k.ndjson"]), json.collect(), "seed {seed}");
        let csv = expected.iter().map(|((id, n), w)| (format!("{id},n{n}"), *w));
        assert_eq!(integrate("b.csv", &files["b.csv"]), csv.collect(), "seed {seed}");
        assert_eq!(sorted(&files["l.txt"]), sorted(text.as_bytes()), "seed {seed}");
    }
}
