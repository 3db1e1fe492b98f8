//! The shapes of plans.

use super::view;
use crate::sql::compile;

#[test]
fn filter_and_project() {
    assert_eq!(view("SELECT * FROM t"), "view v = 0");
    assert_eq!(
        view("SELECT a AS x, b FROM t WHERE c > 1.5"),
        r"2 = linear(0) project [a@0, b@1, c@2] filter c@2 > 1.5 project [a@0, b@1] -> (x Int32, b Utf8)  -- v: filter and project
view v = 2"
    );
    assert_eq!(
        view("SELECT b FROM t WHERE false"),
        r"2 = constant() 0 rows -> (a Int32, b Utf8, c Float64, d Decimal128(12, 2), ts Timestamp(µs))  -- v: constant
3 = linear(2) project [b@1] -> (b Utf8)  -- v: project
view v = 3"
    );
    assert_eq!(
        view("SELECT 1 AS one FROM t WHERE true"),
        r"2 = linear(0) project [1] -> (one Int64)  -- v: project
view v = 2"
    );
}

/// Where only TRUE counts, an array is looked through once; elsewhere NULL and FALSE are told apart.
#[test]
fn any_of_an_array() {
    let plan = |condition: &str| {
        let table = "CREATE TABLE l (a INT, b VARCHAR, s INT ARRAY);";
        compile(&format!("{table} CREATE VIEW v AS SELECT a FROM l WHERE {condition}"), "p.sql")
            .unwrap()
            .plan
            .to_string()
    };
    let once = plan("a > 7 OR (a = ANY (s) AND b = 'x')");
    assert!(once.contains("array_has(s@2, a@0)") && !once.contains("array_position"), "{once}");
    let all = plan("a > 7 OR b = 'x' AND NOT a = ANY (s)");
    assert!(all.contains("array_position(s@2, NULL, 1)"), "{all}");
}

#[test]
fn asof_joins() {
    assert_eq!(
        view("SELECT t.c, u.x FROM t LEFT ASOF JOIN u MATCH_CONDITION (t.a >= u.a) ON t.b = u.x WHERE t.c > 1"),
        r"2 = linear(0) project [a@0, b@1, c@2, CAST(a@0 AS Int64)] -> (a Int32, b Utf8, c Float64, t.a Int64)  -- v: project
3 = asof(2, 1) on [1] = [1] match 3 >= 0 or nothing -> (a Int32, b Utf8, c Float64, t.a Int64, a Int64, x Utf8)  -- v: asof join
4 = linear(3) project [c@2, x@5] filter c@0 > 1 -> (c Float64, x Utf8)  -- v: filter and project
view v = 4"
    );
    // No filter of the right side's columns before the join.
    let plan = view("SELECT l.c, r.x FROM t l ASOF JOIN u r MATCH_CONDITION (r.a > l.a + 1) WHERE r.x = 'k'");
    let asof = plan.lines().find(|line| line.contains("= asof(")).unwrap();
    assert!(asof.starts_with("3 = asof(2, 1) on [] = [] match 2 < 0 -> "), "{plan}");
}

