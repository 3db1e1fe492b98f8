//! ASOF joins, which DataFusion has not: each has a reference that numbers the left rows and ranks their candidates.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use backstay::circuit::Delta;
use backstay::sql::compile;

use super::check_as;
use super::circuit::Circuit;
use super::oracle::compare;
use super::programs::TABLES;

/// Runs of each program: the rows of a key come and go at random times, late ones too.
const SEEDS: u64 = 12;

/// A query with the ASOF joins that the random generator makes as rankings. A parsed query says by `asof_or_null` that unmatched rows are kept.
pub(super) fn ranked(mut sql: String) -> String {
    while let Some(at) = sql.find(" ASOF JOIN ") {
        let open = sql[..at].rfind("(SELECT ").unwrap();
        let mut depth = 0;
        let close = sql[open..].find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        let close = open + close.unwrap();
        let (select, rest) = sql[open + "(SELECT ".len()..close].split_once(" FROM ").unwrap();
        let (left, rest) = rest.split_once(" ASOF JOIN ").unwrap();
        let (right, rest) = rest.split_once(" MATCH_CONDITION (asof_or_null(").unwrap();
        let (comparison, on) = rest.split_once(")) ON ").unwrap();
        let (left, l) = left.split_once(" AS ").unwrap();
        let [_, operator, time] = comparison.split(' ').collect::<Vec<_>>()[..] else { panic!("{comparison}") };
        let nearest = if operator.starts_with('>') { "DESC" } else { "ASC" };
        let ranked = format!(
            "(SELECT * EXCEPT (place_) FROM (SELECT {select}, row_number() OVER (PARTITION BY {l}.number_ ORDER BY {time} {nearest}) AS place_ \
             FROM (SELECT *, row_number() OVER () AS number_ FROM {left}) AS {l} LEFT JOIN {right} ON {on} AND {comparison}) WHERE place_ = 1)"
        );
        sql.replace_range(open..=close, &ranked);
    }
    sql
}

/// A view and the same as a ranking: left rows `l` of `left`, right rows `r` of `right`.
fn check(left: &str, right: &str, keeps_unmatched: bool, comparison: &str, on: &str, select: &str, ties: &str) {
    let (asof, join) = if keeps_unmatched { ("LEFT ASOF JOIN", "LEFT JOIN") } else { ("ASOF JOIN", "JOIN") };
    let time = comparison.split_whitespace().find(|word| word.starts_with("r.")).unwrap();
    let is_before = comparison.starts_with("l.") == comparison.contains('>');
    let nearest = if is_before { "DESC" } else { "ASC" };
    let on_keys = if on.is_empty() { String::new() } else { format!(" ON {on}") };
    let columns: Vec<String> = select.split(", ").enumerate().map(|(i, c)| format!("{c} AS c{i}")).collect();
    let columns = columns.join(", ");
    let view = format!("SELECT {columns} FROM {left} l {asof} {right} r MATCH_CONDITION ({comparison}){on_keys}");
    let on = if on.is_empty() { "TRUE" } else { on };
    let names: Vec<String> = (0..select.split(", ").count()).map(|i| format!("c{i}")).collect();
    let reference = format!(
        "SELECT {} FROM (SELECT {columns}, row_number() OVER (PARTITION BY l.number ORDER BY {time} {nearest}, {ties}) AS place \
         FROM (SELECT *, row_number() OVER () AS number FROM {left}) l {join} {right} r ON {on} AND {comparison}) WHERE place = 1",
        names.join(", "),
    );
    for seed in 0..SEEDS {
        check_as(&format!("{TABLES}CREATE VIEW v AS {view}"), &[("v", &reference)], seed);
    }
}

#[test]
fn the_last_row_before() {
    let ties = "r.a NULLS FIRST, r.b NULLS FIRST, r.c NULLS FIRST";
    for comparison in ["l.ts >= r.ts", "l.ts > r.ts", "r.ts <= l.ts"] {
        for keeps_unmatched in [true, false] {
            check("t", "t", keeps_unmatched, comparison, "l.a = r.a", "l.a, l.ts, r.b, r.c", ties);
        }
    }
}

#[test]
fn the_first_row_after() {
    let ties = "r.a NULLS FIRST, r.b NULLS FIRST, r.c NULLS FIRST";
    for comparison in ["l.ts <= r.ts", "l.ts < r.ts", "r.ts > l.ts"] {
        for keeps_unmatched in [true, false] {
            check("t", "t", keeps_unmatched, comparison, "l.b = r.b AND l.a = r.a", "l.a, l.ts, r.b, r.c", ties);
        }
    }
}

