//! Rows that clients push: durable once they are acknowledged, there once, whatever dies and whoever asks again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Answer, Service, escaped, signal, try_send};
use crate::rng::{Rng, number_from};

const SQL: &str = "CREATE TABLE t (id BIGINT NOT NULL, n INT) WITH ('materialized' = 'true');
    CREATE TABLE k (id BIGINT NOT NULL PRIMARY KEY, n INT, at TIMESTAMP);
    CREATE TABLE l (id BIGINT NOT NULL LATENESS 10) WITH ('late_rows' = 'too_late');
    CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c, sum(id) AS s, sum(n) AS n FROM t;
    CREATE MATERIALIZED VIEW kept AS SELECT id, n FROM k;
    CREATE MATERIALIZED VIEW late AS SELECT id FROM too_late;";

fn push(service: &Service, table: &str, query: &str, key: Option<&str>, body: &str) -> Answer {
    let headers: Vec<(&str, &str)> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
    service.send("POST", &format!("/v0/pipelines/p/ingress/{table}?{query}"), &headers, body)
}

fn status(service: &Service, answer: &Answer) -> Value {
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    service.get(&format!("/v0/pipelines/p/completion_status?token={}", escaped(&token))).json()["status"].clone()
}

fn started(service: &Service) {
    let config = json!({ "storage": true, "fault_tolerance": { "checkpoint_interval_secs": 1 } });
    service.create("p", SQL, config);
}

#[test]
fn formats_keys_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    started(&service);
    assert_eq!(push(&service, "t", "", None, "{}").status, 503, "it does not run");
    service.turn("p", "start?initial=paused", "Paused");

    // Durable while it is paused, and taken when it runs.
    let array = r#"[{"id": 1, "n": 10}, {"id": 2, "n": null}]"#;
    let first = push(&service, "t", "format=json&array=true&update_format=raw", Some("a"), array);
    assert_eq!(first.status, 200, "{}", first.body);
    assert!(first.head.contains("idempotent-replayed: false"));
    assert_eq!(status(&service, &first), "inprogress");
    let again = push(&service, "t", "format=json&array=true&update_format=raw", Some("a"), array);
    assert_eq!((again.status, again.json()), (200, first.json()));
    assert!(again.head.contains("idempotent-replayed: true"));
    let other = push(&service, "t", "format=json&array=true&update_format=raw", Some("a"), "[]");
    assert_eq!((other.status, other.json()["error_code"].clone()), (422, json!("IdempotencyKeyReused")));
    let meaning = push(&service, "t", "format=json&array=true", Some("a"), array);
    assert_eq!(meaning.status, 400, "as insert_delete it does not parse: {}", meaning.body);
    service.turn("p", "resume", "Running");
    service.until("it is complete", || status(&service, &first) == "complete");
    assert_eq!(service.value("p", "SELECT s FROM v"), Some(json!(3)));

    // Documents one after the other, with deletes; CSV; a key of another table is another key.
    let documents =
        "{\"insert\": {\"id\": 3, \"n\": 1}} {\"insert\": {\"id\": 4}}\n\n{\"delete\":\n {\"id\": 1, \"n\": 10}}";
    assert_eq!(push(&service, "t", "", Some("b"), documents).status, 200);
    assert_eq!(push(&service, "T", "format=csv", None, "n,id\n5,6\n7,8\n").status, 200);
    assert_eq!(push(&service, "t", "format=csv&headers=false&delimiter=%3B", None, "9;5\n").status, 200);
    let upserts = r#"[{"insert": {"id": 1, "n": 1}}, {"insert": {"id": 1, "n": 2}}, {"insert": {"id": 2}}, {"delete": {"id": 2}}]"#;
    let last = push(&service, "k", "array=true", Some("b"), upserts);
    assert_eq!(last.status, 200, "{}", last.body);
    service.until("it is complete", || status(&service, &last) == "complete");
    assert_eq!(
        service.value("p", "SELECT s * 1000 + n FROM v"),
        Some(json!((2 + 3 + 4 + 6 + 8 + 9) * 1000 + 1 + 5 + 7 + 5))
    );
    assert_eq!(service.value("p", "SELECT sum(id * 10 + n) FROM kept"), Some(json!(12)));

    // Rows behind the watermark go to the table for them.
    for id in [100, 5] {
        assert_eq!(push(&service, "l", "update_format=raw", None, &json!({ "id": id }).to_string()).status, 200);
        let end = push(&service, "l", "array=true", None, "[]");
        service.until("it is complete", || status(&service, &end) == "complete");
    }
    assert_eq!(service.value("p", "SELECT sum(id) FROM late"), Some(json!(5)));

    // What a process took is known to the next one.
    service.turn("p", "stop?force=true", "Stopped");
    service.turn("p", "start", "Running");
    assert_eq!(status(&service, &first), "complete");
    let again = push(&service, "t", "format=json&array=true&update_format=raw", Some("a"), array);
    assert_eq!((again.status, again.json()), (200, first.json()));
    assert_eq!(service.value("p", "SELECT c FROM v"), Some(json!(6)));

    // Another life does not know it.
    service.turn("p", "stop?force=true", "Stopped");
    assert_eq!(service.post("/v0/pipelines/p/clear").status, 202);
    service.until("it is cleared", || service.pipeline("p")["storage_status"] == "Cleared");
    service.turn("p", "start", "Running");
    let token = escaped(first.json()["token"].as_str().unwrap());
    assert_eq!(service.get(&format!("/v0/pipelines/p/completion_status?token={token}")).status, 410);
    service.turn("p", "stop?force=true", "Stopped");
}

