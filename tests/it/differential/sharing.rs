//! Programs whose joins share arrangements: what they compute, what stays of a restart, and that rows are kept once.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use backstay::circuit::Delta;
use backstay::circuit::plan::{CircuitPlan, NodeKind};
use backstay::sql::{Program, compile};

use super::check;
use super::circuit::Circuit;
use super::programs::TABLES;
use crate::rng::{Rng, mix};

fn program(views: &[&str]) -> (String, Program) {
    let mut sql = TABLES.to_owned();
    for (i, view) in views.iter().enumerate() {
        sql.push_str(&format!("CREATE VIEW v{i} AS {view};\n"));
    }
    let program = compile(&sql, "sharing.sql").unwrap_or_else(|e| panic!("{e}\n{sql}"));
    (sql, program)
}

/// Of each arrangement how many sides of joins read it.
fn arrangements(plan: &CircuitPlan) -> Vec<usize> {
    let nodes = plan.nodes.iter().enumerate();
    let nodes = nodes.filter(|(_, n)| matches!(n.kind, NodeKind::Arrange(_))).map(|(id, _)| plan.readers(id).len());
    nodes.collect()
}

/// Views over [`TABLES`], and of each arrangement that they are to share the number of its readers.
const SHARED: &[(&[&str], &[usize])] = &[
    // One key, other columns.
    (
        &["SELECT t.b, u.b AS ub FROM t JOIN u ON t.a = u.a", "SELECT t.c, u.c AS uc FROM t JOIN u ON t.a = u.a"],
        &[2, 2],
    ),
    (
        &[
            "SELECT t.a, u.b FROM t JOIN u USING (c)",
            "SELECT t.b, k.id FROM t JOIN k ON t.b = k.b",
            "SELECT u.a, k.a AS ka FROM k JOIN u USING (b)",
        ],
        &[2],
    ),
    // Three views, and one of them with a condition.
    (
        &[
            "SELECT t.b, k.b AS kb FROM t JOIN k ON t.a = k.a",
            "SELECT t.c, k.id FROM t JOIN k ON t.a = k.a AND t.c > k.id",
            "SELECT u.b, k.id, k.b AS kb FROM u JOIN k ON u.a = k.id",
            "SELECT t.a, count(*) AS n, max(k.id) AS m FROM t JOIN k ON t.a = k.a GROUP BY t.a",
        ],
        &[2, 3],
    ),
    // A relation with itself.
    (&["SELECT x.a, x.b, y.b AS yb FROM t x JOIN t y ON x.a = y.a"], &[2]),
    (&["SELECT x.b, y.c FROM t x JOIN t y ON x.a = y.a"], &[2]),
    (&["SELECT x.id, y.b FROM k x JOIN k y ON x.a = y.a AND x.id < y.id"], &[2]),
    (&["SELECT x.a, y.c FROM t x JOIN t y ON x.b IS NOT DISTINCT FROM y.b"], &[2]),
    // An outer join keeps its outer side for the inner join, and for the rows without a match.
    (&["SELECT t.a, t.c, u.b FROM t LEFT JOIN u ON t.a = u.a"], &[2]),
    (&["SELECT t.a, u.a AS ua, u.b FROM t FULL JOIN u ON t.a = u.a"], &[2, 2]),
    (&["SELECT x.id, y.b FROM k x LEFT JOIN k y ON x.a = y.a"], &[3]),
    (
        &[
            "SELECT t.b, u.b AS ub FROM t LEFT JOIN u ON t.a = u.a",
            "SELECT u.c, t.c AS tc FROM u LEFT JOIN t ON t.a = u.a",
        ],
        &[3, 3],
    ),
    (
        &[
            "SELECT t.a, u.b FROM t LEFT JOIN u ON t.c IS NOT DISTINCT FROM u.c",
            "SELECT t.b, u.a FROM t JOIN u ON t.c IS NOT DISTINCT FROM u.c",
        ],
        &[3, 2],
    ),
    // Behind a filter, with all columns.
    (&["SELECT x.a, x.b, x.c, t.d FROM (SELECT * FROM u WHERE c > 0) x LEFT JOIN t ON x.a = t.a"], &[2]),
    // Conditions of outer joins.
    (
        &[
            "SELECT t.a, t.b, u.b AS ub FROM t LEFT JOIN u ON t.a = u.a AND t.c < u.c",
            "SELECT t.a, t.b, u.b AS ub FROM t LEFT JOIN u ON t.a = u.a AND t.c > u.c",
        ],
        &[2, 2, 2],
    ),
    // Semi, anti and mark joins.
    (
        &[
            "SELECT a, b FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
            "SELECT a, c FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
            "SELECT t.d, u.c FROM t JOIN u ON t.a = u.a",
            "SELECT a, b FROM t WHERE a IN (SELECT a FROM u) OR b = 'a'",
        ],
        &[4, 3],
    ),
    // Keys alone.
    (&["SELECT u.b FROM t JOIN u ON t.a = u.a", "SELECT u.c FROM t JOIN u ON t.a = u.a WHERE u.b = 'a'"], &[2]),
    // Three in a row, by one key and by several.
    (
        &[
            "SELECT t.b, u.b AS ub, k.b AS kb FROM t JOIN u ON t.a = u.a JOIN k ON u.b = k.b",
            "SELECT u.c, t.d FROM t JOIN u ON t.a = u.a",
        ],
        &[2, 2],
    ),
    (&["SELECT x.a, y.b, z.c FROM t x JOIN t y ON x.a = y.a JOIN t z ON x.a = z.a"], &[2]),
    (
        &[
            "SELECT t.c, u.c AS uc FROM t JOIN u ON t.a = u.a AND t.b = u.b",
            "SELECT t.d, u.c FROM t JOIN u ON t.a = u.a AND t.b = u.b",
        ],
        &[2, 2],
    ),
    // Over a view, and its columns.
    (
        &[
            "SELECT a, b, c FROM t WHERE c > 0 OR b = 'a'",
            "SELECT v0.b, u.b AS ub FROM v0 JOIN u ON v0.a = u.a",
            "SELECT v0.c, u.c AS uc FROM v0 JOIN u ON v0.a = u.a",
            "SELECT v0.a, v0.b, v0.c FROM v0 LEFT JOIN k ON v0.a = k.id",
        ],
        &[2, 4],
    ),
    (
        &[
            "SELECT a, b FROM t",
            "SELECT v0.b, u.c FROM v0 JOIN u ON v0.a = u.a",
            "SELECT t.c, u.b FROM t JOIN u ON t.a = u.a",
        ],
        &[2, 2],
    ),
    // Over what changes by itself.
    (
        &[
            "SELECT b, count(*) AS n, max(a) AS m FROM t GROUP BY b",
            "SELECT v0.n, k.id FROM v0 JOIN k ON v0.b = k.b",
            "SELECT v0.m, u.c FROM v0 LEFT JOIN u ON v0.b = u.b",
        ],
        &[3],
    ),
];

