//! Forms that DataFusion's planner or optimizer does not take, said in others.

use std::convert::Infallible;
use std::ops::ControlFlow;

use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, Result};
use datafusion_expr::logical_plan::{Distinct, DistinctOn, LogicalPlan, LogicalPlanBuilder};
use datafusion_expr::{Expr, ExprFunctionExt, lit};
use datafusion_functions_window::row_number::row_number;
use datafusion_sql::sqlparser::ast::{Expr as Ast, LimitClause, Query, Value, VisitMut, VisitorMut};

/// The query with LIMIT in the place of FETCH, here and in its sub-queries.
pub(super) fn fetch_as_limit(query: &Query) -> Query {
    let mut query = query.clone();
    let ControlFlow::Continue(()) = query.visit(&mut FetchAsLimit);
    query
}

struct FetchAsLimit;

impl VisitorMut for FetchAsLimit {
    type Break = Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        if let Some(fetch) = query.fetch.take() {
            let one = || Ast::Value(Value::Number("1".to_owned(), false).with_empty_span());
            let limit = Some(fetch.quantity.unwrap_or_else(one));
            let offset = match query.limit_clause.take() {
                Some(LimitClause::LimitOffset { offset, .. }) => offset,
                _ => None,
            };
            query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by: Vec::new() });
        }
        ControlFlow::Continue(())
    }
}

/// DISTINCT ON as the first row of each partition.
pub(super) fn distinct_on(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Distinct(Distinct::On(DistinctOn { on_expr, select_expr, sort_expr, input, schema })) = plan
    else {
        return Ok(Transformed::no(plan));
    };
    let number = row_number().partition_by(on_expr);
    let number = match sort_expr {
        Some(order) if !order.is_empty() => number.order_by(order).build()?,
        _ => number.build()?,
    };
    let first = Expr::Column(Column::new_unqualified(number.schema_name().to_string())).eq(lit(1u64));
    let columns = select_expr.into_iter().zip(schema.iter()).map(|(e, (qualifier, field))| {
        let (own_qualifier, name) = e.qualified_name();
        let is_named = own_qualifier.as_ref() == qualifier && name == *field.name();
        if is_named { e } else { e.alias_qualified(qualifier.cloned(), field.name()) }
    });
    let columns: Vec<Expr> = columns.collect();
    let plan = LogicalPlanBuilder::from(input).window([number])?.filter(first)?.project(columns)?.build()?;
    Ok(Transformed::yes(plan))
}
