//! Many clients at once: connections that push, listeners, and listeners that do not read. Nothing is lost, memory stays bounded, and who reads slowly
//! slows nobody.
//!
//! Small as it stands; `BACKSTAY_LOAD_CONNECTIONS=1000 BACKSTAY_LOAD_LISTENERS=100` is what `docs/testing.md` has figures of.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{Service, Stream};
use crate::rng::number_from;

const SQL: &str = "CREATE TABLE t (id BIGINT NOT NULL, pad VARCHAR);
    CREATE VIEW ids AS SELECT id FROM t;
    CREATE VIEW wide AS SELECT id, pad FROM t;
    CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS c, sum(id) AS s FROM t;";
/// Listeners that do not read until all is done.
const SLOW: u64 = 5;
/// Pushes of a connection, and rows of a push.
const PUSHES: u64 = 5;
const ROWS: u64 = 2;
/// Of one row's text.
const PAD_BYTES: usize = 2000;
/// What the service and the pipeline may take; they have about a tenth of it before the first client comes.
const MEMORY_BYTES: u64 = 1 << 30;

/// A connection that stays.
struct Connection {
    stream: BufReader<TcpStream>,
    address: String,
}

impl Connection {
    fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        Self { stream: BufReader::new(stream), address: address.to_owned() }
    }

    /// Pushes rows; the answer's status.
    fn push(&mut self, rows: &Value, key: &str) -> u16 {
        let body = rows.to_string();
        let head = format!(
            "POST /v0/pipelines/p/ingress/t?array=true&update_format=raw HTTP/1.1\r\nhost: {}\r\nidempotency-key: {key}\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.stream.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let line = line.trim().to_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest.split(' ').next().unwrap().parse().unwrap();
            }
            if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().unwrap();
            }
        }
        self.stream.read_exact(&mut vec![0; length]).unwrap();
        status
    }
}

/// The most memory that a process has had.
fn peak_bytes(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Reads until it has seen `rows` rows: how many there were, and the sum of their ids; or the error that it ended with.
fn read(stream: Stream, rows: u64) -> Result<(u64, u64), Value> {
    let (mut count, mut sum) = (0, 0);
    for line in stream {
        let document: Value = serde_json::from_str(&line).unwrap();
        if !document["error"].is_null() {
            return Err(document["error"]["error_code"].clone());
        }
        for row in document["json_data"].as_array().into_iter().flatten() {
            count += 1;
            sum += row["insert"]["id"].as_u64().unwrap();
        }
        if count >= rows {
            break;
        }
    }
    Ok((count, sum))
}

#[test]
fn many_clients_at_once() {
    let connections = number_from("BACKSTAY_LOAD_CONNECTIONS", 60);
    let listeners = number_from("BACKSTAY_LOAD_LISTENERS", 10);
    let rows = connections * PUSHES * ROWS;
    let expected = (rows, rows * (rows - 1) / 2);
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start_with(dir.path(), &["--max-request-rate", "1000000"]);
    service.create("p", SQL, json!({ "storage": true, "fault_tolerance": true }));
    service.turn("p", "start", "Running");
    let listen = |view: &str| Stream::open(service.address(), &format!("/v0/pipelines/p/egress/{view}"), &[]).unwrap();
    // Whoever does not read: its changes are kept for it only so long.
    let slow: Vec<Stream> = (0..SLOW).map(|_| listen("wide")).collect();
    let small = || Builder::new().stack_size(256 << 10);
    let heard: Vec<_> = (0..listeners)
        .map(|_| {
            let stream = listen("ids");
            small().spawn(move || read(stream, rows)).unwrap()
        })
        .collect();

    // All are connected before the first one pushes.
    let (ready, go) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let pushing: Vec<_> = (0..connections)
        .map(|number| {
            let (ready, go, address) = (Arc::clone(&ready), Arc::clone(&go), service.address().to_owned());
            let work = move || {
                let mut connection = Connection::open(&address);
                ready.fetch_add(1, Ordering::AcqRel);
                while !go.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let mut longest = Duration::ZERO;
                for push in 0..PUSHES {
                    let first = (number * PUSHES + push) * ROWS;
                    let pad = "x".repeat(PAD_BYTES);
                    let body = (first..first + ROWS).map(|id| json!({ "id": id, "pad": pad })).collect::<Vec<_>>();
                    let begun = Instant::now();
                    // A refusal for want of room is to be tried again, under the same key.
                    loop {
                        match connection.push(&Value::from(body.clone()), &format!("{number}-{push}")) {
                            200 => break,
                            503 => {}
                            status => panic!("status {status}"),
                        }
                    }
                    longest = longest.max(begun.elapsed());
                }
                longest
            };
            small().spawn(work).unwrap()
        })
        .collect();
    service.until("all are connected", || ready.load(Ordering::Acquire) == connections);
    let begun = Instant::now();
    go.store(true, Ordering::Release);
    let longest = pushing.into_iter().map(|client| client.join().unwrap()).max().unwrap();
    let pushed = begun.elapsed();

    // The pipeline has gone on though some have not read a byte.
    service.until("all rows are there", || service.value("p", "SELECT c FROM sums") == Some(json!(expected.0)));
    assert_eq!(service.value("p", "SELECT s FROM sums"), Some(json!(expected.1)));
    for listener in heard {
        assert_eq!(listener.join().unwrap(), Ok(expected), "a listener that reads misses and repeats nothing");
    }
    let took = begun.elapsed();
    let mut cut_off = 0;
    for stream in slow {
        match read(stream, rows) {
            Ok(seen) => assert_eq!(seen, expected),
            Err(code) => {
                assert_eq!(code, "StepNotKept");
                cut_off += 1;
            }
        }
    }
    let pipeline = peak_bytes(service.stats("p").unwrap()["backstay"]["pid"].as_u64().unwrap());
    let manager = peak_bytes(u64::from(service.pid()));
    println!(
        "{connections} connections pushed {rows} rows of {PAD_BYTES} bytes in {pushed:.2?} ({:.0} pushes/s, the longest {longest:.2?}); {listeners} listeners had all \
         after {took:.2?}; {cut_off} of {SLOW} that did not read were cut off; peak memory: pipeline {} MiB, manager {} MiB",
        (connections * PUSHES) as f64 / pushed.as_secs_f64(),
        pipeline >> 20,
        manager >> 20
    );
    assert!(pipeline < MEMORY_BYTES && manager < MEMORY_BYTES, "pipeline {pipeline}, manager {manager} bytes");
    service.turn("p", "stop?force=true", "Stopped");
}
