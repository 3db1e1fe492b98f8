//! Who holds places of PostgreSQL's protocol: who asks, and not who is silent or was refused.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_postgres::{Client, Config, NoTls};

use super::security::key_file;
use super::server::Service;

fn service(dir: &std::path::Path, more: &[&str]) -> Service {
    Service::start_with(dir, &[&["--bind-postgres", "127.0.0.1:0"], more].concat())
}

fn config(service: &Service) -> Config {
    format!("postgresql://anyone@{}/p", service.postgres()).parse().unwrap()
}

/// A connection whose other end is kept by a task.
async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Whether the other end has closed a connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn silent_clients_keep_nobody_out_and_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path(), &[]);
    service.create("p", "CREATE TABLE t (a INT); CREATE MATERIALIZED VIEW v AS SELECT a FROM t;", json!(null));
    let (runtime, config) = (runtime(), config(&service));
    let early = runtime.block_on(connect(&config)).unwrap();
    let begun = Instant::now();
    // Some say nothing, some half of what there is to say.
    let mut silent: Vec<TcpStream> = (0..250)
        .map(|n| {
            let mut stream = TcpStream::connect(service.postgres()).unwrap();
            stream.write_all([&b""[..], b"\0\0\0\x20\0\x03"][n % 2]).unwrap();
            stream
        })
        .collect();
    let late = runtime.block_on(connect(&config)).unwrap();
    for client in [&early, &late] {
        let rows = runtime.block_on(client.query("SELECT 1", &[])).unwrap();
        assert_eq!(rows.len(), 1);
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    // Those that came first made room, the others have their time.
    service.until("the first are dropped", || silent[..140].iter_mut().all(is_closed));
    assert!(silent[160..].iter_mut().all(|stream| !is_closed(stream)));
    let end = begun + Duration::from_secs(80);
    while !silent[160..].iter_mut().all(is_closed) {
        assert!(Instant::now() < end, "silent clients are not dropped");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(begun.elapsed() > Duration::from_secs(50), "{:?}", begun.elapsed());
    // Who was let in may be silent.
    assert_eq!(runtime.block_on(early.query("SELECT 1", &[])).unwrap().len(), 1);
}

#[test]
fn who_was_refused_is_gone_and_asks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let key = key_file(&keys);
    let service = service(&dir.path().join("d"), &["--api-key-file", keys.to_str().unwrap()]);
    let message = |kind: &[u8], body: &[u8]| [kind, &(body.len() as u32 + 4).to_be_bytes(), body].concat();
    for wrong in ["a wrong key, a wrong key", &key] {
        let mut stream = TcpStream::connect(service.postgres()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(&message(b"", b"\0\x03\0\0user\0x\0database\0none\0\0")).unwrap();
        stream.write_all(&message(b"p", &[wrong.as_bytes(), b"\0"].concat())).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("28P01") || answer.contains("3D000"), "{answer}");
        // Nobody listens any more; a flush has no answer, so that only that tells.
        let end = Instant::now() + Duration::from_secs(10);
        while stream.write_all(&message(b"H", b"")).is_ok() {
            assert!(Instant::now() < end, "it is listened to: {answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn there_are_so_many_places_for_who_was_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path(), &[]);
    service.create("p", "CREATE TABLE t (a INT);", json!(null));
    let (runtime, config) = (runtime(), config(&service));
    let mut clients: Vec<Client> = (0..100).map(|_| runtime.block_on(connect(&config)).unwrap()).collect();
    let refused = runtime.block_on(connect(&config)).expect_err("no place is left");
    let error = refused.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.severity()), ("53300", "FATAL"), "{error}");
    assert!(error.message().contains("100 clients"), "{error}");
    drop(clients.pop());
    service.until("there is a place again", || match runtime.block_on(connect(&config)) {
        Ok(client) => {
            clients.push(client);
            true
        }
        Err(_) => false,
    });
}
