//! Circuits of all operators against a batch model that computes every view anew after each step.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;

use arrow::array::{Array, ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use backstay_storage::spine::Spine;
use datafusion_common::ScalarValue;
use datafusion_expr::{ColumnarValue, Operator as Op};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{binary, col, lit};

use super::*;
use crate::circuit::plan::{Aggregate, AggregateFunction, Node, NodeKind, Stage, TableNode, ViewNode};
use crate::circuit::step::OnEvalError;

/// A joined row's values and weight.
type Joined = (Option<i64>, Option<f64>, Option<i128>, i64);

type Expr = Arc<dyn PhysicalExpr>;
/// A relation of the model: rows as text, with weights.
type Relation = BTreeMap<Vec<String>, i64>;

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>()))
}

fn node(kind: NodeKind, inputs: &[usize], schema: &SchemaRef, label: &str) -> Node {
    Node { kind, inputs: inputs.to_vec(), schema: schema.clone(), label: label.to_owned() }
}

fn aggregate(function: AggregateFunction, argument: Option<usize>, result: DataType) -> Aggregate {
    let arguments = argument.into_iter().collect();
    let order_by = Vec::new();
    Aggregate {
        function,
        arguments,
        distinct: false,
        filter: None,
        order_by,
        ignore_nulls: false,
        parameter: None,
        result,
    }
}

fn start(plan: &CircuitPlan, workers: usize, threads: bool, on_eval_error: OnEvalError) -> Result<Runtime> {
    let options = RuntimeOptions { workers, on_eval_error, ..RuntimeOptions::default() };
    let mut open = |_: usize, _: &str, discipline| Ok(Spine::ephemeral(discipline));
    let plan = Arc::new(plan.clone());
    if threads {
        return Runtime::start(plan, options, &mut open);
    }
    // Neither the order of workers nor that of messages matters: another one for each number of workers.
    let mut picked = workers as u64;
    let order = move |n: usize| {
        picked = picked.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (picked >> 33) as usize % n
    };
    Runtime::start_inline(plan, options, &mut open, Box::new(order))
}

const DECIMAL: DataType = DataType::Decimal128(10, 2);

/// Two tables; views over every operator.
fn everything() -> CircuitPlan {
    use AggregateFunction::{Avg, Count, Max, Min, Sum};
    let keyed =
        schema(&[("k", DataType::Int64), ("g", DataType::Utf8), ("x", DataType::Int64), ("f", DataType::Float64)]);
    let plain = schema(&[("h", DataType::Utf8), ("d", DECIMAL)]);
    let projected = schema(&[("g", DataType::Utf8), ("y", DataType::Int64), ("f", DataType::Float64)]);
    let joined = schema(&[
        ("g", DataType::Utf8),
        ("y", DataType::Int64),
        ("f", DataType::Float64),
        ("h", DataType::Utf8),
        ("d", DECIMAL),
    ]);
    let groups = schema(&[
        ("g", DataType::Utf8),
        ("n", DataType::Int64),
        ("ny", DataType::Int64),
        ("sy", DataType::Int64),
        ("sf", DataType::Float64),
        ("af", DataType::Float64),
        ("sd", DataType::Decimal128(20, 2)),
        ("ad", DataType::Decimal128(14, 6)),
        ("min_y", DataType::Int64),
        ("max_f", DataType::Float64),
    ]);
    let total = schema(&[("n", DataType::Int64), ("sd", DataType::Decimal128(20, 2)), ("max_h", DataType::Utf8)]);
    let one = schema(&[("g", DataType::Utf8)]);
    let pairs = schema(&[("g", DataType::Utf8), ("h", DataType::Utf8), ("d", DECIMAL)]);
    let (x, keyed_f) = (col("x", &keyed).unwrap(), col("f", &keyed).unwrap());
    let filter = binary(x.clone(), Op::NotEq, lit(3i64), &keyed).unwrap();
    let y = binary(x, Op::Plus, lit(1i64), &keyed).unwrap();
    let group_aggregates = vec![
        aggregate(Count, None, DataType::Int64),
        aggregate(Count, Some(1), DataType::Int64),
        aggregate(Sum, Some(1), DataType::Int64),
        aggregate(Sum, Some(2), DataType::Float64),
        aggregate(Avg, Some(2), DataType::Float64),
        aggregate(Sum, Some(4), DataType::Decimal128(20, 2)),
        aggregate(Avg, Some(4), DataType::Decimal128(14, 6)),
        aggregate(Min, Some(1), DataType::Int64),
        aggregate(Max, Some(2), DataType::Float64),
    ];
    let total_aggregates = vec![
        aggregate(Count, None, DataType::Int64),
        aggregate(Sum, Some(1), DataType::Decimal128(20, 2)),
        aggregate(Max, Some(0), DataType::Utf8),
    ];
    let project = |exprs: Vec<Expr>, schema: &SchemaRef| Stage::Project { exprs, schema: schema.clone() };
    let linear = vec![Stage::Filter(filter), project(vec![col("g", &keyed).unwrap(), y, keyed_f], &projected)];
    let only_h = vec![project(vec![col("h", &plain).unwrap()], &one)];
    let join = |left: usize, right: usize, null_equals_null, filter| NodeKind::Join {
        left_keys: vec![left],
        right_keys: vec![right],
        null_equals_null,
        filter,
    };
    let join_filter =
        binary(col("d", &joined).unwrap(), Op::Lt, lit(ScalarValue::Decimal128(Some(700), 10, 2)), &joined);
    let nodes = vec![
        node(NodeKind::Table { primary_key: vec![0] }, &[], &keyed, "keyed"),
        node(NodeKind::Table { primary_key: vec![] }, &[], &plain, "plain"),
        node(NodeKind::Linear(linear), &[0], &projected, "chain"),
        node(join(0, 0, false, Some(join_filter.unwrap())), &[2, 1], &joined, "join"),
        node(NodeKind::Aggregate { group: vec![0], aggregates: group_aggregates }, &[3], &groups, "groups"),
        node(NodeKind::Aggregate { group: vec![], aggregates: total_aggregates }, &[1], &total, "total"),
        node(NodeKind::Aggregate { group: vec![1], aggregates: vec![] }, &[0], &one, "distinct"),
        node(NodeKind::Linear(only_h), &[1], &one, "only h"),
        node(NodeKind::Union, &[6, 7], &one, "union"),
        node(join(0, 0, true, None), &[6, 1], &pairs, "null join"),
    ];
    let table = |name: &str, node| TableNode::new(name, node);
    let views = (0..nodes.len()).map(|node| ViewNode { name: nodes[node].label.clone(), node }).collect();
    CircuitPlan { nodes, tables: vec![table("keyed", 0), table("plain", 1)], views }
}

