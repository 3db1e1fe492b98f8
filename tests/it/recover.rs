//! Steps that cannot be run again: what is refused, what `backstay recover` shows and does, and what becomes of outputs.

use std::time::Duration;

use crate::cli::Place;
use crate::process::{Running, output, stderr};

const PATIENCE: Duration = Duration::from_secs(60);

const SQL: &str = r#"CREATE TABLE t (k VARCHAR NOT NULL, n BIGINT) WITH ('connectors' = '[
    {"name": "a", "transport": {"name": "file_input", "config": {"path": "a.csv", "follow": true}}, "format": {"name": "csv"}},
    {"name": "b", "transport": {"name": "file_input", "config": {"path": "b.csv", "follow": true}}, "format": {"name": "csv"}}]');
CREATE VIEW v WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "v.ndjson"}}, "format": {"name": "json"}}]')
AS SELECT k, sum(n) AS n FROM t GROUP BY k;"#;

/// A pipeline that was killed with steps logged, and whose file `a.csv` is another one now.
fn broken() -> Place {
    let place = Place::new();
    place.write("p.sql", SQL);
    place.write(
        "p.config.json",
        r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": null}, "workers": 1}"#,
    );
    place.write("a.csv", "k,n\na,1\na,2\n");
    place.write("b.csv", "k,n\nb,10\nb,20\n");
    let mut process = Running::start(&place.path("p.sql"), &place.path("data"), &[]);
    process.wait_until("the rows", PATIENCE, || {
        let out = written(&place);
        out.contains(r#"{"k":"a","n":3}"#) && out.contains(r#"{"k":"b","n":30}"#)
    });
    process.kill();
    place.write("a.csv", "k,n\na,5\na,6\n");
    place
}

fn written(place: &Place) -> String {
    std::fs::read_to_string(place.path("v.ndjson")).unwrap_or_default()
}

/// Starts it, and expects it to fail.
fn refused(place: &Place) -> String {
    Running::start(&place.path("p.sql"), &place.path("data"), &[]).fails(PATIENCE)
}

/// Starts it until the view is what is given; what it said.
fn goes_on(place: &Place, view: &[(&str, i64)]) -> String {
    let mut process = Running::start(&place.path("p.sql"), &place.path("data"), &[]);
    let said = || std::fs::read_to_string(place.path("data").with_extension("log")).unwrap();
    process.wait_until("the view", PATIENCE, || {
        let rows = crate::process::integrate("v.ndjson", written(place).as_bytes());
        let row = |(k, n): &(&str, i64)| (format!(r#"{{"k":"{k}","n":{n}}}"#), 1);
        said().contains("pipeline p:") && rows == view.iter().map(row).collect()
    });
    process.stop();
    said()
}

fn recover(place: &Place, args: &[&str]) -> (i32, String) {
    let data = place.path("data");
    let done = output(["recover", data.to_str().unwrap()].iter().chain(args));
    (done.status.code().unwrap(), String::from_utf8_lossy(&done.stdout).into_owned() + &stderr(&done))
}

#[test]
fn a_loss_that_is_accepted_is_named_and_outputs_begin_anew() {
    let place = broken();
    let said = refused(&place);
    for word in ["connector t.a", "replay of step", "a.csv", "backstay recover"] {
        assert!(said.contains(word), "no \"{word}\" in: {said}");
    }
    // To look changes nothing.
    let (code, shown) = recover(&place, &[]);
    assert_eq!(code, 0, "{shown}");
    for word in [
        "2 rows of t.a",
        "2 rows of t.b",
        "--accept-loss t.a",
        "--new-incarnation",
        "output v.file_output",
        "a.csv, 0 to ",
    ] {
        assert!(shown.contains(word), "no \"{word}\" in: {shown}");
    }
    assert!(refused(&place).contains("backstay recover"));
    for (wrong, said) in [
        (&["--accept-loss", "t.c"][..], "there are: t.a, t.b"),
        (&["--accept-loss", "t.a", "--from-step", "99"], "no rows of step 99"),
        (&["--from-step", "1"], "--accept-loss"),
        (&["--accept-loss", "t.a", "--new-incarnation"], "cannot be used with"),
    ] {
        let (code, text) = recover(&place, wrong);
        assert!(code == 2 && text.contains(said), "{wrong:?}: {code} {text}");
    }
    let (code, said) = recover(&place, &["--accept-loss", "t.a"]);
    assert!(code == 0 && said.contains("2 rows of t.a in steps 1 to"), "{said}");
    // What the file has was made of rows that are given up.
    let before = written(&place);
    let said = refused(&place);
    assert!(said.contains("v.file_output") && said.contains("v.ndjson"), "{said}");
    assert_eq!(written(&place), before);
    std::fs::rename(place.path("v.ndjson"), place.path("old.ndjson")).unwrap();
    let said = goes_on(&place, &[("a", 11), ("b", 30)]);
    assert!(said.contains("2 rows of t.a in steps 1 to") && said.contains("t.a: given up"), "{said}");
    // And once more, of its own accord.
    let b = std::fs::read_to_string(place.path("b.csv")).unwrap() + "b,1\n";
    place.write("b.csv", &b);
    let said = goes_on(&place, &[("a", 11), ("b", 31)]);
    assert!(!said.contains("given up"), "{said}");
}

#[test]
fn a_pipeline_goes_back_to_its_checkpoint_as_another_incarnation() {
    let place = broken();
    refused(&place);
    let (code, said) = recover(&place, &["--new-incarnation"]);
    assert!(code == 0 && said.contains("count for nothing") && said.contains("v.file_output"), "{said}");
    assert!(refused(&place).contains("v.ndjson"));
    std::fs::remove_file(place.path("v.ndjson")).unwrap();
    goes_on(&place, &[("a", 11), ("b", 30)]);
}

/// Killed before and after the first checkpoint of the new incarnation.
#[test]
fn a_recovery_outlives_kills() {
    for choice in [&["--new-incarnation"][..], &["--accept-loss", "t.a"]] {
        let place = broken();
        assert_eq!(recover(&place, choice).0, 0);
        std::fs::remove_file(place.path("v.ndjson")).unwrap();
        for round in 1..=3 {
            let b = std::fs::read_to_string(place.path("b.csv")).unwrap() + "b,1\n";
            place.write("b.csv", &b);
            let mut process = Running::start(&place.path("p.sql"), &place.path("data"), &[]);
            process.wait_until("the rows", PATIENCE, || {
                let out = written(&place);
                out.contains(r#"{"k":"a","n":11}"#) && out.contains(&format!(r#"{{"k":"b","n":{}}}"#, 30 + round))
            });
            process.kill();
        }
        goes_on(&place, &[("a", 11), ("b", 33)]);
    }
}
