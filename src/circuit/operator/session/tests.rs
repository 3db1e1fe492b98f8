use arrow::array::Int64Array;
use arrow::datatypes::{Field, Int64Type, Schema};
use backstay_storage::spine::Spine;

use super::*;
use crate::circuit::plan::NodeKind;
use crate::circuit::step::OnEvalError;

fn fields(names: &[&str]) -> Vec<Field> {
    let data_type = |name: &str| if name == "p" { DataType::Int64 } else { Session::TIME };
    names.iter().map(|n| Field::new(*n, data_type(n), true)).collect()
}

fn sessions(gap_us: i64) -> SessionOperator {
    let session = Session { partition: vec![0], time: 1, gap_us };
    let schema = Arc::new(Schema::new(fields(&["p", "ts", "window_start", "window_end"])));
    let kind = NodeKind::Session(session.clone());
    let node = Node { kind, inputs: vec![0], schema, label: "session".to_owned() };
    let input = Arc::new(Schema::new(fields(&["p", "ts"])));
    SessionOperator::new(&node, &input, &session, &mut |_, discipline| Ok(Spine::ephemeral(discipline))).unwrap()
}

/// The output of a step, sorted: partition, time, start, end, weight.
fn step(operator: &mut SessionOperator, rows: &[(i64, i64, i64)]) -> Vec<(i64, i64, i64, i64, i64)> {
    let schema = Arc::new(Schema::new(fields(&["p", "ts"])));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1))),
    ];
    let delta = Delta::new(&schema, columns, rows.iter().map(|r| r.2).collect()).unwrap();
    let mut context = StepContext::new(1, 0, OnEvalError::Stop, Default::default());
    let mut out = Vec::new();
    for delta in operator.step(&mut context, vec![vec![delta]]).unwrap() {
        let p = delta.rows.column(0).as_primitive::<Int64Type>();
        let time =
            |column: usize, i: usize| delta.rows.column(column).as_primitive::<TimestampMicrosecondType>().value(i);
        for (i, &weight) in delta.weights.iter().enumerate() {
            out.push((p.value(i), time(1, i), time(2, i), time(3, i), weight));
        }
    }
    out.sort_unstable();
    out
}

#[test]
fn times_are_encoded_as_the_row_format_does() {
    let times = [i64::MIN, -1, 0, 1, 1_700_000_000_000_000, i64::MAX];
    let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.to_vec()));
    let rows = RowCodec::new(&[Session::TIME]).unwrap().encode(&[column], times.len()).unwrap();
    for (i, &time) in times.iter().enumerate() {
        assert_eq!(rows.get(i), encoded(time));
        assert_eq!(time_of(&encoded(time)), time);
    }
}

#[test]
fn a_row_between_two_sessions_joins_them_and_parts_them_as_it_goes() {
    let mut s = sessions(10);
    assert_eq!(
        step(&mut s, &[(1, 0, 1), (1, 20, 1), (2, 11, 1)]),
        [(1, 0, 0, 10, 1), (1, 20, 20, 30, 1), (2, 11, 11, 21, 1)]
    );
    let joined = [(1, 0, 0, 10, -1), (1, 0, 0, 30, 1), (1, 10, 0, 30, 1), (1, 20, 0, 30, 1), (1, 20, 20, 30, -1)];
    assert_eq!(step(&mut s, &[(1, 10, 1)]), joined);
    let parted = joined.map(|(p, time, start, end, weight)| (p, time, start, end, -weight));
    let mut gone = step(&mut s, &[(1, 10, -1)]);
    gone.sort_unstable();
    let mut parted = parted.to_vec();
    parted.sort_unstable();
    assert_eq!(gone, parted);
}

#[test]
fn a_gap_is_inclusive_and_other_sessions_are_left_alone() {
    let mut s = sessions(10);
    step(&mut s, &[(1, 0, 1), (1, 11, 1), (1, 100, 2)]);
    assert_eq!(step(&mut s, &[(1, 111, 1)]), [(1, 111, 111, 121, 1)]);
    assert_eq!(step(&mut s, &[(1, 100, -1)]), [(1, 100, 100, 110, -1)], "one of two");
    assert_eq!(step(&mut s, &[(1, 100, -1)]), [(1, 100, 100, 110, -1)]);
    assert_eq!(step(&mut s, &[(1, 100, 1), (1, 100, -1)]), []);
}

#[test]
fn a_row_deleted_before_it_comes_cancels_out() {
    let mut s = sessions(10);
    assert_eq!(step(&mut s, &[(1, 5, -1)]), [(1, 5, 5, 15, -1)]);
    assert_eq!(step(&mut s, &[(1, 5, 1)]), [(1, 5, 5, 15, 1)]);
    assert!(!s.rows.cursor().is_ok_and(|c| c.valid()), "nothing is kept");
}

#[test]
fn the_ends_of_time_are_sessions_too() {
    let mut s = sessions(10);
    assert_eq!(
        step(&mut s, &[(1, i64::MAX, 1), (1, i64::MAX - 5, 1), (1, i64::MIN, 1)]),
        [
            (1, i64::MIN, i64::MIN, i64::MIN + 10, 1),
            (1, i64::MAX - 5, i64::MAX - 5, i64::MAX, 1),
            (1, i64::MAX, i64::MAX - 5, i64::MAX, 1),
        ]
    );
}