#[test]
fn aggregates() {
    assert_eq!(
        view("SELECT count(*), count(a), sum(a), avg(a), avg(d), sum(d), min(b), max(ts), sum(c) FROM t"),
        r"2 = linear(0) project [a@0, CAST(a@0 AS Int64), CAST(a@0 AS Float64), d@3, b@1, ts@4, c@2] -> (t.a Int32, t.a Int64, t.a Float64, t.d Decimal128(12, 2), t.b Utf8, t.ts Timestamp(µs), t.c Float64)  -- v: project
3 = aggregate(2) by [] [count(*), count(0), sum(1), avg(2), avg(3), sum(3), min(4), max(5), sum(6)] -> (count(*) Int64, count(t.a) Int64, sum(t.a) Int64, avg(t.a) Float64, avg(t.d) Decimal128(16, 6), sum(t.d) Decimal128(22, 2), min(t.b) Utf8, max(t.ts) Timestamp(µs), sum(t.c) Float64)  -- v: group by
view v = 3"
    );
    assert_eq!(
        view("SELECT count(*) AS n FROM t WHERE a > 1"),
        r"2 = linear(0) project [a@0] filter a@0 > 1 project [true] -> (_ Boolean)  -- v: filter and project
3 = aggregate(2) by [] [count(*)] -> (n Int64)  -- v: group by
view v = 3"
    );
    assert_eq!(
        view("SELECT b, count(*) AS n, sum(a + 1) AS s FROM t WHERE c > 0 GROUP BY b HAVING count(*) > 2"),
        r"2 = linear(0) project [a@0, b@1, c@2] filter c@2 > 0 project [b@1, CAST(a@0 AS Int64) + 1] -> (t.b Utf8, t.a + Int64(1) Int64)  -- v: filter and project
3 = aggregate(2) by [0] [count(*), sum(1)] -> (b Utf8, n Int64, s Int64)  -- v: group by
4 = linear(3) filter count(Int64(1))@1 > 2 -> (b Utf8, n Int64, s Int64)  -- v: filter
view v = 4"
    );
    assert_eq!(
        view("SELECT 1 AS one, count(*) AS n FROM t GROUP BY 1"),
        r"2 = linear(0) project [1] -> (Int64(1) Int64)  -- v: project
3 = aggregate(2) by [0] [count(*)] -> (one Int64, n Int64)  -- v: group by
view v = 3"
    );
    assert_eq!(
        view("SELECT upper(b) AS b, max(a) AS m FROM t GROUP BY upper(b)"),
        r"2 = linear(0) project [upper(b@1), a@0] -> (upper(t.b) Utf8, t.a Int32)  -- v: project
3 = aggregate(2) by [0] [max(1)] -> (b Utf8, m Int32)  -- v: group by
view v = 3"
    );
}

#[test]
fn orders_filters_and_sets_of_aggregates() {
    let plan = view("SELECT array_agg(b ORDER BY a DESC) FILTER (WHERE c > 0) AS l FROM t");
    assert!(plan.contains("= aggregate(2) by [] [array_agg(1 order by 2 desc nulls first) filter 0]"), "{plan}");
    let plan = view("SELECT b, count(DISTINCT a) AS n FROM t GROUP BY ROLLUP (b)");
    for part in ["by [1] [count(distinct 0)]", "by [] [count(distinct 0)]", "= union("] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    assert_eq!(plan.matches("aggregate(2)").count(), 2, "both sets read the same rows: {plan}");
}

