//! SIGKILL of a pipeline's process, of the manager, and of both: what runs goes on, or is brought back, and no row is lost or
//! counted twice.

use std::time::Duration;

use serde_json::json;

use super::server::{Service, signal};
use crate::rng::Rng;

const ROWS: u64 = 300_000;

fn sql() -> String {
    format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL, g BIGINT) WITH ('connectors' = '[{{"name": "g", "transport": {{"name": "datagen", "config":
        {{"plan": [{{"limit": {ROWS}, "fields": {{"g": {{"strategy": "increment", "range": [0, 10]}}}}}}]}}}}}}]');
        CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS c, sum(id) AS s FROM t GROUP BY g;"#
    )
}

fn pid(service: &Service) -> Option<u32> {
    let stats = service.stats("p")?;
    stats["backstay"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}

/// Each row once.
fn check(service: &Service) {
    service.until("all rows are there", || service.value("p", "SELECT sum(c) FROM v") == Some(json!(ROWS)));
    let sum = service.value("p", "SELECT sum(s) FROM v").unwrap();
    assert_eq!(sum, json!(ROWS * (ROWS - 1) / 2));
}

fn running(service: &Service) {
    let config =
        json!({ "storage": true, "fault_tolerance": { "checkpoint_interval_secs": 1 }, "max_rows_per_step": 300 });
    service.create("p", &sql(), config);
    service.turn("p", "start", "Running");
}

#[test]
fn a_pipeline_that_is_killed_is_brought_back() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    running(&service);
    let mut rng = Rng::new(7);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(200 + rng.below(600)));
        let killed = pid(&service).expect("a process");
        signal(killed, "KILL");
        service.until("another process runs", || pid(&service).is_some_and(|now| now != killed));
    }
    check(&service);
    assert!(service.pipeline("p")["deployment_error"].is_null());
}

#[test]
fn pipelines_outlive_a_manager_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    running(&service);
    let before = pid(&service).expect("a process");
    service.leave();
    let service = Service::start(dir.path());
    service.wait("p", "Running");
    assert_eq!(pid(&service), Some(before), "it is the same process");
    service.turn("p", "pause", "Paused");
    service.turn("p", "resume", "Running");
    // A process that another manager started can be killed, noticed, and brought back.
    signal(before, "KILL");
    service.until("another process runs", || pid(&service).is_some_and(|now| now != before));
    check(&service);
}

#[test]
fn both_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    running(&service);
    std::thread::sleep(Duration::from_millis(700));
    let before = pid(&service).expect("a process");
    service.leave();
    signal(before, "KILL");
    let service = Service::start(dir.path());
    check(&service);
}

#[test]
fn a_manager_that_is_asked_to_end_stops_its_pipelines_and_brings_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    running(&service);
    let before = pid(&service).expect("a process");
    service.end();
    assert!(!std::path::Path::new(&format!("/proc/{before}")).exists(), "its pipeline runs on");
    let service = Service::start(dir.path());
    service.wait("p", "Running");
    check(&service);
}

/// Also one that is wanted no more: what it holds is not cleared under it.
#[test]
fn a_process_that_does_not_answer_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    running(&service);
    // By another manager than its parent: the system ends stopped processes that lose theirs.
    service.leave();
    let service = Service::start(dir.path());
    service.wait("p", "Running");
    let process = pid(&service).expect("a process");
    signal(process, "STOP");
    assert_eq!(service.post("/v0/pipelines/p/stop").status, 202);
    service.leave();
    let service = Service::start(dir.path());
    for _ in 0..20 {
        assert_eq!(service.post("/v0/pipelines/p/clear").status, 400);
        assert_eq!(service.send("DELETE", "/v0/pipelines/p", &[], "").status, 400);
        std::thread::sleep(Duration::from_millis(100));
    }
    signal(process, "CONT");
    service.wait("p", "Stopped");
    service.turn("p", "start", "Running");
    check(&service);
}
