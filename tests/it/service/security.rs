//! What `docs/security.md` promises.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::Service;
use crate::process::{backstay, output, stderr};

/// A file with one key's hash, and the key.
pub fn key_file(path: &Path) -> String {
    let made = output(["api-key", path.to_str().unwrap(), "--label", "tests"]);
    assert!(made.status.success(), "{}", stderr(&made));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// Files with a certificate of this machine's, and its key.
pub fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

#[test]
fn keys_are_kept_as_hashes_and_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let (first, second) = (key_file(&file), key_file(&file));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.lines().count() == 2 && text.contains(" tests"), "{text}");
    assert!(!text.contains(&first) && !text.contains(&second[4..]), "{text}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let data = dir.path().join("d");
    let service = Service::start_with(&data, &["--api-key-file", file.to_str().unwrap(), "--max-wrong-keys", "3"]);
    let send = |key: &str| service.send("GET", "/v0/pipelines", &[("authorization", key)], "");
    for key in [&first, &second] {
        assert_eq!(send(&format!("Bearer {key}")).status, 200);
    }
    let none = service.get("/v0/pipelines");
    assert_eq!((none.status, none.json()["error_code"].clone()), (401, json!("Unauthorized")));
    assert!(none.head.contains("www-authenticate: bearer"), "{}", none.head);
    assert!(!none.body.contains(&first));
    // What guesses is held up, and with it, for a while, all that comes from there.
    for _ in 0..3 {
        assert_eq!(send(&format!("Bearer {}x", &first[1..])).status, 401);
    }
    let held = send(&format!("Bearer {first}"));
    assert_eq!((held.status, held.json()["error_code"].clone()), (429, json!("TooManyWrongKeys")));
    assert!(held.head.contains("retry-after: 60"), "{}", held.head);
    assert_eq!(service.get("/healthz").status, 200, "that needs no key");

    // A key in the clear is no line of such a file.
    std::fs::write(&file, "a-key-in-the-clear\n").unwrap();
    let refused = output(["serve", "--data-dir", "/nowhere", "--api-key-file", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    let said = stderr(&refused);
    assert!(said.contains("line 1") && said.contains("backstay api-key") && !said.contains("in-the-clear"), "{said}");
    let far = output(["serve", "--data-dir", "/nowhere", "--bind", "0.0.0.0:0"]);
    assert_eq!(far.status.code(), Some(2));
    assert!(stderr(&far).contains("--api-key-file"));
}

#[test]
fn one_address_cannot_take_all_requests() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start_with(dir.path(), &["--max-request-rate", "5"]);
    let answers: Vec<_> = (0..30).map(|_| service.get("/healthz")).collect();
    let refused = answers.iter().find(|answer| answer.status == 429).expect("one is refused");
    assert_eq!(refused.json()["error_code"], "RequestRateExceeded");
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(service.get("/healthz").status, 200, "it passes");
}

#[test]
fn tls_is_spoken_where_there_is_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let keys = dir.path().join("keys");
    let api_key = key_file(&keys);
    let data = dir.path().join("d");
    let more = ["--tls-cert", cert, "--tls-key", key, "--api-key-file", keys.to_str().unwrap()];
    let service = Service::start_with(&data, &more);
    let url = format!("https://localhost:{}", service.address().rsplit(':').next().unwrap());
    let ask = |more: &[&str]| output(["pipelines", "--json", "--url", &url].iter().chain(more));
    let asked = ask(&["--ca-cert", cert, "--api-key", &api_key]);
    assert!(asked.status.success(), "{}", stderr(&asked));
    assert_eq!(serde_json::from_slice::<Value>(&asked.stdout).unwrap(), json!([]));
    let stranger = ask(&["--api-key", &api_key]);
    assert_eq!(stranger.status.code(), Some(1), "a certificate that nobody vouches for is not trusted");
    assert!(!stderr(&stranger).contains(&api_key));
    let keyless = ask(&["--ca-cert", cert]);
    assert!(keyless.status.code() == Some(2) && stderr(&keyless).contains("a key is needed"), "{}", stderr(&keyless));
    // Plain HTTP is not answered there.
    assert!(super::server::try_send(service.address(), "GET", "/healthz", &[], "").is_err());

    let wrong = output([
        "serve",
        "--data-dir",
        data.to_str().unwrap(),
        "--bind",
        "127.0.0.1:0",
        "--tls-cert",
        key,
        "--tls-key",
        cert,
    ]);
    assert!(wrong.status.code() == Some(2) && stderr(&wrong).contains("--tls-cert"), "{}", stderr(&wrong));
}

/// A program that copies one file to another.
fn copy(from: &str, to: &str) -> String {
    let connector = |transport: &str, config: Value| {
        json!([{ "transport": { "name": transport, "config": config }, "format": { "name": "csv" } }]).to_string()
    };
    let input = connector("file_input", json!({ "path": from }));
    let output = connector("file_output", json!({ "path": to }));
    format!(
        "CREATE TABLE t (a VARCHAR) WITH ('connectors' = '{input}');
         CREATE VIEW v WITH ('connectors' = '{output}') AS SELECT a FROM t;"
    )
}