#[test]
fn joins() {
    assert_eq!(
        view("SELECT t.b, u.x FROM t JOIN u ON t.a = u.a AND t.c > u.a"),
        r"2 = linear(0) project [a@0, b@1, c@2, CAST(a@0 AS Int64)] -> (a Int32, b Utf8, c Float64, t.a Int64)  -- v: project
3 = join(2, 1) on [3] = [0] filter c@2 > CAST(a@4 AS Float64) -> (a Int32, b Utf8, c Float64, t.a Int64, a Int64, x Utf8)  -- v: join
4 = linear(3) project [b@1, x@5] -> (b Utf8, x Utf8)  -- v: project
view v = 4"
    );
    assert_eq!(
        view("SELECT t.b, u.x FROM t, u WHERE t.a = u.a AND t.c > 2 AND length(t.b) + 1 > length(u.x)"),
        r"2 = linear(0) project [a@0, b@1, c@2] filter c@2 > 2 project [a@0, b@1, CAST(a@0 AS Int64)] -> (a Int32, b Utf8, t.a Int64)  -- v: filter and project
3 = join(2, 1) on [2] = [0] filter CAST(character_length(b@1) AS Int64) + 1 > CAST(character_length(x@4) AS Int64) -> (a Int32, b Utf8, t.a Int64, a Int64, x Utf8)  -- v: join
4 = linear(3) project [b@1, x@4] -> (b Utf8, x Utf8)  -- v: project
view v = 4"
    );
    assert_eq!(
        view("SELECT t.b, u.x FROM t CROSS JOIN u WHERE lower(t.b) = upper(u.x)"),
        r"2 = linear(0) project [b@1, lower(b@1)] -> (b Utf8, lower(t.b) Utf8)  -- v: project
3 = linear(1) project [x@1, upper(x@1)] -> (x Utf8, upper(u.x) Utf8)  -- v: project
4 = join(2, 3) on [1] = [1] -> (b Utf8, lower(t.b) Utf8, x Utf8, upper(u.x) Utf8)  -- v: join
5 = linear(4) project [b@0, x@2] -> (b Utf8, x Utf8)  -- v: project
view v = 5"
    );
    assert_eq!(
        view("SELECT * FROM t JOIN u USING (a)"),
        r"2 = linear(0) project [a@0, b@1, c@2, d@3, ts@4, CAST(a@0 AS Int64)] -> (a Int32, b Utf8, c Float64, d Decimal128(12, 2), ts Timestamp(µs), t.a Int64)  -- v: project
3 = join(2, 1) on [5] = [0] -> (a Int32, b Utf8, c Float64, d Decimal128(12, 2), ts Timestamp(µs), t.a Int64, a Int64, x Utf8)  -- v: join
4 = linear(3) project [a@0, b@1, c@2, d@3, ts@4, x@7] -> (a Int32, b Utf8, c Float64, d Decimal128(12, 2), ts Timestamp(µs), x Utf8)  -- v: project
view v = 4"
    );
    assert_eq!(
        view("SELECT p.x AS x, q.x AS y FROM u p JOIN u q ON p.a = q.a"),
        r"2 = join(1, 1) on [0] = [0] -> (a Int64, x Utf8, a Int64, x Utf8)  -- v: join
3 = linear(2) project [x@1, x@3] -> (x Utf8, y Utf8)  -- v: project
view v = 3"
    );
    assert_eq!(
        view("SELECT t.a AS x, u.a AS y FROM t JOIN u ON t.a IS NOT DISTINCT FROM u.a"),
        r"2 = linear(0) project [a@0, CAST(a@0 AS Int64)] -> (a Int32, t.a Int64)  -- v: project
3 = linear(1) project [a@0] -> (a Int64)  -- v: project
4 = join(2, 3) on [1] = [0] nulls equal -> (a Int32, t.a Int64, a Int64)  -- v: join
5 = linear(4) project [a@0, a@2] -> (x Int32, y Int64)  -- v: project
view v = 5"
    );
}

#[test]
fn outer_and_semi_joins() {
    assert_eq!(
        view("SELECT t.b, u.x FROM t LEFT JOIN u ON t.a = u.a"),
        r"2 = linear(0) project [a@0, b@1, CAST(a@0 AS Int64)] -> (a Int32, b Utf8, t.a Int64)  -- v: project
3 = arrange(2) by [2] -> (a Int32, b Utf8, t.a Int64)  -- v: shared arrangement
4 = join(3, 1) on [2] = [0] -> (a Int32, b Utf8, t.a Int64, a Int64, x Utf8)  -- v: join
5 = linear(1) project [a@0] -> (a Int64)  -- v: project
6 = anti(3, 5) on [2] = [0] -> (a Int32, b Utf8, t.a Int64)  -- v: anti join
7 = linear(4) project [a@0, b@1, a@3, x@4] -> (a Int32, b Utf8, a Int64, x Utf8)  -- v: project
8 = linear(6) project [a@0, b@1, NULL, NULL] -> (a Int32, b Utf8, a Int64, x Utf8)  -- v: project
9 = union(7, 8) -> (a Int32, b Utf8, a Int64, x Utf8)  -- v: outer join
10 = linear(9) project [b@1, x@3] -> (b Utf8, x Utf8)  -- v: project
view v = 10"
    );
    // A condition is looked at once, by the inner join.
    let full = view("SELECT t.b, u.x FROM t FULL JOIN u ON t.a = u.a AND t.b > u.x");
    assert_eq!((full.matches("= join(").count(), full.matches("= anti(").count()), (1, 2), "{full}");
    let cross = view("SELECT t.b, u.x FROM t, u");
    assert!(cross.contains(") on [] = [] -> "), "{cross}");
}

