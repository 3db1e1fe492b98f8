//! The 22 queries of TPC-H as views over its eight tables, while orders and line items come, change and go: at several points each view
//! is DataFusion's batch answer.
//!
//! Text and data are `tpchgen`'s, with parameters under which also little data gives rows. Orders and line items are upserted by their
//! keys, the other tables have none. ORDER BY is left out: a view is a set.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use backstay::circuit::Delta;
use backstay::sql::compile;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen::q_and_a::queries::query;

use super::circuit::Circuit;
use super::oracle::{self, Oracle};
use crate::rng::Rng;

const SCALE: f64 = 0.003;

const TABLES: &str = "
CREATE TABLE nation (n_nationkey BIGINT, n_name VARCHAR, n_regionkey BIGINT, n_comment VARCHAR);
CREATE TABLE region (r_regionkey BIGINT, r_name VARCHAR, r_comment VARCHAR);
CREATE TABLE part (p_partkey BIGINT, p_name VARCHAR, p_mfgr VARCHAR, p_brand VARCHAR, p_type VARCHAR, p_size INT, p_container VARCHAR,
    p_retailprice DECIMAL(15, 2), p_comment VARCHAR);
CREATE TABLE supplier (s_suppkey BIGINT, s_name VARCHAR, s_address VARCHAR, s_nationkey BIGINT, s_phone VARCHAR,
    s_acctbal DECIMAL(15, 2), s_comment VARCHAR);
CREATE TABLE partsupp (ps_partkey BIGINT, ps_suppkey BIGINT, ps_availqty INT, ps_supplycost DECIMAL(15, 2), ps_comment VARCHAR);
CREATE TABLE customer (c_custkey BIGINT, c_name VARCHAR, c_address VARCHAR, c_nationkey BIGINT, c_phone VARCHAR,
    c_acctbal DECIMAL(15, 2), c_mktsegment VARCHAR, c_comment VARCHAR);
CREATE TABLE orders (o_orderkey BIGINT PRIMARY KEY, o_custkey BIGINT, o_orderstatus VARCHAR, o_totalprice DECIMAL(15, 2), o_orderdate DATE,
    o_orderpriority VARCHAR, o_clerk VARCHAR, o_shippriority INT, o_comment VARCHAR);
CREATE TABLE lineitem (l_orderkey BIGINT, l_partkey BIGINT, l_suppkey BIGINT, l_linenumber INT, l_quantity DECIMAL(15, 2),
    l_extendedprice DECIMAL(15, 2), l_discount DECIMAL(15, 2), l_tax DECIMAL(15, 2), l_returnflag VARCHAR, l_linestatus VARCHAR,
    l_shipdate DATE, l_commitdate DATE, l_receiptdate DATE, l_shipinstruct VARCHAR, l_shipmode VARCHAR, l_comment VARCHAR,
    PRIMARY KEY (l_orderkey, l_linenumber));
";
const ORDERS: usize = 6;
const LINEITEM: usize = 7;

