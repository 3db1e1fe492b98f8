//! Listening to a view: each change once, also for a client that was cut off and goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Service, Stream, signal, try_send};
use crate::rng::Rng;

const SQL: &str = "CREATE TABLE t (id BIGINT NOT NULL);
    CREATE MATERIALIZED VIEW v AS SELECT id FROM t;
    CREATE VIEW sums AS SELECT count(*) AS c, sum(id) AS s FROM t;";

fn push(address: &str, ids: &[u64], key: &str) -> bool {
    let rows: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
    let path = "/v0/pipelines/p/ingress/t?array=true&update_format=raw";
    let answer = try_send(address, "POST", path, &[("idempotency-key", key)], &Value::from(rows).to_string());
    answer.is_ok_and(|answer| answer.status == 200)
}

fn document(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// The next document with a step.
fn next(stream: &mut Stream) -> Value {
    stream
        .map(|line| document(&line))
        .find(|d| {
            let has_rows = !d["json_data"].is_null() || !d["text_data"].is_null();
            (has_rows && !d["step"].is_null()) || !d["error"].is_null()
        })
        .expect("a document")
}

#[test]
fn changes_snapshots_and_events() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    service.create("p", SQL, json!({ "storage": true, "fault_tolerance": true }));
    assert_eq!(service.get("/v0/pipelines/p/egress/v").status, 503);
    service.turn("p", "start", "Running");
    let listen =
        |query: &str| Stream::open(service.address(), &format!("/v0/pipelines/p/egress/{query}"), &[]).unwrap();
    let mut rows = listen("v?format=json&backpressure=true");
    let mut sums = listen("SUMS");
    // The first piece comes at once.
    assert_eq!(document(&rows.next().unwrap())["sequence_number"], json!(0));
    assert!(push(service.address(), &[1, 2], "a"));
    let first = next(&mut rows);
    assert_eq!(first["json_data"], json!([{ "insert": { "id": 1 } }, { "insert": { "id": 2 } }]));
    // The row of no rows came with the first step, perhaps only after we listened.
    let sum = std::iter::repeat_with(|| next(&mut sums)).find(|sum| sum["step"] == first["step"]).unwrap();
    assert_eq!(sum["json_data"], json!([{ "delete": { "c": 0, "s": null } }, { "insert": { "c": 2, "s": 3 } }]));
    assert_eq!(sum["step"], first["step"]);
    assert!(push(service.address(), &[3], "b"));
    let second = next(&mut rows);
    assert_eq!((&second["sequence_number"], &second["json_data"]), (&json!(1), &json!([{ "insert": { "id": 3 } }])));

    // After a step: what came behind it, and nothing else.
    let after = |step: &Value| format!("v?after_step={step}");
    assert_eq!(next(&mut listen(&after(&first["step"])))["json_data"], second["json_data"]);
    let csv = next(&mut listen(&format!("{}&format=csv", after(&first["step"]))));
    assert_eq!(csv["text_data"], "3,insert\n");
    // The view's rows first, then changes.
    let mut snapshot = listen("v?send_snapshot=true");
    assert_eq!(document(&snapshot.next().unwrap())["json_data"].as_array().unwrap().len(), 3);
    assert_eq!(next(&mut snapshot)["step"], second["step"]);
    assert!(push(service.address(), &[4], "c"));
    assert_eq!(next(&mut snapshot)["json_data"], json!([{ "insert": { "id": 4 } }]));

    // Events, and going on by an event's id.
    let accept = ("accept", "text/event-stream");
    let events =
        |headers: &[(&str, &str)]| Stream::open(service.address(), "/v0/pipelines/p/egress/v", headers).unwrap();
    let mut stream = events(&[accept]);
    assert_eq!(stream.next().unwrap(), ": still here");
    assert!(push(service.address(), &[5], "d"));
    let lines: Vec<String> = stream.by_ref().skip(1).skip_while(|l| !l.starts_with("id: ")).take(3).collect();
    assert_eq!(lines[1], "event: delta");
    assert_eq!(document(lines[2].strip_prefix("data: ").unwrap())["json_data"], json!([{ "insert": { "id": 5 } }]));
    let id = lines[0].strip_prefix("id: ").unwrap();
    assert!(push(service.address(), &[6], "e"));
    let mut again = events(&[accept, ("last-event-id", id)]);
    let data = again.find_map(|l| l.strip_prefix("data: ").map(str::to_owned)).unwrap();
    assert_eq!(document(&data)["json_data"], json!([{ "insert": { "id": 6 } }]));

    let refused = |query: &str, headers: &[(&str, &str)]| {
        let answer = service.send("GET", &format!("/v0/pipelines/p/egress/{query}"), headers, "");
        (answer.status, answer.json()["error_code"].clone())
    };
    assert_eq!(refused("nope", &[]), (404, json!("UnknownOutputStream")));
    assert_eq!(refused("v?format=xml", &[]), (400, json!("InvalidRequest")));
    assert_eq!(refused("v?after_step=999999", &[]), (400, json!("InvalidRequest")));
    assert_eq!(refused("sums?send_snapshot=true", &[]), (400, json!("InvalidRequest")));
    assert_eq!(refused("v", &[("last-event-id", "x")]), (400, json!("InvalidRequest")));
    assert_eq!(refused("v", &[("last-event-id", "0123:7")]), (410, json!("StepNotKept")));

    // After a graceful stop the steps before it are in the checkpoint: a step behind is gone, the last one is not.
    service.turn("p", "stop?force=false", "Stopped");
    // The stream ends with the pipeline.
    rows.for_each(drop);
    service.turn("p", "start", "Running");
    assert_eq!(refused(&after(&first["step"]), &[]), (410, json!("StepNotKept")));
    service.turn("p", "stop?force=true", "Stopped");
}

