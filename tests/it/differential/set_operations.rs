//! INTERSECT, EXCEPT, VALUES and SELECT without FROM: written programs.
//!
//! DataFusion knows no numbers of copies in INTERSECT ALL and EXCEPT ALL (#12955, #12956): there the references number the copies.

use super::check_as;
use super::programs::{TABLES, views};

#[test]
fn sets() {
    views(&[
        "SELECT a FROM t INTERSECT SELECT a FROM u",
        "SELECT a, b FROM t EXCEPT SELECT a, b FROM k",
        "SELECT a FROM t EXCEPT SELECT a FROM u INTERSECT SELECT a FROM k",
        "SELECT b FROM u INTERSECT SELECT b FROM t UNION SELECT b FROM k WHERE a > 1",
        "SELECT b, count(*) AS n FROM (SELECT b FROM t EXCEPT SELECT b FROM k) GROUP BY b",
        "SELECT DISTINCT a FROM t EXCEPT SELECT a FROM u",
    ]);
}

#[test]
fn multisets() {
    let numbered = |table: &str| {
        format!("SELECT a, b, row_number() OVER (PARTITION BY a, b ORDER BY a) AS n FROM (SELECT a, b FROM {table})")
    };
    for (left, right) in [("t", "u"), ("u", "t"), ("t", "k"), ("k", "t")] {
        for operation in ["INTERSECT", "EXCEPT"] {
            let sql =
                format!("{TABLES}CREATE VIEW v AS SELECT a, b FROM {left} {operation} ALL SELECT a, b FROM {right};");
            let reference = format!("SELECT a, b FROM ({} {operation} {})", numbered(left), numbered(right));
            for seed in 0..3 {
                check_as(&sql, &[("v", reference.as_str())], seed);
            }
        }
    }
    // Three of them, the second over the first.
    let sql = format!(
        "{TABLES}CREATE VIEW v AS SELECT a, b FROM t EXCEPT ALL SELECT a, b FROM u;
         CREATE VIEW w AS SELECT a, b FROM v INTERSECT ALL SELECT a, b FROM t;"
    );
    let reference = format!("SELECT a, b FROM ({} EXCEPT {})", numbered("t"), numbered("u"));
    check_as(&sql, &[("v", &reference), ("w", &reference)], 1);
}

#[test]
fn rows_of_no_table() {
    views(&[
        "SELECT 1 AS one, 'x' AS x",
        "VALUES (1, 'a'), (2, NULL), (1, 'a')",
        "SELECT t.a, v.x FROM t JOIN (VALUES (1, 'one'), (2, 'two')) AS v (n, x) ON t.a = v.n",
        "SELECT a FROM t UNION ALL SELECT 7",
        "SELECT count(*) AS n FROM (SELECT 1) WHERE false",
        "SELECT * FROM t WHERE false",
        "SELECT t.a, one FROM t CROSS JOIN (SELECT 1 AS one)",
    ]);
}
