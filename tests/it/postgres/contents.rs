//! What comes into the tables: every type, changes by key, logs of changes.

use super::server::Server;
use super::{SUMS, place, sink, sums};
use crate::cli::Place;

const COLUMNS: &str = "id BIGINT NOT NULL, flag BOOLEAN, ti TINYINT, si SMALLINT, i INT, f REAL, g DOUBLE, n DECIMAL(20, 4), s VARCHAR, b BINARY, \
    d DATE, t TIME, ts TIMESTAMP, u UUID, j JSON, a INT ARRAY, sa VARCHAR ARRAY, r ROW(x INT, y VARCHAR), m MAP<VARCHAR, DOUBLE>, \
    aa ARRAY<ROW(p INT, q DOUBLE[])>";

const TABLE: &str = "CREATE TABLE v (id bigint PRIMARY KEY, flag boolean, ti smallint, si smallint, i integer, f real, g double precision, \
    n numeric(20,4), s text, b bytea, d date, t time, ts timestamp, u uuid, j jsonb, a integer[], sa text[], r jsonb, m jsonb, aa jsonb, \
    age interval, other integer DEFAULT 7)";

#[test]
fn every_type_comes_through() {
    let Some(server) = Server::shared() else { return };
    let (place, db) = (Place::new(), server.database());
    db.execute(TABLE);
    let sql = format!(
        "CREATE TABLE t ({COLUMNS}) WITH ('connectors' = '[{{\"transport\": {{\"name\": \"file_input\", \"config\": {{\"path\": \"t.json\"}}}}, \
         \"format\": {{\"name\": \"json\"}}}}]');\nCREATE VIEW v {} AS SELECT *, ts - TIMESTAMP '2024-01-01 00:00:00' AS age FROM t;",
        sink(&db, "v", "")
    );
    place.write("p.sql", &sql);
    let full = r#"{"insert":{"id":1,"flag":true,"ti":-128,"si":-32768,"i":2147483647,"f":0.1,"g":1e300,"n":"1234567890123456.7891",
        "s":"tab\t nl\n cr\r back\\ quote\" \\N \\. é","b":"00ff5c","d":"2024-02-29","t":"13:05:00.250001","ts":"2024-01-02T03:04:05.000006",
        "u":"7d444840-9dc0-11d1-b245-5ffdce74fad2","j":{"k":"é\n","n":[1,2]},"a":[1,null,-3],"sa":["a\"b","c\\d",null,"","NULL","{x,y}\t"],
        "r":{"x":1,"y":"a\"b"},"m":{"one":1.5},"aa":[{"p":1,"q":[0.5]}]}}"#
        .replace('\n', "");
    let edge = r#"{"insert":{"id":2,"f":"NaN","g":"-Infinity","s":"","sa":[],"a":[],"n":"-0.0001","d":"1969-12-31","ts":"1969-12-31T23:59:59.999999"}}"#;
    place.write("t.json", &format!("{full}\n{edge}\n{{\"insert\":{{\"id\":3}}}}\n"));
    place.run();
    let rows = db.query(
        "SET intervalstyle = 'iso_8601'; SELECT id, flag, ti, si, i, f, g, n, s, b, d, t, ts, u, j, a, sa, r, m, aa, age, other FROM v ORDER BY id",
    );
    assert_eq!(
        rows[0],
        "1|t|-128|-32768|2147483647|0.1|1e+300|1234567890123456.7891|tab\t nl\n cr\r back\\ quote\" \\N \\. é|\\x00ff5c|2024-02-29|13:05:00.250001|\
         2024-01-02 03:04:05.000006|7d444840-9dc0-11d1-b245-5ffdce74fad2|{\"k\": \"é\\n\", \"n\": [1, 2]}|{1,NULL,-3}|\
         {\"a\\\"b\",\"c\\\\d\",NULL,\"\",\"NULL\",\"{x,y}\t\"}|{\"x\": 1, \"y\": \"a\\\"b\"}|{\"one\": 1.5}|[{\"p\": 1, \"q\": [0.5]}]|PT27H4M5.000006S|7"
    );
    assert!(
        rows[1].starts_with("2|∅|∅|∅|∅|NaN|-Infinity|-0.0001||∅|1969-12-31|∅|1969-12-31 23:59:59.999999|∅|∅|{}|{}|"),
        "{}",
        rows[1]
    );
    assert!(rows[2].starts_with("3|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|"), "{}", rows[2]);
    // The same in a table of other types that have room for them.
    let db = server.database();
    db.execute(
        "CREATE DOMAIN wide AS numeric(40,10); CREATE TABLE v (id numeric PRIMARY KEY, flag boolean, ti int, si bigint, i numeric(12,2), f double precision, \
         g double precision, n wide, s varchar(100), b bytea, d date, t time(6), ts timestamp(6), u text, j json, a bigint[], sa json, r json, m json, \
         aa json, age interval)",
    );
    let other = Place::new();
    other.write(
        "p.sql",
        &sql.replace(&sql[sql.find("postgresql").unwrap()..sql.find("\", \"table\"").unwrap()], &db.uri),
    );
    other.write("t.json", &format!("{full}\n{edge}\n"));
    other.run();
    assert_eq!(
        db.query("SELECT i, n, u, j ->> 'k', a, sa FROM v ORDER BY id LIMIT 1"),
        [
            "2147483647.00|1234567890123456.7891000000|7d444840-9dc0-11d1-b245-5ffdce74fad2|é\n|{1,NULL,-3}|[\"a\\\"b\",\"c\\\\d\",null,\"\",\"NULL\",\"{x,y}\\t\"]"
        ]
    );
}

