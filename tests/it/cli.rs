//! What a person meets at the command line: wrong commands, files and configurations, and the pipeline's corners.

use std::path::{Path, PathBuf};

use crate::process::{backstay, output, stderr, succeed};

/// A folder with a small program: three rows of CSV, summed by key.
pub struct Place {
    dir: tempfile::TempDir,
}

pub const SQL: &str = r#"CREATE TABLE t (k VARCHAR NOT NULL, n BIGINT)
WITH ('connectors' = '[{"transport": {"name": "file_input", "config": {"path": "t.csv"}}, "format": {"name": "csv"}}]');
CREATE VIEW v
WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/v.ndjson"}}, "format": {"name": "json"}}]')
AS SELECT k, sum(n) AS n FROM t GROUP BY k;
"#;

impl Place {
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write("p.sql", SQL);
        place.write("t.csv", "k,n\na,1\nb,2\na,3\n");
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn args(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).to_str().unwrap().to_string();
        vec!["run".into(), path("p.sql"), "--data-dir".into(), path("data"), "--until-end".into()]
    }

    pub fn run(&self) -> String {
        succeed(self.args())
    }

    /// Expects a failure with this exit code; gives what it said.
    pub fn fail(&self, code: i32) -> String {
        let output = output(self.args());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    pub fn out(&self) -> String {
        std::fs::read_to_string(self.path("data/v.ndjson")).unwrap()
    }
}

#[test]
fn a_connector_can_name_a_variable_of_the_environment() {
    let place = Place::new();
    place.write("p.sql", &SQL.replace("t.csv", "${env:BACKSTAY_TEST_FILE}"));
    let text = place.fail(2);
    assert!(text.contains("the environment variable BACKSTAY_TEST_FILE is not set"), "{text}");
    let run = crate::process::backstay(place.args()).env("BACKSTAY_TEST_FILE", "t.csv").output().unwrap();
    assert!(run.status.success(), "{}", stderr(&run));
    assert_eq!(lines(&place.out()), FIRST);
}

fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

const FIRST: [&str; 2] = [r#"{"insert":{"k":"a","n":4}}"#, r#"{"insert":{"k":"b","n":2}}"#];

#[test]
fn a_finished_pipeline_run_again_changes_nothing() {
    let place = Place::new();
    place.run();
    assert_eq!(lines(&place.out()), FIRST);
    let before = all_files(&place.path("data/checkpoints"));
    let again = place.run();
    assert!(again.contains("0 new"), "{again}");
    assert_eq!(lines(&place.out()), FIRST);
    assert_eq!(all_files(&place.path("data/checkpoints")), before, "no new checkpoint");
}

fn all_files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    crate::process::files(dir).into_iter().collect()
}

#[test]
fn a_file_that_has_grown_is_read_on_and_the_view_retracts() {
    let place = Place::new();
    place.run();
    place.write("t.csv", "k,n\na,1\nb,2\na,3\na,10\n");
    place.run();
    let expected = [r#"{"delete":{"k":"a","n":4}}"#, r#"{"insert":{"k":"a","n":14}}"#, FIRST[0], FIRST[1]];
    assert_eq!(lines(&place.out()), lines(&expected.join("\n")));
}

#[test]
fn a_replaced_or_truncated_input_is_refused_with_its_name() {
    let place = Place::new();
    place.run();
    place.write("t.csv", "k,n\nz,9\nb,2\na,3\n");
    let text = place.fail(1);
    assert!(text.contains("t.csv") && text.contains("replaced"), "{text}");
    place.write("t.csv", "k,n\na,1\n");
    let text = place.fail(1);
    assert!(text.contains("t.csv") && text.contains("truncated"), "{text}");
}

#[test]
fn changed_sql_is_refused_with_the_view_that_changed_and_changed_paths_are_fine() {
    let place = Place::new();
    place.run();
    place.write("p.sql", &SQL.replace("sum(n)", "max(n)"));
    let text = place.fail(2);
    assert!(text.contains("v changed") && text.contains("put it back"), "{text}");
    std::fs::rename(place.path("data/v.ndjson"), place.path("elsewhere.ndjson")).unwrap();
    place.write("p.sql", &SQL.replace("${DATA_DIR}/v.ndjson", "elsewhere.ndjson"));
    place.run();
}

#[test]
fn another_pipeline_does_not_take_over_a_directory() {
    let place = Place::new();
    place.run();
    let mut args = place.args();
    args.extend(["--name".into(), "other".into()]);
    let output = output(args);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("belongs to pipeline \"p\", not \"other\""), "{}", stderr(&output));
}

#[test]
fn a_foreign_output_file_is_not_overwritten() {
    let place = Place::new();
    std::fs::create_dir(place.path("data")).unwrap();
    std::fs::write(place.path("data/v.ndjson"), "somebody's\n").unwrap();
    let text = place.fail(1);
    assert!(text.contains("v.ndjson"), "{text}");
    assert_eq!(place.out(), "somebody's\n");
}

