//! What changes between two runs of a pipeline, also of one that was killed: fault tolerance, connectors, their places.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::process::{Victim, output, stderr, succeed};

const ROWS: u64 = 100_000;
const EXACTLY_ONCE: &str =
    r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}, "max_rows_per_step": 150}"#;
/// Other cuts than the above: what is made anew is not what was made before.
const AT_LEAST_ONCE: &str = r#"{"storage": true, "fault_tolerance": {"model": "at_least_once", "checkpoint_interval_secs": 1},
    "max_rows_per_step": 97}"#;
const NONE: &str = r#"{"storage": true, "max_rows_per_step": 131}"#;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write("t.csv", &(0..ROWS).fold("n\n".to_string(), |text, n| text + &format!("{n}\n")));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A program over these input files with these outputs.
    fn program(&self, inputs: &[&str], outputs: &[&str]) {
        let connectors = |names: &[&str], transport: &str, folder: &str, format: &str| {
            let one = |name: &&str| {
                format!(
                    r#"{{"transport": {{"name": "{transport}", "config": {{"path": "{folder}{name}"}}}}, "format": {{"name": "{format}"}}}}"#
                )
            };
            format!("[{}]", names.iter().map(one).collect::<Vec<_>>().join(", "))
        };
        let text = format!(
            "CREATE TABLE t (n BIGINT) WITH ('connectors' = '{}');\nCREATE VIEW v WITH ('connectors' = '{}') AS SELECT n FROM t;\n",
            connectors(inputs, "file_input", "", "csv"),
            connectors(outputs, "file_output", "${DATA_DIR}/out/", "json")
        );
        self.write("p.sql", &text);
    }

    fn args(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).to_str().unwrap().to_string();
        vec!["run".into(), path("p.sql"), "--data-dir".into(), path("data"), "--until-end".into()]
    }

    fn kill_at(&self, config: &str, bytes: u64, later: u64) {
        self.write("p.config.json", config);
        let args = self.args();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if !Victim::start(&args, &self.path("data/out")).kill_at(bytes, Duration::from_millis(later)) {
            // A fast machine: what is asserted holds all the same.
            println!("the kill came too late: the run had ended");
        }
    }

    fn run(&self, config: &str) {
        self.write("p.config.json", config);
        succeed(self.args());
    }

    fn fail(&self, code: i32) -> String {
        let output = output(self.args());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        text
    }

    /// How often each row stands in an output.
    fn counts(&self, name: &str) -> BTreeMap<u64, u64> {
        let mut counts = BTreeMap::new();
        for line in std::fs::read_to_string(self.path("data/out").join(name)).unwrap().lines() {
            let n = line.strip_prefix("{\"insert\":{\"n\":").and_then(|l| l.strip_suffix("}}"));
            *counts
                .entry(n.unwrap_or_else(|| panic!("{name}: not a whole line: {line}")).parse().unwrap())
                .or_default() += 1;
        }
        counts
    }
}

fn once() -> BTreeMap<u64, u64> {
    (0..ROWS).map(|n| (n, 1)).collect()
}

/// Whatever the fault tolerance was before a kill, a run under another goes on, and drops nothing.
#[test]
fn fault_tolerance_may_change_behind_a_kill() {
    for configs in [
        [AT_LEAST_ONCE, EXACTLY_ONCE, EXACTLY_ONCE],
        [EXACTLY_ONCE, AT_LEAST_ONCE, AT_LEAST_ONCE],
        [EXACTLY_ONCE, NONE, EXACTLY_ONCE],
        [NONE, EXACTLY_ONCE, AT_LEAST_ONCE],
    ] {
        let place = Place::new();
        place.program(&["t.csv"], &["v.ndjson"]);
        place.kill_at(configs[0], 300_000, 50);
        place.kill_at(configs[1], 500_000, 50);
        place.run(configs[2]);
        let counts = place.counts("v.ndjson");
        assert!(counts.keys().copied().eq(0..ROWS), "{configs:?}: {} of {ROWS} rows are there", counts.len());
    }
}

