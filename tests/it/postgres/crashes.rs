//! SIGKILLs of the pipeline and of the server, and a process that was replaced.
//!
//! The view goes to a file too, which is exactly-once by tests of its own: the tables must say what it says.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::{Database, Server, sink};
use crate::cli::Place;
use crate::process::{Victim, backstay, integrate};
use crate::rng::{Rng, number_from};

const ROWS: u64 = 20_000;

/// Sums of a join, by key and as a log of changes, beside a file.
fn program(db: &Database, follow: bool) -> String {
    let file = |name: &str, follow: bool| {
        format!(
            r#"WITH ('connectors' = '[{{"transport": {{"name": "file_input", "config": {{"path": "{name}", "follow": {follow}}}}}, "format": {{"name": "csv"}}}}]')"#
        )
    };
    let log = sink(db, "log", r#", "mode": "cdc", "cdc_step_column": "step""#);
    let list = log.trim_start_matches("WITH ('connectors' = '[").trim_end_matches("]')").replace("\"pg\"", "\"log\"");
    let table = sink(db, "sums", "");
    let table = table.trim_start_matches("WITH ('connectors' = '[").trim_end_matches("]')");
    format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL, k BIGINT NOT NULL, n BIGINT NOT NULL) {};
        CREATE TABLE names (k BIGINT NOT NULL, name VARCHAR NOT NULL) {};
        CREATE VIEW v WITH ('connectors' = '[{table}, {list}, {{"name": "file", "transport": {{"name": "file_output", "config":
        {{"path": "${{DATA_DIR}}/out/v.ndjson"}}}}, "format": {{"name": "json", "config": {{"include_step": true}}}}}}]')
        AS SELECT names.name, count(*) AS c, sum(n) AS n FROM t JOIN names ON t.k = names.k GROUP BY names.name;"#,
        file("t.csv", follow),
        file("names.csv", false),
    )
}

const TABLES: &str = "CREATE TABLE sums (name text PRIMARY KEY, c bigint, n bigint); \
    CREATE TABLE log (__feldera_op text, __feldera_ts timestamptz, name text, c bigint, n bigint, step bigint)";

fn prepare(server: &std::sync::Arc<Server>, random: &mut Rng, follow: bool) -> (Place, Database) {
    let (place, db) = (Place::new(), server.database());
    db.execute(TABLES);
    let mut csv = String::from("id,k,n\n");
    for id in 0..ROWS {
        writeln!(csv, "{id},{},{}", random.below(100), random.below(1000)).unwrap();
    }
    place.write("t.csv", &csv);
    place
        .write("names.csv", &(0..100).fold(String::from("k,name\n"), |csv, k| csv + &format!("{k},name {}\n", k % 30)));
    place.write("p.sql", &program(&db, follow));
    let config =
        r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}, "rows_per_step": 50, "workers": 2}"#;
    place.write("p.config.json", config);
    (place, db)
}

/// The tables say what the file says.
fn compare(place: &Place, db: &Database, seed: u64) {
    let text = std::fs::read_to_string(place.path("data/out/v.ndjson")).unwrap();
    let field = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap();
        rest.split([',', '}']).next().unwrap().trim_matches('"').to_owned()
    };
    let row = |line: &str| ["name", "c", "n"].map(|name| field(line, name)).join("|");
    let mut sums: Vec<String> = integrate("v", text.as_bytes()).keys().map(|line| row(line)).collect();
    sums.sort_unstable();
    let mut table = db.query("SELECT name, c, n FROM sums");
    table.sort_unstable();
    assert_eq!(table, sums, "seed {seed}");
    let mut expected: Vec<String> = text
        .lines()
        .map(|line| {
            let op = if line.contains("\"insert\"") { "i" } else { "d" };
            format!("{}|{op}|{}", field(line, "step"), row(line))
        })
        .collect();
    let mut log = db.query("SELECT step, __feldera_op, name, c, n FROM log");
    expected.sort_unstable();
    log.sort_unstable();
    let differ = expected.iter().zip(&log).find(|(a, b)| a != b);
    assert!(expected == log, "seed {seed}: {} lines, {} rows, {differ:?}", expected.len(), log.len());
}

