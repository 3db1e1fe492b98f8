//! Arguments of aggregates that a FILTER guards: `sum(12 / a) FILTER (WHERE a <> 0)` computes nothing for a row of `a = 0`.
//!
//! An argument that may fail becomes `CASE WHEN <filter> THEN <argument> END`, as does what it is ordered by. Before the optimizer sees it, which
//! would compute what two of them have in common for every row; and again behind it ([`argument`]), since it makes AND and OR of a CASE of
//! truth values, both of whose sides may be computed.

use arrow::datatypes::DataType;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result};
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, when};

use super::rewrite;

/// Guards the aggregates and window functions of a plan's root.
pub(super) fn guarded(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)) {
        return Ok(Transformed::no(plan));
    }
    rewrite::expressions(plan, call)
}

fn call(e: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match e {
        Expr::AggregateFunction(mut called) if called.params.filter.is_some() => {
            let params = &mut called.params;
            let sorted = params.order_by.iter_mut().map(|sort| &mut sort.expr);
            guard(params.args.iter_mut().chain(sorted), params.filter.as_deref(), schema)?;
            Ok(Transformed::yes(Expr::AggregateFunction(called)))
        }
        Expr::WindowFunction(mut called) if called.params.filter.is_some() => {
            let params = &mut called.params;
            guard(params.args.iter_mut(), params.filter.as_deref(), schema)?;
            Ok(Transformed::yes(Expr::WindowFunction(called)))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn guard<'e>(exprs: impl Iterator<Item = &'e mut Expr>, filter: Option<&Expr>, schema: &DFSchema) -> Result<()> {
    let Some(filter) = filter else { return Ok(()) };
    for e in exprs {
        // A constant is a parameter.
        if !e.column_refs().is_empty() || e.contains_outer() {
            *e = argument(e, filter, schema)?;
        }
    }
    Ok(())
}

/// An argument that is not computed where a filter is not true, if it may fail.
pub(in crate::sql) fn argument(e: &Expr, filter: &Expr, schema: &DFSchema) -> Result<Expr> {
    match cannot_fail(e, schema)? || matches!(e, Expr::Case(_)) {
        true => Ok(e.clone()),
        false => when(filter.clone(), e.clone()).end(),
    }
}

/// Whether evaluating an expression succeeds for every row: what is common needs no guard.
fn cannot_fail(e: &Expr, schema: &DFSchema) -> Result<bool> {
    Ok(match e {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Cast(cast) if matches!(*cast.expr, Expr::Column(_)) => {
            let from = cast.expr.get_type(schema)?;
            match cast.field.data_type() {
                DataType::Float64 => from.is_integer() || from.is_floating(),
                DataType::Int64 => from.is_integer() && from != DataType::UInt64,
                DataType::UInt64 => from.is_unsigned_integer(),
                _ => false,
            }
        }
        _ => false,
    })
}