#[test]
fn what_is_wrong_is_refused_and_nothing_taken() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    started(&service);
    service.turn("p", "start", "Running");
    let long = "x".repeat(17 << 20);
    let key = "k".repeat(300);
    let refused = [
        (404, "UnknownInputStream", push(&service, "tt", "", None, "{}")),
        (400, "InvalidRequest", push(&service, "too_late", "", None, "{}")),
        (404, "UnknownInputStream", push(&service, "v", "", None, "{}")),
        (404, "UnknownInputStream", push(&service, "%2e%2e%2fk", "", None, "{}")),
        (400, "ParseErrors", push(&service, "t", "update_format=raw", None, r#"{"id": 1} {"id": "x"} {"id": 2}"#)),
        (400, "ParseErrors", push(&service, "t", "", None, r#"{"upsert": {"id": 1}}"#)),
        (400, "InvalidRequest", push(&service, "t", "", None, r#"{"insert": {"id": 1}"#)),
        (400, "InvalidRequest", push(&service, "t", "array=true", None, r#"{"insert": {"id": 1}}"#)),
        (400, "InvalidRequest", push(&service, "t", "format=avro", None, "x")),
        (400, "InvalidRequest", push(&service, "t", "update_format=debesium", None, "{}")),
        (400, "InvalidRequest", push(&service, "t", "array=maybe", None, "[]")),
        (400, "InvalidRequest", push(&service, "k", "json_flavor=pandas", None, "")),
        (400, "InvalidRequest", push(&service, "t", "json_flavor=mysql", None, "")),
        (400, "ParseErrors", push(&service, "t", "format=csv", None, "id,n\n1,2,3,4\n")),
        (400, "InvalidRequest", push(&service, "t", "", Some(&key), "")),
        (413, "InvalidRequest", push(&service, "t", "", None, &long)),
        (400, "InvalidRequest", service.get("/v0/pipelines/p/completion_status?token=abc")),
        (400, "InvalidRequest", service.get("/v0/pipelines/p/completion_status")),
    ];
    for (i, (status, code, answer)) in refused.iter().enumerate() {
        assert_eq!((answer.status, &answer.json()["error_code"]), (*status, &json!(code)), "{i}: {}", answer.body);
    }
    assert_eq!(refused[4].2.json()["details"]["errors"][0]["byte"], 10, "{}", refused[4].2.body);
    assert_eq!(service.value("p", "SELECT c FROM v"), Some(json!(0)));
    service.turn("p", "stop?force=true", "Stopped");
}

#[test]
fn rows_that_there_is_no_room_for_are_refused_so() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    let config = json!({ "storage": { "quota_bytes": 16 << 20, "max_log_bytes": 64 << 20 }, "fault_tolerance": {} });
    let sql = "CREATE TABLE t (s VARCHAR); CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;";
    service.create("p", sql, config);
    service.turn("p", "start?initial=paused", "Paused");
    let mut rng = Rng::new(3);
    let mut taken = 0;
    let answer = loop {
        let text: String = (0..1 << 16).map(|_| format!("{:016x}", rng.next())).collect();
        let answer = push(&service, "t", "update_format=raw", None, &json!({ "s": text }).to_string());
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
        assert!(taken < 60, "the quota bounds the log");
    };
    // The process ends for that, too, and may have before it answers.
    let is_told = answer.status == 507 && answer.json()["error_code"] == "NoSpace";
    assert!(is_told || answer.status == 503, "{} {}", answer.status, answer.body);
    // With more room it goes on: what was acknowledged is there.
    service.until("it has ended", || {
        service.pipeline("p")["deployment_error"]["message"].as_str().is_some_and(|m| m.contains("no space"))
    });
    let config = json!({ "storage": {}, "fault_tolerance": {} });
    let set = service.send("PATCH", "/v0/pipelines/p", &[], &json!({ "runtime_config": config }).to_string());
    assert_eq!(set.status, 200, "{}", set.body);
    service.turn("p", "start", "Running");
    service
        .until("the rows are there", || service.value("p", "SELECT c FROM v").and_then(|c| c.as_u64()) >= Some(taken));
    let there = service.value("p", "SELECT c FROM v").and_then(|c| c.as_u64()).unwrap();
    assert!(there <= taken + 1, "{there} of {taken}: one is not known");
    service.turn("p", "stop?force=true", "Stopped");
}

/// A savepoint's copy has no log.
#[test]
fn a_stop_takes_what_was_acknowledged_and_leaves_what_a_paused_pipeline_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    // A file that more may come of, and steps that wait for it: what is pushed waits, too.
    std::fs::write(dir.path().join("files/u.csv"), "n\n").unwrap();
    let path = dir.path().join("files/u.csv").to_str().unwrap().to_owned();
    let sql = format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL);
        CREATE TABLE u (n BIGINT) WITH ('connectors' = '[{{"transport": {{"name": "file_input", "config": {{"path": "{path}", "follow": true}}}}, "format": {{"name": "csv"}}}}]');
        CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;"#
    );
    let config = json!({ "storage": true, "fault_tolerance": {}, "min_batch_size_records": 1_000_000, "max_buffering_delay_usecs": 600_000_000 });
    service.create("p", &sql, config);
    service.turn("p", "start", "Running");
    let savepoint = |name: &str| {
        let answer = service.send("POST", "/v0/pipelines/p/savepoints", &[], &json!({ "name": name }).to_string());
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()["steps_behind"].clone()
    };
    let pushed = push(&service, "t", "array=true&update_format=raw", None, r#"[{"id": 1}, {"id": 2}]"#);
    assert_eq!((pushed.status, status(&service, &pushed)), (200, json!("inprogress")));
    service.turn("p", "stop?force=false", "Stopped");
    assert_eq!(savepoint("s"), json!(0));
    service.turn("p", "start?initial=paused", "Paused");
    assert_eq!(service.value("p", "SELECT c FROM v"), Some(json!(2)), "the checkpoint lacks what was acknowledged");
    assert_eq!(status(&service, &pushed), "complete");
    let pushed = push(&service, "t", "array=true&update_format=raw", None, r#"[{"id": 3}]"#);
    assert_eq!(pushed.status, 200, "{}", pushed.body);
    service.turn("p", "stop?force=false", "Stopped");
    assert_ne!(savepoint("paused"), json!(0));
    service.turn("p", "start?initial=paused", "Paused");
    assert_eq!(service.value("p", "SELECT c FROM v"), Some(json!(2)), "it makes no steps");
    service.turn("p", "stop?force=true", "Stopped");
}

/// What clients were told of their rows: `Some`: acknowledged.
type Told = Arc<Mutex<BTreeMap<u64, Option<()>>>>;

/// Pushes numbered rows until it is told to stop. With a key a request is repeated until it is acknowledged, without one never.
fn client(number: u64, address: Arc<Mutex<String>>, told: Told, stop: Arc<AtomicBool>) {
    let mut rng = Rng::new(number);
    for request in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let count = 1 + rng.below(20);
        let ids: Vec<u64> = (0..count).map(|i| (number << 32) | (request << 8) | i).collect();
        let rows: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
        let key = format!("{number}-{request}");
        let is_keyed = number.is_multiple_of(2);
        let headers = [("idempotency-key", key.as_str())];
        told.lock().unwrap().extend(ids.iter().map(|id| (*id, None)));
        loop {
            let to = address.lock().unwrap().clone();
            let path = "/v0/pipelines/p/ingress/t?array=true&update_format=raw";
            let headers = if is_keyed { &headers[..] } else { &[] };
            let answer = try_send(&to, "POST", path, headers, &Value::from(rows.clone()).to_string());
            match answer {
                Ok(Answer { status: 200, .. }) => {
                    told.lock().unwrap().extend(ids.iter().map(|id| (*id, Some(()))));
                    break;
                }
                Ok(Answer { status: 500.., .. }) | Err(_) if is_keyed => std::thread::sleep(Duration::from_millis(10)),
                Ok(Answer { status: 500.., .. }) | Err(_) => {
                    std::thread::sleep(Duration::from_millis(10));
                    break;
                }
                Ok(other) => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn acknowledged_rows_are_there_once_whatever_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut rng, seed) = Rng::from_env(11);
    let kills = number_from("BACKSTAY_PUSH_KILLS", 6);
    let mut service = Service::start(dir.path());
    started(&service);
    service.turn("p", "start", "Running");
    let pid = |service: &Service| service.stats("p").and_then(|s| s["backstay"]["pid"].as_u64());
    let address = Arc::new(Mutex::new(service.address().to_owned()));
    let (told, stop) = (Told::default(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (address, told, stop) = (Arc::clone(&address), Arc::clone(&told), Arc::clone(&stop));
            std::thread::spawn(move || client(number, address, told, stop))
        })
        .collect();
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(200 + rng.below(1500)));
        let mut before = None;
        service.until("it runs", || {
            before = pid(&service);
            before.is_some()
        });
        let before = u32::try_from(before.unwrap()).unwrap();
        let (of_manager, of_pipeline) = [(false, true), (true, false), (true, true)][(kill % 3) as usize];
        if !of_manager {
            signal(before, "KILL");
        } else {
            service.leave();
            if of_pipeline {
                signal(before, "KILL");
            }
            service = Service::start(dir.path());
            service.address().clone_into(&mut address.lock().unwrap());
        }
        service.until("it runs again", || pid(&service).is_some_and(|now| !of_pipeline || now != u64::from(before)));
    }
    stop.store(true, Ordering::Release);
    clients.into_iter().for_each(|client| client.join().unwrap());
    // Whoever stopped has an answer, so that all that will ever be there is there, or waits.
    let end = push(&service, "t", "array=true", None, "[]");
    service.until("all is complete", || status(&service, &end) == "complete");
    let sql = "SELECT id, count(*) AS c FROM t GROUP BY id";
    let answer = service.get(&format!("/v0/pipelines/p/query?format=json&sql={}", escaped(sql)));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut there = BTreeMap::new();
    for line in answer.body.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        there.insert(row["id"].as_u64().unwrap(), row["c"].as_i64().unwrap());
    }
    let told = told.lock().unwrap();
    let acknowledged = told.values().flatten().count();
    println!(
        "seed {seed}: {kills} kills, {} rows sent, {acknowledged} acknowledged, {} there",
        told.len(),
        there.len()
    );
    assert!(acknowledged > 100, "clients were answered");
    for (id, answer) in told.iter() {
        let count = there.remove(id).unwrap_or(0);
        match answer {
            Some(()) => assert_eq!(count, 1, "seed {seed}: row {id:x} was acknowledged"),
            None => assert!((0..=1).contains(&count), "seed {seed}: row {id:x} is there {count} times"),
        }
        assert!(answer.is_some() || (id >> 32) % 2 == 1, "a client with keys goes on until it is told");
    }
    assert!(there.is_empty(), "seed {seed}: {there:?} were never sent");
    service.turn("p", "stop?force=true", "Stopped");
}

/// Rows of a table that skips columns stand in the log without these, also behind a process that did not end by itself.
#[test]
fn columns_that_nothing_reads_are_not_parsed() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    let sql = "CREATE TABLE t (id BIGINT NOT NULL, junk BIGINT NOT NULL, n INT) WITH ('skip_unused_columns' = 'true');
        CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c, sum(id * 10 + n) AS s FROM t;";
    service.create("p", sql, json!({ "storage": true, "fault_tolerance": { "checkpoint_interval_secs": 1 } }));
    service.turn("p", "start?initial=paused", "Paused");
    let taken = |query: &str, body: &str| {
        let answer = push(&service, "t", query, None, body);
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    taken("format=csv&headers=false", "1,none,2\n");
    taken("format=csv", "n,junk,id\n5,,4\n");
    taken("update_format=raw", r#"{"id": 2, "junk": {"no": "number"}, "n": 3}"#);
    let short = push(&service, "t", "format=csv&headers=false", None, "1,2\n");
    assert_eq!(short.status, 400);
    assert!(short.body.contains("it has 2 fields, the table has 3"), "{}", short.body);
    service.turn("p", "stop?force=true", "Stopped");
    service.turn("p", "start", "Running");
    service.until("they are taken", || service.value("p", "SELECT c FROM v") == Some(json!(3)));
    assert_eq!(service.value("p", "SELECT s FROM v"), Some(json!(12 + 45 + 23)));
}
