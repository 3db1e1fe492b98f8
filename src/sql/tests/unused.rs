//! `skip_unused_columns`: which columns stay, and that readers find them.

use super::compile;
use crate::sql::Program;

fn program(table: &str, options: &str, views: &str) -> Program {
    let sql = format!("CREATE TABLE t ({table}) WITH ('skip_unused_columns' = 'true'{options}); {views}");
    compile(&sql, "p.sql").unwrap_or_else(|e| panic!("{sql}\n{e}"))
}

/// The columns of the first table that are left.
fn kept(program: &Program) -> Vec<&str> {
    program.tables[0].schema.fields().iter().map(|f| f.name().as_str()).collect()
}

const COLUMNS: &str = "a INT, b VARCHAR, c DOUBLE, d VARCHAR NOT NULL, e TIMESTAMP";

#[test]
fn what_views_read_is_kept() {
    for (views, expected) in [
        ("CREATE VIEW v AS SELECT b FROM t WHERE c > 1", &["b", "c"][..]),
        ("CREATE VIEW v AS SELECT e + INTERVAL '1' DAY AS x FROM t; CREATE VIEW w AS SELECT x FROM v", &["e"]),
        ("CREATE VIEW v AS SELECT count(*) AS n FROM t WHERE d = 'x'", &["d"]),
        // What is only named is not read.
        ("CREATE VIEW v AS SELECT c FROM (SELECT a, b, c FROM t) AS x", &["c"]),
        ("CREATE VIEW v AS SELECT l.a, r.e FROM t AS l JOIN t AS r ON l.b = r.b", &["a", "b", "e"]),
        ("CREATE VIEW v AS SELECT a, sum(c) OVER (PARTITION BY b ORDER BY e) AS s FROM t", &["a", "b", "c", "e"]),
        ("CREATE VIEW v AS SELECT a FROM t; CREATE VIEW w AS SELECT d FROM t", &["a", "d"]),
        ("CREATE VIEW v AS SELECT * FROM t", &["a", "b", "c", "d", "e"]),
        // Something must be there: what is narrowest.
        ("CREATE VIEW v AS SELECT count(*) AS n FROM t", &["a"]),
        ("CREATE TABLE u (x INT); CREATE VIEW v AS SELECT x FROM u", &["a"]),
    ] {
        assert_eq!(kept(&program(COLUMNS, "", views)), expected, "{views}");
    }
}

#[test]
fn what_is_needed_without_views_is_kept() {
    let views = "CREATE VIEW v AS SELECT c FROM t";
    let keyed = program("a INT, k BIGINT, c DOUBLE, d VARCHAR, l VARCHAR, PRIMARY KEY (l, k)", "", views);
    assert_eq!(kept(&keyed), ["k", "c", "l"]);
    assert_eq!(keyed.tables[0].primary_key, [2, 0]);
    let late = program(
        "a INT, x BIGINT, ts TIMESTAMP NOT NULL LATENESS INTERVAL '1' HOUR, b VARCHAR, c INT",
        ", 'late_rows' = 'late'",
        "CREATE VIEW v AS SELECT c FROM t; CREATE VIEW w AS SELECT b FROM late",
    );
    assert_eq!(kept(&late), ["ts", "b", "c"]);
    assert_eq!(late.tables[1].schema, late.tables[0].schema);
    assert_eq!((late.tables[0].lateness[0].column, late.plan.tables[0].lateness[0].column), (0, 0));
    assert_eq!(kept(&program(COLUMNS, ", 'materialized' = 'true'", views)), ["a", "b", "c", "d", "e"]);
    // What a connector is told about must be there.
    let connectors = r#", 'connectors' = '[{"transport": {"name": "datagen", "config": {"plan": [{"fields": {"A": {"values": [1]}}}]}}}]'"#;
    assert_eq!(kept(&program(COLUMNS, connectors, views)), ["a", "c"]);
    let connectors = r#", 'connectors' = '[{"transport": {"name": "kafka_input", "config": {"topic": "x", "include_key": true, "include_topic": "b"}},
        "format": {"name": "json"}}]'"#;
    let table = "kafka_key VARCHAR, b VARCHAR, c DOUBLE, kafka_topic VARCHAR";
    assert_eq!(kept(&program(table, connectors, views)), ["kafka_key", "b", "c"]);
    // A message's value must have a column to go to; and where it is all bytes, which one is told by there being no other.
    let table = "k VARCHAR, b VARCHAR, c DOUBLE, kafka_offset BIGINT";
    let connectors = |format: &str| {
        format!(
            r#", 'connectors' = '[{{"transport": {{"name": "kafka_input", "config": {{"topic": "x", "include_key": "k", "include_offset": true}}}}, "format": {{"name": "{format}"}}}}]'"#
        )
    };
    let offsets = "CREATE VIEW v AS SELECT kafka_offset FROM t";
    assert_eq!(kept(&program(table, &connectors("json"), offsets)), ["k", "c", "kafka_offset"]);
    assert_eq!(kept(&program(table, &connectors("raw"), offsets)), ["k", "b", "c", "kafka_offset"]);
}

#[test]
fn readers_find_what_is_left() {
    let views = "CREATE VIEW v AS SELECT e, b FROM t WHERE c > 1; CREATE VIEW w AS SELECT c + 1 AS x, b FROM t";
    assert_eq!(
        program(COLUMNS, "", views).plan.to_string(),
        "0 = table() -> (b Utf8, c Float64, e Timestamp(µs))  -- table t\n\
         1 = linear(0) project [b@0, c@1, e@2] filter c@1 > 1 project [e@2, b@0] -> (e Timestamp(µs), b Utf8)  -- v: filter and project\n\
         2 = linear(0) project [c@1 + 1, b@0] -> (x Float64, b Utf8)  -- w: project\n\
         table t = 0\nview v = 1\nview w = 2\n"
    );
}

/// State and log are read with the columns that they were written with: a view that reads one more makes another program, and so does the same table
/// without the option.
#[test]
fn a_program_that_skips_others_is_another_one() {
    let identity = |program: &Program| program.state_identity()["t"].clone();
    let of = |table: &str, view: &str| program(table, "", &format!("CREATE VIEW v AS {view}"));
    let one = of("a INT, b VARCHAR, c INT", "SELECT a, c FROM t");
    assert_eq!(identity(&one), r#"table ("a" Int32, "c" Int32), skipped (2 "b" Utf8)"#);
    for (table, view) in [
        ("a INT, b VARCHAR, c INT", "SELECT a, c, b FROM t"),
        ("a INT, c INT, b VARCHAR", "SELECT a, c FROM t"),
        ("a INT, b INT, c INT", "SELECT a, c FROM t"),
        ("a INT, c INT", "SELECT a, c FROM t"),
    ] {
        assert_ne!(identity(&one), identity(&of(table, view)), "{table}: {view}");
    }
    assert_eq!(identity(&one), identity(&of("a INT, b VARCHAR, c INT", "SELECT c, a FROM t")));
}