#[test]
fn times_of_other_types_and_no_key() {
    check("u", "k", true, "l.a >= r.id", "", "l.a, l.b, r.id, r.b", "r.id NULLS FIRST, r.b NULLS FIRST");
    check(
        "k",
        "t",
        true,
        "l.a < r.d",
        "l.b = r.b",
        "l.id, r.d, r.a",
        "r.a NULLS FIRST, r.b NULLS FIRST, r.d NULLS FIRST",
    );
    check(
        "t",
        "u",
        false,
        "l.b > r.b",
        "l.a = r.a",
        "l.a, l.b, r.b, r.c",
        "r.a NULLS FIRST, r.b NULLS FIRST, r.c NULLS FIRST",
    );
}

#[test]
fn no_filter_goes_before_what_is_nearest() {
    let ranked = |filter: &str| {
        format!(
            "SELECT a, b FROM (SELECT l.a, r.b, r.c, row_number() OVER (PARTITION BY l.number ORDER BY r.ts DESC, r.a NULLS FIRST, \
             r.b NULLS FIRST, r.c NULLS FIRST) AS place FROM (SELECT *, row_number() OVER () AS number FROM t) l \
             JOIN t r ON l.a = r.a AND l.ts >= r.ts) WHERE place = 1 AND {filter}"
        )
    };
    for (filter, inner) in [("r.c > 0", "c > 0"), ("r.b = 'a' AND l.a > 0", "b = 'a' AND a > 0"), ("l.a = 1", "a = 1")]
    {
        for join in ["ASOF JOIN", "LEFT ASOF JOIN"] {
            let rejected = if join == "ASOF JOIN" { "TRUE" } else { "r.ts IS NOT NULL" };
            let view = format!(
                "SELECT l.a, r.b FROM t l {join} t r MATCH_CONDITION (l.ts >= r.ts) ON l.a = r.a WHERE {filter} AND {rejected}"
            );
            for seed in 0..SEEDS {
                check_as(&format!("{TABLES}CREATE VIEW v AS {view}"), &[("v", &ranked(inner))], seed);
            }
        }
    }
}

/// Right rows that come without LATENESS are matched with left rows however old, and a key's watermark on the left alone frees nothing of the right.
#[test]
fn a_watermark_of_the_left_side_hides_no_right_row() {
    let sql = "CREATE TABLE l (k BIGINT NOT NULL LATENESS 0, ts BIGINT); CREATE TABLE r (k BIGINT NOT NULL, ts BIGINT, v BIGINT);
        CREATE VIEW w AS SELECT l.k, r.v FROM l LEFT ASOF JOIN r MATCH_CONDITION (l.ts >= r.ts) ON l.k = r.k;";
    let program = compile(sql, "p.sql").unwrap();
    let rows = |table: usize, values: &[&[i64]], weight: i64| {
        let schema = program.tables[table].schema.clone();
        let columns = (0..schema.fields().len())
            .map(|i| Arc::new(Int64Array::from_iter_values(values.iter().map(|row| row[i]))) as ArrayRef);
        vec![Delta {
            rows: RecordBatch::try_new(schema.clone(), columns.collect()).unwrap(),
            weights: vec![weight; values.len()],
        }]
    };
    for workers in [1, 2] {
        let mut circuit = Circuit::start(&program, workers, 7);
        let mut step = |left: Vec<Delta>, right: Vec<Delta>| circuit.step(0, &vec![left, right]).unwrap();
        step(rows(0, &[&[1, 10]], 1), rows(1, &[&[1, 3, 5]], 1));
        step(rows(0, &[&[100, 10]], 1), Vec::new());
        step(rows(0, &[&[101, 10]], 1), Vec::new());
        step(Vec::new(), rows(1, &[&[1, 7, 6]], 1));
        let answer = |values: [(i64, Option<i64>); 3]| {
            let k = Int64Array::from_iter_values(values.iter().map(|v| v.0));
            let v = values.iter().map(|v| v.1).collect::<Int64Array>();
            let fields = ["k", "v"].map(|name| Field::new(name, DataType::Int64, true)).to_vec();
            RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(k), Arc::new(v)]).unwrap()
        };
        let schema = &program.view("w").unwrap().schema;
        compare(schema, circuit.view("w"), &answer([(1, Some(6)), (100, None), (101, None)])).unwrap();
        circuit.step(0, &vec![Vec::new(), rows(1, &[&[1, 7, 6]], -1)]).unwrap();
        compare(schema, circuit.view("w"), &answer([(1, Some(5)), (100, None), (101, None)])).unwrap();
    }
}
