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
        Kind::Int | Kind::Decimal => &["count", "sum", "avg", "min", "max"],
        Kind::Float => &["count", "sum", "avg"],
        Kind::Text | Kind::Date | Kind::Timestamp => &["count", "min", "max"],
        Kind::Bool => &["count"],
    };
    let call = match rng.one_of(functions) {
        _ if rng.once_in(5) => "count(*)".to_owned(),
        // As in groups, computed floats have zeros with signs. DataFusion has no avg(DISTINCT) of decimals of every precision.
        function if rng.once_in(4) && kind != Kind::Float && !(kind == Kind::Decimal && function == "avg") => {
            format!("{function}(DISTINCT {argument})")
        }
        function => format!("{function}({argument})"),
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