#[test]
fn shared_arrangements() {
    for (views, readers) in SHARED {
        let (sql, program) = program(views);
        let mut found = arrangements(&program.plan);
        let mut expected = readers.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{sql}{}", program.plan);
        for seed in 0..3 {
            check(&sql, seed);
        }
    }
}

/// Views over [`TABLES`], and how many sides of joins read the rows that the table `k` keeps.
const BY_PRIMARY_KEY: &[(&[&str], usize)] = &[
    (&["SELECT t.b, k.b AS kb FROM t JOIN k ON t.a = k.id"], 1),
    (
        &[
            "SELECT t.b, k.b AS kb FROM t LEFT JOIN k ON t.a = k.id",
            "SELECT u.c, k.id, k.a FROM u JOIN k ON u.a = k.id",
        ],
        3,
    ),
    (&["SELECT k.b, k.a, u.b AS ub FROM k LEFT JOIN u ON k.id = u.a"], 2),
    (&["SELECT k.id, u.a, u.b FROM k FULL JOIN u ON k.id = u.a AND k.b < u.b"], 1),
    (
        &["SELECT x.id, x.b, y.a FROM k x JOIN k y ON x.id = y.id", "SELECT x.id, y.b FROM k x JOIN k y ON x.a = y.id"],
        3,
    ),
    (
        &[
            "SELECT * FROM k WHERE id IN (SELECT a FROM u)",
            "SELECT b FROM u WHERE NOT EXISTS (SELECT 1 FROM k WHERE k.id = u.a)",
        ],
        2,
    ),
    (&["SELECT id, b FROM k", "SELECT v0.b, u.c FROM v0 JOIN u ON v0.id IS NOT DISTINCT FROM u.a"], 1),
    // Some of its rows, and another key.
    (
        &[
            "SELECT u.b, k.b AS kb FROM u JOIN k ON u.a = k.id AND k.a > 1",
            "SELECT u.b, k.id FROM u JOIN k ON u.a = k.id AND u.b = k.b",
        ],
        0,
    ),
];

