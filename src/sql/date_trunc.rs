//! `date_trunc` over TIMESTAMP, for all times that one can say, and never looking at what lies below a NULL.
//!
//! DataFusion's goes by nanoseconds for what is longer than a day, which end in 2262, and computes with the slots of NULLs, which hold anything where rows
//! come from state: where overflows are checked it panics there. That of TIME and of times with a zone is DataFusion's.
//!
//! Days are counted as Howard Hinnant's "chrono-compatible low-level date algorithms" have it: years begin in March, so that a leap day is the last one.

use std::sync::Arc;

use arrow::array::types::{
    ArrowTimestampType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use arrow::error::ArrowError;
use datafusion_common::types::{NativeType, logical_date, logical_string};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::{
    Coercion, ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    TypeSignatureClass, Volatility,
};

/// The function.
pub(super) fn function() -> ScalarUDF {
    let unit = || Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
    let time = Coercion::new_implicit(
        TypeSignatureClass::Timestamp,
        vec![TypeSignatureClass::Native(logical_string()), TypeSignatureClass::Native(logical_date())],
        NativeType::Timestamp(TimeUnit::Microsecond, None),
    );
    let of_day = Coercion::new_exact(TypeSignatureClass::Time);
    let signatures = vec![TypeSignature::Coercible(vec![unit(), time]), TypeSignature::Coercible(vec![unit(), of_day])];
    ScalarUDF::from(DateTrunc {
        inner: datafusion_functions::datetime::date_trunc(),
        signature: Signature::one_of(signatures, Volatility::Immutable),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types.get(1) {
            Some(time) if !time.is_null() => time.clone(),
            _ => DataType::Timestamp(TimeUnit::Microsecond, None),
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let unit = args.scalar_arguments.first().copied().flatten();
        let of_day = types.get(1).is_some_and(|time| matches!(time, DataType::Time32(_) | DataType::Time64(_)));
        if !unit.and_then(Unit::of).is_some_and(|known| !of_day || known.is_of_day()) {
            let unit = unit.map_or_else(|| "a unit that is no constant".to_owned(), |unit| format!("the unit {unit}"));
            let units = if of_day { "" } else { ", day, week, month, quarter, year" };
            return plan_err!(
                "date_trunc does not know {unit}; there are microsecond, millisecond, second, minute, hour{units}"
            );
        }
        let nullable = args.arg_fields.get(1).is_none_or(|f| f.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.args.get(1).is_some_and(|time| time.data_type().is_null()) {
            return Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(None, None)));
        }
        let unit = match args.args.first() {
            Some(ColumnarValue::Scalar(unit)) => Unit::of(unit),
            _ => None,
        };
        match (unit, args.args.get(1)) {
            (Some(unit), Some(ColumnarValue::Array(times))) if is_plain(times.data_type()) => {
                Ok(ColumnarValue::Array(truncated(times, unit)?))
            }
            (Some(unit), Some(ColumnarValue::Scalar(time))) if is_plain(&time.data_type()) => {
                let times = truncated(&time.to_array()?, unit)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&times, 0)?))
            }
            // A time of day, or one with a zone.
            _ => self.inner.invoke_with_args(args),
        }
    }
}

fn is_plain(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, None))
}

/// What times are cut down to.
#[derive(Clone, Copy)]
enum Unit {
    /// So many nanoseconds, counted from 1970.
    Nanoseconds(i64),
    /// From Monday on.
    Week,
    /// So many months, of which a year has a whole number.
    Months(i64),
}

impl Unit {
    /// The unit of this name.
    fn of(name: &ScalarValue) -> Option<Self> {
        let second = 1_000_000_000;
        Some(match name.try_as_str()??.to_lowercase().as_str() {
            "microsecond" => Self::Nanoseconds(1_000),
            "millisecond" => Self::Nanoseconds(1_000_000),
            "second" => Self::Nanoseconds(second),
            "minute" => Self::Nanoseconds(60 * second),
            "hour" => Self::Nanoseconds(3_600 * second),
            "day" => Self::Nanoseconds(86_400 * second),
            "week" => Self::Week,
            "month" => Self::Months(1),
            "quarter" => Self::Months(3),
            "year" => Self::Months(12),
            _ => return None,
        })
    }

    /// Whether a time of day can be cut down to it.
    fn is_of_day(self) -> bool {
        matches!(self, Self::Nanoseconds(length) if length < 86_400_000_000_000)
    }
}

fn truncated(times: &ArrayRef, unit: Unit) -> Result<ArrayRef> {
    Ok(match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => Arc::new(each::<TimestampSecondType>(times, unit, 1)?),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            Arc::new(each::<TimestampMillisecondType>(times, unit, 1_000)?)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Arc::new(each::<TimestampMicrosecondType>(times, unit, 1_000_000)?)
        }
        _ => Arc::new(each::<TimestampNanosecondType>(times, unit, 1_000_000_000)?),
    })
}

/// `per_second`: how many of the times' unit are a second. NULLs are passed over.
fn each<T: ArrowTimestampType>(times: &ArrayRef, unit: Unit, per_second: i64) -> Result<PrimitiveArray<T>, ArrowError> {
    let times = times.as_primitive::<T>();
    let out_of_range = || ArrowError::ComputeError("date_trunc: the time is out of range".to_owned());
    let day = 86_400 * per_second;
    match unit {
        Unit::Nanoseconds(nanoseconds) => {
            let length = nanoseconds / (1_000_000_000 / per_second);
            if length <= 1 {
                return Ok(times.clone());
            }
            times.try_unary(|time| time.checked_sub(time.rem_euclid(length)).ok_or_else(out_of_range))
        }
        Unit::Week => times.try_unary(|time| {
            let days = time.div_euclid(day);
            // The first day of 1970 was a Thursday.
            (days - (days + 3).rem_euclid(7)).checked_mul(day).ok_or_else(out_of_range)
        }),
        Unit::Months(length) => times.try_unary(|time| {
            let month = month_of(time.div_euclid(day));
            first_day(month - month.rem_euclid(length)).checked_mul(day).ok_or_else(out_of_range)
        }),
    }
}

