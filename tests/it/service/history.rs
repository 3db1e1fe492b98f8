//! `GET P/history`, and the figures in lists: what a crash leaves in them.

use serde_json::{Value, json};

use super::server::{Service, signal};

fn history(service: &Service, after: i64) -> Value {
    let answer = service.get(&format!("/v0/pipelines/p/history?after={after}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn kinds(history: &Value) -> Vec<String> {
    history["events"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_crash_and_its_replay_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    let sql = r#"CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY) WITH ('connectors' = '[{"name": "g", "transport": {"name": "datagen",
        "config": {"plan": [{"limit": 5000000}]}}}]');
        CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;"#;
    let config =
        json!({ "storage": true, "fault_tolerance": { "checkpoint_interval_secs": 1 }, "max_rows_per_step": 100 });
    service.create("p", sql, config);
    assert_eq!(history(&service, 0), json!({ "samples": [], "events": [] }));
    assert!(service.pipeline("p")["backstay"].is_null());

    service.turn("p", "start", "Running");
    service.until("a sample has a rate and the state's size", || {
        let all = history(&service, 0);
        let samples = all["samples"].as_array().unwrap().clone();
        samples.iter().any(|s| s["records_per_second"].as_u64() > Some(0) && s["state_bytes"].as_u64() > Some(0))
    });
    service.until("a checkpoint", || kinds(&history(&service, 0)).contains(&"checkpoint".to_owned()));
    let list = service.get("/v0/pipelines?selector=status").json();
    assert!(list[0]["backstay"]["records"].as_u64() > Some(0), "{list}");
    service.until("the input's position is told", || {
        let stats = service.stats("p").unwrap();
        stats["inputs"][0]["backstay"]["position"]["last"][0]["offset"].as_u64() > Some(0)
    });
    let circuit = service.get("/v0/pipelines/p/circuit").json();
    assert!(circuit["operators"][0]["state_rows"].as_u64() > Some(0), "{circuit}");

    let all = history(&service, 0);
    let last = all["events"].as_array().unwrap().last().unwrap()["at_msecs"].as_i64().unwrap();
    let pid = service.stats("p").unwrap()["backstay"]["pid"].as_u64().unwrap();
    signal(u32::try_from(pid).unwrap(), "KILL");
    service.until("it runs again", || {
        let now = kinds(&history(&service, last));
        now.last().is_some_and(|kind| kind != "crash") && now.contains(&"running".to_owned())
    });
    let after = history(&service, last);
    let told: Vec<String> = kinds(&after).into_iter().filter(|kind| kind != "checkpoint").collect();
    assert_eq!(told, ["crash", "start", "replay", "running"], "{after}");
    let crash = &after["events"].as_array().unwrap().iter().find(|e| e["kind"] == "crash").unwrap();
    assert!(crash["exit"].as_str().unwrap().contains("SIGKILL") && crash["step"].as_u64() > Some(0), "{crash}");
    let replay = after["events"].as_array().unwrap().iter().find(|e| e["kind"] == "replay").unwrap();
    let steps = replay["to"].as_u64().unwrap() - replay["from"].as_u64().unwrap() + 1;
    assert!((1..=steps * 100).contains(&replay["records"].as_u64().unwrap()), "{replay}");

    service.turn("p", "stop?force=true", "Stopped");
    assert_eq!(kinds(&history(&service, last)).last().unwrap(), "stop");
    assert_eq!(service.get("/v0/pipelines/p/history?after=x").json()["error_code"], "InvalidRequest");
    assert_eq!(service.get("/v0/pipelines/q/history").json()["error_code"], "UnknownPipelineName");
}