/// How much is kept of changes and keys is the configuration's.
#[test]
fn what_is_kept_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    let http = json!({ "egress_max_bytes": 1, "idempotency_max_age_secs": 1 });
    service.create("p", SQL, json!({ "storage": true, "fault_tolerance": true, "http": http }));
    service.turn("p", "start", "Running");
    let mut rows = Stream::open(service.address(), "/v0/pipelines/p/egress/v", &[]).unwrap();
    let steps: Vec<Value> = (1..4)
        .map(|id| {
            assert!(push(service.address(), &[id], &format!("key {id}")));
            next(&mut rows)["step"].clone()
        })
        .collect();
    // The newest change is kept, whatever its size.
    let after = |step: &Value| service.send("GET", &format!("/v0/pipelines/p/egress/v?after_step={step}"), &[], "");
    assert_eq!((after(&steps[0]).status, &after(&steps[0]).json()["error_code"]), (410, &json!("StepNotKept")));
    let path = format!("/v0/pipelines/p/egress/v?after_step={}", steps[1]);
    assert_eq!(next(&mut Stream::open(service.address(), &path, &[]).unwrap())["step"], steps[2]);

    // A key that is older than a second is another one.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(push(service.address(), &[1], "key 1"));
    assert_eq!(next(&mut rows)["json_data"], json!([{ "insert": { "id": 1 } }]));
    service.turn("p", "stop?force=true", "Stopped");
}

/// Listens until it has seen a row, whatever happens, and says how often it saw each.
fn listener(address: &Mutex<String>, last: u64, resumed: &Mutex<u64>) -> BTreeMap<u64, u64> {
    let mut seen = BTreeMap::new();
    let mut step: Option<u64> = None;
    loop {
        let to = address.lock().unwrap().clone();
        let path = match step {
            Some(step) => format!("/v0/pipelines/p/egress/v?after_step={step}"),
            None => "/v0/pipelines/p/egress/v".to_owned(),
        };
        let Some(stream) = Stream::open(&to, &path, &[]).ok().filter(|s| s.status == 200) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        *resumed.lock().unwrap() += 1;
        for line in stream {
            let document = document(&line);
            assert!(document["error"].is_null(), "{line}");
            let rows = document["json_data"].as_array().cloned().unwrap_or_default();
            for row in rows {
                *seen.entry(row["insert"]["id"].as_u64().unwrap()).or_insert(0) += 1;
            }
            step = document["step"].as_u64().or(step);
            if seen.contains_key(&last) {
                return seen;
            }
        }
    }
}

#[test]
fn a_listener_misses_and_repeats_nothing_whatever_is_killed() {
    const PUSHES: u64 = 1500;
    let dir = tempfile::tempdir().unwrap();
    let (mut rng, seed) = Rng::from_env(5);
    let mut service = Service::start(dir.path());
    // The log has all steps, so that none is forgotten.
    service.create("p", SQL, json!({ "storage": true, "fault_tolerance": { "checkpoint_interval_secs": null } }));
    service.turn("p", "start", "Running");
    let address = Arc::new(Mutex::new(service.address().to_owned()));
    let resumed = Arc::new(Mutex::new(0));
    let listening = {
        let (address, resumed) = (Arc::clone(&address), Arc::clone(&resumed));
        std::thread::spawn(move || listener(&address, PUSHES - 1, &resumed))
    };
    service.until("it listens", || *resumed.lock().unwrap() > 0);
    let done = Arc::new(AtomicBool::new(false));
    let pushing = {
        let (address, done) = (Arc::clone(&address), Arc::clone(&done));
        std::thread::spawn(move || {
            for id in 0..PUSHES {
                while !push(&address.lock().unwrap().clone(), &[id], &id.to_string()) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            done.store(true, Ordering::Release);
        })
    };
    let mut kills: u64 = 0;
    while !done.load(Ordering::Acquire) && kills < 5 {
        service.until("it listens again", || *resumed.lock().unwrap() > kills || done.load(Ordering::Acquire));
        std::thread::sleep(Duration::from_millis(rng.below(300)));
        let pid = service.stats("p").and_then(|s| u32::try_from(s["backstay"]["pid"].as_u64()?).ok());
        let Some(pid) = pid else { continue };
        if kills % 2 == 1 {
            service.leave();
            signal(pid, "KILL");
            service = Service::start(dir.path());
            service.address().clone_into(&mut address.lock().unwrap());
        } else {
            signal(pid, "KILL");
        }
        kills += 1;
    }
    pushing.join().unwrap();
    let seen = listening.join().unwrap();
    let expected: BTreeMap<u64, u64> = (0..PUSHES).map(|id| (id, 1)).collect();
    assert!(kills >= 2, "seed {seed}: only {kills} kills");
    assert_eq!(seen, expected, "seed {seed}, {kills} kills");
    println!("seed {seed}: {kills} kills, {} connections", resumed.lock().unwrap());
    service.turn("p", "stop?force=true", "Stopped");
}
