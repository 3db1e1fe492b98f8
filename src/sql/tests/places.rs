//! Where errors stand to which the planner gives no place.

use super::view;

/// The caret stands at the smallest part of the query that has the error.
#[test]
fn places_that_are_searched_for() {
    let subquery = "this sub-query cannot be turned into a join, and is not supported yet";
    let aggregate = "EXISTS or IN over an aggregate without GROUP BY that reads columns of the query around it is not supported yet";
    let bad = "SELECT max(u.a) FROM u WHERE u.x = t.b";
    for (query, message, place) in [
        // Among several sub-queries, the one that is meant; the first, if there are several of these, too.
        (
            "SELECT a FROM t WHERE a IN (SELECT a FROM u) AND EXISTS (SELECT max(u.a) FROM u WHERE u.x = t.b)",
            aggregate,
            bad,
        ),
        (
            "SELECT a FROM t WHERE EXISTS (SELECT max(u.a) FROM u WHERE u.x = t.b) AND a NOT IN (SELECT a FROM u)",
            aggregate,
            bad,
        ),
        (
            "SELECT a FROM t WHERE EXISTS (SELECT max(u.a) FROM u WHERE u.x = t.b) OR EXISTS (SELECT min(u.a) FROM u WHERE u.x = t.b)",
            aggregate,
            bad,
        ),
        (
            "SELECT a, (SELECT max(a) FROM u) AS m, sum((SELECT min(a) FROM u)) OVER () AS s FROM t",
            subquery,
            "SELECT min(a) FROM u",
        ),
        (
            "SELECT sum((SELECT min(a) FROM u)) AS s FROM t WHERE a > (SELECT max(a) FROM u)",
            subquery,
            "SELECT min(a) FROM u",
        ),
        (
            "SELECT a FROM t WHERE a IN (SELECT a FROM u WHERE EXISTS (SELECT max(w.a) FROM u AS w WHERE w.x = u.x))",
            aggregate,
            "SELECT max(w.a) FROM u AS w WHERE w.x = u.x",
        ),
        // Types.
        ("SELECT a FROM t WHERE b", "", "b"),
        ("SELECT a FROM t WHERE c = 1 OR a > 1 AND b", "", "a > 1 AND b"),
        ("SELECT a, c FROM t WHERE c > 1 AND CAST(ts AS BOOLEAN)", "", "ts AS"),
        ("SELECT a FROM t WHERE c > 1 AND a IN (1, ts)", "", "a IN"),
        ("SELECT upper(b), lower(b) || to_hex(CASE WHEN a > 1 THEN 1 ELSE ts END) FROM t", "", "CASE"),
        (
            "SELECT x.n FROM (SELECT count(*) AS n, a FROM t WHERE ts BETWEEN 1 AND b GROUP BY a) AS x WHERE x.a > 1",
            "",
            "ts BETWEEN",
        ),
        ("SELECT a FROM t WHERE a > (SELECT max(a) FROM u WHERE x LIKE a) AND b = 'x'", "", "x LIKE"),
        // What is refused behind the planner.
        ("SELECT string_agg(b, ','), string_agg(b, x.b) AS l FROM t x", "", "string_agg(b, x.b)"),
        ("SELECT a, lag(a, a) OVER (ORDER BY a) AS r, lag(a, 1) OVER (ORDER BY a) AS s FROM t", "", "lag(a, a)"),
    ] {
        let got = view(query);
        let column = query.find(place).unwrap() + 18;
        assert!(got.starts_with(&format!("p.sql:2:{column}: error: {message}")), "{query}\n{got}");
    }
}

#[test]
fn places_in_queries_that_are_asked() {
    use arrow::datatypes::{DataType, Field, Schema};
    let columns = [Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, true)];
    let relations = [("t".to_owned(), std::sync::Arc::new(Schema::new(columns.to_vec())))].into();
    for (query, place) in [
        ("SELECT string_agg(b, '') AS l, string_agg(b, b) AS m FROM t", "string_agg(b, b)"),
        ("SELECT a FROM t WHERE a > 1 AND b IN (SELECT max(b) FROM t) ORDER BY a LIKE 1", "a LIKE 1"),
    ] {
        let got = crate::sql::compile_query(query, &relations, &[]).unwrap_err().to_string();
        assert!(got.starts_with(&format!("query:1:{}: error: ", query.find(place).unwrap() + 1)), "{query}\n{got}");
    }
}

#[test]
fn large_queries_are_not_searched() {
    let conditions: Vec<String> = (0..120).map(|i| format!("a = {i}")).collect();
    let large =
        view(&format!("SELECT string_agg(b, b) AS l, string_agg(b, '') AS m FROM t WHERE {}", conditions.join(" OR ")));
    assert!(large.starts_with("p.sql:2:13: error: the view v: `string_agg(t.b, t.b)`"), "{large}");
}
