//! `postgres_input`: changes of a real server's tables, under SIGKILL of the pipeline and of the server.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::server::{Database, Server};
use crate::cli::Place;
use crate::process::{Running, integrate, output, stderr, succeed};
use crate::rng::{Rng, number_from};

const PATIENCE: Duration = Duration::from_secs(120);
pub(super) const EXACT: &str = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}}"#;
const AT_LEAST: &str =
    r#"{"storage": true, "fault_tolerance": {"model": "at_least_once", "checkpoint_interval_secs": 1}}"#;

/// A table's connector.
pub(super) fn source(db: &Database, table: &str, more: &str) -> String {
    let slot = format!("{table}_{}", db.uri.rsplit('/').next().unwrap());
    format!(
        r#"WITH ('connectors' = '[{{"name": "pg", "transport": {{"name": "postgres_input", "config": {{"uri": "{}", "table": "{table}", "publication": "all_of_it",
        "slot": "{slot}"{more}}}}}}}]')"#,
        db.uri
    )
}

fn file(view: &str) -> String {
    format!(
        r#"WITH ('connectors' = '[{{"transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/{view}.ndjson"}}}}, "format": {{"name": "json"}}}}]')"#
    )
}

/// Money that moves between accounts, whose sum is always 0, and a list of what was done.
fn sql(db: &Database, more: &str) -> String {
    format!(
        "CREATE TABLE accounts (id BIGINT NOT NULL PRIMARY KEY, balance DECIMAL(12, 2) NOT NULL, note VARCHAR) {};
         CREATE TABLE moves (n BIGINT NOT NULL, at TIMESTAMP, data VARBINARY) {};
         CREATE MATERIALIZED VIEW copy {} AS SELECT id, balance, note FROM accounts;
         CREATE VIEW total {} AS SELECT sum(balance) AS total FROM accounts;
         CREATE VIEW list {} AS SELECT n, data FROM moves;",
        source(db, "accounts", more),
        source(db, "moves", more),
        file("copy"),
        file("total"),
        file("list"),
    )
}

fn database(server: &Arc<Server>) -> Option<Database> {
    let db = server.database();
    if db.query("SHOW wal_level") != ["logical"] {
        return None;
    }
    db.execute(
        "CREATE TABLE accounts (id bigint PRIMARY KEY, balance numeric(12, 2) NOT NULL, note text); CREATE TABLE other (id bigint);
         CREATE TABLE moves (n bigint NOT NULL, at timestamp, data bytea); CREATE PUBLICATION all_of_it FOR ALL TABLES",
    );
    Some(db)
}