#[derive(Clone, Debug, PartialEq)]
struct Keyed {
    k: i64,
    g: Option<String>,
    x: Option<i64>,
    f: Option<f64>,
}

type Plain = (Option<String>, Option<i128>);

fn show(array: &dyn Array) -> String {
    if array.is_null(0) { "NULL".to_owned() } else { array_value_to_string(array, 0).unwrap() }
}
fn text(v: &Option<String>) -> String {
    show(&StringArray::from(vec![v.clone()]))
}
fn int(v: Option<i64>) -> String {
    show(&Int64Array::from(vec![v]))
}
fn float(v: Option<f64>) -> String {
    show(&Float64Array::from(vec![v.map(|v| v + 0.0)]))
}
fn decimal(v: Option<i128>, scale: i8) -> String {
    show(&Decimal128Array::from(vec![v]).with_precision_and_scale(38, scale).unwrap())
}

/// The tables' contents.
#[derive(Default)]
struct Model {
    keyed: BTreeMap<i64, Keyed>,
    plain: BTreeMap<Plain, i64>,
}

fn add(relation: &mut Relation, row: Vec<String>, weight: i64) {
    *relation.entry(row).or_default() += weight;
}

/// The value that a min (or max, by `better`) picks among values with weights.
fn extremum<T: Clone>(
    values: &[(T, i64)],
    same: impl Fn(&T, &T) -> bool,
    better: impl Fn(&T, &T) -> bool,
) -> Option<T> {
    let present = |v: &T| values.iter().filter(|(o, _)| same(o, v)).map(|(_, w)| w).sum::<i64>() > 0;
    let mut best: Option<T> = None;
    for (value, _) in values.iter().filter(|(v, _)| present(v)) {
        if best.as_ref().is_none_or(|b| better(value, b)) {
            best = Some(value.clone());
        }
    }
    best
}

