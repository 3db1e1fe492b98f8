//! `skip_unused_columns` in real processes: what nothing reads is not looked at, by kills neither, and a program that reads more does not open what was kept without.

use std::time::Duration;

use crate::process::{Victim, files, integrate, output, stderr, succeed};
use crate::rng::Rng;

const ROWS: u64 = 30_000;

fn program(columns: &str) -> String {
    format!(
        r#"CREATE TABLE c (id BIGINT NOT NULL, junk BIGINT NOT NULL, name VARCHAR, more VARCHAR) WITH ('skip_unused_columns' = 'true', 'connectors' =
'[{{"transport": {{"name": "file_input", "config": {{"path": "c.csv"}}}}, "format": {{"name": "csv", "config": {{"headers": false}}}}}}]');
CREATE TABLE j (id BIGINT NOT NULL PRIMARY KEY, junk TIMESTAMP, name VARCHAR) WITH ('skip_unused_columns' = 'true', 'connectors' =
'[{{"transport": {{"name": "file_input", "config": {{"path": "j.ndjson"}}}}, "format": {{"name": "json"}}}}]');
CREATE VIEW v WITH ('connectors' = '[{{"transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/out/v.ndjson"}}}},
    "format": {{"name": "json"}}}}]') AS SELECT {columns} FROM c JOIN j ON c.id = j.id;
"#
    )
}

#[test]
fn what_nothing_reads_is_not_looked_at() {
    let (mut random, seed) = Rng::from_env(11);
    let temp = tempfile::tempdir().unwrap();
    let mut csv = String::new();
    let mut json = String::new();
    for i in 0..ROWS {
        // None of the second columns is what its type says.
        csv += &format!("{},none,\"n{}\",\"a \"\"quoted\"\", field\"\n", i % 1000, i % 7);
        json += &match random.below(4) {
            0 => format!("{{\"delete\": {{\"id\": {}}}}}\n", i % 1000),
            n => format!("{{\"insert\": {{\"junk\": [{n}, {{}}], \"id\": {}, \"name\": \"m{n}\"}}}}\n", i % 1000),
        };
    }
    std::fs::write(temp.path().join("c.csv"), csv).unwrap();
    std::fs::write(temp.path().join("j.ndjson"), json).unwrap();
    let sql = temp.path().join("p.sql");
    std::fs::write(&sql, program("c.id, c.name, j.name AS other")).unwrap();
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}, "rows_per_step": 100}"#;
    std::fs::write(temp.path().join("p.config.json"), config).unwrap();
    let checked = output(["check", sql.to_str().unwrap()]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(said.contains("c skips the columns that nothing reads: junk, more\n"), "{said}");
    assert!(said.contains("j skips the columns that nothing reads: junk\n"), "{said}");
    let args = |name: &str, workers: &str| {
        let dir = temp.path().join(name);
        let args =
            ["run", sql.to_str().unwrap(), "--data-dir", dir.to_str().unwrap(), "--until-end", "--workers", workers];
        args.map(str::to_owned)
    };
    let result = |name: &str| integrate("v.ndjson", &files(&temp.path().join(name).join("out"))["v.ndjson"]);
    succeed(args("calm", "1"));
    let expected = result("calm");
    assert!(expected.len() > 500, "{} rows", expected.len());
    let total = files(&temp.path().join("calm/out"))["v.ndjson"].len() as u64;
    let mut killed = 0;
    for kill in 0..4 {
        let args = args("killed", "2");
        let moment = total * kill / 5 + random.below(total / 5);
        let victim = Victim::start(&args.each_ref().map(String::as_str), &temp.path().join("killed/out"));
        killed += u64::from(victim.kill_at(moment, Duration::from_millis(random.below(30))));
    }
    succeed(args("killed", "2"));
    assert!(killed >= 2, "seed {seed}: only {killed} kills hit");
    assert!(result("killed") == expected, "seed {seed}: another result under kills");
    // What was kept has no such column.
    std::fs::write(&sql, program("c.id, c.name, c.more, j.name AS other")).unwrap();
    let refused = output(args("killed", "2"));
    let said = stderr(&refused);
    assert!(!refused.status.success() && said.contains("c changed, v changed"), "{said}");
    // Where it is read, it must be what its type says.
    std::fs::write(&sql, program("c.id, c.junk")).unwrap();
    let said = stderr(&output(args("anew", "1")));
    assert!(said.contains("column junk expected a BIGINT, got \"none\""), "{said}");
}