#[test]
fn joins_by_a_primary_key_read_the_table() {
    for (views, readers) in BY_PRIMARY_KEY {
        let (sql, program) = program(views);
        let table = program.plan.tables.iter().find(|table| table.name == "k").unwrap();
        assert_eq!(program.plan.readers(table.node).len(), *readers, "{sql}{}", program.plan);
        for seed in 0..3 {
            check(&sql, seed);
        }
    }
}

#[test]
fn what_is_not_alike_is_not_shared() {
    for views in [
        // Another key, another order, another treatment of NULL.
        &["SELECT t.b, u.b AS ub FROM t JOIN u ON t.a = u.a", "SELECT t.c, u.c AS uc FROM t JOIN u ON t.b = u.b"][..],
        &[
            "SELECT t.a, u.b FROM t JOIN u ON t.c = u.c",
            "SELECT t.b, u.a FROM t JOIN u ON t.c IS NOT DISTINCT FROM u.c",
        ],
        // Other rows.
        &[
            "SELECT t.b, k.b AS kb FROM t JOIN k ON t.b = k.b AND t.a > 1",
            "SELECT t.c FROM t JOIN u ON t.b = u.b AND t.a > 2",
        ],
        // Computed columns.
        &[
            "SELECT x.e, k.id FROM (SELECT a, c + 1 AS e FROM t) x JOIN k ON x.a = k.a",
            "SELECT t.c, u.b FROM t JOIN u ON t.a = u.c",
        ],
    ] {
        let (sql, program) = program(views);
        assert_eq!(arrangements(&program.plan), [0; 0], "{sql}{}", program.plan);
        check(&sql, 1);
    }
}

/// Random programs have them, in the proportion that the generator's choices give.
#[test]
fn random_programs_share() {
    let programs = 300;
    let shared = (0..programs).filter(|&seed| {
        let sql = super::random_program(&mut Rng::new(mix(seed))).unwrap();
        !arrangements(&compile(&sql, "p.sql").unwrap().plan).is_empty()
    });
    let shared = shared.count();
    println!("{shared} of {programs} random programs share an arrangement");
    assert!(shared * 6 >= programs as usize, "{shared} of {programs} random programs share an arrangement");
}

const BIDS: &str = "
CREATE TABLE bid (auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR);
CREATE TABLE auction (id BIGINT, seller BIGINT, category BIGINT);
";
const ABOUT_BIDS: [&str; 3] = [
    "CREATE VIEW prices AS SELECT a.seller, b.price FROM auction a JOIN bid b ON a.id = b.auction;",
    "CREATE VIEW bidders AS SELECT a.category, b.bidder FROM auction a JOIN bid b ON a.id = b.auction;",
    "CREATE VIEW channels AS SELECT a.id, b.channel, b.price FROM auction a LEFT JOIN bid b ON a.id = b.auction;",
];

/// Rows of state after `bids` bids for every one of ten auctions, and the rows of each view.
fn state(views: &[&str], workers: usize, bids: i64) -> (usize, Vec<usize>) {
    let program = compile(&format!("{BIDS}{}", views.concat()), "bids.sql").unwrap();
    let mut circuit = Circuit::start(&program, workers, 3);
    for step in 0..2 {
        let (first, count) = (step * 5 * bids, 5 * bids);
        let numbers = |f: &dyn Fn(i64) -> i64, n: i64| Arc::new(Int64Array::from_iter_values((0..n).map(f))) as _;
        let channels = StringArray::from_iter_values((0..count).map(|i| format!("channel {}", i % 3)));
        let bid = vec![
            numbers(&|i| i % 10, count),
            numbers(&|i| first + i, count),
            numbers(&|i| 100 + first + i, count),
            Arc::new(channels) as _,
        ];
        let auction = vec![numbers(&|i| 5 * step + i, 5), numbers(&|i| i % 3, 5), numbers(&|i| i % 2, 5)];
        let rows = |table: usize, columns| {
            vec![Delta::inserts(RecordBatch::try_new(program.tables[table].schema.clone(), columns).unwrap())]
        };
        circuit.step(0, &vec![rows(0, bid), rows(1, auction)]).unwrap();
    }
    let rows = |view: &str| circuit.view(view).values().map(|weight| *weight as usize).sum();
    let rows = program.views.iter().map(|view| rows(&view.name)).collect();
    (circuit.state_rows(), rows)
}