#[test]
fn sub_queries_in_expressions() {
    // Both sides may have NULLs: equal rows, NULLs on the right, anything on the right if the left is NULL.
    let not_in = view("SELECT b FROM t WHERE a NOT IN (SELECT a FROM t x WHERE c > 1)");
    assert_eq!(not_in.matches("= anti(").count(), 3, "{not_in}");
    // `u.a` is a key.
    let not_in = view("SELECT b FROM t WHERE a NOT IN (SELECT a FROM u)");
    assert_eq!(not_in.matches("= anti(").count(), 2, "{not_in}");
    let or = view("SELECT b FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.x = t.b) OR c > 1");
    assert_eq!(or.matches("= mark(").count(), 1, "{or}");
    // No left row is without a match: no outer join.
    let scalar = view("SELECT b, (SELECT a FROM u) AS x FROM t");
    assert!(scalar.contains("= single row(") && !scalar.contains("= anti("), "{scalar}");
}

#[test]
fn distinct_and_unions() {
    assert_eq!(
        view("SELECT DISTINCT b FROM t"),
        r"2 = linear(0) project [b@1] -> (b Utf8)  -- v: project
3 = aggregate(2) by [0] [] -> (b Utf8)  -- v: distinct
view v = 3"
    );
    assert_eq!(
        view("SELECT b FROM t UNION SELECT x FROM u"),
        r"2 = linear(0) project [b@1] -> (b Utf8)  -- v: project
3 = linear(1) project [x@1] -> (x Utf8)  -- v: project
4 = union(2, 3) -> (b Utf8)  -- v: union
5 = aggregate(4) by [0] [] -> (b Utf8)  -- v: distinct
view v = 5"
    );
    assert_eq!(
        view("SELECT a FROM t UNION ALL SELECT a FROM u UNION ALL SELECT a FROM t"),
        r"2 = linear(0) project [CAST(a@0 AS Int64)] -> (a Int64)  -- v: project
3 = linear(1) project [a@0] -> (a Int64)  -- v: project
4 = union(2, 3, 2) -> (a Int64)  -- v: union
view v = 4"
    );
    assert_eq!(
        view("SELECT count(*) AS n FROM (SELECT a FROM t UNION ALL SELECT a FROM u)"),
        r"2 = linear(0) project [true] -> (_ Boolean)  -- v: project
3 = linear(1) project [true] -> (_ Boolean)  -- v: project
4 = union(2, 3) -> (_ Boolean)  -- v: union
5 = aggregate(4) by [] [count(*)] -> (n Int64)  -- v: group by
view v = 5"
    );
}

#[test]
fn sub_queries_in_from() {
    assert_eq!(
        view("WITH w AS (SELECT b, count(*) AS n FROM t GROUP BY b) SELECT b, n FROM w WHERE n > 1"),
        r"2 = linear(0) project [b@1] -> (b Utf8)  -- v: project
3 = aggregate(2) by [0] [count(*)] -> (b Utf8, n Int64)  -- v: group by
4 = linear(3) filter count(Int64(1))@1 > 1 -> (b Utf8, n Int64)  -- v: filter
view v = 4"
    );
    assert_eq!(
        view("SELECT max(n) AS m FROM (SELECT count(*) AS n FROM t GROUP BY b) AS g"),
        r"2 = linear(0) project [b@1] -> (b Utf8)  -- v: project
3 = aggregate(2) by [0] [count(*)] -> (b Utf8, count(Int64(1)) Int64)  -- v: group by
4 = linear(3) project [count(Int64(1))@1] -> (n Int64)  -- v: project
5 = aggregate(4) by [] [max(0)] -> (m Int64)  -- v: group by
view v = 5"
    );
}