#[test]
fn a_table_follows_the_view_and_a_second_run_changes_nothing() {
    let Some(server) = Server::shared() else { return };
    let (place, db) = place(&server);
    place.run();
    assert_eq!(db.query("SELECT * FROM v ORDER BY k"), ["a|4", "b|2"]);
    let marker = "SELECT pipeline, connector, step, epoch, target FROM backstay_sinks";
    let before = db.query(&format!("{marker}; SELECT xmin, * FROM v ORDER BY k"));
    assert!(before[0].starts_with("p|v.pg|") && before[0].ends_with("|public.v"), "{}", before[0]);
    place.run();
    assert_eq!(db.query("SELECT xmin, * FROM v ORDER BY k"), before[1..], "nothing is written again");
    place.write("t.csv", "k,n\na,1\nb,2\na,3\na,10\nc,5\n");
    place.run();
    assert_eq!(db.query("SELECT * FROM v ORDER BY k"), ["a|14", "b|2", "c|5"]);
}

/// Inserts, updates and deletes of one key within steps and over them, in transactions of all sizes.
#[test]
fn changes_of_a_key_add_up_whatever_a_transaction_takes() {
    let Some(server) = Server::shared() else { return };
    let mut lines = String::new();
    let mut random = crate::rng::Rng::from_env(17).0;
    let mut table = std::collections::BTreeMap::new();
    for n in 0..3000 {
        let id = random.below(40);
        if random.once_in(3) {
            table.remove(&id);
            lines += &format!("{{\"delete\":{{\"id\":{id}}}}}\n");
        } else {
            table.insert(id, n);
            lines += &format!("{{\"insert\":{{\"id\":{id},\"n\":{n}}}}}\n");
        }
    }
    let expected: Vec<String> = table.iter().map(|(id, n)| format!("{id}|{n}")).collect();
    for (rows, more) in [(1, r#", "max_records_in_buffer": 1"#), (7, ""), (7, r#", "max_records_in_buffer": 30"#)] {
        for model in ["exactly_once", "at_least_once"] {
            let (place, db) = (Place::new(), server.database());
            db.execute("CREATE TABLE \"V 1\" (n int, \"id\" int UNIQUE)");
            place.write("t.json", &lines);
            place.write(
                "p.sql",
                &format!(
                    "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, n INT) WITH ('connectors' = '[{{\"transport\": {{\"name\": \"file_input\", \
                     \"config\": {{\"path\": \"t.json\"}}}}, \"format\": {{\"name\": \"json\"}}}}]');\nCREATE VIEW v {} AS SELECT id, n FROM t;",
                    sink(&db, r#"\"V 1\""#, &format!(r#", "key": ["id"]{more}"#))
                ),
            );
            let rows = if rows == 1 && model == "at_least_once" { 50 } else { rows };
            let config = format!(
                "{{\"storage\": true, \"rows_per_step\": {rows}, \"fault_tolerance\": {{\"model\": \"{model}\"}}}}"
            );
            place.write("p.config.json", &config);
            place.run();
            assert_eq!(db.query("SELECT id, n FROM \"V 1\" ORDER BY id"), expected, "{rows} {more} {model}");
        }
    }
}

#[test]
fn a_log_of_changes_has_each_of_them() {
    let Some(server) = Server::shared() else { return };
    let db = server.database();
    db.execute(
        "CREATE TABLE l (__feldera_op text, __feldera_ts timestamptz NOT NULL, k text, n bigint, step bigint); \
         CREATE TABLE u (op char(1), at text, k text, n bigint)",
    );
    let program = |more: &str, table: &str| sums(&db, table, &format!(r#", "mode": "cdc"{more}"#));
    let rows = |table: &str, op: &str| db.query(&format!("SELECT {op}, k, n FROM {table} ORDER BY ctid"));
    let runs = |sql: &str| {
        let place = Place::new();
        place.write("p.sql", sql);
        place.write("p.config.json", r#"{"storage": true, "rows_per_step": 1}"#);
        place.run();
        place
    };
    runs(&program(r#", "cdc_step_column": "step""#, "l"));
    let mut got = rows("l", "step, __feldera_op");
    got[2..].sort_unstable();
    assert_eq!(got, ["1|i|a|1", "2|i|b|2", "3|d|a|1", "3|i|a|4"]);
    assert_eq!(db.query("SELECT count(*) FROM l WHERE abs(extract(epoch FROM now() - __feldera_ts)) < 600"), ["4"]);
    // By key an update is one change. Another pipeline's name, as one program has one marker.
    db.execute("TRUNCATE backstay_sinks");
    let place = runs(&program(r#", "key": ["k"], "cdc_op_column": "op", "cdc_ts_column": "at""#, "u"));
    assert_eq!(rows("u", "op"), ["i|a|1", "i|b|2", "u|a|4"]);
    place.run();
    assert_eq!(rows("u", "op").len(), 3);
}

/// A row of weight three stands in a log three times; in a table by key it is an error.
#[test]
fn rows_that_are_there_several_times() {
    let Some(server) = Server::shared() else { return };
    let db = server.database();
    db.execute("CREATE TABLE l (__feldera_op text, __feldera_ts timestamp, k text, n bigint)");
    db.execute(SUMS);
    let place = Place::new();
    place.write("t.csv", "k,n\na,1\na,1\nb,2\na,1\n");
    let plain = |sql: String| sql.replace("SELECT k, sum(n) AS n FROM t GROUP BY k", "SELECT k, n FROM t");
    place.write("p.sql", &plain(sums(&db, "l", r#", "mode": "cdc""#)));
    place.run();
    assert_eq!(
        db.query("SELECT __feldera_op, k, n, count(*) FROM l GROUP BY 1, 2, 3 ORDER BY 2"),
        ["i|a|1|3", "i|b|2|1"]
    );
    for (csv, rows_per_step) in [("k,n\na,1\na,1\n", 10), ("k,n\na,1\na,5\n", 10), ("k,n\na,1\nb,1\na,5\n", 1)] {
        for bound in ["", r#", "max_records_in_buffer": 1"#] {
            db.execute("TRUNCATE v; TRUNCATE backstay_sinks");
            let place = Place::new();
            place.write("t.csv", csv);
            place.write(
                "p.config.json",
                &format!("{{\"storage\": true, \"rows_per_step\": {rows_per_step}, \"fault_tolerance\": true}}"),
            );
            place.write("p.sql", &plain(sums(&db, "v", bound)));
            let text = place.fail(1);
            assert!(text.contains("two rows of") && (text.contains("k = a") || text.contains("(k)=(a)")), "{text}");
        }
    }
}
