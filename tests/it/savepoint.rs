//! `backstay savepoint`, as a person meets it: a pipeline that goes on in a copy, and all that is refused.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::cli::{Place, SQL};
use crate::process::{backstay, files, integrate, output, stderr};

const CONFIG: &str = r#"{"storage": true, "rows_per_step": 1, "fault_tolerance": {"checkpoint_interval_secs": null}}"#;
const ROWS: &str = "k,n\na,1\nb,2\na,3\n";
const MORE: &str = "k,n\na,1\nb,2\na,3\na,10\nb,-2\nc,5\na,-14\n";

/// `backstay savepoint` with these arguments, below a place: exit code, stdout and stderr.
fn savepoint(place: &Place, command: &str, args: &[&str]) -> (i32, String, String) {
    let mut all = vec!["savepoint".to_owned(), command.to_owned(), place.path(args[0]).display().to_string()];
    all.extend(args[1..].iter().enumerate().map(|(i, arg)| match (command, i) {
        ("copy", 1) => place.path(arg).display().to_string(),
        _ => (*arg).to_owned(),
    }));
    let output = output(all);
    let said = (String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output));
    assert!(!said.1.contains("panicked"), "{}", said.1);
    (output.status.code().unwrap(), said.0, said.1)
}

fn done(place: &Place, command: &str, args: &[&str]) -> String {
    let (code, said, error) = savepoint(place, command, args);
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    said
}

/// It must be refused with this code, saying all of this.
fn refused(place: &Place, command: &str, args: &[&str], code: i32, says: &[&str]) {
    let (got, out, error) = savepoint(place, command, args);
    assert_eq!(got, code, "{command} {args:?}: {out}{error}");
    for what in says {
        assert!(error.contains(what) || out.contains(what), "{command} {args:?} does not say {what:?}: {out}{error}");
    }
}

/// Runs the pipeline in another data directory.
fn run_in(place: &Place, dir: &str, workers: &str) -> (i32, String) {
    let mut args = place.args();
    args[3] = place.path(dir).display().to_string();
    args.extend(["--workers".to_owned(), workers.to_owned()]);
    let output = output(args);
    (output.status.code().unwrap(), stderr(&output))
}

