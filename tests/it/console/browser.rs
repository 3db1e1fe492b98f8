//! Scripts that drive the console as a user does, each against a service of its own.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use crate::process::repository;
use crate::service::security::{certificate, key_file};
use crate::service::server::Service;

/// One browser at a time: it is heavy, and other tests run beside it.
static BROWSER: Mutex<()> = Mutex::new(());

/// Runs a script.
fn drive(script: &str, arguments: &[&str]) {
    let _alone = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    let run = repository().join("tests/it/console/run");
    crate::process::drive(Command::new(run).arg(script).args(arguments));
}

fn serve(root: &Path, more: &[&str]) -> (Service, String) {
    let service = Service::start_with(root, more);
    let address = format!("http://{}", service.address());
    (service, address)
}

/// From a new pipeline over its settings and a SIGKILL to its end.
#[test]
fn the_whole_story() {
    let dir = tempfile::tempdir().unwrap();
    let (_service, address) = serve(dir.path(), &[]);
    drive("story.py", &[&address]);
}

#[test]
fn a_key_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let key = key_file(&keys);
    let (cert, tls_key) = certificate(dir.path());
    let paths = [&keys, &cert, &tls_key].map(|path| path.to_str().unwrap());
    let more = ["--api-key-file", paths[0], "--tls-cert", paths[1], "--tls-key", paths[2]];
    let service = Service::start_with(&dir.path().join("service"), &more);
    drive("key.py", &[&format!("https://{}", service.address()), &key]);
}

/// By keyboard; on a phone; light and dark; for assistive technology; and nothing of what users write becomes HTML.
#[test]
fn for_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let (service, address) = serve(dir.path(), &[]);
    let sql = r#"CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, n INT) WITH ('connectors' = '[{"name": "made", "transport": {"name": "datagen",
        "config": {"plan": [{"limit": 3000}]}}}]');
        CREATE TABLE u (id BIGINT NOT NULL PRIMARY KEY, "<i>x</i>" VARCHAR);
        CREATE MATERIALIZED VIEW v WITH ('connectors' = '[{"name": "kept", "transport": {"name": "file_output", "config": {"path":
        "${DATA_DIR}/v.json"}}, "format": {"name": "json"}}]') AS SELECT t.n, u."<i>x</i>", count(*) AS c FROM t LEFT JOIN u ON u.id = t.n GROUP BY t.n, u."<i>x</i>";"#;
    service.create(
        "running",
        sql,
        json!({ "fault_tolerance": { "checkpoint_interval_secs": 1 }, "max_rows_per_step": 300 }),
    );
    service.turn("running", "start", "Running");
    let wrong = json!({
        "name": "a".repeat(100),
        "description": "<img src=x onerror=alert(1)>",
        "program_code": "CREATE VIEW v AS SELECT '<script>alert(1)</script>' FROM nowhere;",
    });
    assert_eq!(service.send("POST", "/v0/pipelines", &[], &wrong.to_string()).status, 201);
    drive("everybody.py", &[&address, &"a".repeat(100)]);
}