#[test]
fn output_that_was_cut_off_or_written_to_is_refused() {
    let place = Place::new();
    place.run();
    let whole = place.out();
    std::fs::write(place.path("data/v.ndjson"), &whole[..10]).unwrap();
    let text = place.fail(1);
    assert!(text.contains("v.ndjson") && text.contains("10"), "{text}");
    std::fs::write(place.path("data/v.ndjson"), format!("{whole}{{}}\n")).unwrap();
    let text = place.fail(1);
    assert!(text.contains("v.ndjson"), "{text}");
    std::fs::write(place.path("data/v.ndjson"), whole).unwrap();
    place.run();
}

#[test]
fn rows_that_do_not_parse_are_counted_and_shown_and_their_neighbours_live() {
    let place = Place::new();
    place.write("t.csv", "k,n\na,1\nb,two\na,3\n");
    let text = place.run();
    assert!(text.contains("t.csv, byte 8") && text.contains("1 row did not parse"), "{text}");
    assert_eq!(lines(&place.out()), [FIRST[0]]);

    let strict = Place::new();
    strict.write("t.csv", "k,n\na,1\nb,two\na,3\n");
    strict.write("p.config.json", r#"{"storage": true, "fault_tolerance": {}, "on_parse_error": "stop"}"#);
    let text = strict.fail(1);
    assert!(text.contains("t.csv, byte 8") && text.contains("on_parse_error"), "{text}");
    strict.write("t.csv", "k,n\na,1\nb,2\na,3\n");
    strict.run();
    assert_eq!(lines(&strict.out()), FIRST);
}

#[test]
fn an_evaluation_error_stops_with_row_and_expression_and_a_new_configuration_goes_on() {
    let place = Place::new();
    place.write("p.sql", &SQL.replace("sum(n) AS n FROM t GROUP BY k", "10 / n AS n FROM t"));
    place.write("t.csv", "k,n\na,1\nb,0\nc,5\n");
    let text = place.fail(1);
    assert!(text.contains("v: ") && text.contains("on_evaluation_error"), "{text}");
    // Again the same: a deterministic failure stays one.
    place.fail(1);
    place.write("p.config.json", r#"{"storage": true, "fault_tolerance": {}, "on_evaluation_error": "skip"}"#);
    let text = place.run();
    assert!(text.contains("row left out"), "{text}");
    assert_eq!(lines(&place.out()), [r#"{"insert":{"k":"a","n":10}}"#, r#"{"insert":{"k":"c","n":2}}"#]);
}

#[test]
fn a_pipeline_stronger_than_its_inputs_or_without_storage_is_refused() {
    let place = Place::new();
    place.write("p.config.json", r#"{"fault_tolerance": true}"#);
    assert!(place.fail(2).contains("requires storage, but storage is not enabled"));
    place.write("p.config.json", r#"{"storage": true, "fault_tolerence": true}"#);
    assert!(place.fail(2).contains("did you mean \"fault_tolerance\"?"));
}

#[test]
fn the_number_of_workers_may_change_between_runs() {
    let place = Place::new();
    let mut args = place.args();
    args.extend(["--workers".into(), "3".into()]);
    succeed(&args);
    place.write("t.csv", "k,n\na,1\nb,2\na,3\na,10\nb,20\nc,30\n");
    *args.last_mut().unwrap() = "2".into();
    succeed(&args);
    place.write("t.csv", "k,n\na,1\nb,2\na,3\na,10\nb,20\nc,30\nc,1\n");
    *args.last_mut().unwrap() = "5".into();
    succeed(&args);
    let rows = crate::process::integrate("v.ndjson", place.out().as_bytes());
    let rows: Vec<_> = rows.into_iter().collect();
    let row = |k: &str, n: i64| (format!("{{\"k\":\"{k}\",\"n\":{n}}}"), 1);
    assert_eq!(rows, [row("a", 14), row("b", 22), row("c", 31)]);
}

#[test]
fn wrong_sql_is_shown_with_its_place() {
    let place = Place::new();
    place.write("p.sql", &SQL.replace("GROUP BY k", "GROUP BY kk"));
    let text = place.fail(2);
    assert!(text.contains("p.sql:5:") && text.contains('^'), "{text}");
    place.write("p.sql", &SQL.replace("file_output", "file_ouput"));
    let text = place.fail(2);
    assert!(text.contains("file_output"), "{text}");
}

#[test]
fn wrong_commands_say_what_would_be_right() {
    let run = |args: &[&str]| {
        let output = output(args);
        (output.status.code(), stderr(&output))
    };
    let (code, text) = run(&["rum"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("run"), "{text}");
    let (code, text) = run(&["run", "/nowhere/p.sql"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("/nowhere/p.sql"), "{text}");
    let (code, text) = run(&["inspect", "/nowhere"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("/nowhere"), "{text}");
}

#[test]
fn the_log_is_listed_as_far_as_it_is_asked_for() {
    let place = Place::new();
    place.run();
    let data = place.path("data");
    let inspect = |more: &[&str]| {
        let output = output([&["inspect", data.to_str().unwrap()], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let has = |text: &str, start: &str| text.lines().any(|line| line.trim_start().starts_with(start));
    let plain = inspect(&[]);
    assert!(!plain.contains("log, listed:"), "{plain}");
    let chain = inspect(&["--log", "chain"]);
    assert!(has(&chain, "segment 1: ") && !has(&chain, "block at ") && !has(&chain, "record 1, "), "{chain}");
    let both = inspect(&["--log", "blocks,records"]);
    assert!(!has(&both, "segment 1: ") && has(&both, "block at 8192: 0 of ") && has(&both, "record 1, "), "{both}");
    assert_eq!(inspect(&["--log", "blocks", "--log", "records"]), both);
    let refused = output(["inspect", data.to_str().unwrap(), "--log", "headers"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
}

#[test]
fn at_least_once_and_no_fault_tolerance_go_on_from_the_last_stop() {
    for config in [r#"{"storage": true}"#, r#"{"storage": true, "fault_tolerance": {"model": "at_least_once"}}"#] {
        let place = Place::new();
        place.write("p.config.json", config);
        place.run();
        place.write("t.csv", "k,n\na,1\nb,2\na,3\na,10\n");
        let text = place.run();
        assert!(text.contains("1 new"), "{text}");
        let expected = [r#"{"delete":{"k":"a","n":4}}"#, r#"{"insert":{"k":"a","n":14}}"#, FIRST[0], FIRST[1]];
        assert_eq!(lines(&place.out()), lines(&expected.join("\n")), "{config}");
    }
}

#[test]
fn a_graceful_stop_writes_a_checkpoint_and_ends_with_0() {
    let place = Place::new();
    let args = place.args();
    // Without --until-end it waits at the end of its inputs.
    let mut child =
        crate::process::backstay(&args[..args.len() - 1]).stderr(std::process::Stdio::null()).spawn().unwrap();
    while std::fs::metadata(place.path("data/v.ndjson")).map_or(0, |m| m.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let text = place.run();
    assert!(text.contains("replayed 0 steps"), "the stop left nothing to replay: {text}");
}

#[test]
fn the_fault_tolerance_may_change_between_runs_and_a_crash() {
    let config = |model: &str| {
        format!(
            r#"{{"storage": true, "rows_per_step": 1, "fault_tolerance": {{"model": "{model}", "checkpoint_interval_secs": null}}}}"#
        )
    };
    let place = Place::new();
    place.write("p.config.json", &config("exactly_once"));
    place.run();
    let mut text = "k,n\na,1\nb,2\na,3\n".to_string();
    let mut sum = 4;
    for (round, model) in ["at_least_once", "exactly_once", "none", "exactly_once", "at_least_once"].iter().enumerate()
    {
        place.write("p.config.json", &config(model));
        text.push_str("a,10\n");
        sum += 10;
        place.write("t.csv", &text);
        let before = place.out().len();
        let args = place.args();
        // Killed after it delivered, before any checkpoint of that.
        let mut child =
            crate::process::backstay(&args[..args.len() - 1]).stderr(std::process::Stdio::null()).spawn().unwrap();
        while place.out().len() <= before {
            assert!(child.try_wait().unwrap().is_none(), "round {round}: ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        place.run();
        let rows = crate::process::integrate("v.ndjson", place.out().as_bytes());
        assert_eq!(rows.get(&format!("{{\"k\":\"a\",\"n\":{sum}}}")), Some(&1), "round {round}, {model}: {rows:?}");
        assert_eq!(rows.len(), 2, "round {round}, {model}: {rows:?}");
    }
}

/// A reader that goes ends a command quietly; an output that cannot be written is told.
#[test]
fn an_output_that_nobody_reads_is_no_panic() {
    let place = Place::new();
    let keys = place.path("keys.txt");
    let commands: [&[&str]; 3] =
        [&["completions", "bash"], &["check", "--explain", "p.sql"], &["api-key", keys.to_str().unwrap()]];
    place.write("p.sql", "CREATE TABLE t (a INT); CREATE VIEW v AS SELECT a FROM t;");
    for command in commands {
        let mut child = backstay(command.iter().copied());
        child.current_dir(place.path("")).stderr(std::process::Stdio::piped());
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let gone = child.stdout(writer).output().unwrap();
        assert!(gone.status.success() && gone.stderr.is_empty(), "{command:?}: {} {}", gone.status, stderr(&gone));
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let full = child.stdout(full).output().unwrap();
        assert_eq!(full.status.code(), Some(1), "{command:?}: {}", stderr(&full));
        assert!(stderr(&full).contains("standard output cannot be written"), "{command:?}: {}", stderr(&full));
        // Where what went wrong cannot be said either, the exit code says it.
        let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(child.stdout(full()).stderr(full()).status().unwrap().code(), Some(1), "{command:?}");
    }
    assert!(!keys.exists(), "a key that nobody saw is not kept");
}
