//! LATENESS: rows that come late are left out, state behind the watermarks is freed, and each view is the batch answer over the rows
//! that were not late. The steps are cut alike for all workers, since they decide what is late.
//!
//! Here are the written programs; `random` runs random ones, whose queries `queries` makes and whose rows `stream`.

mod queries;
mod random;
mod stream;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use backstay::circuit::{Delta, Watermarks};
use backstay::sql::{Program, compile};

use super::circuit::Circuit;
use super::oracle::{self, Oracle};
use crate::rng::Rng;

const MINUTE: i64 = 60_000_000;

const TABLES: &str = "
CREATE TABLE t (id BIGINT, g INT, ts TIMESTAMP NOT NULL LATENESS INTERVAL '20 minutes', v BIGINT);
CREATE TABLE u (id BIGINT, g INT, ts TIMESTAMP NOT NULL LATENESS INTERVAL '1' HOUR, v BIGINT);
CREATE TABLE n (id BIGINT, g INT, ts TIMESTAMP NOT NULL, v BIGINT);
";

/// By the state that they keep: freed, or not.
const FREED: &[&str] = &[
    "SELECT window_start, g, count(*) AS c, sum(v) AS s, min(v) AS lo, max(v) AS hi, count(DISTINCT v) AS d \
     FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1 hour') GROUP BY window_start, g",
    "SELECT g, window_end, count(*) AS c FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1 hour', INTERVAL '7 minutes') GROUP BY g, window_end",
    "SELECT g, window_start, window_end, count(*) AS c FROM SESSION(TABLE t PARTITION BY g, DESCRIPTOR(ts), INTERVAL '3 minutes') \
     GROUP BY g, window_end, window_start",
    "SELECT id, window_end FROM SESSION(TABLE t PARTITION BY id, g, DESCRIPTOR(ts), INTERVAL '5 minutes')",
    "SELECT DISTINCT date_trunc('hour', ts) AS h, g FROM t",
    "SELECT date_trunc('hour', ts) AS b, array_agg(v ORDER BY v) AS vs, median(v) AS m FROM t GROUP BY date_trunc('hour', ts)",
    "SELECT t.id, u.id AS other, t.ts FROM t JOIN u ON t.ts = u.ts AND t.g = u.g",
    "SELECT t.id, u.v, t.ts FROM t LEFT JOIN u ON t.g = u.g AND t.ts = u.ts",
    "SELECT t.id, u.v, t.ts, u.ts AS uts FROM t FULL JOIN u ON t.ts = u.ts",
    "SELECT id, ts FROM t WHERE ts IN (SELECT ts FROM u)",
    "SELECT id, ts FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.ts = t.ts AND u.g = t.g)",
    "SELECT ts, count(*) AS c FROM (SELECT ts, g FROM t UNION ALL SELECT ts + INTERVAL '5 minutes', g FROM u) AS x GROUP BY ts",
    "SELECT a.h, a.c, b.c AS d FROM (SELECT date_trunc('hour', ts) AS h, count(*) AS c FROM t GROUP BY date_trunc('hour', ts)) AS a \
     JOIN (SELECT date_trunc('hour', ts) AS h, count(*) AS c FROM u GROUP BY date_trunc('hour', ts)) AS b ON a.h = b.h",
    "SELECT * FROM (SELECT id, g, ts, v, row_number() OVER (PARTITION BY date_trunc('hour', ts) ORDER BY v, id, g, ts) AS k FROM t) AS x WHERE k <= 3",
    "SELECT id, v, sum(v) OVER (PARTITION BY date_trunc('hour', ts) ORDER BY v, id, g, ts ROWS UNBOUNDED PRECEDING) AS s FROM t",
];
const KEPT: &[&str] = &[
    // A month's last days meet in another one's last day, out of order.
    "SELECT ts + INTERVAL '1 month' AS m, count(*) AS c FROM t GROUP BY ts + INTERVAL '1 month'",
    "SELECT date_bin(INTERVAL '15 minutes', ts) AS b, count(*) AS c FROM t GROUP BY date_bin(INTERVAL '15 minutes', ts)",
    // A late row of n meets rows of t of any age.
    "SELECT t.ts, count(*) AS c, sum(n.v) AS s FROM t JOIN n ON t.g = n.g GROUP BY t.ts",
    "SELECT t.ts, n.v FROM t JOIN n ON t.ts = n.ts",
    "SELECT h, count(*) AS c FROM (SELECT g, max(date_trunc('hour', ts)) AS h FROM t GROUP BY g) AS x GROUP BY h",
    "SELECT ts, count(*) AS c FROM (SELECT ts FROM t UNION ALL SELECT ts FROM n) AS x GROUP BY ts",
    "SELECT v, count(*) AS c FROM t GROUP BY v",
    "SELECT id FROM t WHERE g IN (SELECT g FROM u WHERE v > 3)",
];

