//! `url_input` against a server that is slow, breaks off, changes its content, or does not know range requests.

mod server;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

pub use server::{Resource, Server};

use crate::process::{Running, Victim, files, output, stderr, succeed};
use crate::rng::{Rng, number_from};

const PATIENCE: Duration = Duration::from_secs(60);

/// A program that copies what is at a URL to a file.
struct Copier {
    temp: tempfile::TempDir,
}

impl Copier {
    fn new(url: &str, config: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let sql = format!(
            r#"CREATE TABLE t (id BIGINT NOT NULL, text VARCHAR) WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "url_input",
            "config": {{"path": "{url}"}}}}, "format": {{"name": "csv"}}}}]');
            CREATE VIEW v WITH ('connectors' = '[{{"transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/out/v.csv"}}}},
            "format": {{"name": "csv"}}}}]') AS SELECT id, text FROM t;"#
        );
        std::fs::write(temp.path().join("p.sql"), sql).unwrap();
        std::fs::write(temp.path().join("p.config.json"), config).unwrap();
        Self { temp }
    }

    fn sql(&self) -> PathBuf {
        self.temp.path().join("p.sql")
    }

    fn data(&self) -> PathBuf {
        self.temp.path().join("data")
    }

    fn args(&self) -> Vec<String> {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        vec!["run".into(), text(self.sql()), "--data-dir".into(), text(self.data()), "--until-end".into()]
    }

    /// The rows that came out, in order of their ids.
    fn rows(&self) -> Vec<String> {
        let file = files(&self.data().join("out")).remove("v.csv").unwrap_or_default();
        let text = String::from_utf8(file).unwrap();
        let mut rows: Vec<String> =
            text.lines().skip(1).map(|l| l.strip_suffix(",insert").unwrap().to_owned()).collect();
        rows.sort_by_key(|row| row.split_once(',').unwrap().0.parse::<u64>().unwrap());
        rows
    }
}

const EXACT: &str =
    r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}, "max_rows_per_step": 400}"#;

fn content(rows: u64) -> (String, Vec<String>) {
    let mut text = "id,text\n".to_owned();
    for id in 0..rows {
        writeln!(text, "{id},text of some length {}", id * 7919).unwrap();
    }
    let rows = text.lines().skip(1).map(str::to_owned).collect();
    (text, rows)
}

#[test]
fn each_row_is_taken_once_under_kills_of_the_pipeline_and_trouble_of_the_server() {
    let (mut random, seed) = Rng::from_env(77);
    let kills = number_from("BACKSTAY_KILLS", 5);
    let (text, expected) = content(60_000);
    let total = text.len() as u64;
    let mut resource = Resource::new(text, "v1");
    // With the first pieces of 64 KiB and later ones of 4 MiB, most requests are made by restarts.
    (resource.trouble, resource.delay) = (5, Duration::from_millis(3));
    let server = Server::start(resource);
    let copier = Copier::new(&server.url(), EXACT);
    let args = copier.args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut moments: Vec<u64> = (0..kills).map(|_| random.below(total * 9 / 10)).collect();
    moments.sort_unstable();
    let mut killed = 0;
    for moment in moments {
        let later = Duration::from_millis(random.below(30));
        killed += u64::from(Victim::start(&args, &copier.data().join("out")).kill_at(moment, later));
    }
    assert!(killed * 2 >= kills, "seed {seed}: only {killed} kills hit");
    succeed(&args);
    assert!(copier.rows() == expected, "seed {seed}: the rows are others");
    eprintln!("{killed} kills, {} requests", server.requests());
}

#[test]
fn content_that_changed_is_refused() {
    let (text, _) = content(20_000);
    let server = Server::start(Resource::new(text.clone(), "v1"));
    // Without checkpoints all steps are replayed.
    let config =
        r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": null}, "max_rows_per_step": 400}"#;
    let copier = Copier::new(&server.url(), config);
    let mut running = Running::start(&copier.sql(), &copier.data(), &[]);
    running.wait_until("the rows", PATIENCE, || files(&copier.data().join("out")).values().any(|f| f.len() > 100_000));
    running.kill();
    let refused = |words: &[&str]| {
        let said = stderr(&output(copier.args()));
        for word in [&["connector t.in", &server.url(), "step 1"], words].concat() {
            assert!(said.contains(word), "no \"{word}\" in: {said}");
        }
    };
    // The same bytes under another version; others under the same one; fewer; none.
    server.change(|r| r.version = Some(("ETag", "\"v2\"".to_owned())));
    refused(&["was replaced or changed", "\"v1\"", "\"v2\""]);
    server.change(|r| *r = Resource::new(text.replacen("id,text\n0", "id,text\n9", 1), "v1"));
    refused(&["was replaced or changed", "\"v1\""]);
    server.change(|r| *r = Resource::new(&text.as_bytes()[..100], "v1"));
    refused(&["was truncated", "now it has 100"]);
    server.change(|r| r.status = Some("404 Not Found"));
    refused(&["there is nothing there (404"]);
    // As it was, it goes on.
    server.change(|r| *r = Resource::new(text, "v1"));
    succeed(copier.args());
    assert_eq!(copier.rows().len(), 20_000);
}

#[test]
fn content_that_changes_while_it_is_read_is_refused() {
    let (text, _) = content(200_000);
    let mut resource = Resource::new(text, "v1");
    resource.version = Some(("Last-Modified", "Tue, 01 Jan 2013 01:00:00 GMT".to_owned()));
    // The first piece's rows are out before the third piece is asked for.
    resource.delay = Duration::from_secs(1);
    let server = Server::start(resource);
    let copier = Copier::new(&server.url(), EXACT);
    let mut running = Running::start(&copier.sql(), &copier.data(), &[]);
    running.wait_until("rows", PATIENCE, || files(&copier.data().join("out")).values().any(|f| f.len() > 1000));
    server.change(|r| r.version = Some(("Last-Modified", "Wed, 02 Jan 2013 01:00:00 GMT".to_owned())));
    let said = running.fails(PATIENCE);
    for word in ["connector t.in", &server.url(), "it changed while it was read", "01 Jan 2013", "02 Jan 2013"] {
        assert!(said.contains(word), "no \"{word}\" in: {said}");
    }
}

#[test]
fn a_server_without_range_requests_is_read_whole() {
    let (text, expected) = content(3_000);
    let mut resource = Resource::new(text, "");
    (resource.ranges, resource.version) = (false, None);
    let server = Server::start(resource);
    let copier = Copier::new(&server.url(), EXACT);
    succeed(copier.args());
    assert_eq!(copier.rows(), expected);

    server.change(|r| r.content = vec![b'\n'; (64 << 20) + 1]);
    let copier = Copier::new(&server.url(), EXACT);
    let said = stderr(&output(copier.args()));
    assert!(said.contains("does not answer range requests, and has more than 64 MiB"), "{said}");
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    let (text, expected) = content(100);
    let mut resource = Resource::new(text, "v1");
    resource.status = Some("503 Busy");
    let server = Server::start(resource);
    let copier = Copier::new(&server.url(), EXACT);
    let mut running = Running::start(&copier.sql(), &copier.data(), &[]);
    running.wait_until("a request", PATIENCE, || server.requests() > 1);
    server.change(|r| r.status = None);
    running.wait_until("the rows", PATIENCE, || copier.rows().len() == 100);
    running.stop();
    assert_eq!(copier.rows(), expected);
    // An empty resource has no rows, and no header either.
    server.change(|r| *r = Resource::new("", "v1"));
    let copier = Copier::new(&server.url(), EXACT);
    succeed(copier.args());
    assert!(copier.rows().is_empty());
}