/// The days of 400 years.
const ERA: i64 = 146_097;
/// The days from the first of March of the year 0 to the first of January of 1970.
const TO_1970: i64 = 719_468;

/// The month that a day is in: days count from the first of January of 1970, months from January of the year 0.
fn month_of(day: i64) -> i64 {
    let day = day + TO_1970;
    let of_era = day.rem_euclid(ERA);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    (year + 400 * day.div_euclid(ERA)) * 12 + from_march + 2
}

/// The first day of a month, both counted alike.
fn first_day(month: i64) -> i64 {
    let from_march = month - 2;
    let (year, month) = (from_march.div_euclid(12), from_march.rem_euclid(12));
    let of_era = year.rem_euclid(400);
    of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + year.div_euclid(400) * ERA - TO_1970
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, TimestampMicrosecondArray};
    use arrow::buffer::NullBuffer;
    use arrow::compute::cast;
    use datafusion_common::config::ConfigOptions;

    use super::*;

    const UNITS: [&str; 10] =
        ["microsecond", "millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year"];

    fn called(function: &ScalarUDF, unit: &str, times: &ArrayRef) -> ArrayRef {
        call(function, unit, times).unwrap().into_array(times.len()).unwrap()
    }

    fn call(function: &ScalarUDF, unit: &str, times: &ArrayRef) -> Result<ColumnarValue> {
        let fields = [DataType::Utf8, times.data_type().clone()].map(|t| Arc::new(Field::new("x", t, true)));
        let args = ScalarFunctionArgs {
            args: vec![ColumnarValue::Scalar(ScalarValue::from(unit)), ColumnarValue::Array(Arc::clone(times))],
            return_field: Arc::clone(&fields[1]),
            arg_fields: fields.to_vec(),
            number_rows: times.len(),
            config_options: Arc::new(ConfigOptions::default()),
        };
        function.invoke_with_args(args)
    }

    fn texts(times: &ArrayRef) -> Vec<String> {
        let texts = cast(times, &DataType::Utf8).unwrap();
        texts.as_string::<i32>().iter().map(|text| text.unwrap_or("NULL").to_owned()).collect()
    }

    fn times(texts: &[&str], unit: TimeUnit) -> ArrayRef {
        let texts: ArrayRef = Arc::new(arrow::array::StringArray::from(texts.to_vec()));
        cast(&texts, &DataType::Timestamp(unit, None)).unwrap()
    }

    #[test]
    fn times_of_all_years() {
        let of = |unit: &str| {
            texts(&called(
                &function(),
                unit,
                &times(
                    &["2300-08-31T12:34:56.789123", "0001-02-03T04:05:06", "9999-12-31T23:59:59.999999"],
                    TimeUnit::Microsecond,
                ),
            ))
        };
        assert_eq!(of("month"), ["2300-08-01T00:00:00", "0001-02-01T00:00:00", "9999-12-01T00:00:00"]);
        assert_eq!(of("quarter"), ["2300-07-01T00:00:00", "0001-01-01T00:00:00", "9999-10-01T00:00:00"]);
        assert_eq!(of("year"), ["2300-01-01T00:00:00", "0001-01-01T00:00:00", "9999-01-01T00:00:00"]);
        assert_eq!(of("week"), ["2300-08-27T00:00:00", "0001-01-29T00:00:00", "9999-12-27T00:00:00"]);
        assert_eq!(of("day"), ["2300-08-31T00:00:00", "0001-02-03T00:00:00", "9999-12-31T00:00:00"]);
        assert_eq!(of("MINUTE"), ["2300-08-31T12:34:00", "0001-02-03T04:05:00", "9999-12-31T23:59:00"]);
    }

    #[test]
    fn it_is_datafusions_where_that_is_right() {
        let theirs = datafusion_functions::datetime::date_trunc();
        // Every 11 days and some hours from 1690 to 2250, over each leap year's end and February.
        let step = 11 * 86_400_000_000 + 7_654_321_987;
        let from = -280 * 365 * 86_400_000_000;
        let micros: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from_iter_values((0..18_500).map(|i| from + i * step)));
        for to in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            let times = cast(&micros, &DataType::Timestamp(to, None)).unwrap();
            for unit in UNITS {
                assert_eq!(&called(&function(), unit, &times), &called(&theirs, unit, &times), "{unit} of {to:?}");
            }
        }
    }

    #[test]
    fn what_lies_below_a_null_is_not_looked_at() {
        let values = vec![i64::MIN, 1_722_600_000_000_000, i64::MAX];
        let nulls = NullBuffer::from(vec![false, true, false]);
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::new(values.into(), Some(nulls)));
        for unit in UNITS {
            let got = called(&function(), unit, &times);
            assert_eq!((got.is_null(0), got.is_null(1), got.is_null(2)), (true, false, true), "{unit}");
        }
    }

    #[test]
    fn the_first_times_have_no_day() {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN]));
        for unit in ["hour", "week", "month"] {
            let error = call(&function(), unit, &times).unwrap_err().to_string();
            assert!(error.contains("the time is out of range"), "{error}");
        }
    }
}