#[test]
fn rows_that_several_joins_look_up_are_kept_once() {
    for workers in [1, 3] {
        let (one, _) = state(&ABOUT_BIDS[..1], workers, 40);
        assert_eq!(one, 410);
        let (two, rows) = state(&ABOUT_BIDS[..2], workers, 40);
        assert_eq!((two, rows), (410, vec![400, 400]), "{workers} workers");
        // The outer join needs no column of the auctions but the key, and how many bids have it: two counts for each of them.
        let (three, rows) = state(&ABOUT_BIDS, workers, 40);
        assert_eq!((three, rows), (430, vec![400, 400, 400]), "{workers} workers");
    }
}

/// A row that a step takes back meets none that it brings: an expression that fails on the two is not evaluated.
#[test]
fn rows_that_never_stood_together_are_not_joined() {
    let tables = "CREATE TABLE a (id BIGINT, x BIGINT); CREATE TABLE b (id BIGINT NOT NULL PRIMARY KEY, y BIGINT); CREATE TABLE c (id BIGINT, y BIGINT, z BIGINT);";
    // The table's own rows; a side of the join's own; an arrangement, of as many columns and of more.
    for (right, views, shared) in [
        ("b", "", &[][..]),
        ("c", "", &[]),
        ("c", "CREATE VIEW w AS SELECT a.id, c.y AS y FROM a JOIN c ON a.id = c.id;", &[2]),
        ("c", "CREATE VIEW w AS SELECT c.z, c.y AS y FROM a JOIN c ON a.id = c.id;", &[2]),
    ] {
        let sql = format!(
            "{tables} {views} CREATE VIEW v AS SELECT a.id, a.x / {right}.y AS q FROM a JOIN {right} ON a.id = {right}.id;"
        );
        let program = compile(&sql, "p.sql").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(arrangements(&program.plan), shared, "{sql}");
        for workers in [1, 2] {
            let mut circuit = Circuit::start(&program, workers, 7);
            let delta = |table: usize, rows: &[(i64, i64, i64)]| {
                let schema = &program.tables[table].schema;
                let column = |of: fn(&(i64, i64, i64)) -> i64| {
                    Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef
                };
                let mut columns = vec![column(|r| r.0), column(|r| r.1), column(|r| r.0 + 100)];
                columns.truncate(schema.fields().len());
                let rows_of = RecordBatch::try_new(schema.clone(), columns).unwrap();
                vec![Delta { rows: rows_of, weights: rows.iter().map(|r| r.2).collect() }]
            };
            let step = |circuit: &mut Circuit, a: &[(i64, i64, i64)], right_rows: &[(i64, i64, i64)]| {
                let place = if right == "b" { 1 } else { 2 };
                let mut inputs = vec![delta(0, a), Vec::new(), Vec::new()];
                inputs[place] = delta(place, right_rows);
                circuit.step(0, &inputs).unwrap_or_else(|e| panic!("{sql}: {e}"));
            };
            let other = [(2, 1, 1), (3, 2, 1)];
            step(&mut circuit, &[(2, 4, 1)], &[&[(1, 0, 1)], &other[..]].concat());
            // One key's rows change at both sides, another's at the left side only, a third's at the right side only.
            step(&mut circuit, &[(1, 10, 1), (3, 6, 1)], &[(1, 0, -1), (1, 5, 1)]);
            assert_eq!(circuit.view("v").len(), 3, "{sql}");
            step(&mut circuit, &[(1, 10, -1), (4, 8, 1)], &[(4, 2, 1)]);
            assert_eq!(circuit.view("v").len(), 3, "{sql}");
        }
    }
}
