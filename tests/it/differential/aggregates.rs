//! Aggregates: programs that somebody wrote down, and what the random generator puts into grouped queries.

use super::check_as;
use super::expressions::{Kind, Scope, predicate, scalar};
use super::programs::{TABLES, views};
use crate::rng::Rng;

/// A random aggregate over the columns of a scope.
pub(super) fn aggregate(rng: &mut Rng, scope: &Scope) -> String {
    let kind = scope.kind(rng);
    let argument = scalar(rng, scope, kind, 1);
    let functions: &[&str] = match kind {
        Kind::Int => {
            &["count", "sum", "avg", "min", "max", "median", "var_pop", "stddev", "bit_and", "bit_or", "bit_xor"]
        }
        Kind::Decimal => &["count", "sum", "avg", "min", "max", "median"],
        Kind::Float => &["count", "sum", "avg"],
        Kind::Text | Kind::Date | Kind::Timestamp => &["count", "min", "max"],
        Kind::Bool => &["count", "bool_and", "bool_or"],
    };
    // Ordered by itself: rows that are alike may stand in any order. A column: constants are positions, have other types than the oracle's in lists, and
    // its last_value of one panics where there is no row.
    let column = if kind != Kind::Float && rng.once_in(6) { scope.column(rng, kind) } else { None };
    let call = match (column, rng.one_of(functions)) {
        (Some(column), _) => {
            let order = rng.one_of(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
            match rng.one_of(&["array_agg", "first_value", "last_value"]) {
                "array_agg" if kind == Kind::Text => format!("string_agg({column}, '-' ORDER BY {column}{order})"),
                function => format!("{function}({column} ORDER BY {column}{order})"),
            }
        }
        _ if rng.once_in(5) => "count(*)".to_owned(),
        // As in groups, computed floats have zeros with signs. DataFusion does not know DISTINCT everywhere.
        (_, function)
            if rng.once_in(4) && ["count", "sum", "min", "max"].contains(&function) && kind != Kind::Float =>
        {
            format!("{function}(DISTINCT {argument})")
        }
        // What is computed of a rank, which is unsigned, may be a DECIMAL.
        (_, function) if function.starts_with("bit_") => format!("{function}(CAST({argument} AS BIGINT))"),
        (_, function) => format!("{function}({argument})"),
    };
    match rng.once_in(4) {
        true => format!("{call} FILTER (WHERE {})", predicate(rng, scope, 1)),
        false => call,
    }
}

#[test]
fn filters() {
    views(&[
        "SELECT b, count(*) FILTER (WHERE a > 1) AS n, sum(a) FILTER (WHERE c > 0) AS s, sum(a) AS t FROM t GROUP BY b",
        "SELECT avg(d) FILTER (WHERE a IS NOT NULL) AS m, max(ts) FILTER (WHERE b = 'a') AS h FROM t",
        "SELECT count(b) FILTER (WHERE NULL) AS n, min(a) FILTER (WHERE true) AS l FROM t",
    ]);
}

#[test]
fn arguments_are_computed_where_the_filter_is_true() {
    let view = "SELECT b, sum(12 / a) FILTER (WHERE a <> 0) AS s FROM t GROUP BY b";
    // DataFusion divides first.
    let reference = "SELECT b, sum(CASE WHEN a <> 0 THEN 12 / a END) AS s FROM t GROUP BY b";
    for seed in 0..3 {
        check_as(&format!("{TABLES}CREATE VIEW v AS {view}"), &[("v", reference)], seed);
    }
}

#[test]
fn distinct_arguments() {
    views(&[
        "SELECT b, count(DISTINCT a) AS n, sum(DISTINCT a) AS s, avg(DISTINCT a) AS m, count(*) AS r FROM t GROUP BY b",
        "SELECT count(DISTINCT b) AS b, count(DISTINCT ts) AS ts, sum(DISTINCT d) AS d, count(DISTINCT c) AS c FROM t",
        "SELECT count(DISTINCT a) FILTER (WHERE b <> 'a') AS n, count(DISTINCT a) AS m, sum(a) AS s FROM t",
        "SELECT min(DISTINCT a) AS l, max(DISTINCT b) AS h FROM t GROUP BY c",
        "SELECT sum(DISTINCT c) AS s, count(DISTINCT 1) AS one FROM u GROUP BY b",
    ]);
}

#[test]
fn statistics() {
    views(&[
        "SELECT b, var_samp(a) AS v, var_pop(a) AS p, stddev(a) AS s, stddev_pop(d) AS q FROM t GROUP BY b",
        "SELECT covar_samp(a, d) AS s, covar_pop(a, d) AS p, corr(a, d) AS c FROM t GROUP BY b",
        "SELECT regr_slope(a, d) AS s, regr_intercept(a, d) AS i, regr_r2(a, d) AS r, regr_count(a, d) AS n FROM t",
        "SELECT b, regr_avgx(a, d) AS x, regr_avgy(a, d) AS y, regr_sxx(a, d) AS xx, regr_syy(a, d) AS yy, \
         regr_sxy(a, d) AS xy FROM t GROUP BY b",
    ]);
}

#[test]
fn bits() {
    views(&[
        "SELECT b, bool_and(a > 1) AS a, bool_or(a > 1) AS o, bool_or(DISTINCT c > 0) AS d FROM t GROUP BY b",
        "SELECT bit_and(a) AS a, bit_or(a) AS o, bit_xor(a) AS x, bit_xor(DISTINCT a) AS d FROM u",
        "SELECT bit_and(a) FILTER (WHERE b <> 'a') AS a, bit_xor(a) AS x FROM t GROUP BY c",
    ]);
}

#[test]
fn lists_and_texts() {
    // Ties are broken by the value: DataFusion is told so. Without an order it is the value's.
    let views = [
        (
            "SELECT b, array_agg(a ORDER BY c) AS l FROM u GROUP BY b",
            "SELECT b, array_agg(a ORDER BY c, a NULLS FIRST) AS l FROM u GROUP BY b",
        ),
        (
            "SELECT array_agg(a) AS l FROM t GROUP BY b",
            "SELECT array_agg(a ORDER BY a NULLS FIRST) AS l FROM t GROUP BY b",
        ),
        (
            "SELECT array_agg(ts ORDER BY a DESC, b) FILTER (WHERE a > 0) AS l FROM t",
            "SELECT array_agg(ts ORDER BY a DESC, b, ts NULLS FIRST) FILTER (WHERE a > 0) AS l FROM t",
        ),
        (
            "SELECT array_agg(DISTINCT a ORDER BY a DESC) AS l, array_agg(a ORDER BY a DESC) AS m FROM t GROUP BY b",
            "SELECT array_agg(DISTINCT a ORDER BY a DESC) AS l, array_agg(a ORDER BY a DESC) AS m FROM t GROUP BY b",
        ),
        (
            "SELECT string_agg(b, ', ' ORDER BY a) AS s FROM t GROUP BY c",
            "SELECT string_agg(b, ', ' ORDER BY a, b NULLS FIRST) AS s FROM t GROUP BY c",
        ),
        (
            "SELECT string_agg(DISTINCT b, '' ORDER BY b) AS s FROM t GROUP BY a",
            "SELECT string_agg(DISTINCT b, '' ORDER BY b) AS s FROM t GROUP BY a",
        ),
    ];
    for (view, reference) in views {
        for seed in 0..3 {
            check_as(&format!("{TABLES}CREATE VIEW v AS {view}"), &[("v", reference)], seed);
        }
    }
}

#[test]
fn one_value_of_many() {
    views(&[
        "SELECT b, first_value(a ORDER BY ts, a) AS f, last_value(a ORDER BY ts, a) AS l FROM t GROUP BY b",
        "SELECT first_value(b ORDER BY a DESC, b) FILTER (WHERE c > 0) AS f, last_value(b ORDER BY a, b) AS l FROM t",
        "SELECT b, nth_value(a, 2 ORDER BY ts, a) AS n, nth_value(a, 1 ORDER BY ts, a) AS m FROM t GROUP BY b",
        "SELECT b, median(a) AS a, median(d) AS d, median(DISTINCT a) AS i FROM t GROUP BY b",
        "SELECT percentile_cont(0.25) WITHIN GROUP (ORDER BY a) AS q, median(a) AS m FROM t GROUP BY b",
        "SELECT percentile_cont(0.75) WITHIN GROUP (ORDER BY d DESC) AS q FROM t",
    ]);
}

#[test]
fn grouping_sets() {
    views(&[
        "SELECT a, b, count(*) AS n FROM t GROUP BY GROUPING SETS ((a, b), (a), (b))",
        "SELECT a, b, sum(c) AS s, grouping(a) AS ga, grouping(b) AS gb FROM u GROUP BY GROUPING SETS ((a, b), (b), (b))",
        "SELECT a, b, c, count(DISTINCT ts) AS n, grouping(a, b, c) AS g FROM t GROUP BY a, GROUPING SETS ((b), (c), (b, c))",
        "SELECT a, b, max(d) AS m FROM t WHERE c > 0 GROUP BY GROUPING SETS ((a), (b)) HAVING b IS NULL OR b = 'a'",
    ]);
}

#[test]
fn the_empty_grouping_set_has_a_row_over_no_rows() {
    let total = "UNION ALL SELECT NULL AS b, NULL AS a, count(*) AS n, 3 AS g FROM t";
    let by_b = "UNION ALL SELECT b, NULL AS a, count(*) AS n, 1 AS g FROM t GROUP BY b";
    let both = "SELECT b, a, count(*) AS n, 0 AS g FROM t GROUP BY b, a";
    let by_a = "UNION ALL SELECT NULL AS b, a, count(*) AS n, 2 AS g FROM t GROUP BY a";
    let view = |sets: &str| format!("SELECT b, a, count(*) AS n, grouping(b, a) AS g FROM t GROUP BY {sets}");
    for seed in 0..3 {
        let rollup = view("ROLLUP (b, a)");
        let reference = format!("{both} {by_b} {total}");
        check_as(&format!("{TABLES}CREATE VIEW v AS {rollup}"), &[("v", &reference)], seed);
        let cube = view("CUBE (b, a)");
        let reference = format!("{both} {by_b} {by_a} {total}");
        check_as(&format!("{TABLES}CREATE VIEW v AS {cube}"), &[("v", &reference)], seed);
    }
}
