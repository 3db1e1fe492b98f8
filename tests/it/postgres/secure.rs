//! TLS to a real server that has it on.

use super::{SUMS, Server, sums};
use crate::cli::Place;

/// A database's URI with another user and host, and options.
fn uri(uri: &str, user: &str, host: &str, options: &str) -> String {
    let (_, rest) = uri.split_once("@127.0.0.1").unwrap();
    format!("postgresql://{user}@{host}{rest}?{options}")
}

#[test]
fn views_are_delivered_by_tls() {
    let Some(server) = Server::start_secure() else { return };
    let ca = server.certificate("ca.pem");
    let (certificate, key) = (server.certificate("client.pem"), server.certificate("client.key"));
    let by_password = "secured:secret%2F7";
    let ways = [
        (by_password, "127.0.0.1", "".to_owned()),
        (by_password, "127.0.0.1", "sslmode=require".to_owned()),
        (by_password, "elsewhere", format!("hostaddr=127.0.0.1&sslmode=verify-ca&sslrootcert={ca}")),
        (by_password, "localhost", format!("sslmode=verify-full&sslrootcert={ca}")),
        ("client", "127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}&sslcert={certificate}&sslkey={key}")),
    ];
    for (user, host, options) in ways {
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