impl Model {
    /// All views, in the order of the plan's nodes.
    fn views(&self) -> Vec<Relation> {
        let mut views = vec![Relation::new(); 10];
        let mut joined: BTreeMap<String, Vec<Joined>> = BTreeMap::new();
        for Keyed { k, g, x, f } in self.keyed.values() {
            add(&mut views[0], vec![k.to_string(), text(g), int(*x), float(*f)], 1);
            views[6].insert(vec![text(g)], 1);
            let Some(y) = x.filter(|x| *x != 3).map(|x| x + 1) else { continue };
            add(&mut views[2], vec![text(g), int(Some(y)), float(*f)], 1);
            for ((h, d), weight) in &self.plain {
                if g.is_some() && g == h && d.is_some_and(|d| d < 700) {
                    let row = vec![text(g), int(Some(y)), float(*f), text(h), decimal(*d, 2)];
                    add(&mut views[3], row, *weight);
                    joined.entry(text(g)).or_default().push((Some(y), *f, *d, *weight));
                }
            }
        }
        for (g, rows) in joined {
            let n: i64 = rows.iter().map(|r| r.3).sum();
            if n != 0 {
                views[4].insert(Self::group(g, n, &rows), 1);
            }
        }
        let n: i64 = self.plain.values().sum();
        let counted: i64 = self.plain.iter().filter(|((_, d), _)| d.is_some()).map(|(_, w)| w).sum();
        let sum: i128 = self.plain.iter().map(|((_, d), w)| d.unwrap_or(0) * i128::from(*w)).sum();
        let texts: Vec<(String, i64)> = self.plain.iter().filter_map(|((h, _), w)| Some((h.clone()?, *w))).collect();
        let max_h = extremum(&texts, |a, b| a == b, |a, b| a > b);
        views[5].insert(vec![n.to_string(), decimal((counted != 0).then_some(sum), 2), text(&max_h)], 1);
        for ((h, d), weight) in &self.plain {
            add(&mut views[1], vec![text(h), decimal(*d, 2)], *weight);
            add(&mut views[7], vec![text(h)], *weight);
            if views[6].contains_key(&vec![text(h)]) {
                add(&mut views[9], vec![text(h), text(h), decimal(*d, 2)], *weight);
            }
        }
        views[8] = views[7].clone();
        for row in views[6].keys().cloned().collect::<Vec<_>>() {
            add(&mut views[8], row, 1);
        }
        views.iter_mut().for_each(|v| v.retain(|_, w| *w != 0));
        views
    }

    fn group(g: String, n: i64, rows: &[Joined]) -> Vec<String> {
        let ys: Vec<(i64, i64)> = rows.iter().filter_map(|r| Some((r.0?, r.3))).collect();
        let fs: Vec<(f64, i64)> = rows.iter().filter_map(|r| Some((r.1?, r.3))).collect();
        let ds: Vec<(i128, i64)> = rows.iter().filter_map(|r| Some((r.2?, r.3))).collect();
        let (ny, nf, nd) = (
            ys.iter().map(|v| v.1).sum::<i64>(),
            fs.iter().map(|v| v.1).sum::<i64>(),
            ds.iter().map(|v| v.1).sum::<i64>(),
        );
        let sum_y = ys.iter().map(|(v, w)| v * w).sum::<i64>();
        let sum_d = ds.iter().map(|(v, w)| v * i128::from(*w)).sum::<i128>();
        // The finite values are multiples of 1/4 and small: their sum is exact.
        let weight_of = |test: fn(f64) -> bool| fs.iter().filter(|v| test(v.0)).map(|v| v.1).sum::<i64>() != 0;
        let specials =
            (weight_of(f64::is_nan), weight_of(|v| v == f64::INFINITY), weight_of(|v| v == f64::NEG_INFINITY));
        let sum_f = match specials {
            (true, _, _) | (_, true, true) => f64::NAN,
            (_, true, _) => f64::INFINITY,
            (_, _, true) => f64::NEG_INFINITY,
            _ => fs.iter().filter(|v| v.0.is_finite()).map(|(v, w)| v * *w as f64).sum(),
        };
        let same = |a: &f64, b: &f64| a == b || a.is_nan() && b.is_nan();
        let max_f = extremum(&fs, same, |a, b| a.is_nan() || !b.is_nan() && a > b);
        vec![
            g,
            n.to_string(),
            ny.to_string(),
            int((ny != 0).then_some(sum_y)),
            float((nf != 0).then_some(sum_f)),
            float((nf != 0).then(|| sum_f / nf as f64)),
            decimal((nd != 0).then_some(sum_d), 2),
            decimal((nd != 0).then(|| sum_d * 10_000 / i128::from(nd)), 6),
            int(extremum(&ys, |a, b| a == b, |a, b| a < b)),
            float(max_f),
        ]
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }
    fn text(&mut self) -> Option<String> {
        (self.below(6) > 0).then(|| ["a", "b", "bb", "c", "d"][self.below(5) as usize].to_owned())
    }
    fn float(&mut self) -> Option<f64> {
        match self.below(24) {
            0 => None,
            1 => Some(f64::NAN),
            2 => Some(f64::INFINITY),
            3 => Some(f64::NEG_INFINITY),
            4 => Some(-0.0),
            n => Some(n as f64 * 0.25 - 3.0),
        }
    }
}