/// An output that is new gets the steps after the checkpoint, however often the start that brings it is killed.
#[test]
fn an_output_added_behind_a_kill_gets_every_later_step() {
    let config = r#"{"storage": true, "fault_tolerance": {}, "max_rows_per_step": 150}"#;
    let place = Place::new();
    place.program(&["t.csv"], &["v.ndjson"]);
    place.kill_at(config, 400_000, 0);
    place.program(&["t.csv"], &["v.ndjson", "added.ndjson"]);
    // As soon as its replay has begun.
    place.kill_at(config, 400_000, 500);
    place.kill_at(config, 400_000, 700);
    place.run(config);
    // The only checkpoint before was that of the beginning.
    assert!(place.counts("added.ndjson") == once(), "the added output has not every row once");
    assert!(place.counts("v.ndjson") == once(), "the old output has not every row once");
}

#[test]
fn what_was_logged_is_not_replayed_by_another_program() {
    let place = Place::new();
    let sql = |n: u64| {
        format!(
            "CREATE TABLE t (n BIGINT) WITH ('connectors' = '[{{\"transport\": {{\"name\": \"file_input\", \"config\": {{\"path\": \"t.csv\"}}}}, \
             \"format\": {{\"name\": \"csv\"}}}}]');\nCREATE VIEW v AS SELECT n FROM t WHERE n > {n};\n"
        )
    };
    place.write("p.sql", &sql(1));
    place.write("p.config.json", r#"{"storage": true, "fault_tolerance": {}, "rows_per_step": 10}"#);
    let args = place.args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert!(Victim::start(&args, &place.path("data/log")).kill_at(1, Duration::from_millis(500)), "it ended");
    place.write("p.sql", &sql(2));
    let text = place.fail(2);
    assert!(text.contains("v changed"), "{text}");
}

#[test]
fn two_outputs_of_one_file_are_refused() {
    let place = Place::new();
    place.program(&["t.csv"], &["v.ndjson", "./v.ndjson"]);
    let text = place.fail(2);
    assert!(
        text.contains("v.file_output and v.file_output_2 both write to") && text.contains("out/v.ndjson"),
        "{text}"
    );
}

/// Positions are kept by the connectors' names, which for unnamed ones are those of their places.
#[test]
fn inputs_that_change_places_are_not_read_twice() {
    let place = Place::new();
    place.write("u.csv", "n\n60000\n");
    place.program(&["t.csv", "u.csv"], &["v.ndjson"]);
    succeed(place.args());
    for inputs in [&["u.csv", "t.csv"][..], &["u.csv"]] {
        place.program(inputs, &["v.ndjson"]);
        let text = place.fail(2);
        assert!(text.contains("now names u.csv, which t.file_input_2 has read"), "{text}");
    }
    // One that was gone for a run goes on where it stood.
    place.program(&["t.csv"], &["v.ndjson"]);
    succeed(place.args());
    // The same files, spelled otherwise.
    place.program(&["./t.csv", ".//u.csv"], &["v.ndjson"]);
    let text = succeed(place.args());
    assert!(text.contains("0 new"), "{text}");
    assert_eq!(place.counts("v.ndjson").values().sum::<u64>(), ROWS + 1);
}

/// As above, where only the log says who has read what.
#[test]
fn inputs_that_change_places_behind_a_kill_are_not_read_twice() {
    let place = Place::new();
    place.write("u.csv", "n\n60000\n");
    place.program(&["t.csv", "u.csv"], &["v.ndjson"]);
    place.kill_at(r#"{"storage": true, "fault_tolerance": {}, "max_rows_per_step": 150}"#, 300_000, 0);
    place.program(&["u.csv", "t.csv"], &["v.ndjson"]);
    let text = place.fail(2);
    assert!(text.contains("now names u.csv, which t.file_input_2 has read"), "{text}");
    place.program(&["t.csv", "u.csv"], &["v.ndjson"]);
    succeed(place.args());
    assert_eq!(place.counts("v.ndjson").values().sum::<u64>(), ROWS + 1);
}

#[test]
fn a_pipe_is_refused_rather_than_waited_for() {
    let place = Place::new();
    assert!(std::process::Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    place.program(&["pipe"], &["v.ndjson"]);
    let text = place.fail(1);
    assert!(text.contains("is a pipe or a device"), "{text}");
}