#[test]
fn the_tables_have_each_step_once_and_whole_under_kills() {
    let Some(server) = Server::start() else { return };
    let (mut random, seed) = Rng::from_env(13);
    let (kills, server_kills) = (number_from("BACKSTAY_KILLS", 10), number_from("BACKSTAY_SERVER_KILLS", 3));
    eprintln!("BACKSTAY_SEED={seed} BACKSTAY_KILLS={kills} BACKSTAY_SERVER_KILLS={server_kills}");
    let (place, db) = prepare(&server, &mut random, false);
    let args = place.args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // About what the file comes to: each step changes most of the 30 rows.
    let total = ROWS / 50 * 30 * 2 * 60;
    let mut killed = 0;
    for kill in 0..kills {
        let victim = Victim::start(&args, &place.path("data/out"));
        if Server::is_own() && kill * server_kills / kills != (kill + 1) * server_kills / kills {
            std::thread::sleep(Duration::from_millis(random.below(1500)));
            server.kill();
            std::thread::sleep(Duration::from_millis(random.below(500)));
            server.restart();
        }
        let moment = total * kill / kills + random.below(total / kills);
        killed += u64::from(victim.kill_at(moment, Duration::from_millis(random.below(100))));
    }
    place.run();
    eprintln!("{killed} of {kills} kills hit");
    assert!(killed >= kills / 2, "seed {seed}: only {killed} of {kills} kills hit");
    compare(&place, &db, seed);
    // A server that is killed while the pipeline goes on, and at its end.
    let (place, db) = prepare(&server, &mut random, false);
    let run = backstay(place.args())
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..if Server::is_own() { 3 } else { 0 } {
        std::thread::sleep(Duration::from_millis(300 + random.below(1000)));
        server.kill();
        server.restart();
    }
    let ended = run.wait_with_output().unwrap();
    assert!(ended.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&ended.stderr));
    compare(&place, &db, seed);
}

#[test]
fn a_process_that_was_replaced_is_fenced_and_says_so() {
    let Some(server) = Server::shared() else { return };
    let (mut random, seed) = Rng::from_env(14);
    let (place, db) = prepare(&server, &mut random, true);
    let start = |data: &str| {
        let args = ["run".into(), place.path("p.sql"), "--data-dir".into(), place.path(data)];
        let log = std::fs::File::create(place.path(data).with_extension("log")).unwrap();
        backstay(args).stdout(std::process::Stdio::null()).stderr(log).spawn().unwrap()
    };
    let said = |data: &str| std::fs::read_to_string(place.path(data).with_extension("log")).unwrap();
    let count = |rows: u64| db.query("SELECT coalesce(sum(c), 0) FROM sums") == [rows.to_string()];
    let wait = |what: &str, holds: &mut dyn FnMut() -> bool| {
        let end = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < end, "{what} does not come: {}", said("data"));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let mut first = start("data");
    wait("all rows", &mut || count(ROWS));
    let copied = std::process::Command::new("cp").arg("-a").arg(place.path("data")).arg(place.path("clone")).status();
    assert!(copied.unwrap().success());
    let mut second = start("clone");
    wait("the other's epoch", &mut || {
        db.query("SELECT count(DISTINCT epoch) > 0 AND min(epoch) > 1 FROM backstay_sinks") == ["t"]
    });
    // A whole step of them; appended, since both read the file.
    let rows = (ROWS..ROWS + 50).fold(String::new(), |csv, id| csv + &format!("{id},1,1\n"));
    let mut csv = std::fs::OpenOptions::new().append(true).open(place.path("t.csv")).unwrap();
    std::io::Write::write_all(&mut csv, rows.as_bytes()).unwrap();
    wait("the first's end", &mut || first.try_wait().unwrap().is_some());
    assert!(said("data").contains("fenced"), "{}", said("data"));
    wait("the new row", &mut || count(ROWS + 50));
    // The first starts again, from its own directory, with the epoch that the clone has.
    let mut again = start("data");
    wait("its end", &mut || again.try_wait().unwrap().is_some());
    assert!(said("data").contains("fenced"), "seed {seed}: {}", said("data"));
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(count(ROWS + 50));
}