#[test]
fn limits_and_bounded_ranks() {
    assert_eq!(view("SELECT a, x FROM u ORDER BY x DESC"), "view v = 1");
    let top = |query: &str| {
        let plan = view(query);
        let line = plan.lines().find(|line| line.contains("= top(")).unwrap_or_else(|| panic!("no top-k:\n{plan}"));
        line.trim_start_matches(|c: char| c != 't').split(" -> ").next().unwrap().to_owned()
    };
    let rank = "SELECT a, x, n FROM (SELECT a, x, rank() OVER (PARTITION BY x ORDER BY a) AS n FROM u) w WHERE n < 3 AND a > 0";
    let unread = "SELECT a, x FROM (SELECT a, x, row_number() OVER (ORDER BY a, a DESC) AS n FROM u) w WHERE n = 1";
    assert_eq!(
        [
            top("SELECT a, x FROM u ORDER BY x DESC, a LIMIT 3 OFFSET 2"),
            top("SELECT a, x FROM u LIMIT 3"),
            top("SELECT a, x FROM u OFFSET 3 ROWS FETCH FIRST ROW ONLY"),
            top("SELECT a, x FROM u OFFSET 3"),
            top(rank),
            top(unread),
            top("SELECT DISTINCT ON (x) x, a FROM u ORDER BY x, a DESC"),
        ],
        [
            "top(1) by [] order [1 desc nulls first, 0] skip 2 row_number <= 3",
            "top(1) by [] order [] row_number <= 3",
            "top(1) by [] order [] skip 3 row_number <= 1",
            "top(1) by [] order [] skip 3",
            "top(1) by [1] order [0] rank <= 2 numbered",
            "top(1) by [] order [0] row_number <= 1",
            "top(1) by [1] order [1, 0 desc nulls first] row_number <= 1",
        ]
    );
}

#[test]
fn times_are_microseconds() {
    assert_eq!(
        view(
            "SELECT date_trunc('month', ts) AS m, CAST(b AS TIMESTAMP) AS k, TIMESTAMP '2020-01-01 00:00:00' AS l FROM t WHERE ts > TIMESTAMP '2020-01-01 00:00:00'"
        ),
        r"2 = linear(0) project [b@1, ts@4] filter ts@1 > 1577836800000000 project [date_trunc(month, ts@1), CAST(b@0 AS Timestamp(µs)), 1577836800000000] -> (m Timestamp(µs), k Timestamp(µs), l Timestamp(µs))  -- v: filter and project
view v = 2"
    );
}

#[test]
fn views_on_views() {
    assert_eq!(
        view(
            "SELECT a AS x FROM t; CREATE VIEW w AS SELECT a AS y FROM t; CREATE VIEW z AS SELECT x FROM v UNION ALL SELECT y FROM w"
        ),
        r"2 = linear(0) project [a@0] -> (x Int32)  -- v: project
3 = linear(2) project [x@0] -> (y Int32)  -- w: rename
4 = union(2, 3) -> (x Int32)  -- z: union
view v = 2
view w = 3
view z = 4"
    );
    assert_eq!(
        view(
            "SELECT b AS bb FROM t WHERE b > 'x'; CREATE VIEW w AS SELECT bb AS cc FROM v; CREATE VIEW x AS SELECT bb FROM v"
        ),
        r"2 = linear(0) project [b@1] filter b@0 > x -> (bb Utf8)  -- v: filter and project
3 = linear(2) project [bb@0] -> (cc Utf8)  -- w: project
view v = 2
view w = 3
view x = 2"
    );
    assert_eq!(
        view(
            "SELECT b, count(*) AS n FROM t GROUP BY b; CREATE VIEW w (k, m) AS SELECT b, count(*) FROM t GROUP BY b; CREATE VIEW x AS SELECT v.n, w.m FROM v JOIN w ON v.b = w.k"
        ),
        r"2 = linear(0) project [b@1] -> (b Utf8)  -- v: project
3 = aggregate(2) by [0] [count(*)] -> (b Utf8, n Int64)  -- v: group by
4 = linear(3) project [b@0, count(Int64(1))@1] -> (k Utf8, m Int64)  -- w: project
5 = arrange(3) by [0] -> (b Utf8, n Int64)  -- x: shared arrangement
6 = join(5, 5) on [0] = [0] -> (b Utf8, n Int64, k Utf8, m Int64)  -- x: join
7 = linear(6) project [n@1, m@3] -> (n Int64, m Int64)  -- x: project
view v = 3
view w = 4
view x = 7"
    );
}