/// Changes accounts in transactions until it is told to stop; gives how many there were. A server that is away is waited for: then nobody knows what
/// became of the last transaction but the server.
fn change(db: &Database, random: &mut Rng, done: &AtomicBool) -> u64 {
    let mut n = 0;
    while !done.load(Ordering::Acquire) {
        let (from, to, sum) = (random.below(40), 40 + random.below(40), random.below(10_000));
        let put = |id: u64, sign: &str| {
            format!(
                "INSERT INTO accounts VALUES ({id}, {sign}{sum} / 100.0, 'é {n}') ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + excluded.balance, note = excluded.note;"
            )
        };
        let more = match random.below(6) {
            // Keys change, rows go, and what is done is undone.
            0 => format!("UPDATE accounts SET id = id + 1000 WHERE id = {from};"),
            1 => format!(
                "DELETE FROM accounts WHERE id = {to} AND balance = 0; UPDATE accounts SET note = NULL WHERE id = {from};"
            ),
            2 => format!(
                "DELETE FROM accounts WHERE id = {from}; INSERT INTO accounts SELECT {from} + 2000 + {n}, -sum(balance), 'rest' FROM accounts HAVING sum(balance) IS NOT NULL;"
            ),
            _ => "INSERT INTO other SELECT generate_series(1, 50);".to_owned(),
        };
        let end = if random.once_in(7) { "ROLLBACK" } else { "COMMIT" };
        let both = format!(
            "BEGIN; {} {} {more} INSERT INTO moves VALUES ({n}, now(), '\\x00ff'::bytea); {end}",
            put(from, "-"),
            put(to, "")
        );
        match db.try_query(&both) {
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
        n += 1;
        std::thread::sleep(Duration::from_millis(random.below(8)));
    }
    n
}

/// Tells [`change`] to end when a test fails, which would wait for it.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Slots that are read from. One that is being made is listed already, and goes with whoever makes it.
fn slots(db: &Database) -> usize {
    let name = db.uri.rsplit('/').next().unwrap();
    let sql = format!(
        "SELECT slot_name FROM pg_replication_slots JOIN pg_stat_replication ON pid = active_pid
         WHERE slot_name LIKE '%\\_{name}' AND state IN ('catchup', 'streaming')"
    );
    db.try_query(&sql).map_or(0, |found| found.len())
}

/// How far the server knows that the slots are not needed.
fn confirmed(db: &Database) -> Vec<u64> {
    let name = db.uri.rsplit('/').next().unwrap();
    let sql = format!(
        "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name LIKE '%{name}' ORDER BY slot_name"
    );
    db.query(&sql).iter().map(|lsn| lsn.parse().unwrap()).collect()
}

fn drop_slots(db: &Database) {
    let name = db.uri.rsplit('/').next().unwrap();
    let sql = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE '%\\_{name}'"
    );
    while db.try_query(&sql).is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The accounts at the server, as the view writes them.
fn accounts(db: &Database) -> BTreeMap<String, i64> {
    let text = |note: &str| if note == "∅" { "null".to_owned() } else { format!("\"{note}\"") };
    let row = |row: String| {
        let fields: Vec<&str> = row.split('|').collect();
        format!(r#"{{"id":{},"balance":"{}","note":{}}}"#, fields[0], fields[1], text(fields[2]))
    };
    db.query("SELECT id, balance, note FROM accounts").into_iter().map(|r| (row(r), 1)).collect()
}

fn whole(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes[..bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)].to_vec()
}

#[test]
fn each_transaction_is_taken_once_and_whole_under_kills() {
    let Some(server) = Server::start() else { return };
    let Some(db) = database(&server) else { return };
    let (mut random, seed) = Rng::from_env(51);
    let (kills, server_kills) = (number_from("BACKSTAY_KILLS", 6), number_from("BACKSTAY_SERVER_KILLS", 2));
    let place = Place::new();
    place.write("p.sql", &sql(&db, r#", "snapshot": false"#));
    place.write("p.config.json", EXACT);
    let start =
        |workers: u64| Running::start(&place.path("p.sql"), &place.path("data"), &["--workers", &workers.to_string()]);
    let mut running = start(1);
    running.wait_until("the slots", PATIENCE, || slots(&db) == 2);
    running.kill();
    let begun = confirmed(&db);
    let done = AtomicBool::new(false);
    let count = std::thread::scope(|scope| {
        let changing = scope.spawn(|| change(&db, &mut Rng::new(seed), &done));
        let _done = Done(&done);
        for kill in 0..kills {
            let running = start(1 + random.below(3));
            std::thread::sleep(Duration::from_millis(500 + random.below(2000)));
            if Server::is_own() && kill * server_kills / kills != (kill + 1) * server_kills / kills {
                server.kill();
                std::thread::sleep(Duration::from_millis(random.below(1000)));
                server.restart();
                std::thread::sleep(Duration::from_millis(random.below(3000)));
            }
            running.kill();
        }
        done.store(true, Ordering::Release);
        changing.join().unwrap()
    });
    let mut running = start(2);
    let view = |name: &str| integrate(name, &whole(&place.path(&format!("data/{name}.ndjson"))));
    let list = || -> Vec<i64> { view("list").into_values().collect() };
    let moves: BTreeMap<String, i64> =
        db.query("SELECT n FROM moves").into_iter().map(|n| (format!(r#"{{"n":{n},"data":"00ff"}}"#), 1)).collect();
    running.wait_until(&format!("every move (seed {seed})"), PATIENCE, || view("list").len() >= moves.len());
    running.wait_until("the accounts", PATIENCE, || view("copy") == accounts(&db));
    // Checkpoints let the server forget what none of them needs.
    running.wait_until("the slots to move", PATIENCE, || {
        db.execute("INSERT INTO moves SELECT -1 WHERE false; INSERT INTO accounts VALUES (-1, 0, NULL); DELETE FROM accounts WHERE id = -1");
        std::thread::sleep(Duration::from_millis(500));
        confirmed(&db).iter().zip(&begun).any(|(now, then)| now > then)
    });
    running.stop();
    assert!(list().iter().all(|n| *n == 1), "seed {seed}: a move came twice");
    assert_eq!(view("list"), moves, "seed {seed}");
    // No step saw a half of a transaction.
    let totals = String::from_utf8(whole(&place.path("data/total.ndjson"))).unwrap();
    let strange = |line: &&str| !line.contains("\"0.00\"") && !line.contains("null");
    assert_eq!(totals.lines().find(strange), None, "seed {seed}");
    eprintln!("{count} transactions, {} moves", moves.len());
    drop_slots(&db);
}

#[test]
fn a_snapshot_comes_first_and_ends_at_what_the_server_has() {
    let Some(server) = Server::shared() else { return };
    let Some(db) = database(&server) else { return };
    let (mut random, seed) = Rng::from_env(53);
    db.execute("INSERT INTO accounts SELECT i, 0, repeat('x', 50) FROM generate_series(10000, 60000) i");
    db.execute("INSERT INTO moves SELECT i, NULL, NULL FROM generate_series(10000, 60000) i");
    let place = Place::new();
    place.write("p.sql", &sql(&db, ""));
    place.write("p.config.json", AT_LEAST);
    let start = || Running::start(&place.path("p.sql"), &place.path("data"), &["--workers", "1"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| change(&db, &mut Rng::new(seed), &done));
        let _done = Done(&done);
        for _ in 0..4 {
            let running = start();
            std::thread::sleep(Duration::from_millis(300 + random.below(2500)));
            db.execute(&format!("DELETE FROM accounts WHERE id >= 10000 AND id % 100 = {}", random.below(100)));
            running.kill();
        }
        done.store(true, Ordering::Release);
        changing.join().unwrap()
    });
    let expected = db.query("SELECT count(*), sum(balance), max(id) FROM accounts");
    let [expected] = expected.as_slice() else { panic!() };
    let expected: Vec<&str> = expected.split('|').collect();
    let data = place.path("data");
    let ask = || {
        let ended = output([
            "query",
            data.to_str().unwrap(),
            "SELECT count(*) AS n, sum(balance) AS total, max(id) AS top FROM copy",
            "--format",
            "csv",
        ]);
        String::from_utf8_lossy(&ended.stdout).lines().last().unwrap_or_default().to_owned()
    };
    let mut running = start();
    running.wait_until("the table", PATIENCE, || ask() == expected.join(","));
    running.stop();
    drop_slots(&db);
}

#[test]
fn what_cannot_be_read_is_refused() {
    let Some(server) = Server::shared() else { return };
    let Some(db) = database(&server) else { return };
    let place = Place::new();
    let program = sql(&db, r#", "snapshot": false"#);
    place.write("p.sql", &program);
    place.write("p.config.json", EXACT);
    let fails = |words: &[&str]| {
        let ended =
            output(["run", place.path("p.sql").to_str().unwrap(), "--data-dir", place.path("data").to_str().unwrap()]);
        let said = stderr(&ended);
        for word in words {
            assert!(!ended.status.success() && said.contains(word), "no \"{word}\" in: {said}");
        }
        assert!(!said.contains("secret"), "the password: {said}");
    };
    place.write("p.sql", &sql(&db, ""));
    fails(&["accounts.pg", "moves.pg", "exactly"]);
    place.write("p.sql", &program.replace("all_of_it", "nothing"));
    fails(&[".pg", "publication nothing", "CREATE PUBLICATION"]);
    for (name, what, left_out) in [
        ("few", "accounts, moves WITH (publish = 'insert, update')", "leaves deletes of table"),
        ("chosen", "accounts WHERE (id > 5), moves", "leaves rows of table accounts"),
        ("narrow", "accounts (id, balance), moves (n, at, data)", "leaves column note of table accounts"),
    ] {
        db.execute(&format!("CREATE PUBLICATION {name} FOR TABLE {what}"));
        place.write("p.sql", &program.replace("all_of_it", name));
        fails(&[left_out, &format!("ALTER PUBLICATION {name}")]);
    }
    place.write("p.sql", &program);
    let _ = std::fs::remove_dir_all(place.path("data"));
    let mut running = Running::start(&place.path("p.sql"), &place.path("data"), &[]);
    running.wait_until("the slots", PATIENCE, || slots(&db) == 2);
    db.execute("INSERT INTO moves VALUES (1, now(), NULL); INSERT INTO accounts VALUES (1, 0, 'a')");
    let read = || std::fs::read_to_string(place.path("data/list.ndjson")).unwrap_or_default();
    running.wait_until("the move", PATIENCE, || !read().is_empty());
    db.execute("TRUNCATE accounts");
    assert!(running.fails(PATIENCE).contains("table accounts was truncated"));
    // Somebody else reads what the checkpoint still needs, or the slot is gone.
    drop_slots(&db);
    fails(&["the slot", "is gone"]);
    let name = db.uri.rsplit('/').next().unwrap();
    db.execute(&format!("SELECT pg_create_logical_replication_slot('{0}_{name}', 'pgoutput'), pg_create_logical_replication_slot('moves_{name}', 'pgoutput')", "accounts"));
    fails(&["stands at", "somebody else read from it"]);
    drop_slots(&db);
    for table in ["accounts", "moves"] {
        db.execute(&format!("SELECT pg_create_logical_replication_slot('{table}_{name}', 'test_decoding')"));
    }
    fails(&["another plugin than pgoutput"]);
    drop_slots(&db);
    succeed(["check", place.path("p.sql").to_str().unwrap()]);
}
