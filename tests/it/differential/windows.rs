//! Orders: LIMIT, ranks and window functions, in written programs and at random.
//!
//! Where rows tie, DataFusion takes whichever comes first, and we the smallest as a whole. So orders name every column, or the
//! programs carry a reference that does. The random queries order by all columns and read them all.

use std::fmt::Write;

use arrow::datatypes::{DataType, SchemaRef};

use super::{check, check_as};
use crate::rng::Rng;

const TABLES: &str = "
CREATE TABLE t (a INT, b VARCHAR, c DOUBLE, d DECIMAL(10, 2), ts TIMESTAMP);
CREATE TABLE u (a BIGINT, b VARCHAR, c DOUBLE);
CREATE TABLE k (id BIGINT PRIMARY KEY, a INT, b VARCHAR NOT NULL);
";
/// Runs of each program.
const SEEDS: u64 = 4;

/// Each query as a view of its own over [`TABLES`].
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

/// An order by all columns of a relation, each in a direction of its own.
pub(super) fn total_order(rng: &mut Rng, alias: &str, schema: &SchemaRef) -> String {
    let mut columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    for i in (1..columns.len()).rev() {
        columns.swap(i, rng.below(i as u64 + 1) as usize);
    }
    let mut order = String::new();
    for (i, column) in columns.into_iter().enumerate() {
        let direction = rng.one_of(&["", " ASC", " DESC"]);
        let nulls = rng.one_of(&["", " NULLS FIRST", " NULLS LAST"]);
        write!(order, "{}{alias}.{column}{direction}{nulls}", if i > 0 { ", " } else { "" }).unwrap();
    }
    order
}

/// A query that keeps some rows of a relation for their place in an order.
pub(super) fn ordered(rng: &mut Rng, name: &str, schema: &SchemaRef) -> String {
    let fields = schema.fields();
    let columns = |rng: &mut Rng| format!("r.{}", fields[rng.below(fields.len() as u64) as usize].name());
    let order = total_order(rng, "r", schema);
    let bound = rng.below(5);
    let all: Vec<String> = fields.iter().enumerate().map(|(i, f)| format!("r.{} AS c{i}", f.name())).collect();
    let all = all.join(", ");
    match rng.below(6) {
        4 | 5 => {
            // One order for all: which of several equal rows is the first may differ from one order to the next.
            let over = (partition(rng, "r", schema), order);
            let functions: Vec<String> = (0..1 + rng.below(3))
                .map(|i| format!("{} AS w{i}", window_function(rng, "r", schema, &over)))
                .collect();
            format!("SELECT {all}, {} FROM {name} AS r", functions.join(", "))
        }
        0 => format!("SELECT {all} FROM {name} AS r ORDER BY {order} LIMIT {bound}"),
        1 => format!("SELECT {all} FROM {name} AS r ORDER BY {order} LIMIT {bound} OFFSET {}", rng.below(4)),
        2 => format!("SELECT {all} FROM {name} AS r ORDER BY {order} OFFSET {bound}"),
        _ => {
            let partition = if rng.once_in(4) { String::new() } else { format!("PARTITION BY {} ", columns(rng)) };
            let (rank, order) = match rng.below(3) {
                0 => ("row_number", order),
                // Ties have the same rank.
                1 => ("rank", columns(rng)),
                _ => ("dense_rank", columns(rng)),
            };
            let condition = rng.one_of(&["<=", "<", "="]);
            let number = if rng.once_in(2) { ", n AS n" } else { "" };
            let outer: Vec<String> = (0..fields.len()).map(|i| format!("c{i}")).collect();
            format!(
                "SELECT {}{number} FROM (SELECT {all}, {rank}() OVER ({partition}ORDER BY {order}) AS n \
                 FROM {name} AS r) AS w WHERE n {condition} {bound}",
                outer.join(", ")
            )
        }
    }
}

fn partition(rng: &mut Rng, alias: &str, schema: &SchemaRef) -> String {
    let fields = schema.fields();
    match rng.once_in(3) {
        true => String::new(),
        false => format!("PARTITION BY {alias}.{} ", fields[rng.below(fields.len() as u64) as usize].name()),
    }
}

