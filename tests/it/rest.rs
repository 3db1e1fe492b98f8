//! A pipeline in which nothing happens any more.

use std::fs;
use std::io::Write;
use std::time::Duration;

use crate::process::Running;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs are merged then, and what they replace must not stay on disk until somebody sends a row.
#[test]
fn merged_runs_leave_the_disk_of_a_pipeline_at_rest() {
    let place = tempfile::tempdir().unwrap();
    let (rows, data) = (place.path().join("rows.csv"), place.path().join("data"));
    let sql = place.path().join("p.sql");
    let input = format!(
        r#"{{"transport": {{"name": "file_input", "config": {{"path": {rows:?}, "follow": true}}}}, "format": {{"name": "csv", "config": {{"headers": false}}}}}}"#
    );
    fs::write(
        &sql,
        format!("CREATE TABLE t (k BIGINT, v VARCHAR) WITH ('materialized' = 'true', 'connectors' = '[{input}]');"),
    )
    .unwrap();
    let config = place.path().join("config.json");
    fs::write(&config, r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#).unwrap();
    let append = |range: std::ops::Range<u32>| {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&rows).unwrap();
        let lines: String = range.map(|k| format!("{k},{k:0100}\n")).collect();
        file.write_all(lines.as_bytes()).unwrap();
    };
    let files = || fs::read_dir(data.join("runs")).map_or(0, |runs| runs.count());
    append(0..60_000);
    let mut running = Running::start(&sql, &data, &["--config", config.to_str().unwrap(), "--workers", "1"]);
    running.wait_until("the first checkpoint", PATIENCE, || files() == 1);
    append(60_000..90_000);
    running.wait_until("a second run", PATIENCE, || files() > 1);
    running.wait_until("the removal of what was merged", PATIENCE, || files() == 1);
    running.stop();
}
