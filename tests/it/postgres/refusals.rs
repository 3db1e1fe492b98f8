//! What is refused, in words that name the table and the fix, and never the password.

use super::{SUMS, Server, place, sums};
use crate::cli::Place;

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no \"{word}\" in: {text}");
    }
    assert!(!text.contains("secret"), "the password: {text}");
}

#[test]
fn a_table_that_does_not_fit_is_refused() {
    let Some(server) = Server::shared() else { return };
    let db = server.database();
    let place = Place::new();
    place.write("p.sql", &sums(&db, "v", ""));
    says(&place.fail(1), &["v.pg", "there is no table v", "CREATE TABLE"]);
    db.execute("CREATE TABLE v (k text PRIMARY KEY, m bigint)");
    says(&place.fail(1), &["v.pg", "column n"]);
    db.execute("DROP TABLE v; CREATE TABLE v (k text, n bigint)");
    says(&place.fail(1), &["v.pg", "key"]);
    db.execute("DROP TABLE v; CREATE TABLE v (k text PRIMARY KEY, n date)");
    says(&place.fail(1), &["v.pg", "n", "date"]);
    db.execute("DROP TABLE v");
    db.execute(SUMS);
    db.execute("INSERT INTO v VALUES ('z', 1)");
    says(&place.fail(1), &["has rows already", "TRUNCATE"]);
    db.execute("TRUNCATE v");
    place.run();
    assert_eq!(db.query("SELECT * FROM v ORDER BY k"), ["a|4", "b|2"]);
}

#[test]
fn a_marker_that_is_not_what_the_checkpoint_says_is_refused() {
    let Some(server) = Server::shared() else { return };
    let (first, db) = place(&server);
    first.run();
    // Another data directory, the same name.
    let other = Place::new();
    other.write("p.sql", &sums(&db, "v", ""));
    says(&other.fail(1), &["v.pg", "never delivered", "DELETE FROM"]);
    db.execute("UPDATE backstay_sinks SET step = step + 5");
    says(&first.fail(1), &["v.pg", "is at step 6", "is 1", "part of the log is missing"]);
    db.execute("UPDATE backstay_sinks SET step = 0");
    says(&first.fail(1), &["is at step 0", "had step 1"]);
    db.execute("UPDATE backstay_sinks SET step = 1, incarnation = '00000000-0000-0000-0000-000000000001'");
    says(&first.fail(1), &["belongs to incarnation 00000000-0000-0000-0000-000000000001"]);
    db.execute("DELETE FROM backstay_sinks");
    says(&first.fail(1), &["has no row for v.pg", "checkpoint says"]);
}

#[test]
fn a_wrong_password_is_told_without_it() {
    let Some(server) = Server::shared() else { return };
    let (place, db) = place(&server);
    place.write("p.sql", &sums(&db, "v", "").replace("secret%2F7", "secretive"));
    says(&place.fail(1), &["v.pg", "password", "pg_hba.conf"]);
}
