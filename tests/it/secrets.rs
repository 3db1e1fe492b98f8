//! A secret by reference is in no file, log, answer or message: all of them are searched for its bytes.

use std::path::Path;

use serde_json::json;

use crate::cli::Place;
use crate::process::{output, stderr};
use crate::service::server::Service;

const SECRET: &str = "hunter2-is-not-a-good-one";

/// The files below a folder that have the secret.
fn traces(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            traces(&path, found);
        } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes())) {
            found.push(path.display().to_string());
        }
    }
}

/// To a server that is not there, with a password.
fn sql(secret: &str) -> String {
    format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL) WITH ('connectors' = '[{{"name": "g", "transport": {{"name": "datagen", "config": {{"plan": [{{"limit": 10}}]}}}}}},
        {{"name": "s", "transport": {{"name": "s3_input", "config": {{"bucket_name": "b", "region": "r", "prefix": "p", "endpoint_url": "http://127.0.0.1:9",
          "aws_access_key_id": "id", "aws_secret_access_key": "{secret}"}}}}, "format": {{"name": "csv"}}}}]');
        CREATE VIEW v WITH ('connectors' = '[{{"name": "pg", "transport": {{"name": "postgres_output", "config":
          {{"uri": "postgresql://user:{secret}@127.0.0.1:9/db?connect_timeout=1", "table": "v"}}}}}}]') AS SELECT id FROM t;"#
    )
}

#[test]
fn a_secret_is_nowhere_to_be_found() {
    let (dir, secrets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = secrets.path().join("password");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    // A reference to a file reaches what pipelines may read.
    let service = Service::start_with(dir.path(), &["--allow-root", secrets.path().to_str().unwrap()]);
    service.create(
        "p",
        &sql(&format!("${{file:{}}}", file.display())),
        json!({ "storage": true, "fault_tolerance": true }),
    );
    assert_eq!(service.post("/v0/pipelines/p/start").status, 202);
    service.until("the sink is missed", || {
        service.stats("p").is_some_and(|s| s["backstay"]["troubles"].to_string().contains("127.0.0.1"))
    });
    for path in ["", "/stats", "/circuit", "/metrics", "/checkpoint_status"] {
        let answer = service.get(&format!("/v0/pipelines/p{path}"));
        assert!(!answer.body.contains(SECRET), "{path}: {}", answer.body);
    }
    assert_eq!(service.post("/v0/pipelines/p/stop?force=true").status, 202);
    service.wait("p", "Stopped");
    let mut found = Vec::new();
    traces(dir.path(), &mut found);
    assert!(found.is_empty(), "{found:?}");
}

/// Errors that quote what is configured.
#[test]
fn what_is_wrong_with_a_secret_is_told_without_it() {
    let place = Place::new();
    place.write("secret", SECRET);
    let with = |key: &str| {
        let config = format!(r#"{{"name": "csv", "config": {{"{key}": "${{file:secret}}"}}}}"#);
        place.write("p.sql", &crate::cli::SQL.replace(r#"{"name": "csv"}"#, &config));
        let done = output(place.args());
        let said = stderr(&done);
        assert!(done.status.code() == Some(2) && !said.contains(SECRET), "{said}");
        said
    };
    assert!(with("delimiter").contains("delimiter"));
    assert!(with("headers").contains("${file:secret}"));
    place.write("p.sql", &crate::cli::SQL.replace(r#""t.csv""#, r#""${file:secret}.csv""#));
    let said = place.fail(1);
    assert!(said.contains("${file:secret}.csv") && !said.contains(SECRET), "{said}");
    place.write("p.sql", &crate::cli::SQL.replace(r#""t.csv""#, r#""${file:gone}""#));
    assert!(place.fail(2).contains("in \"${file:gone}\": the secret cannot be read"));
}

#[test]
fn secrets_come_from_a_directory_as_kubernetes_mounts_them() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("secrets/kubernetes/files")).unwrap();
    place.write("secrets/kubernetes/files/input", "t.csv");
    place.write("p.sql", &crate::cli::SQL.replace(r#""t.csv""#, r#""${secret:kubernetes:files/input}""#));
    let said = place.fail(2);
    assert!(said.contains("/etc/backstay-secrets/kubernetes/files/input"), "{said}");
    let run =
        crate::process::backstay(place.args()).env("BACKSTAY_SECRETS_DIR", place.path("secrets")).output().unwrap();
    assert!(run.status.success(), "{}", stderr(&run));
    assert_eq!(place.out().lines().count(), 2);
}
