use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::circuit::plan::{Grain, NodeKind};
use crate::circuit::step::OnEvalError;

fn bound(column: usize, edge: Edge, is_inclusive: bool) -> TimeBound {
    TimeBound { column, offset_us: 0, edge, is_inclusive, grain: Grain::Millisecond }
}

/// Rows of an id and two times.
fn node(bounds: &[TimeBound]) -> Node {
    let time = || Field::new("t", TimeBound::TYPE, true);
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true), time(), time()]));
    Node { kind: NodeKind::Temporal { bounds: bounds.to_vec() }, inputs: vec![0], schema, label: "v".to_owned() }
}

type Row = (i64, Option<i64>, Option<i64>, i64);

fn delta(node: &Node, rows: &[Row]) -> Delta {
    let time = |of: fn(&Row) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<TimestampMicrosecondArray>())
    };
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
    let rows_of = RecordBatch::try_new(node.schema.clone(), vec![ids, time(|r| r.1), time(|r| r.2)]).unwrap();
    Delta { rows: rows_of, weights: rows.iter().map(|r| r.3).collect() }
}

/// The ids that a step changes, with their weights.
fn step(operator: &mut Temporal, clock_ms: i64, rows: &[Row]) -> BTreeMap<i64, i64> {
    let mut context = StepContext::new(1, clock_ms, OnEvalError::Stop, Default::default());
    let node = node(&operator.bounds);
    let mut ids = BTreeMap::new();
    for out in operator.step(&mut context, vec![vec![delta(&node, rows)]]).unwrap() {
        let column = out.rows.column(0).as_primitive::<arrow::datatypes::Int64Type>();
        column.values().iter().zip(&out.weights).for_each(|(id, w)| *ids.entry(*id).or_insert(0) += w);
    }
    ids.retain(|_, weight| *weight != 0);
    ids
}

fn operator(bounds: &[TimeBound]) -> Temporal {
    Temporal::new(&node(bounds), bounds, &mut |_, discipline| Ok(Spine::ephemeral(discipline))).unwrap()
}

#[test]
fn rows_enter_and_leave_by_the_clock() {
    let mut operator = operator(&[bound(1, Edge::Enter, true), bound(2, Edge::Leave, false)]);
    let rows = [
        (1, Some(5_000), Some(9_000), 1),
        (2, Some(0), Some(7_000), 2),
        // It is over, it never begins, it has no beginning.
        (3, Some(0), Some(3_000), 1),
        (4, Some(8_000), Some(8_000), 1),
        (5, None, Some(9_000), 1),
    ];
    assert_eq!(step(&mut operator, 3, &rows), BTreeMap::from([(2, 2)]));
    assert_eq!(operator.next_due(), Some(5));
    assert_eq!(step(&mut operator, 4, &[]), BTreeMap::new());
    assert_eq!(step(&mut operator, 5, &[]), BTreeMap::from([(1, 1)]));
    // A row that goes before its end takes that with it.
    assert_eq!(step(&mut operator, 6, &[(2, Some(0), Some(7_000), -1)]), BTreeMap::from([(2, -1)]));
    assert_eq!(step(&mut operator, 20, &[]), BTreeMap::from([(1, -1), (2, -1)]));
    assert_eq!(operator.next_due(), None);
    assert!(!operator.waiting.cursor().unwrap().valid(), "nothing is kept of rows that are over");
}

#[test]
fn a_stay_that_passes_between_two_steps_is_not_seen() {
    let mut operator = operator(&[bound(1, Edge::Enter, true), bound(2, Edge::Leave, true)]);
    assert_eq!(
        step(&mut operator, 0, &[(1, Some(5_000), Some(6_000), 1), (2, Some(5_000), Some(90_000), 1)]),
        BTreeMap::new()
    );
    assert_eq!(step(&mut operator, 50, &[]), BTreeMap::from([(2, 1)]));
}

#[test]
fn what_waits_is_found_again_in_the_spine() {
    let bounds = [bound(1, Edge::Enter, false)];
    let mut first = operator(&bounds);
    step(&mut first, 0, &[(1, Some(5_000), None, 1), (2, Some(-8_000), None, 1), (3, Some(2_999), None, 1)]);
    let spine = std::mem::replace(&mut first.waiting, Spine::ephemeral(Discipline::Weighted));
    let mut spine = Some(spine);
    let mut second = Temporal::new(&node(&bounds), &bounds, &mut |_, _| Ok(spine.take().unwrap())).unwrap();
    assert_eq!(second.next_due(), Some(3));
    assert_eq!(step(&mut second, 6, &[]), BTreeMap::from([(1, 1), (3, 1)]));
}

#[test]
fn the_first_clock_of_a_bound() {
    let clock =
        |edge, is_inclusive, grain, time| TimeBound { column: 0, offset_us: 0, edge, is_inclusive, grain }.clock(time);
    for time in [-2_001, -2_000, -1_999, -1, 0, 1, 999, 1_000, 1_001] {
        for (edge, is_inclusive) in
            [(Edge::Enter, true), (Edge::Enter, false), (Edge::Leave, true), (Edge::Leave, false)]
        {
            let first = clock(edge, is_inclusive, Grain::Millisecond, time);
            for ms in -5..5 {
                let holds = match (edge, is_inclusive) {
                    (Edge::Enter, true) => time <= ms * 1000,
                    (Edge::Enter, false) => time < ms * 1000,
                    (Edge::Leave, true) => time >= ms * 1000,
                    (Edge::Leave, false) => time > ms * 1000,
                };
                assert_eq!(holds, (ms >= first) == (edge == Edge::Enter), "{edge:?} {is_inclusive} {time} {ms}");
            }
        }
    }
    let day = 86_400_000;
    assert_eq!(clock(Edge::Enter, true, Grain::Day, 1), day, "the first day that begins after it");
    assert_eq!(clock(Edge::Leave, true, Grain::Day, day * 1000), 2 * day, "while it is not after that day");
}
