use arrow::array::{AsArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};

use super::*;

fn numbers(rows: &[(i64, i64)]) -> Delta {
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
    Delta::new(&schema, vec![column], rows.iter().map(|r| r.1).collect()).unwrap()
}

fn pairs(delta: &Delta) -> Vec<(i64, i64)> {
    let values = delta.rows.column(0).as_primitive::<Int64Type>().values();
    values.iter().copied().zip(delta.weights.iter().copied()).collect()
}

fn consolidated(delta: Delta) -> (Delta, ViewHash) {
    let codec = RowCodec::of_schema(&delta.rows.schema()).unwrap();
    delta.consolidate(&codec).unwrap()
}

#[test]
fn consolidation_adds_sorts_and_drops() {
    let (delta, hash) = consolidated(numbers(&[(5, 1), (-3, 2), (7, 1), (5, 4), (7, -1), (0, 0)]));
    assert_eq!(pairs(&delta), [(-3, 2), (5, 5)]);
    assert_eq!(hash.rows, 2);
}

#[test]
fn the_hash_is_that_of_the_change_whatever_its_order_and_pieces() {
    let (_, one) = consolidated(numbers(&[(1, 2), (2, -1), (3, 1)]));
    let (_, other) = consolidated(numbers(&[(3, 1), (1, 1), (9, 1), (2, -1), (1, 1), (9, -1)]));
    assert_eq!(one, other);
    let (_, third) = consolidated(numbers(&[(1, 2), (2, 1), (3, 1)]));
    assert_ne!(one, third, "the sign of a weight counts");
    // The hash adds up: that of two changes is that of their sum.
    let (_, a) = consolidated(numbers(&[(1, 2)]));
    let (_, b) = consolidated(numbers(&[(2, -1), (3, 1)]));
    assert_eq!(a.hash.wrapping_add(b.hash), one.hash);
    // Part of the log's format: see invariant 3 of the design.
    assert_eq!(consolidated(numbers(&[(1, 1)])).1, ViewHash { rows: 1, hash: 9_386_959_315_897_320_766 });
}

#[test]
fn zeros_and_nans_are_one_row_each() {
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
    let odd_nan = f64::from_bits(f64::NAN.to_bits() | 0x8000_0000_0000_0001);
    let column: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, f64::NAN, 0.0, odd_nan]));
    let (delta, _) = consolidated(Delta::inserts(RecordBatch::try_new(schema, vec![column]).unwrap()));
    assert_eq!(delta.weights, [2, 2]);
    let values = delta.rows.column(0).as_primitive::<Float64Type>();
    assert_eq!(values.value(0).to_bits(), 0, "−0.0 is put out as 0.0");
    assert!(values.value(1).is_nan());
}

#[test]
fn rows_without_columns_are_counted() {
    let schema = Arc::new(Schema::empty());
    let (delta, hash) = consolidated(Delta::new(&schema, vec![], vec![2, 3, -1]).unwrap());
    assert_eq!((delta.weights.as_slice(), hash.rows), (&[4][..], 1));
}

#[test]
fn pieces_can_be_cut_and_joined() {
    let delta = numbers(&[(1, 1), (2, 2), (3, 3), (4, 4)]);
    assert_eq!(pairs(&delta.slice(1, 2)), [(2, 2), (3, 3)]);
    assert_eq!(pairs(&delta.take(&UInt32Array::from(vec![3, 0])).unwrap()), [(4, 4), (1, 1)]);
    assert!(delta.take(&UInt32Array::from(vec![4])).is_err());
    let mask = BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]);
    assert_eq!(pairs(&delta.filter(&mask).unwrap()), [(1, 1), (4, 4)]);
    let joined = Delta::concat(&delta.rows.schema(), &[delta.slice(0, 1), delta.slice(3, 1)]).unwrap();
    assert_eq!(pairs(&joined), [(1, 1), (4, 4)]);
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    assert!(Delta::new(&delta.rows.schema(), vec![texts], vec![1]).is_err(), "another type");
}
