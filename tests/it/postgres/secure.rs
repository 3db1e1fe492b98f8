//! TLS to a real server that has it on.

use std::time::Duration;

use super::{SUMS, Server, sums};
use crate::cli::Place;
use crate::process::Running;

const PATIENCE: Duration = Duration::from_secs(120);

/// A database's URI with another user and host, and options.
fn uri(uri: &str, user: &str, host: &str, options: &str) -> String {
    let (_, rest) = uri.split_once("@127.0.0.1").unwrap();
    format!("postgresql://{user}@{host}{rest}?{options}")
}

/// Users, hosts and options that a secure server is spoken to with.
fn ways(server: &Server) -> [(&'static str, &'static str, String); 5] {
    let ca = server.certificate("ca.pem");
    let (certificate, key) = (server.certificate("client.pem"), server.certificate("client.key"));
    let by_password = "secured:secret%2F7";
    [
        (by_password, "127.0.0.1", "".to_owned()),
        (by_password, "127.0.0.1", "sslmode=require".to_owned()),
        (by_password, "elsewhere", format!("hostaddr=127.0.0.1&sslmode=verify-ca&sslrootcert={ca}")),
        (by_password, "localhost", format!("sslmode=verify-full&sslrootcert={ca}")),
        ("client", "127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}&sslcert={certificate}&sslkey={key}")),
    ]
}

#[test]
fn views_are_delivered_by_tls() {
    let Some(server) = Server::start_secure() else { return };
    for (user, host, options) in ways(&server) {
        let (place, mut db) = (Place::new(), server.database());
        db.execute(SUMS);
        let plain = std::mem::take(&mut db.uri);
        db.uri = uri(&plain, user, host, &options);
        place.write("p.sql", &sums(&db, "v", ""));
        place.run();
        db.uri = plain;
        assert_eq!(db.query("SELECT * FROM v ORDER BY k"), ["a|4", "b|2"], "{options}");
    }
}

/// What copies a server's table `t` to a file.
fn copier(uri: &str, slot: &str) -> String {
    format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY) WITH ('connectors' = '[{{"name": "pg", "transport": {{"name": "postgres_input", "config":
            {{"uri": "{uri}", "table": "t", "publication": "p", "slot": "{slot}"}}}}}}]');
        CREATE VIEW v WITH ('connectors' = '[{{"transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/v.csv"}}}},
            "format": {{"name": "csv"}}}}]') AS SELECT id FROM t;"#
    )
}

#[test]
fn changes_are_read_by_tls() {
    let Some(server) = Server::start_secure() else { return };
    // The library looks at the name for verify-ca, too.
    for (user, host, options) in ways(&server).into_iter().filter(|(_, host, _)| *host != "elsewhere") {
        let (place, db) = (Place::new(), server.database());
        db.execute(
            "CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION p FOR TABLE t",
        );
        place.write("p.config.json", r#"{"storage": true, "fault_tolerance": {"model": "at_least_once"}}"#);
        place.write("p.sql", &copier(&uri(&db.uri, user, host, &options), db.uri.rsplit('/').next().unwrap()));
        let mut running = Running::start(&place.path("p.sql"), &place.path("data"), &[]);
        let has = |row: &str| {
            let read = std::fs::read_to_string(place.path("data/v.csv")).unwrap_or_default();
            read.lines().any(|line| line.split(',').any(|field| field == row))
        };
        running.wait_until(&format!("the row that was there ({options})"), PATIENCE, || has("1"));
        db.execute("INSERT INTO t VALUES (2)");
        running.wait_until(&format!("the row that came ({options})"), PATIENCE, || has("2"));
        let by_tls = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_replication_slots r ON s.pid = r.active_pid WHERE s.ssl AND r.slot_name = current_database()";
        assert_eq!(db.query(by_tls), ["1"], "{options}");
        running.stop();
    }
    let uri = server.database().uri;
    for (options, words) in [
        ("sslmode=verify-full".to_owned(), "authority in a file"),
        (format!("sslmode=verify-full&sslrootcert={}", server.certificate("stranger.pem")), "UnknownIssuer"),
        ("sslmode=disable".to_owned(), "no encryption"),
    ] {
        let place = Place::new();
        place.write("p.config.json", r#"{"storage": true, "fault_tolerance": {"model": "at_least_once"}}"#);
        place.write("p.sql", &copier(&self::uri(&uri, "secured:secret%2F7", "127.0.0.1", &options), "s"));
        let said = Running::start(&place.path("p.sql"), &place.path("data"), &[]).fails(PATIENCE);
        assert!(said.contains(words) && said.contains("t.pg") && !said.contains("secret"), "no \"{words}\" in: {said}");
    }
}

#[test]
fn a_certificate_that_does_not_do_is_told() {
    let (Some(server), Some(plain)) = (Server::start_secure(), Server::shared()) else { return };
    let (ca, stranger, nobody) =
        (server.certificate("ca.pem"), server.certificate("stranger.pem"), server.certificate("nobody.pem"));
    let (certificate, key) = (server.certificate("client.pem"), server.certificate("client.key"));
    let mut db = server.database();
    let secure = db.uri.clone();
    let without = plain.database();
    let of = |options: &str, host: &str| uri(&secure, "secured:secret%2F7", host, options);
    let full = |file: &str| format!("sslmode=verify-full&sslrootcert={file}");
    let key_swapped = format!("{}&sslcert={key}&sslkey={certificate}", full(&ca));
    let cases = [
        (of(&full(&stranger), "127.0.0.1"), "UnknownIssuer"),
        (of(&format!("sslmode=verify-ca&sslrootcert={stranger}"), "127.0.0.1"), "sslrootcert in \"uri\""),
        (of(&format!("{}&hostaddr=127.0.0.1", full(&ca)), "elsewhere"), "not valid for name \"elsewhere\""),
        (of(&full(&nobody), "127.0.0.1"), nobody.as_str()),
        (of(&full(&key), "127.0.0.1"), "no certificate"),
        (of(&key_swapped, "127.0.0.1"), "certificate"),
        (of("sslmode=disable", "127.0.0.1"), "no encryption"),
        (format!("{}?sslmode=require", without.uri), "does not support TLS"),
    ];
    for (uri, words) in cases {
        let place = Place::new();
        db.uri.clone_from(&uri);
        place.write("p.sql", &sums(&db, "v", ""));
        let said = place.fail(1);
        assert!(said.contains(words) && said.contains("v.pg"), "no \"{words}\" for {uri} in: {said}");
        assert!(!said.contains("secret"), "the password: {said}");
    }
}