/// Starts the pipeline without an end, and waits until its output file has more than so many bytes.
fn started(args: &[String], output: &Path, bytes: usize) -> Child {
    let mut child = backstay(&args[..args.len() - 1]).stderr(Stdio::null()).spawn().unwrap();
    while std::fs::metadata(output).map_or(0, |m| m.len()) <= bytes as u64 {
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn view(place: &Place, dir: &str) -> String {
    std::fs::read_to_string(place.path(dir).join("v.ndjson")).unwrap()
}

/// The lines of `inspect` that tell of incarnations.
fn incarnations(place: &Place, dir: &str) -> Vec<String> {
    let output = output(["inspect".into(), place.path(dir), "--verify".into()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    text.lines().filter_map(|line| Some(line.split_once("incarnation ")?.1.to_owned())).collect()
}

fn place() -> Place {
    let place = Place::new();
    place.write("p.config.json", CONFIG);
    place.write("t.csv", ROWS);
    place
}

#[test]
fn a_copy_goes_on_to_the_same_views_beside_its_original() {
    let place = place();
    place.run();
    let said = done(&place, "create", &["data", "three"]);
    assert!(said.contains("\"three\"") && said.contains("pipeline p after step 3"), "{said}");
    let prefix = place.out();
    place.write("t.csv", MORE);
    place.run();
    // Long after, and once more with another number of workers.
    place.run();
    for (copy, workers) in [("one", "1"), ("two", "2")] {
        let said = done(&place, "copy", &["data", "three", copy]);
        assert!(said.contains("behind step 3") && said.contains("begins anew there, with step 4"), "{said}");
        let (code, text) = run_in(&place, copy, workers);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("a copy of savepoint \"three\", after step 3") && text.contains("4 new"), "{text}");
        assert_eq!(prefix.clone() + &view(&place, copy), place.out(), "byte for byte what the original goes on with");
        let (code, text) = run_in(&place, copy, workers);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("0 new") && !text.contains("a copy of"), "its second run is one like any: {text}");
        assert_eq!(prefix.clone() + &view(&place, copy), place.out());
    }
    let [original, one, two] = ["data", "one", "two"].map(|dir| incarnations(&place, dir));
    assert!(original.windows(2).all(|w| w[0] == w[1]), "the original's stays: {original:?}");
    assert_ne!(original.last(), one.last());
    assert_ne!(one.last(), two.last());
    let rows = integrate("v.ndjson", place.out().as_bytes());
    assert_eq!(rows.len(), 3, "{rows:?}");
}

#[test]
fn a_copy_that_is_killed_goes_on_as_the_same_incarnation() {
    let place = place();
    place.run();
    done(&place, "create", &["data", "s"]);
    let prefix = place.out();
    place.write("t.csv", MORE);
    done(&place, "copy", &["data", "s", "copy"]);
    let mut args = place.args();
    args[3] = place.path("copy").display().to_string();
    let mut child = started(&args, &place.path("copy/v.ndjson"), 0);
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, text) = run_in(&place, "copy", "2");
    assert!(code == 0 && !text.contains("a copy of"), "{text}");
    place.run();
    assert_eq!(prefix + &view(&place, "copy"), place.out());
}

#[test]
fn savepoints_are_listed_and_deleted_and_take_no_room_then() {
    let place = place();
    place.run();
    assert_eq!(done(&place, "list", &["data"]), format!("no savepoints in {}\n", place.path("data").display()));
    done(&place, "create", &["data", "b"]);
    place.write("t.csv", MORE);
    place.run();
    done(&place, "create", &["data", "a-longer-name"]);
    let said = done(&place, "list", &["data"]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("a-longer-name  checkpoint ") && lines[0].contains("p after step 7"), "{said}");
    assert!(lines[1].starts_with("b              checkpoint ") && lines[1].contains("p after step 3"), "{said}");
    done(&place, "delete", &["data", "b"]);
    done(&place, "delete", &["data", "a-longer-name"]);
    assert!(done(&place, "list", &["data"]).starts_with("no savepoints"));
    assert!(files(&place.path("data/savepoints")).is_empty());
    place.run();
    incarnations(&place, "data");
}

#[test]
fn what_cannot_be_is_refused_with_what_would_be_right() {
    let place = place();
    refused(&place, "create", &["data", "s"], 2, &["data"]);
    std::fs::create_dir(place.path("data")).unwrap();
    for (command, args) in [("create", &["data", "s"][..]), ("list", &["data"]), ("delete", &["data", "s"])] {
        refused(&place, command, args, 2, &["is not a pipeline's data directory"]);
    }
    assert!(files(&place.path("data")).is_empty(), "nothing is made");
    place.run();
    for bad in ["Monday", "a/b", "..", "-x", ""] {
        let output = output(["savepoint", "create", place.path("data").to_str().unwrap(), "--", bad]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("1 to 64 lower-case letters"), "{bad}: {}", stderr(&output));
    }
    done(&place, "create", &["data", "before-upgrade"]);
    refused(&place, "create", &["data", "before-upgrade"], 2, &["already", "delete it"]);
    let near = "(did you mean \"before-upgrade\"?)";
    refused(&place, "delete", &["data", "before-upgrad"], 2, &["no savepoint \"before-upgrad\"", near]);
    refused(&place, "copy", &["data", "befor-upgrade", "copy"], 2, &["no savepoint", near]);
    assert!(!place.path("copy").exists());
    std::fs::create_dir(place.path("copy")).unwrap();
    place.write("copy/notes", "mine");
    refused(&place, "copy", &["data", "before-upgrade", "copy"], 2, &["is not empty"]);
    refused(&place, "copy", &["data", "before-upgrade", "data"], 2, &["is not empty"]);
    std::fs::rename(place.path("copy/notes"), place.path("copy/copy.unfinished")).unwrap();
    refused(&place, "copy", &["data", "before-upgrade", "copy"], 2, &["unfinished copy", "remove the directory"]);
    let (code, text) = run_in(&place, "copy", "1");
    assert!(code == 1 && text.contains("unfinished copy"), "{code} {text}");
}

#[test]
fn a_running_pipeline_is_left_alone_and_can_be_copied_from() {
    let place = place();
    place.run();
    done(&place, "create", &["data", "s"]);
    let args = place.args();
    place.write("t.csv", MORE);
    let mut child = started(&args, &place.path("data/v.ndjson"), place.out().len());
    refused(&place, "create", &["data", "t"], 4, &["in use", "Stop it first"]);
    refused(&place, "delete", &["data", "s"], 4, &["in use", "Stop it first"]);
    assert!(done(&place, "list", &["data"]).starts_with("s  checkpoint"));
    done(&place, "copy", &["data", "s", "copy"]);
    child.kill().unwrap();
    child.wait().unwrap();
    // What the kill left in the log is not part of a savepoint made now.
    let said = done(&place, "create", &["data", "t"]);
    assert!(said.contains("after step 3") && said.contains("after it") && said.contains("not part of it"), "{said}");
    let (code, text) = run_in(&place, "copy", "1");
    assert_eq!(code, 0, "{text}");
    place.run();
    assert!(place.out().ends_with(&view(&place, "copy")));
}

/// An output file somewhere else than in the data directory: the copy does not write into the original's, nor empty it.
#[test]
fn a_copy_never_takes_over_the_originals_file() {
    let place = place();
    let sql = SQL.replace(r#""path": "${DATA_DIR}/v.ndjson""#, r#""path": "out.ndjson", "overwrite": true"#);
    place.write("p.sql", &sql);
    place.run();
    let original = std::fs::read(place.path("out.ndjson")).unwrap();
    assert!(!original.is_empty());
    done(&place, "create", &["data", "s"]);
    done(&place, "copy", &["data", "s", "copy"]);
    place.write("t.csv", MORE);
    let (code, text) = run_in(&place, "copy", "1");
    assert!(code == 1 && text.contains("out.ndjson") && text.contains("savepoint's copy"), "{code}: {text}");
    assert_eq!(std::fs::read(place.path("out.ndjson")).unwrap(), original);
    place.write("p.sql", &sql.replace("out.ndjson", "${DATA_DIR}/mine.ndjson"));
    let (code, text) = run_in(&place, "copy", "1");
    assert_eq!(code, 0, "{text}");
    place.write("p.sql", &sql);
    place.run();
    let all = std::fs::read(place.path("out.ndjson")).unwrap();
    assert_eq!(all, [original, std::fs::read(place.path("copy/mine.ndjson")).unwrap()].concat());
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[80] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

fn newest(dir: &Path) -> std::path::PathBuf {
    dir.join(files(dir).into_keys().next_back().unwrap())
}

#[test]
fn a_damaged_checkpoint_is_not_saved_and_a_damaged_savepoint_is_told() {
    let place = place();
    place.run();
    done(&place, "create", &["data", "good"]);
    place.write("t.csv", MORE);
    place.run();
    let checkpoint = newest(&place.path("data/checkpoints"));
    flip(&checkpoint);
    let name = checkpoint.file_name().unwrap().to_str().unwrap().to_owned();
    refused(&place, "create", &["data", "bad"], 3, &[&name, "damaged", "run the pipeline"]);
    assert_eq!(files(&place.path("data/savepoints")).len(), 1);
    place.run();
    done(&place, "create", &["data", "bad"]);
    flip(&place.path("data/savepoints/bad.savepoint"));
    refused(&place, "list", &["data"], 3, &["good", "DAMAGED", "bad.savepoint"]);
    refused(&place, "create", &["data", "bad"], 2, &["already"]);
    refused(&place, "copy", &["data", "bad", "copy"], 3, &["bad.savepoint", "expected"]);
    done(&place, "copy", &["data", "good", "copy"]);
    done(&place, "delete", &["data", "bad"]);
    done(&place, "list", &["data"]);
    let (code, text) = run_in(&place, "copy", "1");
    assert_eq!(code, 0, "{text}");
    assert!(place.out().ends_with(&view(&place, "copy")));
}