fn keyed_rows(rows: &[(Keyed, i64)]) -> Delta {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0.k))),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.0.g.clone()))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.0.x))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.0.f))),
    ];
    Delta::new(&everything().nodes[0].schema, columns, rows.iter().map(|r| r.1).collect()).unwrap()
}

fn plain_rows(rows: &[(Plain, i64)]) -> Delta {
    let decimals = Decimal128Array::from_iter(rows.iter().map(|r| r.0.1)).with_precision_and_scale(10, 2).unwrap();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from_iter(rows.iter().map(|r| r.0.0.clone()))), Arc::new(decimals)];
    Delta::new(&everything().nodes[1].schema, columns, rows.iter().map(|r| r.1).collect()).unwrap()
}

/// The next step's input, applied to the model.
fn random_step(random: &mut Random, model: &mut Model, step: u64) -> StepInput {
    let mut tables = vec![Vec::new(), Vec::new()];
    for _ in 0..random.below(4) {
        let mut rows = Vec::new();
        for _ in 0..random.below(if step == 12 { 3000 } else { 20 }) {
            let k = random.below(40) as i64;
            let x = (random.below(8) > 0).then(|| random.below(20) as i64 - 5);
            let row = Keyed { k, g: random.text(), x, f: random.float() };
            let weight = if random.below(3) == 0 { -1 } else { 1 };
            if weight > 0 {
                model.keyed.insert(k, row.clone());
            } else {
                model.keyed.remove(&k);
            }
            rows.push((row, weight));
        }
        tables[0].push(keyed_rows(&rows));
    }
    for _ in 0..random.below(4) {
        let mut rows = Vec::new();
        for _ in 0..random.below(15) {
            let present: Vec<Plain> = model.plain.keys().cloned().collect();
            let (row, weight) = match random.below(4) {
                0 if !present.is_empty() => (present[random.below(present.len() as u64) as usize].clone(), -1),
                n => {
                    let d = (random.below(5) > 0).then(|| i128::from(random.below(1000)) - 100);
                    ((random.text(), d), if n == 1 { random.below(7) as i64 - 3 } else { 1 })
                }
            };
            let sum = model.plain.entry(row.clone()).or_default();
            *sum += weight;
            if *sum == 0 {
                model.plain.remove(&row);
            }
            rows.push((row, weight));
        }
        tables[1].push(plain_rows(&rows));
    }
    StepInput { step, clock_ms: 0, tables, ..StepInput::default() }
}

fn relation(delta: &Delta) -> Relation {
    let mut relation = Relation::new();
    for i in 0..delta.len() {
        let row: Vec<String> = delta.rows.columns().iter().map(|c| show(c.slice(i, 1).as_ref())).collect();
        assert!(relation.insert(row, delta.weights[i]).is_none(), "a row stands twice in a consolidated delta");
    }
    relation
}

fn difference(new: &Relation, old: &Relation) -> Relation {
    let mut difference = new.clone();
    old.iter().for_each(|(row, weight)| add(&mut difference, row.clone(), -weight));
    difference.retain(|_, weight| *weight != 0);
    difference
}

