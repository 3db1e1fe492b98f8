//! The commands that ask a service.

use serde_json::{Value, json};

use super::server::Service;
use crate::process::{backstay, output, stderr};

const SQL: &str = r#"CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY) WITH ('connectors' =
    '[{"name": "g", "transport": {"name": "datagen", "config": {"plan": [{"limit": 100}]}}}]');
    CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;"#;

/// A command of a service: its exit code, and what it said on standard output and error.
fn ask(service: &Service, args: &[&str]) -> (i32, String, String) {
    let done = backstay(args).env("BACKSTAY_URL", format!("http://{}", service.address())).output().unwrap();
    (done.status.code().unwrap(), String::from_utf8(done.stdout.clone()).unwrap(), stderr(&done))
}

fn done(service: &Service, args: &[&str]) -> String {
    let (code, out, error) = ask(service, args);
    assert_eq!(code, 0, "{args:?}: {out}{error}");
    out
}

fn refused(service: &Service, args: &[&str], code: i32, said: &str) {
    let (got, out, error) = ask(service, args);
    assert!(got == code && error.contains(said), "{args:?}: {got} {out}{error}");
}

#[test]
fn a_pipelines_life_by_commands() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&dir.path().join("d"));
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, bad) =
        (file("p.sql", SQL), file("bad.sql", "CREATE TABLE t (a INT);\nCREATE VIEW v AS SELECT b FROM t;"));
    assert_eq!(done(&service, &["pipelines", "--json"]).trim(), "[]");
    refused(&service, &["create", "p", &bad], 2, "2:25: error:");
    refused(&service, &["start", "p"], 2, "line 2, column 25: there is no column");
    done(&service, &["program", "set", "p", &good]);
    assert_eq!(done(&service, &["program", "get", "p"]).trim(), SQL);
    assert_eq!(done(&service, &["set-config", "p", "workers", "2"]), "workers of pipeline p is 2\n");
    let interval = "{\"checkpoint_interval_secs\": 7}";
    done(&service, &["set-config", "p", "fault_tolerance", interval]);
    let config: Value = serde_json::from_str(&done(&service, &["config", "p"])).unwrap();
    assert_eq!((&config["workers"], &config["fault_tolerance"]["checkpoint_interval_secs"]), (&json!(2), &json!(7)));
    refused(&service, &["set-config", "p", "wrokers", "2"], 2, "did you mean \"workers\"?");
    refused(&service, &["pause", "p"], 2, "start it first");
    refused(&service, &["stats", "p"], 1, "it is Stopped");
    refused(&service, &["savepoint", "create", "p", "monday"], 2, "keeps no state");
    refused(&service, &["savepoint", "delete", "p", "monday"], 2, "keeps no state");

    assert_eq!(done(&service, &["start", "p"]), "pipeline p is Running\n");
    service.until("all rows are there", || {
        done(&service, &["query", "p", "SELECT c FROM v", "--json"]) == "{\"c\":100}\n"
    });
    assert_eq!(done(&service, &["query", "p", "SELECT c FROM v", "--format", "csv"]), "c\n100\n");
    assert_eq!(done(&service, &["query", "p"]), "t\nv\n");
    refused(&service, &["query", "p", "SELECT d FROM v"], 2, "^");
    assert_eq!(done(&service, &["pause", "p"]), "pipeline p is Paused\n");
    assert!(done(&service, &["status", "p"]).contains("Paused"));
    let status: Value = serde_json::from_str(&done(&service, &["status", "p", "--json"])).unwrap();
    assert_eq!(status["deployment_status"], "Paused");
    done(&service, &["resume", "p"]);
    assert!(done(&service, &["stats", "p"]).contains("input t.g: 100 rows"));
    let stats: Value = serde_json::from_str(&done(&service, &["connector", "p", "t", "g", "stats", "--json"])).unwrap();
    assert_eq!(stats["metrics"]["total_records"], 100);
    refused(&service, &["connector", "p", "t", "none", "stats"], 2, "no connector");
    for (action, is_paused) in [("pause", true), ("start", false)] {
        assert_eq!(
            done(&service, &["connector", "p", "t", "g", action]),
            format!("connector t.g of pipeline p is {}\n", if is_paused { "paused" } else { "started" })
        );
        let stats = done(&service, &["connector", "p", "t", "g", "stats", "--json"]);
        assert_eq!(serde_json::from_str::<Value>(&stats).unwrap()["paused"], is_paused);
    }
    refused(&service, &["connector", "p", "t", "none", "pause"], 2, "none");
    assert_eq!(done(&service, &["checkpoint", "p"]), "pipeline p has taken a checkpoint\n");
    assert!(done(&service, &["logs", "p"]).contains("exactly once"));
    refused(&service, &["savepoint", "create", "p", "monday"], 2, "stop it first");
    refused(&service, &["delete", "p"], 2, "stop it first");

    assert_eq!(done(&service, &["stop", "p"]), "pipeline p is Stopped\n");
    assert!(done(&service, &["savepoint", "create", "p", "monday"]).contains("after step"));
    refused(&service, &["savepoint", "create", "p", "monday"], 2, "already");
    refused(&service, &["savepoint", "create", "p", "../x"], 2, "savepoint");
    let all: Value = serde_json::from_str(&done(&service, &["savepoint", "list", "p", "--json"])).unwrap();
    assert_eq!((all.as_array().unwrap().len(), &all[0]["name"], &all[0]["whole"]), (1, &json!("monday"), &json!(true)));
    refused(&service, &["savepoint", "delete", "p", "mondy"], 2, "did you mean");
    done(&service, &["savepoint", "delete", "p", "monday"]);
    assert_eq!(done(&service, &["savepoint", "list", "p"]), "no savepoints in p\n");
    refused(&service, &["delete", "p"], 2, "clear its storage");
    done(&service, &["clear", "p"]);
    assert_eq!(done(&service, &["delete", "p"]), "pipeline p is deleted\n");
    refused(&service, &["status", "p"], 2, "there is no pipeline \"p\"");
    // Below the service, everything is gone.
    assert_eq!(std::fs::read_dir(dir.path().join("d/pipelines")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_asked_is_told() {
    let done = output(["pipelines", "--url", "http://127.0.0.1:1"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("is `backstay serve` running there?"), "{}", stderr(&done));
    let done = output(["query", "no-such-dir", "SELECT 1", "--url", "http://127.0.0.1:1"]);
    assert!(stderr(&done).contains("no-such-dir is no directory"), "{}", stderr(&done));
    let done = output(["pipelines", "--url", "127.0.0.1:1"]);
    assert_eq!(done.status.code(), Some(2));
}

#[test]
fn shells_complete_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let done = output(["completions", shell]);
        let script = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success() && script.contains("set-config"), "{shell}");
    }
    let script = String::from_utf8(output(["completions", "bash"]).stdout).unwrap();
    let checked = std::process::Command::new("bash").args(["-n", "-c", &script]).status().unwrap();
    assert!(checked.success(), "bash can read it");
}
