//! Programs and catalog queries that take everything: the manager answers all the while, and says what was too much.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{Answer, Service, signal, try_send};

/// A text of 10^12 characters.
const LARGE: &str = "replace(repeat('a', 1000000), 'a', repeat('b', 1000000))";
/// 10^12 comparisons.
const LONG: &str = "levenshtein(repeat('a', 1000000), repeat('b', 1000000))";

/// A program with a constant.
fn program(constant: &str) -> String {
    format!("CREATE TABLE t (a INT); CREATE MATERIALIZED VIEW v AS SELECT a, {constant} AS c FROM t;")
}

fn create(address: &str, name: &str, sql: &str) -> Result<Answer, String> {
    let body = json!({ "name": name, "program_code": sql }).to_string();
    try_send(address, "POST", "/v0/pipelines", &[], &body)
}

/// What is wrong with a program that could not be compiled.
fn unknown(shown: &Value) -> String {
    assert_eq!(shown["program_status"], "SystemError", "{shown}");
    shown["program_error"]["system_error"].as_str().unwrap().to_owned()
}

/// The compilers that a process has started, by their ids.
fn compilers(parent: u32) -> Vec<u32> {
    let of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let is_child = stat.rsplit(") ").next()?.split(' ').nth(1)? == parent.to_string();
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        (is_child && words.split('\0').nth(1)? == "compiler").then_some(pid)
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    all.filter_map(of).collect()
}

fn is_there(pid: u32) -> bool {
    // One that nobody has waited for yet has no words.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty())
}

/// The one compiler that is at work.
fn compiler(service: &Service) -> u32 {
    let mut found = Vec::new();
    service.until("a compiler is at work", || {
        found = compilers(service.pid());
        !found.is_empty()
    });
    found[0]
}

/// Sends a program, and does not wait for the answer.
fn send(service: &Service, name: &str, sql: &str) -> TcpStream {
    let body = json!({ "name": name, "program_code": sql }).to_string();
    let mut stream = TcpStream::connect(service.address()).unwrap();
    let head =
        format!("POST /v0/pipelines HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n", service.address(), body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
    stream
}

#[test]
fn a_program_that_takes_all_memory_does_not_compile() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start_with(dir.path(), &["--max-compile-memory-mib", "700"]);
    let shown = create(service.address(), "p", &program(LARGE)).unwrap().json();
    let why = unknown(&shown);
    assert!(why.contains("more than 700 MiB") && why.contains("--max-compile-memory-mib"), "{why}");
    assert_eq!(shown["program_info"], Value::Null);
    let refused = service.post("/v0/pipelines/p/start");
    assert_eq!((refused.status, &refused.json()["error_code"]), (400, &json!("StartFailedDueToFailedCompilation")));
    assert!(refused.body.contains("--max-compile-memory-mib"), "{}", refused.body);
    let body = json!({ "program_code": program(LARGE) }).to_string();
    let validated = service.send("POST", "/v0/validate_program", &[], &body).json();
    assert!(validated["SystemError"]["error"].as_str().unwrap().contains("700 MiB"), "{validated}");
    let listed = crate::process::output(["status", "p", "--url", &format!("http://{}", service.address())]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("does not compile"), "{listed:?}");
    // The same pipeline, with a program that computes less.
    let body = json!({ "program_code": program("repeat('a', 3)") }).to_string();
    assert_eq!(service.send("PATCH", "/v0/pipelines/p", &[], &body).json()["program_status"], "Success");
    service.turn("p", "start", "Running");
    service.end();
}

#[test]
fn a_program_that_never_ends_holds_up_nobody_and_not_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start_with(dir.path(), &["--max-compile-secs", "8"]);
    service.create("good", &program("1"), json!(null));
    let address = service.address().to_owned();
    let waiting = std::thread::spawn(move || create(&address, "p", &program(LONG)));
    compiler(&service);
    assert_eq!(service.get("/healthz").status, 200);
    assert_eq!(service.pipeline("good")["program_status"], "Success");
    assert_eq!(service.post("/v0/pipelines/good/start").status, 202);
    assert!(!waiting.is_finished(), "it was held up");
    service.wait("good", "Running");
    let why = unknown(&waiting.join().unwrap().unwrap().json());
    assert!(why.contains("more than 8 s") && why.contains("--max-compile-secs"), "{why}");
    service.until("it is gone", || compilers(service.pid()).is_empty());
    service.end();

    let service = Service::start_with(dir.path(), &["--max-compile-secs", "8"]);
    assert_eq!(service.pipeline("p")["program_status"], "CompilingSql");
    assert_eq!(service.pipeline("p")["program_error"], json!({}));
    service.wait("good", "Running");
    service.until("it is given up", || service.pipeline("p")["program_status"] == "SystemError");
    service.end();
}

