//! `RANGE … n PRECEDING`: the order key at the end of a frame as an expression over a row's own.
//!
//! Where the arithmetic is of whole numbers it has an exact inverse and stops at the type's ends. Months, and hours of a DATE, have no
//! inverse; floats have none that is exact.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema, TimeUnit};
use datafusion_common::{Column, DFSchema, ScalarValue};
use datafusion_expr::expr::Case;
use datafusion_expr::{Expr, cast, lit};
use datafusion_physical_expr::PhysicalExpr;

use super::{Lowering, Refusal, Result};
use crate::circuit::plan::Distance;
use crate::sql::lateness::DAY_US;

/// Whole numbers that an order key is counted in.
struct Scale {
    /// What the key is cast to and from.
    counted: DataType,
    least: i128,
    most: i128,
}

impl Lowering<'_> {
    /// An end of a frame at a distance from order keys of a type: toward smaller keys, if it `is_back`.
    /// `away`: the frame does not reach the row itself, and may be empty.
    pub(super) fn distance(
        &self,
        key: &DataType,
        distance: &ScalarValue,
        is_back: bool,
        away: bool,
    ) -> Result<Distance> {
        let nothing = || {
            let message = format!("RANGE with the distance {distance} over an ORDER BY of {key} is not supported");
            Refusal::with_help(message, "a distance is a number over numbers, and an INTERVAL over DATE and TIMESTAMP")
        };
        let schema = Arc::new(Schema::new(vec![Field::new("key", key.clone(), true)]));
        let schema = DFSchema::try_from(schema)?;
        let own = Expr::Column(Column::new_unqualified("key"));
        if let Some((scale, by)) = counted(key, distance)? {
            let (beyond, bound) = scale.moved(&own, key, by, is_back)?;
            let (_, inverse) = scale.moved(&own, key, by, !is_back)?;
            return Ok(Distance {
                bound: self.physical(&bound, &schema)?,
                beyond: away.then(|| self.physical(&beyond, &schema)).transpose()?,
                inverse: Some(self.physical(&inverse, &schema)?),
            });
        }
        let is_known = match distance {
            ScalarValue::IntervalMonthDayNano(Some(i)) => {
                refuse_negative(i.months < 0 || i.days < 0 || i.nanoseconds < 0)?;
                matches!(key, DataType::Date32 | DataType::Timestamp(..))
            }
            ScalarValue::Float32(Some(d)) => {
                refuse_negative(*d < 0.0)?;
                !d.is_nan() && *key == DataType::Float32
            }
            ScalarValue::Float64(Some(d)) => {
                refuse_negative(*d < 0.0)?;
                !d.is_nan() && *key == DataType::Float64
            }
            _ => false,
        };
        if !is_known {
            return Err(nothing());
        }
        let moved = if is_back { own - lit(distance.clone()) } else { own + lit(distance.clone()) };
        let bound: Arc<dyn PhysicalExpr> = self.physical(&cast(moved, key.clone()), &schema)?;
        Ok(Distance { bound, beyond: None, inverse: None })
    }
}

fn refuse_negative(is_negative: bool) -> Result<()> {
    if is_negative { Err(Refusal::new("the distance of a frame cannot be negative")) } else { Ok(()) }
}

/// How keys of a type are counted, and the distance in the same units, if both are whole numbers.
fn counted(key: &DataType, distance: &ScalarValue) -> Result<Option<(Scale, i128)>> {
    let whole = |counted: DataType, least: i128, most: i128| Scale { counted, least, most };
    let (scale, by) = match (key, distance) {
        (DataType::Timestamp(TimeUnit::Microsecond, None), ScalarValue::IntervalMonthDayNano(Some(i)))
            if i.months == 0 =>
        {
            let IntervalMonthDayNano { days, nanoseconds, .. } = *i;
            let by = i128::from(days) * i128::from(DAY_US) + i128::from(nanoseconds / 1_000);
            (whole(DataType::Int64, i64::MIN.into(), i64::MAX.into()), by)
        }
        (DataType::Date32, ScalarValue::IntervalMonthDayNano(Some(i))) if i.months == 0 && i.nanoseconds == 0 => {
            (whole(DataType::Int32, i32::MIN.into(), i32::MAX.into()), i128::from(i.days))
        }
        (DataType::Decimal128(precision, scale), ScalarValue::Decimal128(Some(by), _, s)) if s == scale => {
            let most = 10i128.checked_pow(u32::from(*precision)).unwrap_or(i128::MAX) - 1;
            (whole(key.clone(), -most, most), *by)
        }
        (key, value) if key.is_integer() && value.data_type() == *key => {
            let ScalarValue::Decimal128(Some(by), ..) = value.cast_to(&DataType::Decimal128(38, 0))? else {
                return Ok(None);
            };
            let (least, most) = match key {
                DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
                DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
                DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
                DataType::Int64 => (i64::MIN.into(), i64::MAX.into()),
                DataType::UInt8 => (0, u8::MAX.into()),
                DataType::UInt16 => (0, u16::MAX.into()),
                DataType::UInt32 => (0, u32::MAX.into()),
                _ => (0, u64::MAX.into()),
            };
            (whole(key.clone(), least, most), by)
        }
        _ => return Ok(None),
    };
    refuse_negative(by < 0)?;
    Ok(Some((scale, by)))
}

impl Scale {
    fn literal(&self, value: i128) -> Result<Expr> {
        let value = match &self.counted {
            DataType::Decimal128(precision, scale) => ScalarValue::Decimal128(Some(value), *precision, *scale),
            other => ScalarValue::Decimal128(Some(value), 38, 0).cast_to(other)?,
        };
        Ok(lit(value))
    }

    /// Whether the key moved by a distance would be beyond the type's end, and the key moved, or the type's end where it would be.
    fn moved(&self, own: &Expr, key: &DataType, by: i128, is_back: bool) -> Result<(Expr, Expr)> {
        let counted = cast(own.clone(), self.counted.clone());
        let end = self.literal(if is_back { self.least } else { self.most })?;
        if by > self.most - self.least {
            // Nothing is that far away; NULL stays NULL.
            let is_beyond = own.clone().is_not_null();
            return Ok((is_beyond.clone(), case(is_beyond, cast(end, key.clone()), None)));
        }
        let limit = self.literal(if is_back { self.least + by } else { self.most - by })?;
        let by = self.literal(by)?;
        let (is_beyond, moved) = match is_back {
            true => (counted.clone().lt(limit), counted - by),
            false => (counted.clone().gt(limit), counted + by),
        };
        let moved = case(is_beyond.clone(), end, Some(cast(moved, self.counted.clone())));
        Ok((is_beyond, cast(moved, key.clone())))
    }
}

fn case(when: Expr, then: Expr, otherwise: Option<Expr>) -> Expr {
    Expr::Case(Case {
        expr: None,
        when_then_expr: vec![(Box::new(when), Box::new(then))],
        else_expr: otherwise.map(Box::new),
    })
}