#[test]
fn a_false_condition_stays_above_an_aggregate_without_groups() {
    // Below it, count(*) would give a row with 0.
    let plan = r"2 = constant() 0 rows -> (n Int64)  -- v: constant
view v = 2";
    assert_eq!(view("SELECT n FROM (SELECT count(*) AS n FROM t) AS g WHERE false"), plan);
    assert_eq!(view("SELECT count(*) AS n FROM t HAVING 1 = 2"), plan);
    assert!(view("SELECT count(*) AS n FROM t WHERE 1 = 2").contains(" by [] [count(*)]"));
}

#[test]
fn joins_of_one_relation_by_one_key_share_an_arrangement() {
    let plan = |text: &str| compile(text, "p.sql").unwrap().plan.to_string();
    let tables = "CREATE TABLE bid (auction BIGINT, bidder BIGINT, price BIGINT, at TIMESTAMP);
                  CREATE TABLE auction (id BIGINT, seller BIGINT, category BIGINT);";
    let views = "CREATE VIEW prices AS SELECT a.seller, b.price FROM auction a JOIN bid b ON a.id = b.auction;
                 CREATE VIEW bidders AS SELECT a.category, b.bidder FROM auction a JOIN bid b ON a.id = b.auction;";
    assert_eq!(
        plan(&format!("{tables}{views}")),
        r"0 = table() -> (auction Int64, bidder Int64, price Int64, at Timestamp(µs))  -- table bid
1 = table() -> (id Int64, seller Int64, category Int64)  -- table auction
2 = arrange(1) by [0] -> (id Int64, seller Int64, category Int64)  -- prices, bidders: shared arrangement
3 = linear(2) project [id@0, seller@1] -> (id Int64, seller Int64)  -- prices, bidders: project
4 = linear(2) project [id@0, category@2] -> (id Int64, category Int64)  -- prices, bidders: project
5 = linear(0) project [auction@0, price@2, bidder@1] -> (auction Int64, price Int64, bidder Int64)  -- prices, bidders: project
6 = arrange(5) by [0] -> (auction Int64, price Int64, bidder Int64)  -- prices, bidders: shared arrangement
7 = linear(6) project [auction@0, price@1] -> (auction Int64, price Int64)  -- prices, bidders: project
8 = linear(6) project [auction@0, bidder@2] -> (auction Int64, bidder Int64)  -- prices, bidders: project
9 = join(3, 7) on [0] = [0] -> (id Int64, seller Int64, auction Int64, price Int64)  -- prices: join
10 = linear(9) project [seller@1, price@3] -> (seller Int64, price Int64)  -- prices: project
11 = join(4, 8) on [0] = [0] -> (id Int64, category Int64, auction Int64, bidder Int64)  -- bidders: join
12 = linear(11) project [category@1, bidder@3] -> (category Int64, bidder Int64)  -- bidders: project
table bid = 0
table auction = 1
view prices = 10
view bidders = 12
"
    );
    // An outer join reads what it keeps twice.
    let outer = "CREATE VIEW v AS SELECT a.*, b.price FROM auction a LEFT JOIN bid b ON a.id = b.auction";
    let outer = plan(&format!("{tables}{outer}"));
    for part in ["3 = arrange(1) by [0] ", "4 = join(3, 2) on ", "6 = anti(3, 5) on "] {
        assert!(outer.contains(part), "{part}: {outer}");
    }
    let timed = tables.replace("at TIMESTAMP", "at TIMESTAMP NOT NULL LATENESS INTERVAL '1' HOUR");
    let itself =
        "CREATE VIEW v AS SELECT a.price, b.bidder FROM bid a JOIN bid b ON a.auction = b.auction AND a.at = b.at";
    let itself = plan(&format!("{timed}{itself}"));
    for part in ["3 = arrange(2) by [0, 2] ", "6 = join(4, 5) on ", "behind watermarks the state is freed of 3\n"] {
        assert!(itself.contains(part), "{part}: {itself}");
    }
    // A table with a primary key is an arrangement by that.
    let keyed = tables.replace("id BIGINT", "id BIGINT PRIMARY KEY");
    let keyed = plan(&format!("{keyed}{views}"));
    assert_eq!(keyed.matches("= arrange(").count(), 1, "{keyed}");
    assert!(keyed.contains("the rows that table auction keeps are read by "), "{keyed}");
}
