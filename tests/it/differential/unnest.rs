//! Lists and structs: as columns, as keys, and unnested.

use super::{check, check_as};

const TABLES: &str = "
CREATE TABLE t (id BIGINT, a INT ARRAY, b VARCHAR[], s STRUCT<x INT, y VARCHAR>);
CREATE TABLE k (id BIGINT PRIMARY KEY, l ARRAY<ARRAY<INT>>, r ARRAY<STRUCT<x INT, y DOUBLE>>);
CREATE TABLE u (id BIGINT, b VARCHAR);
";
/// Runs of each program.
const SEEDS: u64 = 4;

fn views(queries: &[&str]) {
    for query in queries {
        for seed in 0..SEEDS {
            check(&format!("{TABLES}CREATE VIEW v AS {query}"), seed);
        }
    }
}

/// Queries, each with one that gives DataFusion the same answer.
fn views_as(queries: &[(&str, &str)]) {
    for (query, reference) in queries {
        for seed in 0..SEEDS {
            check_as(&format!("{TABLES}CREATE VIEW v AS {query}"), &[("v", reference)], seed);
        }
    }
}

#[test]
fn nested_columns() {
    views(&[
        "SELECT a, s, b FROM t",
        "SELECT DISTINCT a, s FROM t",
        "SELECT s, count(*) AS n FROM t GROUP BY s",
        "SELECT s['x'] + 1 AS x, s['y'] AS y, a[1] AS first, array_length(b) AS n FROM t",
        "SELECT t.id, k.l FROM t JOIN k ON t.id = k.id WHERE array_has(t.a, 1)",
        "SELECT id, array_agg(s['x'] ORDER BY s['x']) AS xs FROM t GROUP BY id",
        "SELECT named_struct('p', id, 'q', a) AS r FROM t",
        "SELECT x.id FROM t x JOIN t y ON x.a = y.a AND x.s = y.s",
        "SELECT id, r FROM k",
    ]);
}

#[test]
fn unnest_in_select() {
    views(&[
        "SELECT id, unnest(a) AS x FROM t",
        "SELECT id, unnest(a) AS x, unnest(b) AS y FROM t WHERE id > 0",
        "SELECT x, count(*) AS n, sum(id) AS s FROM (SELECT id, unnest(a) AS x FROM t) q GROUP BY x",
        "SELECT unnest(make_array(id, id + 1, NULL)) AS x FROM u",
        "SELECT id, unnest(string_to_array(b, '')) AS c FROM u",
        "SELECT id, unnest(unnest(l)) AS x FROM k",
        "SELECT id, unnest(l) AS x FROM k",
        "SELECT id, unnest(s) FROM t",
        "SELECT id, x['x'] AS x FROM (SELECT id, unnest(r) AS x FROM k) q",
        "SELECT DISTINCT unnest(a) AS x FROM t",
        "SELECT q.x, u.b FROM (SELECT unnest(a) AS x FROM t) q JOIN u ON q.x = u.id",
        "SELECT id, unnest(generate_series(1, id)) AS n FROM u WHERE id BETWEEN 0 AND 10",
    ]);
}

#[test]
fn unnest_in_from() {
    views_as(&[
        ("SELECT id, x FROM t CROSS JOIN UNNEST(t.a) AS e(x)", "SELECT id, unnest(a) AS x FROM t"),
        (
            "SELECT id, e FROM t, UNNEST(a) AS e WHERE e > 1",
            "SELECT * FROM (SELECT id, unnest(a) AS e FROM t) q WHERE e > 1",
        ),
        (
            "SELECT t.id, e.a FROM t, UNNEST(t.b) AS e(a) WHERE e.a <> 'b'",
            "SELECT * FROM (SELECT id, unnest(b) AS x FROM t) q WHERE x <> 'b'",
        ),
        (
            "SELECT id, x, n FROM t CROSS JOIN UNNEST(a) WITH ORDINALITY AS e(x, n)",
            "SELECT id, unnest(a) AS x, unnest(generate_series(1, coalesce(CAST(array_length(a) AS BIGINT), 0))) AS n FROM t",
        ),
        (
            "SELECT id, e.unnest, e.unnest_2, ordinality FROM t CROSS JOIN UNNEST(a, b) WITH ORDINALITY AS e",
            "SELECT id, unnest(a) AS x, unnest(b) AS y, \
             unnest(generate_series(1, greatest(coalesce(CAST(array_length(a) AS BIGINT), 0), coalesce(CAST(array_length(b) AS BIGINT), 0)))) AS n FROM t",
        ),
        (
            "SELECT id, x FROM t LEFT JOIN UNNEST(a) AS e(x) ON true",
            "SELECT id, unnest(a) AS x FROM t UNION ALL SELECT id, NULL FROM t WHERE a IS NULL OR cardinality(a) = 0 OR array_length(a) = 0",
        ),
        (
            "SELECT k.id, y FROM k CROSS JOIN UNNEST(l) AS e(x) CROSS JOIN UNNEST(e.x) AS f(y)",
            "SELECT id, unnest(unnest(l)) AS y FROM k",
        ),
        (
            "SELECT u.b, x, count(*) AS n FROM u JOIN t ON u.id = t.id, UNNEST(t.a) AS e(x) GROUP BY u.b, x",
            "SELECT b, x, count(*) AS n FROM (SELECT u.b, unnest(t.a) AS x FROM u JOIN t ON u.id = t.id) q GROUP BY b, x",
        ),
        (
            "SELECT id, e.x['x'] AS x FROM k, UNNEST(r) AS e(x)",
            "SELECT id, x['x'] AS x FROM (SELECT id, unnest(r) AS x FROM k) q",
        ),
    ]);
    views(&[
        "SELECT x FROM UNNEST(make_array(1, 2, NULL)) AS e(x)",
        "SELECT id, x FROM u, UNNEST(make_array(1, 2)) AS e(x)",
    ]);
}

#[test]
fn lateral_subqueries() {
    views(&[
        "SELECT u.id, q.n FROM u, LATERAL (SELECT count(*) AS n FROM t WHERE t.id = u.id) q",
        "SELECT u.id, q.id AS other FROM u CROSS JOIN LATERAL (SELECT t.id FROM t WHERE t.id = u.id AND t.s['x'] > 0) q",
        "SELECT u.id, q.m FROM u LEFT JOIN LATERAL (SELECT max(t.s['x']) AS m FROM t WHERE t.id = u.id) q ON true",
    ]);
}