#[test]
fn a_compiler_that_is_killed_is_told_of_and_the_program_can_be_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start_with(dir.path(), &["--max-compile-secs", "5"]);
    let sql = program(LONG);
    let (address, text) = (service.address().to_owned(), sql.clone());
    let waiting = std::thread::spawn(move || create(&address, "p", &text));
    signal(compiler(&service), "KILL");
    let why = unknown(&waiting.join().unwrap().unwrap().json());
    assert!(why.contains("was killed") && why.contains("try again"), "{why}");
    // As it is, or by a start.
    let again = service.send("PATCH", "/v0/pipelines/p", &[], &json!({ "program_code": sql }).to_string());
    assert!(unknown(&again.json()).contains("more than 5 s"), "{}", again.body);
    let address = service.address().to_owned();
    let waiting = std::thread::spawn(move || try_send(&address, "POST", "/v0/pipelines/p/start", &[], "").unwrap());
    signal(compiler(&service), "KILL");
    let refused = waiting.join().unwrap();
    assert!(refused.status == 400 && refused.body.contains("was killed"), "{}", refused.body);
    service.end();
}

/// What is known of a text stays known.
#[test]
fn a_compiler_that_is_killed_over_the_same_program_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path());
    // It takes a while.
    let sql = program("levenshtein(repeat('a', 6000), repeat('b', 6000))");
    let created = create(service.address(), "p", &sql).unwrap().json();
    assert_eq!(created["program_status"], "Success", "{created}");
    let address = service.address().to_owned();
    let body = json!({ "program_code": sql, "description": "again" }).to_string();
    let waiting =
        std::thread::spawn(move || try_send(&address, "PATCH", "/v0/pipelines/p", &[], &body).unwrap().json());
    signal(compiler(&service), "KILL");
    let shown = waiting.join().unwrap();
    assert_eq!((&shown["program_status"], &shown["description"]), (&json!("Success"), &json!("again")), "{shown}");
    assert_eq!(shown["program_info"], created["program_info"]);
    service.end();
}

#[test]
fn a_compiler_ends_with_who_waits_for_it_and_without_the_manager_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start_with(dir.path(), &["--max-compile-secs", "3"]);
    let gone = send(&service, "p", &program(LONG));
    let first = compiler(&service);
    let begun = Instant::now();
    drop(gone);
    service.until("it is ended", || !is_there(first));
    assert!(begun.elapsed() < Duration::from_secs(3), "only by its bound");
    let _waiting = send(&service, "p", &program(LONG));
    let second = compiler(&service);
    service.leave();
    let end = Instant::now() + Duration::from_secs(30);
    while is_there(second) {
        assert!(Instant::now() < end, "it goes on without a manager");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a client of PostgreSQL's protocol is told of a query, and whether it is an error.
fn asked(service: &Service, sql: &str) -> String {
    let message = |kind: &[u8], body: &[u8]| [kind, &(body.len() as u32 + 4).to_be_bytes(), body].concat();
    let mut stream = TcpStream::connect(service.postgres()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(&message(b"", b"\0\x03\0\0user\0x\0database\0p\0\0")).unwrap();
    stream.write_all(&message(b"Q", &[sql.as_bytes(), b"\0"].concat())).unwrap();
    stream.write_all(&message(b"X", b"")).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_query_without_relations_that_takes_everything_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--bind-postgres", "127.0.0.1:0", "--max-compile-memory-mib", "600", "--max-compile-secs", "3"];
    let service = Service::start_with(dir.path(), &more);
    service.create("p", &program("1"), json!(null));
    let large = asked(&service, &format!("SELECT {LARGE}"));
    assert!(large.contains("54000") && large.contains("more than 600 MiB"), "{large}");
    let long = asked(&service, &format!("SELECT {LONG}"));
    assert!(long.contains("54000") && long.contains("more than 3 s"), "{long}");
    assert!(asked(&service, "SELECT 'still ' || 'here'").contains("still here"));
    service.end();
}

/// It is for the service: people do not see it, and it does not wait for them.
#[test]
fn the_compiler_is_no_command_for_people() {
    let help = crate::process::output(["--help"]);
    assert!(!String::from_utf8_lossy(&help.stdout).contains("compiler"));
    let nothing = crate::process::output(["compiler", "--max-memory-mib", "512", "--max-secs", "5"]);
    assert_eq!(nothing.status.code(), Some(1), "{}", crate::process::stderr(&nothing));
    assert!(!Path::new("core").exists());
}
