//! Comparisons of lengths of time, as PostgreSQL makes them: a day has 24 hours, a month 30 days.
//!
//! DataFusion makes an interval of a difference of times, and compares intervals by their months, then days, then nanoseconds, so that
//! 30 hours are less than a day. Here both sides become durations of microseconds.
//!
//! Known limit: intervals that are computed in other ways than by `+`, `-` and a sign are not compared, but refused.

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue, plan_datafusion_err, plan_err};
use datafusion_expr::expr::InList;
use datafusion_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};

use super::rewrite;
use crate::sql::lateness::DAY_US;

const MICROS: DataType = DataType::Duration(TimeUnit::Microsecond);

/// Has the expressions of a plan's root compare durations.
pub(super) fn compared(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    rewrite::expressions(plan, comparison)
}

fn comparison(e: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let length = |e: Box<Expr>| length(*e, schema).map(Box::new);
    match e {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if is_comparison(op) && (is_interval(&left, schema) || is_interval(&right, schema)) =>
        {
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: length(left)?, op, right: length(right)? })))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_interval(&expr, schema) => {
            let (expr, low, high) = (length(expr)?, length(low)?, length(high)?);
            Ok(Transformed::yes(Expr::Between(Between { expr, negated, low, high })))
        }
        Expr::InList(InList { expr, list, negated }) if is_interval(&expr, schema) => {
            let list = list.into_iter().map(|e| self::length(e, schema)).collect::<Result<_>>()?;
            Ok(Transformed::yes(Expr::InList(InList { expr: length(expr)?, list, negated })))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator as O;
    matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom)
}

fn is_interval(e: &Expr, schema: &DFSchema) -> bool {
    matches!(e.get_type(schema), Ok(DataType::Interval(_)))
}

/// A length of time in microseconds.
fn length(e: Expr, schema: &DFSchema) -> Result<Expr> {
    match e {
        Expr::Literal(ScalarValue::Null | ScalarValue::IntervalMonthDayNano(None), _) => Ok(literal(None)),
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => Ok(literal(Some(micros(interval)?))),
        Expr::Alias(alias) => length(*alias.expr, schema),
        // Durations have no sign to be turned.
        Expr::Negative(inner) => Ok(binary(literal(Some(0)), Operator::Minus, length(*inner, schema)?)),
        Expr::Cast(ref inner) if matches!(*inner.expr, Expr::Literal(..)) && is_interval(&e, schema) => {
            let Expr::Literal(value, metadata) = inner.expr.as_ref() else { return Ok(e) };
            let interval = value.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano))?;
            length(Expr::Literal(interval, metadata.clone()), schema)
        }
        Expr::Cast(inner) if matches!(inner.field.data_type(), DataType::Interval(IntervalUnit::MonthDayNano)) => {
            length(*inner.expr, schema)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right })
            if is_interval(&left, schema) && is_interval(&right, schema) =>
        {
            Ok(binary(length(*left, schema)?, op, length(*right, schema)?))
        }
        e => match e.get_type(schema)? {
            MICROS => Ok(e),
            DataType::Duration(_) => Ok(cast(e, MICROS)),
            _ => plan_err!(
                "the length of time `{e}` cannot be compared: compare times in its place, as in a < b + INTERVAL '1' DAY"
            ),
        },
    }
}

fn literal(micros: Option<i64>) -> Expr {
    Expr::Literal(ScalarValue::DurationMicrosecond(micros), None)
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
}

fn micros(interval: IntervalMonthDayNano) -> Result<i64> {
    let IntervalMonthDayNano { months, days, nanoseconds } = interval;
    let days = i128::from(months) * 30 + i128::from(days);
    i64::try_from(days * i128::from(DAY_US) + i128::from(nanoseconds / 1000))
        .map_err(|_| plan_datafusion_err!("an INTERVAL of {days} days is too long to be compared"))
}
