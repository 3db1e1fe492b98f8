//! The service on a full disk: it is not ready, ends what is to be ended, and goes on once there is room.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::server::Service;
use crate::full_disk::on_a_small_disk;

const SQL: &str = "CREATE TABLE t (a INT); CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;";

/// Takes all room there is.
fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_is_told_of_and_a_process_can_be_ended_on_it() {
    on_a_small_disk("200m", |mount| {
        let (data, filler) = (mount.join("d"), mount.join("filler"));
        let service = Service::start(&data);
        let ready = || service.get("/readyz");
        assert_eq!(ready().status, 200);
        // Neither makes a step, nor takes a checkpoint: what is full does not end them.
        let config =
            json!({ "storage": { "max_log_bytes": 8 << 20 }, "fault_tolerance": { "checkpoint_interval_secs": 3600 } });
        for name in ["p", "q"] {
            service.create(name, SQL, config.clone());
            service.turn(name, "start?initial=paused", "Paused");
        }
        fill(&filler);
        service.until("it is not ready", || ready().status == 503);
        let answer = ready().json();
        assert_eq!((&answer["error_code"], answer["details"].is_object()), (&json!("NotReady"), true));
        let why = answer["message"].as_str().unwrap();
        assert!(why.contains("No space left") && why.contains("make room"), "{why}");
        assert_eq!(service.get("/healthz").status, 200);

        // The catalog's log has room of its own, which changes take up.
        let mut refused = None;
        for n in 0..200 {
            let body = json!({ "description": format!("{n}{}", noise(n, 50_000)) }).to_string();
            let answer = service.send("PATCH", "/v0/pipelines/q", &[], &body);
            if answer.status != 200 {
                refused = Some(answer);
                break;
            }
        }
        let refused = refused.expect("all changes were taken on a full disk");
        assert_eq!((refused.status, &refused.json()["error_code"]), (507, &json!("NoSpace")), "{}", refused.body);

        let plain = service.post("/v0/pipelines/p/stop?force=false");
        assert_eq!((plain.status, &plain.json()["error_code"]), (507, &json!("NoSpace")), "{}", plain.body);
        assert!(plain.body.contains("make room") && plain.body.contains("force=true"), "{}", plain.body);
        assert_eq!(service.pipeline("p")["deployment_desired_status"], "Paused");

        let forced = service.post("/v0/pipelines/p/stop?force=true");
        assert_eq!((forced.status, &forced.json()["error_code"]), (202, &json!("NoSpace")), "{}", forced.body);
        assert!(forced.body.contains("is not kept") && forced.body.contains("once there is room"), "{}", forced.body);
        service.wait("p", "Stopped");
        assert_eq!(service.pipeline("p")["deployment_desired_status"], "Stopped");
        let told = crate::process::output(["stop", "q", "--force", "--url", &format!("http://{}", service.address())]);
        let said = crate::process::stderr(&told);
        assert!(told.status.success() && said.contains("warning: ") && said.contains("is not kept"), "{said}");
        // It can make room.
        service.post("/v0/pipelines/q/clear");
        service.until("it is cleared", || service.pipeline("q")["storage_status"] == "Cleared");

        std::fs::remove_file(&filler).unwrap();
        service.until("it is ready", || ready().status == 200);
        service.until("what was wished is kept", || {
            let log = service.post("/v0/pipelines/p/stop?force=true");
            log.status == 202 && log.body.is_empty()
        });
        service.leave();
        let service = Service::start(&data);
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert_eq!(service.pipeline("p")["deployment_desired_status"], "Stopped");
        service.turn("p", "start", "Running");
        service.turn("p", "stop", "Stopped");
        service.end();
    });
}

/// Letters that do not compress well.
fn noise(seed: u64, length: usize) -> String {
    let mut rng = crate::rng::Rng::new(seed);
    (0..length / 16).map(|_| format!("{:016x}", rng.next())).collect()
}

/// However often it is asked.
#[test]
fn readiness_writes_little_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", service.pid())).unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
        line.parse::<u64>().unwrap()
    };
    let before = written();
    for _ in 0..200 {
        assert_eq!(service.get("/readyz").status, 200);
    }
    let bytes = written() - before;
    assert!((1 << 20..3 << 20).contains(&bytes), "{bytes} bytes for 200 probes");
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name == "catalog" || name == "files"), "{names:?}");
}
