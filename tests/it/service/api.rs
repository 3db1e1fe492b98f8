//! What the API answers.

use serde_json::json;

use super::server::{Service, escaped};

const SQL: &str = r#"CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, n INT) WITH ('connectors' =
    '[{"name": "g", "transport": {"name": "datagen", "config": {"plan": [{"limit": 1000}]}}}]');
    CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;"#;

#[test]
fn a_pipelines_life() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    service.create("p", SQL, json!({ "workers": 2, "storage": true, "fault_tolerance": true }));
    assert_eq!(service.pipeline("p")["storage_status"], "Cleared");
    assert_eq!(service.pipeline("p")["runtime_config"]["fault_tolerance"]["model"], "exactly_once");
    assert_eq!(service.pipeline("p")["program_info"]["input_connectors"]["t.g"]["stream"], "t");

    service.turn("p", "start?initial=paused", "Paused");
    assert_eq!(service.value("p", "SELECT count(*) FROM t"), Some(json!(0)));
    service.turn("p", "resume", "Running");
    service.until("all rows are there", || service.value("p", "SELECT c FROM v") == Some(json!(1000)));
    service.until("it is complete", || {
        service.stats("p").is_some_and(|stats| stats["global_metrics"]["pipeline_complete"] == true)
    });
    service.turn("p", "pause", "Paused");
    let stats = service.stats("p").unwrap();
    assert_eq!(stats["global_metrics"]["total_processed_records"], 1000);
    assert_eq!(stats["inputs"][0]["metrics"]["end_of_input"], true);
    let metrics = service.get("/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    for line in [
        "backstay_input_records_total{pipeline=\"p\",relation=\"t\",connector=\"g\"} 1000",
        "# TYPE backstay_step_duration_seconds histogram",
        "backstay_running{pipeline=\"p\"} 0",
    ] {
        assert!(metrics.body.lines().any(|l| l == line), "{line} is not in\n{}", metrics.body);
    }
    let count = |name: &str| {
        let line = metrics.body.lines().find(|l| l.starts_with(&format!("backstay_{name}{{"))).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(count("step_duration_seconds_count") >= count("steps_total"));
    assert!(count("commit_wait_seconds_count") > 0.0 && count("process_cpu_seconds_total") > 0.0);
    assert_eq!(service.get("/v0/pipelines/p/metrics").status, 200);
    let circuit = service.get("/v0/pipelines/p/circuit").json();
    assert_eq!(
        (&circuit["operators"][0]["kind"], &circuit["operators"][0]["rows_in"]),
        (&json!("table"), &json!(1000))
    );
    let one = service.get("/v0/pipelines/p/tables/t/connectors/g/stats").json();
    assert_eq!(one["metrics"]["total_records"], 1000);

    let asked = service.post("/v0/pipelines/p/checkpoint").json()["checkpoint_sequence_number"].clone();
    service.until("the checkpoint is there", || {
        service.get("/v0/pipelines/p/checkpoint_status").json()["success"] == asked
    });

    // In the way of a change.
    let edit = json!({ "runtime_config": { "workers": 1 } }).to_string();
    assert_eq!(service.send("PATCH", "/v0/pipelines/p", &[], &edit).json()["error_code"], "UpdateRestrictedToStopped");
    assert_eq!(service.send("DELETE", "/v0/pipelines/p", &[], "").status, 400);

    service.turn("p", "stop?force=false", "Stopped");
    assert_eq!(service.get("/v0/pipelines/p/stats").status, 503);
    assert_eq!(service.send("PATCH", "/v0/pipelines/p", &[], &edit).status, 200);
    let other = json!({ "program_code": "CREATE TABLE u (a INT);" }).to_string();
    let refused = service.send("PATCH", "/v0/pipelines/p", &[], &other);
    assert_eq!(refused.json()["error_code"], "EditRestrictedToClearedStorage");
    service.turn("p", "start", "Running");
    assert_eq!(service.value("p", "SELECT c FROM v"), Some(json!(1000)));
    service.turn("p", "stop?force=true", "Stopped");

    assert_eq!(
        service.send("DELETE", "/v0/pipelines/p", &[], "").json()["error_code"],
        "DeleteRestrictedToClearedStorage"
    );
    assert_eq!(service.post("/v0/pipelines/p/clear").status, 202);
    service.until("it is cleared", || service.pipeline("p")["storage_status"] == "Cleared");
    assert_eq!(service.send("DELETE", "/v0/pipelines/p", &[], "").status, 200);
    assert_eq!(service.get("/v0/pipelines/p").json()["error_code"], "UnknownPipelineName");
    assert_eq!(std::fs::read_dir(dir.path().join("pipelines")).unwrap().count(), 0);
}