fn program(views: &[&str]) -> Program {
    let mut sql = TABLES.to_owned();
    for (i, view) in views.iter().enumerate() {
        sql.push_str(&format!("CREATE VIEW v{i} AS {view};\n"));
    }
    compile(&sql, "lateness.sql").unwrap_or_else(|e| panic!("{e}"))
}

/// Rows about a time, some of them far behind it.
fn rows(program: &Program, table: usize, now: i64, count: u64, rng: &mut Rng) -> Delta {
    let mut columns: [Vec<i64>; 4] = Default::default();
    for _ in 0..count {
        let back = if rng.once_in(8) { rng.below(200) } else { rng.below(25) };
        columns[0].push(rng.below(40) as i64);
        columns[1].push(rng.below(3) as i64);
        columns[2].push((now - back as i64) * MINUTE);
        columns[3].push(rng.below(9) as i64);
    }
    let [id, g, ts, v] = columns;
    let g: Vec<i32> = g.into_iter().map(|g| g as i32).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(id)),
        Arc::new(Int32Array::from(g)),
        Arc::new(TimestampMicrosecondArray::from(ts)),
        Arc::new(Int64Array::from(v)),
    ];
    Delta::inserts(RecordBatch::try_new(program.tables[table].schema.clone(), columns).unwrap())
}

/// Takes some rows away again that came in the last steps, late ones among them.
fn deletes(kept: &[Delta], rng: &mut Rng) -> Option<Delta> {
    let delta = kept.iter().rev().take(6).nth(rng.below(6) as usize)?;
    let at = rng.below(delta.len().max(1) as u64) as usize;
    (delta.len() > at).then(|| Delta { rows: delta.rows.slice(at, 1), weights: vec![-1] })
}