/// The parameters of each query, as in the specification's validation runs where those give rows.
const PARAMETERS: [&[&str]; 22] = [
    &["90"],
    &["15", "BRASS", "EUROPE"],
    &["BUILDING", "1995-03-15"],
    &["1993-07-01"],
    &["ASIA", "1994-01-01"],
    &["1994-01-01", "0.06", "24"],
    &["CHINA", "CANADA"],
    &["BRAZIL", "AMERICA", "ECONOMY ANODIZED STEEL"],
    &["green"],
    &["1993-10-01"],
    &["CHINA", "0.01"],
    &["MAIL", "SHIP", "1994-01-01"],
    &["special", "requests"],
    &["1995-09-01"],
    &["1996-01-01"],
    &["Brand#45", "MEDIUM POLISHED", "49", "14", "23", "45", "19", "3", "36", "9"],
    &["Brand#23", "MED BOX"],
    &["250"],
    &["Brand#12", "Brand#23", "Brand#34", "1", "10", "20"],
    &["forest", "1994-01-01", "CANADA"],
    &["VIETNAM"],
    &["13", "31", "23", "29", "30", "18", "17"],
];
/// Query `n`, 1 to 22, as views, of which the last one is called `q<n>`.
fn views(n: usize) -> String {
    let mut text = query(n as i32).unwrap().replace("' day (3)", "' day").replace("revenue:s", "revenue");
    for (i, value) in PARAMETERS[n - 1].iter().enumerate().rev() {
        text = text.replace(&format!(":{}", i + 1), value);
    }
    let mut sql = String::new();
    for statement in text.split(';').map(str::trim).filter(|s| !s.is_empty() && !s.starts_with("drop")) {
        let end = statement.rfind("\norder by").unwrap_or(statement.len());
        let view = if statement.starts_with("create view") { String::new() } else { format!("CREATE VIEW q{n} AS ") };
        sql.push_str(&format!("{view}{};\n", &statement[..end]));
    }
    sql
}

type Row = Vec<String>;

/// Rows as text, by their key in [`ORDERS`] and [`LINEITEM`], and else by number.
struct Table {
    schema: SchemaRef,
    key: Vec<usize>,
    rows: BTreeMap<Vec<String>, Row>,
}

impl Table {
    fn batch<'a>(&self, rows: impl Iterator<Item = &'a Row> + Clone) -> RecordBatch {
        let column = |(i, field): (usize, &arrow::datatypes::FieldRef)| {
            let text: ArrayRef = Arc::new(StringArray::from_iter_values(rows.clone().map(|row| row[i].as_str())));
            cast(&text, field.data_type()).unwrap()
        };
        let columns = self.schema.fields().iter().enumerate().map(column).collect();
        RecordBatch::try_new(self.schema.clone(), columns).unwrap()
    }

    fn change(&mut self, changes: &[(Row, i64)]) -> Vec<Delta> {
        for (row, weight) in changes {
            let key = match self.key.is_empty() {
                true => vec![self.rows.len().to_string()],
                false => self.key.iter().map(|&i| row[i].clone()).collect(),
            };
            if *weight > 0 {
                self.rows.insert(key, row.clone());
            } else {
                self.rows.remove(&key);
            }
        }
        let chunk = |changes: &[(Row, i64)]| {
            let rows = self.batch(changes.iter().map(|(row, _)| row));
            Delta { rows, weights: changes.iter().map(|(_, weight)| *weight).collect() }
        };
        changes.chunks(4096).map(chunk).collect()
    }
}

/// The rows of all tables in the order of [`TABLES`].
fn generated() -> [Vec<Row>; 8] {
    fn rows(lines: impl Iterator<Item = String>) -> Vec<Row> {
        lines.map(|line| line.trim_end_matches('|').split('|').map(str::to_owned).collect()).collect()
    }
    [
        rows(NationGenerator::new(SCALE, 1, 1).iter().map(|r| r.to_string())),
        rows(RegionGenerator::new(SCALE, 1, 1).iter().map(|r| r.to_string())),
        rows(PartGenerator::new(SCALE, 1, 1).iter().map(|r| r.to_string())),
        rows(SupplierGenerator::new(SCALE, 1, 1).iter().map(|r| r.to_string())),
        rows(PartSuppGenerator::new(SCALE, 1, 1).iter().map(|r| r.to_string())),
        rows(CustomerGenerator::new(SCALE, 1, 1).iter().map(|r| r.to_string())),
        rows(OrderGenerator::new(SCALE, 1, 1).iter().map(|r| r.to_string())),
        rows(LineItemGenerator::new(SCALE, 1, 1).iter().map(|r| r.to_string())),
    ]
}

