//! Whose log `postgres_input` reads: another cluster, one restored from a backup, one that recovered without loss.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::input::{EXACT, source};
use super::server::{Database, Server};
use crate::cli::Place;
use crate::process::{Running, output, stderr};

const PATIENCE: Duration = Duration::from_secs(60);
const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY); CREATE PUBLICATION all_of_it FOR TABLE t";

fn program(db: &Database) -> String {
    format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY) {};
        CREATE VIEW v WITH ('connectors' = '[{{"transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/v.ndjson"}}}}, "format": {{"name": "json"}}}}]')
        AS SELECT id FROM t;"#,
        source(db, "t", r#", "snapshot": false"#)
    )
}

struct Copy {
    place: Place,
}

impl Copy {
    fn new(db: &Database) -> Self {
        db.execute(TABLE);
        let place = Place::new();
        place.write("p.sql", &program(db));
        place.write("p.config.json", EXACT);
        Self { place }
    }

    fn start(&self) -> Running {
        Running::start(&self.place.path("p.sql"), &self.place.path("data"), &["--workers", "1"])
    }

    fn lines(&self) -> usize {
        std::fs::read_to_string(self.place.path("data/v.ndjson")).unwrap_or_default().lines().count()
    }

    /// Inserts rows and waits until they are there.
    fn insert(&self, db: &Database, running: &mut Running, ids: std::ops::Range<usize>) {
        db.execute(&format!("INSERT INTO t SELECT generate_series({}, {})", ids.start, ids.end - 1));
        running.wait_until("the rows", PATIENCE, || self.lines() >= ids.end);
        assert_eq!(self.lines(), ids.end);
    }

    /// A life in which rows are inserted and come.
    fn live(&self, db: &Database, ids: std::ops::Range<usize>) {
        let mut running = self.start();
        self.insert(db, &mut running, ids);
        running.stop();
    }

    /// Waits until there is a slot, from which the rows are read.
    fn wait_for_slot(&self, db: &Database, running: &mut Running) {
        let active = || db.query("SELECT count(*) FROM pg_replication_slots WHERE active") == ["1"];
        running.wait_until("the slot", PATIENCE, active);
    }

    fn refused(&self, words: &[&str]) {
        let path = |name: &str| self.place.path(name).to_str().unwrap().to_owned();
        let ended = output(["run", &path("p.sql"), "--data-dir", &path("data"), "--workers", "1"]);
        let said = stderr(&ended);
        for word in words {
            assert!(!ended.status.success() && said.contains(word), "no \"{word}\" in: {said}");
        }
    }
}

/// Copies the files of a server that is not running.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Starts a server that is not running as one that recovers from an archive: it goes on with a timeline of its own.
fn recover(server: &Server, db: &Database) {
    let data = server.data();
    let conf = data.join("postgresql.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, text + "restore_command = 'false'\n").unwrap();
    // Of the server's own user.
    copy(&data.join("PG_VERSION"), &data.join("recovery.signal"));
    server.restart();
    let end = Instant::now() + PATIENCE;
    while db.query("SELECT pg_is_in_recovery()") != ["f"] {
        assert!(Instant::now() < end, "it recovers still");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn another_cluster_is_refused_and_the_same_one_goes_on() {
    if !Server::is_own() {
        return;
    }
    let Some(server) = Server::start() else { return };
    let db = server.database();
    let copy = Copy::new(&db);
    let mut running = copy.start();
    copy.wait_for_slot(&db, &mut running);
    copy.insert(&db, &mut running, 0..10);
    // The same one, started anew.
    server.kill();
    server.restart();
    copy.insert(&db, &mut running, 10..20);
    running.stop();
    server.stop();
    server.restart();
    copy.live(&db, 20..30);

    // With all that the pipeline needs, and a log that goes as far.
    let Some(other) = Server::start() else { return };
    let twin = other.database();
    twin.execute(TABLE);
    let slot = db.uri.rsplit('/').next().unwrap();
    twin.execute(&format!("SELECT pg_create_logical_replication_slot('t_{slot}', 'pgoutput')"));
    let id = |db: &Database| db.query("SELECT system_identifier FROM pg_control_system()")[0].clone();
    let program = std::fs::read_to_string(copy.place.path("p.sql")).unwrap();
    copy.place.write("p.sql", &program.replace(&db.uri, &twin.uri));
    copy.refused(&["t.pg", "system identifier", &id(&db), &id(&twin), "another data directory"]);
    copy.place.write("p.sql", &program);
    copy.live(&db, 30..40);
}

#[test]
fn a_server_that_was_restored_is_refused_and_one_that_lost_nothing_goes_on() {
    if !Server::is_own() {
        return;
    }
    let Some(server) = Server::start() else { return };
    let db = server.database();
    let copy_of = Copy::new(&db);
    let mut running = copy_of.start();
    copy_of.wait_for_slot(&db, &mut running);
    copy_of.insert(&db, &mut running, 0..10);
    running.stop();
    // It recovers, and is on another timeline, which goes through all that was read.
    server.stop();
    recover(&server, &db);
    copy_of.live(&db, 10..20);
    server.stop();
    let backup = server.data().with_file_name("backup");
    copy(&server.data(), &backup);
    server.restart();
    copy_of.live(&db, 20..30);
    server.stop();
    // What came after the backup is lost, and something else takes its place in the log.
    std::fs::remove_dir_all(server.data()).unwrap();
    copy(&backup, &server.data());
    recover(&server, &db);
    db.execute("INSERT INTO t SELECT generate_series(1000, 40000)");
    copy_of.refused(&["t.pg", "on timeline 2", "on timeline 3", "left timeline 2 at", "restored from a backup"]);
}
