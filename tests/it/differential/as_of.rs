//! ASOF joins, which DataFusion has not: each has a reference that numbers the left rows and ranks their candidates.

use super::check_as;
use super::programs::TABLES;

/// Runs of each program: the rows of a key come and go at random times, late ones too.
const SEEDS: u64 = 12;

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