/// A call of a window function. Sums and averages whose frame moves on from the first row are of whole numbers alone: taking NaN or a
/// large number away from a float leaves a trace in DataFusion.
pub(super) fn window_function(rng: &mut Rng, alias: &str, schema: &SchemaRef, over: &(String, String)) -> String {
    let fields = schema.fields();
    let any = fields[rng.below(fields.len() as u64) as usize].name();
    let numbers: Vec<&str> = (fields.iter())
        .filter(|f| f.data_type().is_signed_integer() && *f.data_type() != DataType::Int64)
        .map(|f| f.name().as_str())
        .collect();
    let (partition, order) = over;
    let column = format!("{alias}.{any}");
    let unbounded = rng.once_in(2);
    if !numbers.is_empty() && rng.once_in(4) {
        // One order column: rows tie, which these do not notice.
        let order = rng.one_of(&numbers);
        let call = rng.one_of(&["count(*)", "sum", "min", "max", "avg", "count(DISTINCT"]);
        let call = match call {
            "count(*)" => call.to_owned(),
            "count(DISTINCT" => format!("{call} {alias}.{order})"),
            _ => format!("{call}({alias}.{})", rng.one_of(&numbers)),
        };
        let filter = if rng.once_in(4) { format!(" FILTER (WHERE {alias}.{order} > 0)") } else { String::new() };
        let (start, end) = (rng.below(3), rng.below(3));
        let frame = match rng.below(4) {
            0 => format!("{} PRECEDING AND {start} PRECEDING", start + end),
            1 => format!("{start} FOLLOWING AND {} FOLLOWING", start + end),
            _ => format!("{start} PRECEDING AND {end} FOLLOWING"),
        };
        let direction = rng.one_of(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        return format!("{call}{filter} OVER ({partition}ORDER BY {alias}.{order}{direction} RANGE BETWEEN {frame})");
    }
    let nulls = rng.one_of(&["", "", "", " IGNORE NULLS"]);
    let call = match rng.below(if numbers.is_empty() { 9 } else { 11 }) {
        0 => "row_number()".to_owned(),
        1 => rng.one_of(&["rank()", "dense_rank()", "percent_rank()", "cume_dist()"]).to_owned(),
        2 => format!("ntile({})", 1 + rng.below(4)),
        3 => format!("lag({column}, {}){nulls}", 1 + rng.below(2)),
        4 => format!("lead({column}){nulls}"),
        5 => format!("first_value({column}){nulls}"),
        6 => format!("last_value({column}){nulls}"),
        7 => format!("nth_value({column}, {}){nulls}", 1 + rng.below(3)),
        8 => format!("count({column})"),
        n => {
            let number = rng.one_of(&numbers);
            let function = if unbounded { "avg" } else { "max" };
            format!("{}({alias}.{number})", if n == 9 { "sum" } else { function })
        }
    };
    let start = if unbounded { "UNBOUNDED PRECEDING".to_owned() } else { format!("{} PRECEDING", rng.below(3)) };
    let end = rng.one_of(&["CURRENT ROW", "1 FOLLOWING", "UNBOUNDED FOLLOWING"]);
    let framed = rng.once_in(2) && !call.ends_with("()") && !call.starts_with("ntile") && !call.starts_with('l');
    let frame = match (framed, unbounded) {
        (true, _) => format!(" {} BETWEEN {start} AND {end}", rng.one_of(&["ROWS", "GROUPS"])),
        (false, true) => String::new(),
        (false, false) if call.starts_with("max") || call.starts_with("sum") => {
            format!(" ROWS BETWEEN {start} AND {end}")
        }
        (false, false) => String::new(),
    };
    format!("{call} OVER ({partition}ORDER BY {order}{frame})")
}

#[test]
fn limits() {
    views(&[
        "SELECT a, b FROM t ORDER BY a DESC, b LIMIT 3",
        "SELECT a, b, c FROM u ORDER BY c DESC NULLS LAST, a NULLS FIRST, b LIMIT 4 OFFSET 1",
        "SELECT a, b FROM t ORDER BY a, b OFFSET 2",
        "SELECT id FROM k ORDER BY a + 1 DESC, id LIMIT 2",
        "SELECT a FROM t ORDER BY a LIMIT 0",
        "SELECT a, b FROM t ORDER BY a, b",
        "SELECT b, sum(a) AS s FROM t GROUP BY b ORDER BY s DESC, b LIMIT 2",
        "SELECT x.a, k.id FROM (SELECT a, b FROM t ORDER BY a DESC, b DESC LIMIT 3) x JOIN k ON x.a = k.a",
        "WITH x AS (SELECT a FROM t ORDER BY a LIMIT 2) SELECT sum(a) AS s, count(*) AS n FROM x",
        "(SELECT a FROM t ORDER BY a LIMIT 2) UNION ALL (SELECT a FROM u ORDER BY a DESC LIMIT 1)",
    ]);
    views_as(&[
        ("SELECT a, b FROM u LIMIT 3", "SELECT a, b FROM u ORDER BY a NULLS FIRST, b NULLS FIRST LIMIT 3"),
        (
            "SELECT a, b FROM u ORDER BY b DESC OFFSET 1 ROWS FETCH FIRST 2 ROWS ONLY",
            "SELECT a, b FROM u ORDER BY b DESC, a NULLS FIRST LIMIT 2 OFFSET 1",
        ),
        ("SELECT b FROM u ORDER BY c FETCH FIRST ROW ONLY", "SELECT b FROM u ORDER BY c, b NULLS FIRST LIMIT 1"),
    ]);
}

#[test]
fn bounded_ranks() {
    views(&[
        "SELECT a, b, n FROM (SELECT a, b, row_number() OVER (PARTITION BY b ORDER BY a DESC) AS n FROM t) w WHERE n <= 2",
        "SELECT a, b FROM (SELECT a, b, row_number() OVER (PARTITION BY b ORDER BY a) AS n FROM t) w WHERE n = 1",
        "SELECT a, b FROM (SELECT a, b, row_number() OVER (ORDER BY a, b) AS n FROM t) w WHERE n = 2 AND a > 0",
        "SELECT a, b, n FROM (SELECT a, b, row_number() OVER (ORDER BY a, b) AS n FROM t) w WHERE 3 > n AND b > 'a'",
        "SELECT a, n FROM (SELECT a, row_number() OVER (ORDER BY a) AS n FROM t) w WHERE n BETWEEN 2 AND 3",
        "SELECT a, n FROM (SELECT a, row_number() OVER (ORDER BY a) AS n FROM t) w WHERE n = 3 AND n <= 1",
        "SELECT a, c, n FROM (SELECT a, c, rank() OVER (PARTITION BY b ORDER BY c DESC) AS n FROM u) w WHERE n <= 2",
        "SELECT a, c FROM (SELECT a, c, dense_rank() OVER (PARTITION BY b ORDER BY c) AS n FROM u) w WHERE n < 3",
        "SELECT a, b FROM t QUALIFY rank() OVER (PARTITION BY b ORDER BY a) = 1",
        "SELECT b, sum(a) AS s FROM t GROUP BY b QUALIFY rank() OVER (ORDER BY sum(a) DESC) <= 2",
        "SELECT a, b, n FROM (SELECT a, b, rank() OVER w AS n FROM t WINDOW w AS (PARTITION BY b ORDER BY a)) w WHERE n <= 1",
    ]);
}

#[test]
fn window_functions() {
    views(&[
        "SELECT a, b, row_number() OVER (PARTITION BY b ORDER BY a) AS n FROM t",
        "SELECT a, b, rank() OVER w AS r, dense_rank() OVER w AS d, percent_rank() OVER w AS p, cume_dist() OVER w AS c FROM t \
         WINDOW w AS (PARTITION BY b ORDER BY a DESC)",
        "SELECT a, ntile(3) OVER (ORDER BY a) AS n FROM t",
        "SELECT a, b, lag(a) OVER w AS l, lead(a, 2) OVER w AS m, lag(a, 1, 7) OVER w AS d FROM u WINDOW w AS (PARTITION BY b ORDER BY a)",
        "SELECT a, b, lead(b, 1, 'none') OVER (ORDER BY a, b) AS m FROM t",
        "SELECT a, b, first_value(a) OVER w AS f, last_value(a) OVER w AS l FROM u WINDOW w AS (PARTITION BY b ORDER BY a)",
        "SELECT a, nth_value(a, 2) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING) AS s FROM t",
        "SELECT a, b, sum(a) OVER (PARTITION BY b ORDER BY a) AS s, avg(d) OVER (PARTITION BY b ORDER BY a) AS m, count(*) OVER (PARTITION BY a) AS n FROM t",
        "SELECT a, b, sum(a) OVER (PARTITION BY b ORDER BY a ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS s FROM u",
        "SELECT a, min(a) OVER w AS l, max(a) OVER w AS h FROM t WINDOW w AS (ORDER BY a DESC GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING)",
        "SELECT c, sum(c) OVER () AS s, avg(c) OVER (PARTITION BY b) AS m, count(c) OVER () AS n FROM u",
        "SELECT c, sum(c) OVER (ORDER BY c) AS s FROM u",
        "SELECT d, max(d) OVER (ORDER BY d ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) AS m, sum(d) OVER (ORDER BY d ROWS 1 PRECEDING) AS s FROM t",
        "SELECT b, sum(a) AS s, rank() OVER (ORDER BY sum(a)) AS r, sum(sum(a)) OVER () AS total FROM t GROUP BY b",
        "SELECT a, n FROM (SELECT a, row_number() OVER (ORDER BY a) AS n FROM t) w WHERE n >= 2",
        "SELECT a, b FROM t QUALIFY row_number() OVER (PARTITION BY b ORDER BY a) <= 2 AND count(*) OVER (PARTITION BY a) > 1",
        "SELECT x.a, x.s, k.id FROM (SELECT a, sum(a) OVER (PARTITION BY b) AS s FROM t) x JOIN k ON x.s = k.a",
    ]);
}

#[test]
fn distances_in_range() {
    views(&[
        "SELECT a, b, sum(a) OVER (PARTITION BY b ORDER BY a RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) AS s FROM t",
        "SELECT a, b, count(*) OVER w AS n, sum(a) OVER w AS s, avg(d) OVER w AS m, max(b) OVER w AS h FROM t \
         WINDOW w AS (ORDER BY a RANGE BETWEEN 1 PRECEDING AND 2 FOLLOWING)",
        "SELECT a, c, min(c) OVER w AS l, max(a) OVER w AS h FROM u WINDOW w AS (PARTITION BY b ORDER BY a DESC RANGE BETWEEN 2 PRECEDING AND 1 PRECEDING)",
        "SELECT a, count(*) OVER (ORDER BY a NULLS FIRST RANGE BETWEEN 1 FOLLOWING AND 3 FOLLOWING) AS n FROM u",
        "SELECT a, count(*) OVER (ORDER BY a DESC NULLS LAST RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS n FROM t",
        "SELECT a, count(*) OVER (ORDER BY a RANGE BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING) AS n FROM t",
        "SELECT a, count(*) OVER (ORDER BY a RANGE BETWEEN 1 PRECEDING AND UNBOUNDED FOLLOWING) AS n FROM t",
        "SELECT d, sum(d) OVER (ORDER BY d RANGE BETWEEN 0.5 PRECEDING AND 0.5 FOLLOWING) AS s FROM t",
        "SELECT ts, count(*) OVER (ORDER BY ts RANGE BETWEEN INTERVAL '12 hours' PRECEDING AND CURRENT ROW) AS n FROM t",
        "SELECT ts, b, sum(a) OVER (PARTITION BY b ORDER BY ts DESC RANGE BETWEEN INTERVAL '1 day' PRECEDING AND INTERVAL '15 minutes' FOLLOWING) AS n FROM t",
        "SELECT ts, count(*) OVER (ORDER BY ts RANGE INTERVAL '1 month' PRECEDING) AS n FROM t",
        "SELECT a, b, sum(a) OVER (PARTITION BY b ORDER BY a RANGE CURRENT ROW) AS s, first_value(a) OVER (PARTITION BY b ORDER BY a RANGE 1 PRECEDING) AS f FROM t",
        "SELECT a, row_number() OVER w AS r, count(*) OVER w AS n FROM t WINDOW w AS (ORDER BY a, b, c, d, ts ROWS 1 PRECEDING)",
        "SELECT s, count(*) OVER (ORDER BY s RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS n FROM (SELECT a, sum(a) AS s FROM u GROUP BY a) q",
    ]);
    views_as(&[(
        // Floats: NaN is its own peer and far from all others.
        "SELECT c, count(*) OVER (ORDER BY c RANGE BETWEEN 0.5 PRECEDING AND 0.5 FOLLOWING) AS n FROM u",
        "SELECT q.c, count(*) AS n FROM (SELECT c, row_number() OVER () AS i FROM u) q \
         JOIN u y ON (q.c IS NOT DISTINCT FROM y.c) OR (y.c >= q.c - 0.5 AND y.c <= q.c + 0.5) GROUP BY q.i, q.c",
    )]);
}

#[test]
fn nulls_filters_and_repetitions() {
    views(&[
        "SELECT a, b, lag(a) IGNORE NULLS OVER w AS l, lead(a, 2) IGNORE NULLS OVER w AS m, lag(a, 1, 7) IGNORE NULLS OVER w AS n FROM u \
         WINDOW w AS (PARTITION BY b ORDER BY c, a)",
        "SELECT a, b, first_value(b) IGNORE NULLS OVER w AS f, last_value(b) IGNORE NULLS OVER w AS l FROM t \
         WINDOW w AS (ORDER BY a, b, c, d, ts ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING)",
        "SELECT a, sum(a) FILTER (WHERE c > 0) OVER (PARTITION BY b) AS s, count(*) FILTER (WHERE a = 1) OVER (ORDER BY a) AS n FROM u",
        "SELECT a, count(DISTINCT a) OVER (PARTITION BY b) AS n, count(DISTINCT c) FILTER (WHERE a > 0) OVER () AS m, max(DISTINCT a) OVER () AS h FROM u",
    ]);
    views_as(&[
        (
            "SELECT id, count(DISTINCT a) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS n FROM k",
            "SELECT x.id, count(DISTINCT y.a) AS n FROM (SELECT id, row_number() OVER (ORDER BY id) AS r FROM k) x \
             JOIN (SELECT a, row_number() OVER (ORDER BY id) AS r FROM k) y ON y.r BETWEEN x.r - 1 AND x.r + 1 GROUP BY x.id",
        ),
        (
            "SELECT a, nth_value(b, 2) IGNORE NULLS OVER (ORDER BY a, b, c, d, ts) AS n FROM t",
            "SELECT a, nth_value(b, 2) IGNORE NULLS OVER (ORDER BY a, b, c, d, ts) AS n FROM t",
        ),
    ]);
}

#[test]
fn distinct_on() {
    views(&[
        "SELECT DISTINCT ON (b) b, a FROM u ORDER BY b, a DESC",
        "SELECT DISTINCT ON (a, b) a, b, c + 1 AS d FROM u ORDER BY a, b, c",
    ]);
    views_as(&[(
        "SELECT DISTINCT ON (b) b, c, a FROM u",
        "SELECT DISTINCT ON (b) b, c, a FROM u ORDER BY b, a NULLS FIRST, c NULLS FIRST",
    )]);
}

/// Nexmark's tables with the columns that the queries below read.
const NEXMARK: &str = "
CREATE TABLE auction (id BIGINT, item VARCHAR, seller BIGINT, category INT, ts TIMESTAMP, expires TIMESTAMP);
CREATE TABLE bid (auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, ts TIMESTAMP);
";

#[test]
fn nexmark() {
    // 18: the last bid of each bidder in each auction; 19: the ten highest bids of each auction; 9: the winning bid.
    let queries = [
        "SELECT auction, bidder, price, channel, ts FROM (SELECT *, row_number() OVER (PARTITION BY bidder, auction \
         ORDER BY ts DESC, price, channel) AS n FROM bid) WHERE n <= 1",
        "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, bidder, channel, ts) AS n \
         FROM bid) WHERE n <= 10",
        // 6: the average price of the last ten auctions that a seller closed.
        "SELECT seller, avg(price) OVER (PARTITION BY seller ORDER BY ts, price, id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS m \
         FROM (SELECT a.seller, a.id, max(b.price) AS price, max(b.ts) AS ts FROM auction a JOIN bid b ON a.id = b.auction \
         GROUP BY a.seller, a.id) AS closed",
        "SELECT id, item, seller, auction, bidder, price, bid_ts FROM (SELECT A.id, A.item, A.seller, B.auction, B.bidder, \
         B.price, B.ts AS bid_ts, row_number() OVER (PARTITION BY A.id ORDER BY B.price DESC, B.ts, B.bidder, A.item, \
         A.seller) AS n FROM auction A, bid B WHERE A.id = B.auction AND B.ts BETWEEN A.ts AND A.expires) WHERE n <= 1",
    ];
    for query in queries {
        for seed in 0..SEEDS {
            check(&format!("{NEXMARK}CREATE VIEW v AS {query}"), seed);
        }
    }
}
