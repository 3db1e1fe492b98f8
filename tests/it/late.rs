//! Which rows are late does not depend on kills: what a checkpoint and the log hold of the watermarks is all that they are.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::process::{Victim, files, output, succeed};
use crate::rng::Rng;

const ROWS: u64 = 60_000;
const KILLS: u64 = 5;

const SQL: &str = r#"CREATE TABLE t (id BIGINT, ts TIMESTAMP NOT NULL LATENESS INTERVAL '10' SECOND) WITH ('append_only' = 'true',
'late_rows' = 'late', 'connectors' =
'[{"transport": {"name": "file_input", "config": {"path": "t.csv"}}, "format": {"name": "csv"}}]');
CREATE VIEW windows WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/windows.ndjson"}},
    "format": {"name": "json"}}]')
AS SELECT window_start, count(*) AS c, max(id) AS last FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND) GROUP BY window_start;
CREATE VIEW rows WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/rows.ndjson"}},
    "format": {"name": "json"}}]') AS SELECT id, ts FROM t;
CREATE VIEW too_late WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "${DATA_DIR}/out/late.ndjson"}},
    "format": {"name": "json"}}]') AS SELECT id, ts FROM late;
"#;

#[test]
fn late_rows_are_the_same_ones_under_kills() {
    let (mut random, seed) = Rng::from_env(7);
    let temp = tempfile::tempdir().unwrap();
    let mut csv = String::from("id,ts\n");
    for id in 0..ROWS {
        // A tenth of a second a row; one row in twenty comes far too late.
        let back = if random.once_in(20) { 50 + random.below(600) } else { random.below(90) };
        let tenths = (id + 1000).saturating_sub(back);
        let (seconds, tenth) = (tenths / 10, tenths % 10);
        let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        writeln!(csv, "{id},2024-05-01 {h:02}:{m:02}:{s:02}.{tenth}").unwrap();
    }
    std::fs::write(temp.path().join("t.csv"), csv).unwrap();
    let sql = temp.path().join("late.sql");
    std::fs::write(&sql, SQL).unwrap();
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}, "rows_per_step": 100}"#;
    std::fs::write(temp.path().join("late.config.json"), config).unwrap();
    let run = |name: &str, kills: u64, total: u64, random: &mut Rng| {
        let dir = temp.path().join(name);
        let args = ["run", sql.to_str().unwrap(), "--data-dir", dir.to_str().unwrap(), "--until-end", "--workers", "2"];
        let mut killed = 0;
        for kill in 0..kills {
            let moment = total * kill / kills + random.below(total / kills);
            let later = Duration::from_millis(random.below(30));
            killed += u64::from(Victim::start(&args, &dir.join("out")).kill_at(moment, later));
        }
        (succeed(args), files(&dir.join("out")), killed)
    };
    let (said, expected, _) = run("calm", 0, 0, &mut random);
    // Progress tells it, too: the last time is the whole.
    let late =
        said.rsplit_once(" rows were late").and_then(|(before, _)| before.rsplit(' ').next()?.parse::<u64>().ok());
    assert!(late.is_some_and(|late| (ROWS / 40..ROWS / 10).contains(&late)), "{said}");
    let rows = expected["rows.ndjson"].split(|b| *b == b'\n').count() as u64 - 1;
    assert_eq!(Some(ROWS - rows), late, "{said}");
    let aside = expected["late.ndjson"].split(|b| *b == b'\n').count() as u64 - 1;
    assert_eq!(Some(aside), late, "each late row is in the table for them, once");
    let total = expected.values().map(|f| f.len() as u64).sum();
    let (_, got, killed) = run("killed", KILLS, total, &mut random);
    assert!(killed >= KILLS / 2, "seed {seed}: only {killed} kills hit");
    for (name, bytes) in &expected {
        assert!(bytes == &got[name], "seed {seed}: {name} differs from the uninterrupted run's");
    }
    // What operators are said to have done is no more for the steps that were made twice.
    let done = |name: &str| {
        let dir = temp.path().join(name);
        let output = output(["explain", dir.to_str().unwrap(), "--json"]);
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let operators = said["operators"].as_array().unwrap().iter();
        let figures = operators.map(|o| ["kind", "rows_in", "rows_out"].map(|key| o[key].clone()));
        figures.collect::<Vec<_>>()
    };
    let calm = done("calm");
    assert_eq!(calm[0], [json!("table"), json!(ROWS - aside), json!(ROWS - aside)], "{calm:?}");
    assert_eq!(calm, done("killed"), "seed {seed}");
    assert!(
        String::from_utf8(output(["explain", temp.path().join("killed").to_str().unwrap()]).stdout)
            .unwrap()
            .contains("aggregate")
    );
}