/// What happens to orders and line items after the load: their rows, with weights, step by step. An order's number decides whether it is
/// late, goes again or changes.
fn changes(orders: &[Row], lines: &[Row], rng: &mut Rng) -> Vec<[Vec<(Row, i64)>; 2]> {
    let number = |row: &Row| row[0].parse::<u64>().unwrap();
    let of = |rows: &[Row], wanted: &dyn Fn(u64) -> bool, weight: i64| -> Vec<(Row, i64)> {
        rows.iter().filter(|row| wanted(number(row))).map(|row| (row.clone(), weight)).collect()
    };
    let mut changed_orders = of(orders, &|n| n % 7 == 3, 1);
    for (row, _) in &mut changed_orders {
        row[1] = (1 + rng.below(400)).to_string();
        row[2] = rng.one_of(&["F", "O", "P"]).to_owned();
        row[4] = orders[rng.below(orders.len() as u64) as usize][4].clone();
    }
    let mut changed_lines = of(lines, &|n| n % 5 == 2, 1);
    for (row, _) in &mut changed_lines {
        let other = &lines[rng.below(lines.len() as u64) as usize];
        for column in [4, 5, 6, 8, 10, 11, 12, 14] {
            row[column].clone_from(&other[column]);
        }
    }
    vec![
        [of(orders, &|n| n % 4 == 1, 1), of(lines, &|n| n % 4 == 1, 1)],
        [of(orders, &|n| n % 6 == 0, -1), of(lines, &|n| n % 6 == 0, -1)],
        [changed_orders, changed_lines],
        // Line items whose order is gone, and orders without any.
        [of(orders, &|n| n % 11 == 1, -1), of(lines, &|n| n % 11 == 2, -1)],
    ]
}

#[test]
fn tpch_under_changes() {
    let mut sql = TABLES.to_owned();
    for n in 1..=22 {
        sql.push_str(&views(n));
    }
    let program = compile(&sql, "tpch.sql").unwrap_or_else(|e| panic!("{e}"));
    let mut tables: Vec<Table> = program
        .tables
        .iter()
        .map(|t| Table { schema: t.schema.clone(), key: t.primary_key.clone(), rows: BTreeMap::new() })
        .collect();
    let data = generated();
    let late = |row: &Row| row[0].parse::<u64>().unwrap() % 4 == 1;
    let load = data.iter().enumerate().map(|(table, rows)| {
        let rows = rows.iter().filter(|row| table < ORDERS || !late(row));
        rows.map(|row| (row.clone(), 1)).collect::<Vec<_>>()
    });
    let mut steps: Vec<Vec<Vec<(Row, i64)>>> = vec![load.collect()];
    for [orders, lines] in changes(&data[ORDERS], &data[LINEITEM], &mut Rng::new(1)) {
        let mut step = vec![Vec::new(); data.len()];
        (step[ORDERS], step[LINEITEM]) = (orders, lines);
        steps.push(step);
    }

    let oracle = Oracle::new();
    let mut circuits = [1, 2].map(|workers| Circuit::start(&program, workers, 1));
    let mut most_rows = BTreeMap::new();
    for (i, step) in steps.iter().enumerate() {
        let step = tables.iter_mut().zip(step).map(|(table, changes)| table.change(changes)).collect();
        for circuit in &mut circuits {
            circuit.step(0, &step).unwrap();
        }
        let answers =
            oracle.answers(&program, &[], &|table| tables[table].batch(tables[table].rows.values()), 0).unwrap();
        for (view, answer) in program.views.iter().zip(&answers) {
            let rows = most_rows.entry(view.name.as_str()).or_insert(0);
            *rows = (*rows).max(answer.num_rows());
            for circuit in &circuits {
                let workers = circuit.workers;
                oracle::compare(&view.schema, circuit.view(&view.name), answer)
                    .unwrap_or_else(|e| panic!("{}, {workers} worker(s), after step {i}: {e}", view.name));
            }
        }
    }
    println!("most rows of each view: {most_rows:?}");
    let empty: Vec<_> = most_rows.iter().filter(|(_, rows)| **rows == 0).collect();
    assert!(empty.is_empty(), "nothing is tested by {empty:?}");
}