#[test]
fn connectors_stay_below_the_allowed_folders() {
    let dir = tempfile::tempdir().unwrap();
    let (data, allowed, out) = (dir.path().join("d"), dir.path().join("allowed"), dir.path().join("out"));
    for folder in [&allowed, &out] {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("in.csv"), "a\nx\n").unwrap();
    }
    symlink(out.join("in.csv"), allowed.join("link.csv")).unwrap();
    symlink(&out, allowed.join("folder")).unwrap();
    let service = Service::start_with(&data, &["--allow-root", allowed.to_str().unwrap()]);
    std::fs::write(data.join("files/in.csv"), "a\nshared\n").unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();

    // Below an allowed folder, the shared one, and the pipeline's own.
    for (i, (from, to)) in [
        (path(&allowed.join("in.csv")), path(&allowed.join("new/copy.csv"))),
        (path(&data.join("files/in.csv")), "${DATA_DIR}/copy.csv".to_owned()),
        (path(&allowed.join("new/../in.csv")), "copy.csv".to_owned()),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("good{i}");
        service.create(&name, &copy(from, to), json!(null));
        service.turn(&name, "start", "Running");
        service.until("the file is copied", || {
            service.stats(&name).is_some_and(|s| s["outputs"][0]["metrics"]["transmitted_records"] == 1)
        });
        service.turn(&name, "stop?force=true", "Stopped");
    }
    assert!(std::fs::read_to_string(allowed.join("new/copy.csv")).unwrap().contains('x'));

    let sneaky = [
        "out/in.csv",
        "allowed/../out/in.csv",
        "allowed/link.csv",
        "allowed/folder/in.csv",
        "d/catalog/x",
        "allowed2/x",
    ];
    let mut bad: Vec<(String, String)> =
        sneaky.map(|p| (path(&dir.path().join(p)), "copy.csv".to_owned())).into_iter().collect();
    bad.push(("/etc/passwd".to_owned(), "copy.csv".to_owned()));
    bad.push(("../../../out/in.csv".to_owned(), "copy.csv".to_owned()));
    bad.push((path(&out.join("*.csv")), "copy.csv".to_owned()));
    let good = path(&allowed.join("in.csv"));
    bad.push((good.clone(), path(&out.join("copy.csv"))));
    bad.push((good.clone(), path(&allowed.join("folder/copy.csv"))));
    bad.push((good, "../../catalog/copy.csv".to_owned()));
    for (i, (from, to)) in bad.iter().enumerate() {
        let name = format!("bad{i}");
        service.create(&name, &copy(from, to), json!(null));
        assert_eq!(service.post(&format!("/v0/pipelines/{name}/start")).status, 202);
    }
    for (i, case) in bad.iter().enumerate() {
        let name = format!("bad{i}");
        service.until("it is given up", || service.pipeline(&name)["deployment_error"].is_object());
        let error = service.pipeline(&name)["deployment_error"]["message"].clone();
        assert!(error.as_str().unwrap().contains("--allow-root"), "{case:?}: {error}");
    }
    let files: Vec<_> = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(files, ["in.csv"]);
    let wrong = output(["serve", "--data-dir", data.to_str().unwrap(), "--allow-root", "/none/such"]);
    assert!(wrong.status.code() == Some(2) && stderr(&wrong).contains("--allow-root /none/such"), "{}", stderr(&wrong));
}

#[test]
fn secrets_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    let sql = r#"CREATE TABLE t (a VARCHAR) WITH ('connectors' = '[
        {"name": "u", "transport": {"name": "url_input", "config": {"path": "http://me:s3cret@127.0.0.1:1/x.csv?sig=s3cret"}}, "format": {"name": "csv"}},
        {"name": "s", "transport": {"name": "s3_input", "config": {"bucket_name": "b", "region": "r", "endpoint_url": "http://127.0.0.1:1",
            "aws_access_key_id": "me", "aws_secret_access_key": "s3cret", "key": "k"}}, "format": {"name": "csv"}}]');
        CREATE VIEW v WITH ('connectors' = '[
        {"name": "p", "transport": {"name": "postgres_output", "config": {"uri": "postgresql://me:s3cret@127.0.0.1:1/db", "table": "t"}}}]')
        AS SELECT a FROM t;"#;
    service.create("p", sql, json!(null));
    service.post("/v0/pipelines/p/start");
    service.until("something is told of the connectors", || {
        let log = service.get("/v0/pipelines/p/logs?follow=false").body;
        log.contains("127.0.0.1:1") || !service.pipeline("p")["deployment_error"].is_null()
    });
    let mut shown = service.pipeline("p");
    // What the client wrote, it may read.
    assert!(shown["program_code"].take().as_str().unwrap().contains("s3cret"));
    assert_eq!(shown["program_info"]["input_connectors"]["t.s"]["transport"]["config"]["aws_secret_access_key"], "***");
    let answers = [
        shown.to_string(),
        service.get("/v0/pipelines?selector=status").body,
        service.get("/v0/pipelines/p/logs?follow=false").body,
        service.get("/v0/pipelines/p/stats").body,
        service.get("/metrics").body,
        service.get("/v0/pipelines/p/tables/t/connectors/u/stats").body,
    ];
    for answer in &answers {
        assert!(!answer.contains("s3cret"), "{answer}");
    }
    service.post("/v0/pipelines/p/stop?force=true");
}

#[test]
fn programs_do_not_see_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    service.create("p", &copy("${env:PATH}/in.csv", "out.csv"), json!(null));
    service.post("/v0/pipelines/p/start");
    service.until("it is given up", || service.pipeline("p")["deployment_error"].is_object());
    let error = service.pipeline("p")["deployment_error"]["message"].as_str().unwrap().to_owned();
    assert!(error.contains("PATH is not set") && !error.contains("/bin"), "{error}");
}

#[test]
fn nobody_else_looks_into_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    drop(Service::start(&root));
    assert_eq!((mode(&root), mode(&root.join("catalog")) & 0o700), (0o700, 0o700));
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
    let log = dir.path().join("log");
    let serve = ["serve", "--data-dir", root.to_str().unwrap(), "--bind", "127.0.0.1:0"];
    let mut child = backstay(serve).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_to_string(&log).unwrap().contains("chmod 700") {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "no warning");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
