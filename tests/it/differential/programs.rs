//! Programs that somebody wrote down, each under the same random changes as the random ones: a line a construct.

use super::check;

/// Tables with and without a key, with every kind of column that matters to queries.
pub(super) const TABLES: &str = "
CREATE TABLE t (a INT, b VARCHAR, c DOUBLE, d DECIMAL(10, 2), ts TIMESTAMP);
CREATE TABLE u (a BIGINT, b VARCHAR, c DOUBLE);
CREATE TABLE k (id BIGINT PRIMARY KEY, a INT, b VARCHAR NOT NULL);
";
/// Runs of each program.
const SEEDS: u64 = 3;

/// Each query as a view of its own over [`TABLES`].
pub(super) fn views(queries: &[&str]) {
    for query in queries {
        for seed in 0..SEEDS {
            check(&format!("{TABLES}CREATE VIEW v AS {query}"), seed);
        }
    }
}

#[test]
fn joins_on_equality() {
    views(&[
        "SELECT t.a, u.b FROM t JOIN u ON t.a = u.a",
        "SELECT t.a, u.b FROM t JOIN u USING (c)",
        "SELECT t.a, u.b FROM t JOIN u ON t.a = u.a AND t.c < u.c",
        "SELECT x.a, y.b FROM t x JOIN t y ON x.b IS NOT DISTINCT FROM y.b",
    ]);
}

#[test]
fn groups() {
    views(&[
        "SELECT b, count(*) AS n, sum(a) AS s, avg(d) AS m FROM t GROUP BY b",
        "SELECT count(*) AS n, sum(c) AS s, min(b) AS l, max(ts) AS h FROM t WHERE a > 1",
        "SELECT c, count(c) AS n FROM t GROUP BY c",
        "SELECT DISTINCT c, b FROM t",
        "SELECT a, b FROM u UNION SELECT a, b FROM k",
    ]);
}

#[test]
fn floats_are_equal_as_numbers_are() {
    views(&["SELECT a FROM u WHERE c = 0", "SELECT a FROM u WHERE c >= 0", "SELECT c IN (0, 1) AS x FROM u"]);
}