/// Each with a status of 4xx and the standard body.
#[test]
fn bad_requests() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    service.create("p", SQL, json!(null));
    let long = "x".repeat(200);
    let program = |name: &str| json!({ "name": name, "program_code": "" }).to_string();
    let config = |config: serde_json::Value| json!({ "runtime_config": config }).to_string();
    let cases: Vec<(&str, String, String, u16)> = vec![
        ("GET", "/v0/pipelines/none".into(), String::new(), 404),
        ("GET", "/v0/pipelines/none/stats".into(), String::new(), 404),
        ("POST", "/v0/pipelines/none/start".into(), String::new(), 404),
        ("GET", "/v0/pipelines?selector=everything".into(), String::new(), 400),
        ("GET", "/v0/pipelines/..%2F..%2Fetc".into(), String::new(), 404),
        ("GET", "/v0/pipelines/%FF".into(), String::new(), 400),
        ("GET", "/nothing/here".into(), String::new(), 404),
        ("DELETE", "/v0/pipelines".into(), String::new(), 405),
        ("POST", "/v0/pipelines".into(), "{".into(), 400),
        ("POST", "/v0/pipelines".into(), "[]".into(), 400),
        ("POST", "/v0/pipelines".into(), "{}".into(), 400),
        ("POST", "/v0/pipelines".into(), json!({ "name": "q" }).to_string(), 400),
        ("POST", "/v0/pipelines".into(), json!({ "name": 7, "program_code": "" }).to_string(), 400),
        ("POST", "/v0/pipelines".into(), program("../q"), 400),
        ("POST", "/v0/pipelines".into(), program(""), 400),
        ("POST", "/v0/pipelines".into(), program(&long), 400),
        ("POST", "/v0/pipelines".into(), program("p"), 409),
        ("POST", "/v0/pipelines".into(), "x".repeat(17 << 20), 413),
        ("PATCH", "/v0/pipelines/p".into(), config(json!({ "workrs": 1 })), 400),
        ("PATCH", "/v0/pipelines/p".into(), config(json!({ "workers": 0 })), 400),
        ("PATCH", "/v0/pipelines/p".into(), config(json!({ "storage": false, "fault_tolerance": {} })), 400),
        ("PATCH", "/v0/pipelines/p".into(), json!({ "udf_rust": "fn f() {}" }).to_string(), 400),
        ("PATCH", "/v0/pipelines/p".into(), json!({ "name": "a b" }).to_string(), 400),
        ("POST", "/v0/pipelines/p/start?initial=standby".into(), String::new(), 400),
        ("POST", "/v0/pipelines/p/stop?force=perhaps".into(), String::new(), 400),
        ("POST", "/v0/pipelines/p/pause".into(), String::new(), 400),
        ("POST", "/v0/pipelines/p/resume".into(), String::new(), 400),
        ("GET", "/v0/pipelines/p/tables/t/connectors/none/stats".into(), String::new(), 404),
        ("POST", "/v0/validate_program".into(), "{}".into(), 400),
    ];
    for (method, path, body, status) in cases {
        let answer = service.send(method, &path, &[], &body);
        let case = format!("{method} {path} {}: {}", body.chars().take(80).collect::<String>(), answer.body);
        assert_eq!(answer.status, status, "{case}");
        let error = answer.json();
        assert!(
            error["message"].is_string() && error["error_code"].is_string() && error["details"].is_object(),
            "{case}"
        );
    }
    let foreign = service.send("GET", "/v0/pipelines", &[("origin", "http://evil.example")], "");
    assert_eq!((foreign.status, foreign.json()["error_code"].clone()), (403, json!("ForeignOrigin")));
    let rebound = service.send("GET", "/v0/pipelines", &[("host", "evil.example")], "");
    assert_eq!(rebound.status, 403);
}