#[test]
fn every_operator_follows_its_batch_model_whatever_the_workers() {
    let plan = everything();
    let seeds = std::env::var("BACKSTAY_SEED").ok().and_then(|s| s.parse().ok()).map_or(0..4, |s: u64| s..s + 1);
    for seed in seeds {
        let kinds = [(1, true), (2, true), (3, true), (1, false), (2, false), (3, false), (16, false)];
        let mut runtimes: Vec<Runtime> =
            kinds.iter().map(|&(n, threads)| start(&plan, n, threads, OnEvalError::Stop).unwrap()).collect();
        let (mut random, mut model) = (Random(seed), Model::default());
        let mut before = vec![Relation::new(); plan.views.len()];
        // The first step has a number of its own, as after a restart; one step has no input at all.
        for step in 7..32 {
            let input = match step {
                7 => StepInput { step, clock_ms: 0, tables: vec![Vec::new(), Vec::new()], ..StepInput::default() },
                _ => random_step(&mut random, &mut model, step),
            };
            let after = model.views();
            let outputs: Vec<StepOutput> = runtimes
                .iter_mut()
                .map(|runtime| {
                    runtime.submit(input.clone()).unwrap();
                    runtime.complete().unwrap()
                })
                .collect();
            for (view, (after, before)) in after.iter().zip(&before).enumerate() {
                let name = &plan.views[view].name;
                let expected = difference(after, before);
                assert_eq!(relation(&outputs[0].views[view]), expected, "seed {seed}, step {step}, view {name}");
                for (output, kind) in outputs.iter().zip(kinds) {
                    let place = format!("seed {seed}, step {step}, view {name}, (workers, threads) = {kind:?}");
                    assert_eq!(output.views[view].rows, outputs[0].views[view].rows, "{place}");
                    assert_eq!(output.views[view].weights, outputs[0].views[view].weights, "{place}");
                    assert_eq!(output.view_hashes[view], outputs[0].view_hashes[view], "{place}");
                    assert_eq!(output.view_hashes[view].rows, expected.len() as u64, "{place}");
                }
            }
            before = after;
        }
    }
}

#[test]
fn steps_may_be_submitted_ahead() {
    let plan = everything();
    let mut runtime = start(&plan, 2, true, OnEvalError::Stop).unwrap();
    let mut ahead = start(&plan, 2, true, OnEvalError::Stop).unwrap();
    let (mut random, mut model) = (Random(1), Model::default());
    let inputs: Vec<StepInput> = (1..9).map(|step| random_step(&mut random, &mut model, step)).collect();
    inputs.iter().for_each(|input| ahead.submit(input.clone()).unwrap());
    assert!(matches!(ahead.freeze(), Err(CircuitError::Stopped(_))), "a step is under way");
    for input in inputs {
        let step = input.step;
        runtime.submit(input).unwrap();
        let (one, other) = (runtime.complete().unwrap(), ahead.complete().unwrap());
        assert_eq!((one.step, &one.view_hashes), (step, &other.view_hashes));
        assert_eq!(one.step, other.step);
    }
    assert!(
        runtime
            .submit(StepInput { step: 3, clock_ms: 0, tables: vec![vec![], vec![]], ..StepInput::default() })
            .is_err(),
        "steps ascend"
    );
    assert!(runtime.complete().is_err(), "nothing was submitted");
}

/// `100 / x` over a table without a key.
fn division() -> CircuitPlan {
    let numbers = schema(&[("x", DataType::Int64)]);
    let quotient = binary(lit(100i64), Op::Divide, col("x", &numbers).unwrap(), &numbers).unwrap();
    unary(numbers, quotient)
}

fn unary(input: SchemaRef, expr: Expr) -> CircuitPlan {
    let output = schema(&[("q", DataType::Int64)]);
    let stage = Stage::Project { exprs: vec![expr], schema: output.clone() };
    let nodes = vec![
        node(NodeKind::Table { primary_key: vec![] }, &[], &input, "numbers"),
        node(NodeKind::Linear(vec![stage]), &[0], &output, "quotients: projection"),
    ];
    let tables = vec![TableNode::new("numbers", 0)];
    CircuitPlan { nodes, tables, views: vec![ViewNode { name: "quotients".to_owned(), node: 1 }] }
}

fn numbers(step: u64, values: &[i64]) -> StepInput {
    let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    let rows = RecordBatch::try_new(schema(&[("x", DataType::Int64)]), vec![column]).unwrap();
    StepInput { step, clock_ms: 0, tables: vec![vec![Delta::inserts(rows)]], ..StepInput::default() }
}

#[test]
fn rows_that_an_expression_fails_on_are_skipped_and_counted() {
    let values: Vec<i64> = (0..5000).map(|i| i % 500).collect();
    for workers in 1..=3 {
        let mut runtime = start(&division(), workers, true, OnEvalError::Skip).unwrap();
        runtime.submit(numbers(1, &values)).unwrap();
        let output = runtime.complete().unwrap();
        let rows: i64 = output.views[0].weights.iter().sum();
        assert_eq!(rows, 4990, "{workers} workers: the good rows are all there");
        let [error] = output.eval_errors.as_slice() else { panic!("{:?}", output.eval_errors) };
        assert_eq!((error.rows, error.row.as_str()), (10, "x: 0"));
        assert_eq!((error.label.as_str(), error.expression.as_str()), ("quotients: projection", "100 / x@0"));
        runtime.submit(numbers(2, &[4])).unwrap();
        let output = runtime.complete().unwrap();
        assert_eq!(relation(&output.views[0]), Relation::from([(vec!["25".to_owned()], 1)]));
        assert!(output.eval_errors.is_empty(), "errors are counted by step");
    }
}

