use arrow::array::{Decimal128Array, DurationMillisecondArray, Int32Array};
use arrow::datatypes::{Decimal128Type, TimeUnit};

use super::*;

/// The accumulator of one group after these values, each with weight 1, went in and through its saved state.
fn accumulated(function: AggregateFunction, column: ArrayRef, result: DataType) -> Finished {
    let fresh = Accumulator::new(function, Some(column.data_type()), &result).unwrap();
    let mut accumulator = fresh.fresh();
    accumulator.push_empty();
    assert!(accumulator.is_zero(0));
    accumulator.update(std::slice::from_ref(&column), &vec![1; column.len()], &vec![0; column.len()]).unwrap();
    let mut state = Vec::new();
    accumulator.save(0, &mut state);
    let mut loaded = fresh.fresh();
    let mut rest = state.as_slice();
    loaded.push_saved(&mut rest).unwrap();
    assert!(rest.is_empty());
    for cut in 0..state.len() {
        assert!(fresh.fresh().push_saved(&mut &state[..cut]).is_none(), "a state cut at {cut} of {}", state.len());
    }
    let finished = loaded.finish().unwrap();
    // What went in can be taken out again, and leaves nothing.
    loaded.update(std::slice::from_ref(&column), &vec![-1; column.len()], &vec![0; column.len()]).unwrap();
    assert!(loaded.is_zero(0));
    finished
}

#[test]
fn integers_wrap_as_datafusion_does() {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(i64::MAX), None, Some(1)]));
    let sum = accumulated(AggregateFunction::Sum, column, DataType::Int64);
    assert_eq!(sum.column.as_primitive::<Int64Type>().value(0), i64::MIN);
    let column: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 3]));
    let sum = accumulated(AggregateFunction::Sum, column, DataType::UInt64);
    assert_eq!(sum.column.as_primitive::<UInt64Type>().value(0), 2);
    let column: ArrayRef = Arc::new(Int32Array::from(vec![i32::MAX, i32::MAX]));
    let sum = accumulated(AggregateFunction::Sum, column, DataType::Int64);
    assert_eq!(sum.column.as_primitive::<Int64Type>().value(0), 2 * i64::from(i32::MAX));
}

#[test]
fn averages_have_the_planned_type() {
    let decimals = || -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![100, 100, -300, -100]).with_precision_and_scale(10, 2).unwrap())
    };
    let average = accumulated(AggregateFunction::Avg, decimals().slice(0, 3), DataType::Decimal128(14, 6));
    assert_eq!(average.column.as_primitive::<Decimal128Type>().value(0), -333_333, "cut off, not rounded");
    let durations: ArrayRef = Arc::new(DurationMillisecondArray::from(vec![5, 6]));
    let average = accumulated(AggregateFunction::Avg, durations, DataType::Duration(TimeUnit::Millisecond));
    assert_eq!(cast(&average.column, &DataType::Int64).unwrap().as_primitive::<Int64Type>().value(0), 5);
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.1), None, Some(0.2)]));
    let average = accumulated(AggregateFunction::Avg, floats, DataType::Float64);
    assert_eq!(average.column.as_primitive::<Float64Type>().value(0), (0.1 + 0.2) / 2.0);
}

#[test]
fn decimals_that_do_not_fit_are_reported() {
    let large = 10i128.pow(38) - 1;
    let column = |n: usize| -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![large; n]).with_precision_and_scale(38, 0).unwrap())
    };
    let fits = accumulated(AggregateFunction::Sum, column(1), DataType::Decimal128(38, 0));
    assert_eq!((fits.column.as_primitive::<Decimal128Type>().value(0), fits.overflowed.len()), (large, 0));
    let over = accumulated(AggregateFunction::Sum, column(2), DataType::Decimal128(38, 0));
    assert!(over.column.is_null(0));
    assert_eq!(over.overflowed, [0]);
}

#[test]
fn what_is_not_supported_is_refused() {
    let new = |function, argument: Option<&DataType>, result| Accumulator::new(function, argument, &result);
    assert!(new(AggregateFunction::Sum, None, DataType::Int64).is_err());
    assert!(new(AggregateFunction::Sum, Some(&DataType::Utf8), DataType::Utf8).is_err());
    assert!(new(AggregateFunction::Avg, Some(&DataType::Int64), DataType::Decimal128(10, 2)).is_err());
    assert!(new(AggregateFunction::Min, None, DataType::Int64).is_err());
}