#[test]
fn queries() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    service.create("p", SQL, json!(null));
    service.turn("p", "start", "Running");
    service.until("all rows are there", || service.value("p", "SELECT c FROM v") == Some(json!(1000)));
    let ask =
        |format: &str, sql: &str| service.get(&format!("/v0/pipelines/p/query?format={format}&sql={}", escaped(sql)));
    assert_eq!(ask("csv", "SELECT c, c + 1 AS d FROM v").body, "c,d\n1000,1001\n");
    assert_eq!(ask("text", "SELECT c FROM v").body, "   c\n----\n1000\n");
    let wrong = ask("json", "SELECT d FROM v");
    assert_eq!(wrong.status, 400);
    assert!(wrong.json()["message"].as_str().unwrap().contains("^"), "{}", wrong.body);
    assert_eq!(ask("parquet", "SELECT c FROM v").status, 400);
    assert_eq!(ask("yaml", "SELECT c FROM v").status, 400);
    service.turn("p", "stop?force=true", "Stopped");
    assert_eq!(ask("json", "SELECT c FROM v").json()["error_code"], "PipelineInteractionNotDeployed");
}

/// A program that fails is given up, with its words; the service and the others go on.
#[test]
fn a_pipeline_that_fails_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    let sql = SQL.replace("count(*) AS c", "sum(1 / (id - 500)) AS c");
    service.create("bad", &sql, json!(null));
    service.create(
        "missing",
        &SQL.replace("datagen", "file_input")
            .replace("{\"plan\": [{\"limit\": 1000}]}", "{\"path\": \"/none\"}}, \"format\": {\"name\": \"csv\""),
        json!(null),
    );
    service.create("good", SQL, json!(null));
    for name in ["bad", "missing", "good"] {
        assert_eq!(service.post(&format!("/v0/pipelines/{name}/start")).status, 202);
    }
    for (name, said) in [("bad", "ivide by zero"), ("missing", "/none")] {
        service.until("it is given up", || service.pipeline(name)["deployment_desired_status"] == "Stopped");
        let error = service.pipeline(name)["deployment_error"].clone();
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
    assert!(service.get("/v0/pipelines/good").json()["deployment_error"].is_null());
    service.until("all rows are there", || service.value("good", "SELECT c FROM v") == Some(json!(1000)));
    assert_eq!(service.post("/v0/pipelines/bad/dismiss_error").status, 200);
    assert!(service.pipeline("bad")["deployment_error"].is_null());
}

#[test]
fn a_wrong_program_has_its_errors_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    let body = json!({ "name": "p", "program_code": "CREATE TABLE t (a INT);\nCREATE VIEW v AS SELECT b FROM t;" });
    let answer = service.send("POST", "/v0/pipelines", &[], &body.to_string());
    assert_eq!(answer.status, 201);
    let shown = answer.json();
    assert_eq!(shown["program_status"], "SqlError");
    let message = &shown["program_error"]["sql_compilation"]["messages"][0];
    assert_eq!((&message["start_line_number"], &message["start_column"]), (&json!(2), &json!(25)));
    let refused = service.post("/v0/pipelines/p/start");
    assert_eq!(
        (refused.status, refused.json()["error_code"].clone()),
        (400, json!("StartFailedDueToFailedCompilation"))
    );
}

#[test]
fn a_directory_too_long_for_sockets_is_refused() {
    let long = format!("/tmp/{}", "d".repeat(80));
    let long = crate::process::output(["serve", "--data-dir", &long, "--bind", "127.0.0.1:0"]);
    assert_eq!(long.status.code(), Some(2));
    assert!(crate::process::stderr(&long).contains("too long"));
}

#[test]
fn readiness_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    assert_eq!((service.get("/readyz").status, service.get("/readyz").json()), (200, json!({ "status": "ready" })));
}
