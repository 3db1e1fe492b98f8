//! `backstay query`: what a data directory answers, beside a running pipeline, after it, and from savepoints. And `backstay check`.

use std::process::Stdio;
use std::time::Duration;

use crate::cli::Place;
use crate::process::{backstay, output, stderr, succeed};

const SQL: &str = "\
CREATE TABLE t (k VARCHAR, n BIGINT) WITH ('materialized' = 'true', 'connectors' = '[{\"name\": \"f\", \"transport\":
  {\"name\": \"file_input\", \"config\": {\"path\": \"t.csv\"}}, \"format\": {\"name\": \"csv\"}}]');
CREATE TABLE names (k VARCHAR PRIMARY KEY, name VARCHAR) WITH ('connectors' = '[{\"name\": \"f\", \"transport\":
  {\"name\": \"file_input\", \"config\": {\"path\": \"names.csv\"}}, \"format\": {\"name\": \"csv\"}}]');
CREATE MATERIALIZED VIEW sums AS SELECT k, sum(n) AS s, count(*) AS c FROM t GROUP BY k;
CREATE VIEW unkept AS SELECT k FROM t;
";

fn place(workers: &str) -> Place {
    let place = Place::new();
    place.write("p.sql", SQL);
    place.write("t.csv", "k,n\na,1\nb,2\na,3\n,4\nb,2\n");
    place.write("names.csv", "k,name\na,first\nb,second\nc,third\na,again\n");
    run(&place, workers);
    place
}

fn run(place: &Place, workers: &str) {
    let (sql, dir) = (place.path("p.sql").display().to_string(), place.path("data").display().to_string());
    succeed(["run", &sql, "--data-dir", &dir, "--until-end", "--workers", workers]);
}

/// Exit code, stdout and stderr.
fn query(place: &Place, args: &[&str]) -> (i32, String, String) {
    let mut all = vec!["query".to_owned(), place.path("data").display().to_string()];
    all.extend(args.iter().map(ToString::to_string));
    let output = output(all);
    let (out, error) = (String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output));
    assert!(!error.contains("panicked"), "{error}");
    (output.status.code().unwrap(), out, error)
}

fn csv(place: &Place, sql: &str) -> String {
    let (code, out, error) = query(place, &[sql, "--format", "csv"]);
    assert_eq!(code, 0, "{error}");
    out
}

fn refused(place: &Place, args: &[&str], code: i32, says: &str) {
    let (got, out, error) = query(place, args);
    assert_eq!((got, out.as_str()), (code, ""), "{error}");
    assert!(error.contains(says), "{args:?} does not say {says:?}: {error}");
}

#[test]
fn a_stopped_pipeline_answers() {
    for workers in ["1", "3"] {
        let place = place(workers);
        assert_eq!(csv(&place, "SELECT * FROM sums"), "k,s,c\n,4,1\na,4,2\nb,4,2\n");
        assert_eq!(csv(&place, "SELECT k, n FROM t WHERE k = 'b'"), "k,n\nb,2\nb,2\n");
        assert_eq!(csv(&place, "SELECT count(*) AS n FROM t"), "n\n5\n");
        assert_eq!(csv(&place, "SELECT n FROM t ORDER BY n DESC, k"), "n\n4\n3\n2\n2\n1\n");
        assert_eq!(csv(&place, "SELECT k FROM t ORDER BY n DESC LIMIT 2 OFFSET 1"), "k\na\nb\n");
        assert_eq!(csv(&place, "SELECT k, s + c AS x FROM sums ORDER BY -(s + c), k DESC"), "k,x\nb,6\na,6\n,5\n");
        assert_eq!(csv(&place, "SELECT NOW() > TIMESTAMP '2020-01-01 00:00:00' AS later"), "later\ntrue\n");
        assert_eq!(
            csv(&place, "SELECT DISTINCT NOW() > TIMESTAMP '2020-01-01 00:00:00' AS later FROM sums"),
            "later\ntrue\n"
        );
        assert_eq!(csv(&place, "SELECT count(*) AS n FROM t WHERE false"), "n\n0\n");
        assert_eq!(
            csv(&place, "SELECT name, sum(n) AS n FROM t JOIN names USING (k) GROUP BY name"),
            "name,n\nagain,4\nsecond,4\n"
        );
        assert_eq!(csv(&place, "SELECT x.k, y.k FROM names x, names y WHERE x.k = y.k AND x.k = 'c'"), "k,k_2\nc,c\n");
    }
}

#[test]
fn forms_of_output() {
    let place = place("1");
    let form = |format| query(&place, &["SELECT * FROM sums", "--format", format]);
    let (_, table, said) = form("table");
    assert_eq!(table, "k  s  c\n-  -  -\n   4  1\na  4  2\nb  4  2\n");
    assert!(said.starts_with("3 row(s); pipeline p after step "), "{said}");
    assert_eq!(
        form("json").1,
        "{\"k\":\"\",\"s\":4,\"c\":1}\n{\"k\":\"a\",\"s\":4,\"c\":2}\n{\"k\":\"b\",\"s\":4,\"c\":2}\n"
    );
    let all = output(["query", &place.path("data").display().to_string(), "SELECT * FROM sums", "--format", "arrow"]);
    let reader = arrow::ipc::reader::StreamReader::try_new(&all.stdout[..], None).unwrap();
    assert_eq!(reader.map(|b| b.unwrap().num_rows()).sum::<usize>(), 3);
    let (_, list, _) = query(&place, &[]);
    assert_eq!(list, "names (k Utf8, name Utf8)\nsums (k Utf8, s Int64, c Int64)\nt (k Utf8, n Int64)\n");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let place = place("1");
    refused(&place, &["SELECT * FROM unkept"], 2, "query:1:15: error: `unkept` is not materialized");
    refused(&place, &["SELECT * FROM sum"], 2, "did you mean `sums`?");
    refused(&place, &["SELECT x FROM sums"], 2, "query:1:8: error: there is no column `x`");
    refused(&place, &["SELECT 1 FROM sums; SELECT 2 FROM sums"], 2, "one statement");
    refused(&place, &["DROP TABLE t"], 2, "this is no query");
    refused(&place, &[""], 2, "there is no query");
    refused(&place, &["SELECT k FROM t WHERE"], 2, "query:1:");
    refused(&place, &["SELECT 1 / (n - n) AS x FROM t"], 1, "ivide by zero");
    refused(&place, &["SELECT k FROM t", "--savepoint", "none"], 2, "there is no savepoint \"none\"");
    let elsewhere = output(["query", &place.path(".").display().to_string(), "SELECT 1 FROM t"]);
    assert_eq!(elsewhere.status.code(), Some(2), "{}", stderr(&elsewhere));
}

/// While the pipeline runs, each answer is one checkpoint's; its savepoint goes on to answer as it did.
#[test]
fn a_running_pipeline_and_its_savepoints_answer() {
    let place = place("2");
    let dir = place.path("data").display().to_string();
    succeed(["savepoint", "create", &dir, "five"]);
    let endless = SQL.replace(
        "{\"name\": \"file_input\", \"config\": {\"path\": \"t.csv\"}}, \"format\": {\"name\": \"csv\"}}]');\nCREATE TABLE names",
        "{\"name\": \"datagen\", \"config\": {\"plan\": [{\"fields\": {\"k\": {\"strategy\": \"uniform\", \"range\": [0, 9]}}}]}}}]');\nCREATE TABLE names",
    );
    assert_ne!(endless, SQL);
    place.write(
        "p.sql",
        &endless.replace(
            "\"name\": \"f\", \"transport\":\n  {\"name\": \"datagen\"",
            "\"name\": \"g\", \"transport\":\n  {\"name\": \"datagen\"",
        ),
    );
    place.write(
        "p.config.json",
        r#"{"storage": true, "workers": 2, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#,
    );
    let sql = place.path("p.sql").display().to_string();
    let mut child = backstay(["run", &sql, "--data-dir", &dir]).stderr(Stdio::null()).spawn().unwrap();
    let mut counts = vec![5];
    while counts.len() < 4 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        let answer =
            csv(&place, "SELECT count(*) AS n, (sum(n) IS NULL) AS x FROM t UNION ALL SELECT sum(c), false FROM sums");
        // Both halves are of one step: they count alike, once from the table and once from the view.
        let mut lines = answer.lines().skip(1).map(|l| l.split(',').next().unwrap().parse::<i64>().unwrap());
        let (a, b) = (lines.next().unwrap(), lines.next().unwrap());
        assert_eq!(a, b, "{answer}");
        if a > *counts.last().unwrap() {
            counts.push(a);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, out, error) = query(&place, &["SELECT count(*) AS n FROM t", "--savepoint", "five", "--format", "csv"]);
    assert_eq!((code, out.as_str()), (0, "n\n5\n"), "{error}");
}

#[test]
fn a_damaged_checkpoint_is_no_answer() {
    let place = place("1");
    for entry in std::fs::read_dir(place.path("data").join("runs")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().step_by(64).for_each(|byte| *byte ^= 0x10);
        std::fs::write(&path, bytes).unwrap();
    }
    for table in ["t", "names", "sums"] {
        refused(&place, &[&format!("SELECT * FROM {table}")], 3, "runs");
    }
}

#[test]
fn check_tells_what_compiles() {
    let place = place("1");
    let check = |args: &[&str]| {
        let sql = place.path("p.sql").display().to_string();
        let output = output(["check", &sql].iter().chain(args));
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output))
    };
    let (code, out, _) = check(&[]);
    assert!(code == 0 && out.contains("2 tables, 2 views, 6 operators\nstate that grows with the input"), "{out}");
    assert!(out.contains(": keeps a row for each group"), "{out}");
    let (_, out, _) = check(&["--explain"]);
    assert!(out.contains("aggregate(0) by [0] [sum(1), count(*)]") && out.contains("materialize("), "{out}");
    place.write("p.sql", &SQL.replace("sum(n)", "sum(m)"));
    let (code, out, error) = check(&[]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(error.contains(": error: there is no column `m`"), "{error}");
    // Settings of connectors too, of which some cannot be known here.
    place.write("p.sql", &crate::cli::SQL.replace("\"path\": \"t.csv\"", "\"paht\": \"t.csv\""));
    let (code, out, error) = check(&[]);
    assert!((code, out.as_str()) == (2, "") && error.contains("did you mean \"path\"?"), "{error}");
    place.write("p.sql", &crate::cli::SQL.replace("t.csv", "${env:BACKSTAY_NOT_SET}"));
    let (code, out, error) = check(&[]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(out.contains("\nnot checked: ") && out.contains("BACKSTAY_NOT_SET is not set"), "{out}");
}
