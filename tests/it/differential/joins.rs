//! Outer, semi, anti and cross joins, and sub-queries in expressions: their part of the random queries, and written programs.
//!
//! What DataFusion gets wrong has a reference: NOT IN where NULL and FALSE differ and it stands under OR, NOT or in a SELECT list. NOT IN
//! with a further correlation it does not plan, and of a constant before NOT IN it makes a filter of the sub-query, which loses the NULLs.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use backstay::circuit::Delta;
use backstay::sql::compile;

use super::check_as;
use super::circuit::Circuit;
use super::expressions::{KINDS, Kind, Scope, predicate};
use super::programs::{TABLES, views};
use crate::rng::Rng;

/// A kind of join, and whether the columns of the right side are there behind it.
pub(super) fn kind(rng: &mut Rng) -> (&'static str, bool) {
    match rng.below(12) {
        0 | 1 => ("LEFT JOIN", true),
        2 => ("RIGHT JOIN", true),
        3 => ("FULL JOIN", true),
        4 => ("LEFT SEMI JOIN", false),
        5 => ("LEFT ANTI JOIN", false),
        _ => ("JOIN", true),
    }
}

/// A condition over `scope` with a sub-query over `relation`, whose columns are `inner`; as good as any if nothing can be compared.
pub(super) fn condition(rng: &mut Rng, scope: &Scope, relation: &str, inner: &Scope) -> String {
    let common: Vec<Kind> =
        KINDS.into_iter().filter(|k| [scope, inner].iter().all(|s| s.0.iter().any(|c| c.1 == *k))).collect();
    if common.is_empty() {
        return format!("EXISTS (SELECT 1 FROM {relation})");
    }
    let columns = |rng: &mut Rng| {
        let kind = rng.one_of(&common);
        (scope.column(rng, kind).unwrap(), inner.column(rng, kind).unwrap(), kind)
    };
    let (x, y, kind) = columns(rng);
    let (outer, local, _) = columns(rng);
    let filter = if rng.once_in(2) { format!(" WHERE {}", predicate(rng, inner, 1)) } else { String::new() };
    let correlated = match filter.is_empty() {
        true => format!(" WHERE {outer} = {local}"),
        false => format!("{filter} AND {outer} = {local}"),
    };
    let or = predicate(rng, scope, 1);
    match rng.below(8) {
        0 => format!("{x} IN (SELECT {y} FROM {relation}{filter})"),
        // One column in both places may need two casts of one name.
        1 if y != local => format!("{x} IN (SELECT {y} FROM {relation}{correlated})"),
        1 | 2 => format!("{x} NOT IN (SELECT {y} FROM {relation}{filter})"),
        3 => format!("EXISTS (SELECT 1 FROM {relation}{correlated})"),
        4 => format!("NOT EXISTS (SELECT {y} FROM {relation}{correlated})"),
        5 => format!("(EXISTS (SELECT 1 FROM {relation}{correlated}) OR {or})"),
        6 => format!("({x} IN (SELECT {y} FROM {relation}{filter}) OR {or})"),
        _ if matches!(kind, Kind::Float | Kind::Bool) => {
            format!("(SELECT count({y}) FROM {relation}{correlated}) < {}", rng.below(3))
        }
        _ => {
            let (function, operator) = (rng.one_of(&["min", "max"]), rng.one_of(&["=", "<", ">=", "<>"]));
            let filter = if rng.once_in(2) { filter } else { correlated };
            format!("{x} {operator} (SELECT {function}({y}) FROM {relation}{filter})")
        }
    }
}

/// Each query as a view of its own, compared with the answer of another one.
fn views_as(queries: &[(&str, &str)]) {
    for (query, reference) in queries {
        for seed in 0..3 {
            check_as(&format!("{TABLES}CREATE VIEW v AS {query}"), &[("v", reference)], seed);
        }
    }
}