#[test]
fn an_error_of_one_worker_stops_the_runtime_with_its_message() {
    for (workers, threads) in [(1, true), (3, true), (3, false)] {
        let mut runtime = start(&division(), workers, threads, OnEvalError::Stop).unwrap();
        runtime.submit(numbers(1, &[5, 0, 7])).unwrap();
        let error = runtime.complete().unwrap_err().to_string();
        for part in ["quotients: projection", "100 / x@0", "(x: 0)", "ivide by zero"] {
            assert!(error.contains(part), "{part:?} is missing in: {error}");
        }
        assert!(matches!(runtime.submit(numbers(2, &[1])), Err(CircuitError::Stopped(_))));
        assert!(matches!(runtime.complete(), Err(CircuitError::Stopped(_))));
        assert!(matches!(runtime.freeze(), Err(CircuitError::Stopped(_))));
    }
}

/// Panics on a row with the value 13.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Unlucky;

impl fmt::Display for Unlucky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unlucky")
    }
}

impl PhysicalExpr for Unlucky {
    fn data_type(&self, _: &Schema) -> datafusion_common::Result<DataType> {
        Ok(DataType::Int64)
    }
    fn nullable(&self, _: &Schema) -> datafusion_common::Result<bool> {
        Ok(true)
    }
    fn evaluate(&self, batch: &RecordBatch) -> datafusion_common::Result<ColumnarValue> {
        let column = batch.column(0);
        assert!((0..column.len()).all(|i| show(column.slice(i, 1).as_ref()) != "13"), "the row with 13");
        Ok(ColumnarValue::Array(column.clone()))
    }
    fn children(&self) -> Vec<&Expr> {
        Vec::new()
    }
    fn with_new_children(self: Arc<Self>, _: Vec<Expr>) -> datafusion_common::Result<Expr> {
        Ok(self)
    }
    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unlucky")
    }
}

#[test]
fn a_worker_that_panics_leaves_nobody_waiting() {
    for workers in 1..=3 {
        let plan = unary(schema(&[("x", DataType::Int64)]), Arc::new(Unlucky));
        let mut runtime = start(&plan, workers, true, OnEvalError::Stop).unwrap();
        runtime.submit(numbers(1, &[1])).unwrap();
        runtime.complete().unwrap();
        runtime.submit(numbers(2, &[13])).unwrap();
        assert!(matches!(runtime.complete(), Err(CircuitError::WorkerLost { worker: 0 })), "{workers} workers");
        assert!(matches!(runtime.complete(), Err(CircuitError::Stopped(_))));
        drop(runtime);
    }
}

#[test]
fn spines_are_opened_by_name_and_frozen_in_that_order() {
    let mut names = Vec::new();
    let mut open = |worker: usize, name: &str, discipline| {
        names.push(format!("{worker} {name} {discipline:?}"));
        Ok(Spine::ephemeral(discipline))
    };
    let options = RuntimeOptions { workers: 2, ..RuntimeOptions::default() };
    let mut runtime = Runtime::start(Arc::new(everything()), options, &mut open).unwrap();
    runtime.submit(StepInput { step: 1, clock_ms: 0, tables: vec![vec![], vec![]], ..StepInput::default() }).unwrap();
    runtime.complete().unwrap();
    assert_eq!(runtime.freeze().unwrap().len(), names.len());
    let first: Vec<&str> = names.iter().filter(|n| n.starts_with('0')).map(String::as_str).collect();
    let expected = [
        "0 0.rows#0 Latest",
        "0 3.left#0 Weighted",
        "0 3.right#0 Weighted",
        "0 4.groups#0 Latest",
        "0 4.values7#0 Weighted",
        "0 4.values8#0 Weighted",
        "0 5.groups#0 Latest",
        "0 5.values2#0 Weighted",
        "0 6.groups#0 Latest",
        "0 9.left#0 Weighted",
        "0 9.right#0 Weighted",
    ];
    assert_eq!(first, expected);
}

#[test]
fn impossible_worker_counts_are_refused() {
    for workers in [0, 257] {
        assert!(start(&division(), workers, true, OnEvalError::Stop).is_err(), "{workers} workers");
    }
}
