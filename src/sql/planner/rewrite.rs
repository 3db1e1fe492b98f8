//! Forms that DataFusion's planner or optimizer does not take, said in others.

use std::convert::Infallible;
use std::ops::ControlFlow;

use datafusion_common::tree_node::{Transformed, TreeNode as _};
use datafusion_common::{Column, DFSchema, Result};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::{Distinct, DistinctOn, LogicalPlan, LogicalPlanBuilder};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Expr, ExprFunctionExt, lit};
use datafusion_functions_window::row_number::row_number;
use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, DataType, Expr as Ast, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, LimitClause, ObjectName, Query, Select, TableAlias,
    TableAliasColumnDef, TableFactor, UnaryOperator, Value, VisitMut, VisitorMut,
};

use crate::sql::as_of;

/// The query with LIMIT in the place of FETCH and without WITH ORDINALITY, here and in its sub-queries.
pub(super) fn standard(query: &Query) -> Query {
    let mut query = query.clone();
    let ControlFlow::Continue(()) = query.visit(&mut Standard);
    query
}

/// The query with names for its casts, of which DataFusion's have none: `CASE WHEN 'DATE' = 'DATE' THEN CAST(x AS DATE) END` is folded later.
pub(super) fn told_apart(mut query: Query) -> Query {
    let ControlFlow::Continue(()) = query.visit(&mut Casts);
    query
}

struct Casts;

impl VisitorMut for Casts {
    type Break = Infallible;

    fn post_visit_expr(&mut self, e: &mut Ast) -> ControlFlow<Self::Break> {
        if let Ast::Cast { data_type, .. } = e {
            let name = || Ast::Value(Value::SingleQuotedString(data_type.to_string()).with_empty_span());
            let condition = binary(name(), BinaryOperator::Eq, name());
            let conditions = vec![CaseWhen { condition, result: e.clone() }];
            let token = AttachedToken::empty;
            *e = Ast::Case { case_token: token(), end_token: token(), operand: None, conditions, else_result: None };
        }
        ControlFlow::Continue(())
    }
}

struct Standard;

impl VisitorMut for Standard {
    type Break = Infallible;

    fn post_visit_expr(&mut self, e: &mut Ast) -> ControlFlow<Self::Break> {
        let same = match e {
            // DataFusion's planner forgets in its elements what stands around: `FROM t, UNNEST(ARRAY[t.a])`.
            Ast::Array(array) => Some(call("make_array", std::mem::take(&mut array.elem))),
            _ => rows(e).or_else(|| any_of(e)),
        };
        if let Some(same) = same {
            *e = same;
        }
        ControlFlow::Continue(())
    }

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
        [&mut select.selection, &mut select.having, &mut select.qualify].into_iter().flatten().for_each(any_that_holds);
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

/// A comparison of rows as comparisons of their columns: `(a, b) < (c, d)` is `a < c OR a = c AND b < d`, NULL where these are. As values, rows
/// have an order in which NULL has a place.
fn rows(e: &Ast) -> Option<Ast> {
    let columns = |e: &Ast| match e {
        Ast::Tuple(columns) if !columns.is_empty() => Some(columns.clone()),
        _ => None,
    };
    match e {
        Ast::BinaryOp { left, op, right } => compared(&columns(left)?, op, &columns(right)?),
        Ast::InList { expr, list, negated } => {
            let left = columns(expr)?;
            let equal = list.iter().map(|e| compared(&left, &BinaryOperator::Eq, &columns(e)?));
            let any = equal.collect::<Option<Vec<_>>>()?.into_iter().reduce(|a, b| binary(a, BinaryOperator::Or, b))?;
            let any = Ast::Nested(Box::new(any));
            Some(if *negated { Ast::UnaryOp { op: UnaryOperator::Not, expr: Box::new(any) } } else { any })
        }
        _ => None,
    }
}

/// `x = ANY(array)` as `array_has(array, x)` where a condition counts only if it is true: NULL or false, it costs one look at the array.
fn any_that_holds(e: &mut Ast) {
    match e {
        Ast::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            any_that_holds(left);
            any_that_holds(right);
        }
        Ast::Nested(inner) => any_that_holds(inner),
        Ast::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. }
            if !matches!(right.as_ref(), Ast::Subquery(_)) =>
        {
            *e = call("array_has", vec![right.as_ref().clone(), left.as_ref().clone()]);
        }
        _ => {}
    }
}

/// `x = ANY(array)` as `NOT x <> ALL(array)`: DataFusion's planner thinks of NULLs in the array for ALL only.
fn any_of(e: &Ast) -> Option<Ast> {
    use BinaryOperator as O;
    let Ast::AnyOp { left, compare_op, right, .. } = e else { return None };
    let compare_op = match compare_op {
        _ if matches!(right.as_ref(), Ast::Subquery(_)) => return None,
        O::Eq => O::NotEq,
        O::NotEq => O::Eq,
        O::Lt => O::GtEq,
        O::LtEq => O::Gt,
        O::Gt => O::LtEq,
        O::GtEq => O::Lt,
        _ => return None,
    };
    let all = Ast::AllOp { left: left.clone(), compare_op, right: right.clone() };
    let not = Ast::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Ast::Nested(Box::new(all))) };
    Some(Ast::Nested(Box::new(not)))
}

fn compared(left: &[Ast], op: &BinaryOperator, right: &[Ast]) -> Option<Ast> {
    use BinaryOperator as O;
    let ([l, left_rest @ ..], [r, right_rest @ ..]) = (left, right) else { return None };
    let of = |op: &O| binary(l.clone(), op.clone(), r.clone());
    if left.len() != right.len() || !matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq) {
        return None;
    }
    if left_rest.is_empty() {
        return Some(of(op));
    }
    let rest = compared(left_rest, op, right_rest)?;
    let both = match op {
        O::Eq => binary(of(op), O::And, rest),
        O::NotEq => binary(of(op), O::Or, rest),
        _ => {
            let strict = if matches!(op, O::Lt | O::LtEq) { O::Lt } else { O::Gt };
            binary(of(&strict), O::Or, Ast::Nested(Box::new(binary(of(&O::Eq), O::And, rest))))
        }
    };
    Some(Ast::Nested(Box::new(both)))
}

fn binary(left: Ast, op: BinaryOperator, right: Ast) -> Ast {
    Ast::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
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

/// A plan with the expressions of its root, and what they are made of, rewritten over the rows that they see; its columns keep their names.
pub(super) fn expressions(
    plan: LogicalPlan,
    rewrite: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|e| {
        let name = names.save(&e);
        Ok(e.transform_up(|e| rewrite(e, &schema))?.update_data(|e| name.restore(e)))
    })
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