#[test]
fn outer_joins() {
    views(&[
        "SELECT t.a, t.c, u.b FROM t LEFT JOIN u ON t.a = u.a",
        "SELECT t.a, t.c, u.b FROM t RIGHT JOIN u ON t.a = u.a AND t.b = u.b",
        "SELECT t.a, u.a AS ua, u.b FROM t FULL JOIN u ON t.a = u.a",
        "SELECT t.a, u.a AS ua, u.b FROM t FULL JOIN u ON t.a = u.a AND t.c < u.c",
        "SELECT t.a, u.b FROM t LEFT JOIN u ON t.a = u.a AND t.c > 0",
        "SELECT t.a, u.b FROM t LEFT JOIN u ON t.a = u.a AND u.c > 0",
        "SELECT t.a, u.a AS ua FROM t LEFT JOIN u ON t.a + 1 = u.a * 2 AND t.c <> u.c",
        "SELECT a, t.c, u.c AS uc FROM t LEFT JOIN u USING (a)",
        "SELECT t.a, u.b FROM t LEFT JOIN u ON t.c IS NOT DISTINCT FROM u.c",
        "SELECT t.a, u.b FROM t LEFT JOIN u ON t.a > u.a",
        "SELECT t.a, u.b, k.b AS kb FROM t LEFT JOIN u ON t.a = u.a LEFT JOIN k ON u.a = k.id",
        "SELECT t.a, count(k.id) AS n FROM t LEFT JOIN k ON t.a = k.id GROUP BY t.a",
        "SELECT x.id, y.b FROM k x LEFT JOIN k y ON x.id = y.a WHERE y.b IS NULL",
        "SELECT t.a FROM t LEFT JOIN u ON t.a = u.a AND t.a = u.c",
    ]);
}

#[test]
fn semi_and_anti_joins() {
    views(&[
        "SELECT t.a, t.b FROM t LEFT SEMI JOIN u ON t.a = u.a",
        "SELECT t.a, t.b FROM t LEFT ANTI JOIN u ON t.a = u.a",
        "SELECT t.a, t.b FROM t LEFT SEMI JOIN u ON t.a = u.a AND t.c < u.c",
        "SELECT t.a, t.b FROM t LEFT ANTI JOIN u ON t.a = u.a AND t.c < u.c",
        "SELECT t.a, t.b FROM t LEFT ANTI JOIN u ON t.a = u.a AND t.c < 0",
        "SELECT u.a, u.b FROM t RIGHT SEMI JOIN u ON t.a = u.a",
        "SELECT u.a, u.b FROM t RIGHT ANTI JOIN u ON t.a = u.a AND t.c < u.c",
        "SELECT t.a FROM t LEFT ANTI JOIN u ON t.c IS NOT DISTINCT FROM u.c",
        "SELECT t.a FROM t LEFT ANTI JOIN u ON t.a < u.a",
    ]);
}

#[test]
fn cross_joins() {
    views(&[
        "SELECT t.a, u.b FROM t CROSS JOIN u",
        "SELECT t.a, u.b FROM t, u WHERE t.c > u.c",
        "SELECT t.a, u.b FROM t JOIN u ON t.c > u.c OR t.b = u.b",
        "SELECT count(*) AS n FROM t, k",
        "SELECT count(*) AS n FROM t FULL JOIN k ON false",
        "SELECT k.a IS NULL AS x, k.b FROM t, k",
        "SELECT k.a FROM t RIGHT JOIN k ON k.a > 2",
    ]);
}

