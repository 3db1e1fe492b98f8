//! What an aggregate expression calls, and with what.

use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{AggregateFunctionParams, NullTreatment, Sort};
use datafusion_expr::{Expr, ExprSchemable as _};

use super::super::{Refusal, Result};
use crate::circuit::plan::AggregateFunction;

/// An aggregate as it is called.
pub(super) struct Call<'a> {
    pub(super) function: AggregateFunction,
    /// None for `count(*)`.
    pub(super) arguments: Vec<&'a Expr>,
    pub(super) distinct: bool,
    pub(super) filter: Option<&'a Expr>,
    /// Empty where the order does not matter.
    pub(super) order_by: &'a [Sort],
    pub(super) ignore_nulls: bool,
    pub(super) parameter: Option<ScalarValue>,
}

/// What an aggregate expression calls.
pub(super) fn call<'e>(e: &'e Expr, input: &DFSchema) -> Result<Call<'e>> {
    use AggregateFunction as F;
    let called = match e {
        Expr::Alias(alias) => return call(&alias.expr, input),
        Expr::AggregateFunction(called) => called,
        other => return Err(Refusal::new(format!("`{other}` is not an aggregate"))),
    };
    let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = &called.params;
    let name = called.func.name();
    let function = F::from_name(name)
        .ok_or_else(|| Refusal::new(format!("the aggregate {} is not supported yet", name.to_uppercase())))?;
    let parameter = parameter(e, function, args, order_by)?;
    let width = match function {
        F::CovarSamp | F::CovarPop | F::Corr | F::RegrSlope | F::RegrIntercept | F::RegrCount | F::RegrR2 => 2,
        F::RegrAvgx | F::RegrAvgy | F::RegrSxx | F::RegrSyy | F::RegrSxy => 2,
        _ => 1,
    };
    let arguments: Vec<&Expr> = match (function, args.as_slice()) {
        // The planner writes count(*) as count(1).
        (F::Count, [Expr::Literal(value, _)]) if !value.is_null() && !distinct => Vec::new(),
        (_, all) if all.len() == width + usize::from(parameter.is_some()) => all.iter().take(width).collect(),
        _ => {
            return Err(Refusal::new(format!(
                "`{e}`: an aggregate with {} arguments is not supported yet",
                args.len()
            ))
            .about([name]));
        }
    };
    let is_ordered = matches!(function, F::ArrayAgg | F::StringAgg | F::FirstValue | F::LastValue | F::NthValue);
    let order_by = if is_ordered { order_by.as_slice() } else { &[] };
    // These are of a set what they are of the multiset.
    let is_of_set = matches!(function, F::Min | F::Max | F::AnyValue | F::FirstValue | F::LastValue)
        || matches!(function, F::BoolAnd | F::BoolOr | F::BitAnd | F::BitOr);
    let distinct = *distinct && !is_of_set;
    if distinct && !order_by.is_empty() {
        // A text has another order than what it was made of.
        let is_text = |e: &Expr| e.get_type(input).is_ok_and(|t| t.is_string());
        let same = |a: &Expr, b: &Expr| plain(a) == plain(b) && is_text(a) == is_text(b);
        let own = |sort: &Sort| arguments.iter().any(|argument| same(argument, &sort.expr));
        if order_by.len() > 1 || !order_by.iter().all(own) {
            let message = format!("`{e}`: with DISTINCT the values can only be ordered by themselves");
            let refusal = Refusal::with_help(message, "order by the argument, or leave DISTINCT out");
            return Err(refusal.about([name]));
        }
    }
    let ignore_nulls = *null_treatment == Some(NullTreatment::IgnoreNulls);
    Ok(Call { function, arguments, distinct, filter: filter.as_deref(), order_by, ignore_nulls, parameter })
}

/// The constant that a function takes behind its argument.
fn parameter(e: &Expr, function: AggregateFunction, args: &[Expr], order_by: &[Sort]) -> Result<Option<ScalarValue>> {
    use AggregateFunction as F;
    let what = match function {
        F::StringAgg => "delimiter",
        F::NthValue => "number",
        F::PercentileCont => "share",
        _ => return Ok(None),
    };
    let refuse = |wanted: &str| Refusal::new(format!("`{e}`: the {what} must be {wanted}"));
    let value = match args.get(1).map(plain) {
        Some(Expr::Literal(value, _)) => value,
        // As the analyzer does not fold it.
        Some(Expr::Negative(negated)) => match negated.as_ref() {
            Expr::Literal(value, _) => &value.arithmetic_negate()?,
            _ => return Err(refuse("a constant")),
        },
        _ => return Err(refuse("a constant")),
    };
    Ok(Some(match function {
        F::StringAgg => match value.try_as_str() {
            Some(text) => ScalarValue::from(text.unwrap_or_default()),
            None if value.is_null() => ScalarValue::from(""),
            None => return Err(refuse("a text")),
        },
        F::NthValue => match value.cast_to(&arrow::datatypes::DataType::Int64)? {
            ScalarValue::Int64(Some(n)) if n != 0 => ScalarValue::from(n),
            _ => return Err(refuse("a whole number other than 0")),
        },
        _ => match value.cast_to(&arrow::datatypes::DataType::Float64)? {
            ScalarValue::Float64(Some(share)) if (0.0..=1.0).contains(&share) => {
                let descending = order_by.first().is_some_and(|sort| !sort.asc);
                ScalarValue::from(if descending { 1.0 - share } else { share })
            }
            _ => return Err(refuse("between 0 and 1")),
        },
    }))
}

/// Without the casts of type coercion.
fn plain(e: &Expr) -> &Expr {
    match e {
        Expr::Cast(cast) => plain(&cast.expr),
        other => other,
    }
}