/// The rows that are left after all changes.
fn contents(program: &Program, table: usize, changes: &[Delta]) -> RecordBatch {
    let schema = &program.tables[table].schema;
    let all = concat_batches(schema, changes.iter().map(|d| &d.rows)).unwrap();
    let weights: Vec<i64> = changes.iter().flat_map(|d| d.weights.iter().copied()).collect();
    let codec = backstay::circuit::row::RowCodec::of_schema(schema).unwrap();
    let encoded = codec.encode(all.columns(), all.num_rows()).unwrap();
    let mut left = std::collections::BTreeMap::new();
    for (i, weight) in weights.iter().enumerate() {
        *left.entry(encoded.get(i).to_vec()).or_insert(0) += weight;
    }
    assert!(left.values().all(|weight| *weight >= 0), "only what is there is deleted");
    let rows: Vec<&Vec<u8>> = left.iter().flat_map(|(row, &n)| std::iter::repeat_n(row, n as usize)).collect();
    let columns = codec.decode(rows.into_iter().map(Vec::as_slice)).unwrap();
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

/// Runs a program over a long stream; gives the largest number of rows in its state after each third.
fn check(views: &[&str], seed: u64) -> [usize; 3] {
    let program = program(views);
    let mut rng = Rng::new(seed);
    let mut marks = Watermarks::new(&program.plan, &Default::default());
    let mut circuits = [1, 2, 3].map(|workers| Circuit::start(&program, workers, seed));
    let mut kept: [Vec<Delta>; 3] = Default::default();
    let oracle = Oracle::new();
    let mut most = [0; 3];
    const STEPS: i64 = 90;
    for step in 0..STEPS {
        // From the 30th of January 1970 on, over the end of the month.
        let now = 29 * 24 * 60 + 30 * step;
        let mut tables: Vec<Vec<Delta>> = (0..3)
            .map(|table| {
                let count = if table == 2 { 1 } else { rng.below(12) };
                let mut deltas = vec![rows(&program, table, now, count, &mut rng)];
                if rng.once_in(3) {
                    deltas.extend(deletes(&kept[table], &mut rng));
                }
                deltas
            })
            .collect();
        let values = marks.values();
        marks.advance(&mut tables).unwrap();
        // Twice the same row may have been taken away: what is not there is not deleted.
        for (table, deltas) in tables.iter_mut().enumerate() {
            deltas.retain(|d| {
                d.weights.iter().all(|w| *w > 0) || d.is_empty() || is_there(&program, table, &kept[table], d)
            });
            kept[table].extend(deltas.iter().cloned());
        }
        for circuit in &mut circuits {
            circuit.step_from(0, &tables, &values).unwrap();
        }
        if step % 15 == 7 {
            for (circuit, workers) in circuits.iter_mut().zip([2, 3, 1]) {
                circuit.restart(&program, workers, seed ^ step as u64);
            }
        }
        if step % 10 == 9 {
            let answers = oracle.answers(&program, &[], &|t| contents(&program, t, &kept[t]), 0).unwrap();
            for (view, answer) in program.views.iter().zip(&answers) {
                for circuit in &circuits {
                    oracle::compare(&view.schema, circuit.view(&view.name), answer)
                        .unwrap_or_else(|e| panic!("seed {seed}, step {step}, {}: {e}\n{}", view.name, view.sql));
                }
            }
            let third = &mut most[(3 * step / STEPS) as usize];
            *third = (*third).max(circuits[0].state_rows());
        }
    }
    assert!(marks.late_rows() > 0, "nothing was late");
    most
}

fn is_there(program: &Program, table: usize, kept: &[Delta], deleted: &Delta) -> bool {
    let mut with = kept.to_vec();
    with.push(Delta { rows: deleted.rows.clone(), weights: vec![-1; deleted.len()] });
    let schema = &program.tables[table].schema;
    let codec = backstay::circuit::row::RowCodec::of_schema(schema).unwrap();
    let wanted = codec.encode(deleted.rows.columns(), deleted.len()).unwrap();
    let mut left = 0;
    for delta in &with {
        let rows = codec.encode(delta.rows.columns(), delta.len()).unwrap();
        left += (0..delta.len()).filter(|&i| rows.get(i) == wanted.get(0)).map(|i| delta.weights[i]).sum::<i64>();
    }
    left >= 0
}

#[test]
fn state_is_freed_and_answers_stand() {
    for seed in 0..3 {
        for view in FREED {
            let [_, middle, last] = check(&[view], seed);
            assert!(last <= middle + middle / 5 + 20, "seed {seed}: state grows from {middle} to {last} rows: {view}");
        }
    }
}

#[test]
fn state_that_old_rows_can_change_stays() {
    for seed in 0..3 {
        check(KEPT, seed);
    }
}

#[test]
fn shared_arrangements_are_freed_by_what_all_readers_allow() {
    let by_time = "SELECT t.id, u.id AS other, t.ts FROM t JOIN u ON t.ts = u.ts AND t.g = u.g";
    for views in [
        &[by_time, "SELECT t.id, u.v FROM t JOIN u ON t.ts = u.ts AND t.g = u.g"][..],
        &[by_time, "SELECT t.v, u.id FROM t LEFT JOIN u ON t.ts = u.ts AND t.g = u.g"],
        // The times of the one come later than those of the other.
        &[by_time, "SELECT a.id, b.v FROM t AS a JOIN t AS b ON a.ts = b.ts AND a.g = b.g"],
        &[
            "SELECT id, ts FROM t WHERE ts IN (SELECT ts FROM u)",
            "SELECT v, ts FROM t WHERE ts NOT IN (SELECT ts FROM u WHERE ts IS NOT NULL)",
        ],
    ] {
        let plan = program(views).plan;
        let is_shared = |n: &backstay::circuit::plan::Node| n.kind.name() == "arrange";
        assert!(plan.nodes.iter().any(is_shared), "{plan}");
        assert_eq!(backstay::circuit::growing_state(&plan), [], "{plan}");
        for seed in 0..3 {
            let [_, middle, last] = check(views, seed);
            assert!(
                last <= middle + middle / 5 + 20,
                "seed {seed}: state grows from {middle} to {last} rows: {views:?}"
            );
        }
    }
    // One of them never lets go.
    let views = [by_time, "SELECT t.id, n.v FROM t JOIN n ON t.ts = n.ts AND t.g = n.g"];
    assert!(!program(&views).plan.nodes.iter().any(|n| n.kind.name() == "arrange"));
    check(&views, 5);
}

#[test]
fn all_together() {
    let views: Vec<&str> = FREED.iter().chain(KEPT).copied().collect();
    check(&views, 11);
}