#[test]
fn predicates_with_sub_queries() {
    views(&[
        "SELECT a, b FROM t WHERE a IN (SELECT a FROM u)",
        "SELECT a, b FROM t WHERE a NOT IN (SELECT a FROM u)",
        "SELECT a, b FROM t WHERE NOT a IN (SELECT a FROM u WHERE c > 0)",
        "SELECT id FROM k WHERE id NOT IN (SELECT a FROM u WHERE a IS NOT NULL)",
        "SELECT id FROM k WHERE id NOT IN (SELECT id FROM k WHERE a > 1)",
        "SELECT a, b FROM t WHERE a IN (SELECT max(a) FROM u GROUP BY b)",
        "SELECT a, b FROM t WHERE a + 1 IN (SELECT a FROM u WHERE u.b = t.b)",
        "SELECT a, b FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND u.c > t.c)",
        "SELECT a, b FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
        "SELECT a, b FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = 3)",
        "SELECT a, b FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a) OR b = 'a'",
        "SELECT a, b FROM t WHERE a IN (SELECT a FROM u) OR EXISTS (SELECT 1 FROM k WHERE k.b = t.b AND k.a < t.a)",
        "SELECT b, count(*) AS n FROM t GROUP BY b HAVING count(*) > (SELECT min(a) FROM u)",
    ]);
    let unequal = "SELECT 1 FROM u WHERE u.a >= t.a OR u.a IS NULL OR t.a IS NULL";
    views_as(&[
        (
            "SELECT a, b FROM t WHERE a NOT IN (SELECT a FROM u) OR b = 'a'",
            "SELECT a, b FROM t WHERE b = 'a' OR (SELECT count(*) FROM u) = 0 OR (a IS NOT NULL AND \
             (SELECT count(*) FROM u WHERE a IS NULL) = 0 AND NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a))",
        ),
        (
            "SELECT a, b FROM t WHERE a NOT IN (SELECT a FROM u WHERE u.b = t.b)",
            "SELECT a, b FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.b = t.b AND (u.a = t.a OR u.a IS NULL OR t.a IS NULL))",
        ),
        (
            "SELECT a FROM t WHERE a < ANY (SELECT a FROM u)",
            "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t.a < u.a)",
        ),
        ("SELECT a FROM t WHERE a > ALL (SELECT a FROM u)", &format!("SELECT a FROM t WHERE NOT EXISTS ({unequal})")),
        ("SELECT a FROM t WHERE a = ANY (SELECT a FROM u)", "SELECT a FROM t WHERE a IN (SELECT a FROM u)"),
        ("SELECT a FROM t WHERE a <> ALL (SELECT a FROM u)", "SELECT a FROM t WHERE a NOT IN (SELECT a FROM u)"),
    ]);
}

#[test]
fn a_constant_is_not_in_what_has_a_null() {
    views_as(&[(
        "SELECT a FROM t WHERE 3 NOT IN (SELECT a FROM u)",
        "SELECT a FROM t WHERE (SELECT count(*) FROM u WHERE a = 3 OR a IS NULL) = 0",
    )]);
}

#[test]
fn values_of_sub_queries() {
    views(&[
        "SELECT a, (SELECT max(a) FROM u) AS m FROM t",
        "SELECT a, (SELECT count(*) FROM u WHERE u.a = t.a) AS n, (SELECT sum(c) FROM u WHERE u.b = t.b) AS s FROM t",
        "SELECT a FROM t WHERE a > (SELECT avg(a) FROM u)",
        "SELECT a FROM t WHERE a = (SELECT min(a) FROM u WHERE u.b = t.b)",
        "SELECT a, (SELECT a FROM k WHERE id = 1) AS x FROM t",
        "SELECT a FROM t WHERE b > (SELECT b FROM k WHERE id = 2)",
        "SELECT (SELECT a FROM k WHERE id = 1) IS NULL AS x FROM t",
        "SELECT CASE WHEN a > 1 THEN (SELECT max(a) FROM u) ELSE (SELECT min(id) FROM k) END AS x FROM t",
    ]);
    views_as(&[(
        "SELECT a, EXISTS (SELECT 1 FROM u WHERE u.a = t.a) AS e FROM t",
        "SELECT t.a, coalesce(n, 0) > 0 AS e FROM t LEFT JOIN (SELECT a, count(*) AS n FROM u GROUP BY a) g ON g.a = t.a",
    )]);
}

#[test]
fn a_scalar_sub_query_with_two_rows_stops_the_circuit() {
    let program = compile(
        "CREATE TABLE t (a BIGINT); CREATE TABLE u (a BIGINT); CREATE VIEW v AS SELECT a, (SELECT a FROM u) AS x FROM t",
        "p.sql",
    )
    .unwrap();
    for workers in [1, 3] {
        let mut circuit = Circuit::start(&program, workers, 7);
        let rows = |values: Vec<i64>| {
            let columns = vec![Arc::new(Int64Array::from(values)) as _];
            vec![Delta::inserts(RecordBatch::try_new(program.tables[0].schema.clone(), columns).unwrap())]
        };
        circuit.step(0, &vec![rows(vec![1, 2]), Vec::new()]).unwrap();
        circuit.step(0, &vec![Vec::new(), rows(vec![5])]).unwrap();
        assert_eq!(circuit.view("v").len(), 2);
        let error = circuit.step(0, &vec![Vec::new(), rows(vec![4])]).unwrap_err();
        let expected = "v: scalar sub-query: the scalar sub-query failed on row (a: 4): it has more than one row";
        assert!(error.contains(expected), "{error}");
    }
}
