//! Forms that DataFusion's planner or optimizer does not take, said in others.

use std::convert::Infallible;
use std::ops::ControlFlow;

use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, Result};
use datafusion_expr::logical_plan::{Distinct, DistinctOn, LogicalPlan, LogicalPlanBuilder};
use datafusion_expr::{Expr, ExprFunctionExt, lit};
use datafusion_functions_window::row_number::row_number;
use datafusion_sql::sqlparser::ast::{
    CastKind, DataType, Expr as Ast, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    Ident, LimitClause, ObjectName, Query, Select, TableAlias, TableAliasColumnDef, TableFactor, Value, VisitMut,
    VisitorMut,
};

use crate::sql::as_of;

/// The query with LIMIT in the place of FETCH and without WITH ORDINALITY, here and in its sub-queries.
pub(super) fn standard(query: &Query) -> Query {
    let mut query = query.clone();
    let ControlFlow::Continue(()) = query.visit(&mut Standard);
    query
}

struct Standard;

impl VisitorMut for Standard {
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

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        select.from.iter_mut().flat_map(|from| &mut from.joins).for_each(|join| as_of::standard(join, call));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            table_with_joins.joins.iter_mut().for_each(|join| as_of::standard(join, call));
        }
        if let TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } = factor {
            named_elements(alias, array_exprs.len(), *with_ordinality);
            if std::mem::take(with_ordinality) {
                array_exprs.push(numbers_of(array_exprs));
            }
        }
        ControlFlow::Continue(())
    }
}

/// Gives the columns of UNNEST the names that PostgreSQL gives them: that of the alias, or `unnest`.
fn named_elements(alias: &mut Option<TableAlias>, arrays: usize, with_ordinality: bool) {
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new("unnest"),
        columns: Vec::new(),
        at: None,
    });
    let elements = if arrays == 1 { alias.name.value.as_str() } else { "unnest" };
    let named = |i: usize| if i == 0 { elements.to_owned() } else { format!("unnest_{}", i + 1) };
    let ordinality = with_ordinality.then(|| "ordinality".to_owned());
    let names: Vec<String> = (0..arrays).map(named).chain(ordinality).collect();
    let given = alias.columns.len();
    alias.columns.extend(names.into_iter().skip(given).map(TableAliasColumnDef::from_name));
}

/// A call of a function.
fn call(name: &str, args: Vec<Ast>) -> Ast {
    let args = args.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
    Ast::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The numbers from 1 to the length of the longest of these arrays.
fn numbers_of(arrays: &[Ast]) -> Ast {
    let number = |n: &str| Ast::Value(Value::Number(n.to_owned(), false).with_empty_span());
    let lengths = arrays.iter().map(|array| call("array_length", vec![array.clone()])).collect();
    let length = call("coalesce", vec![call("greatest", lengths), number("0")]);
    let length = Ast::Cast {
        kind: CastKind::Cast,
        expr: Box::new(length),
        data_type: DataType::BigInt(None),
        array: false,
        format: None,
    };
    call("generate_series", vec![number("1"), length])
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
