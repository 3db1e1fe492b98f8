//! Sub-queries in expressions, brought before planning into forms that DataFusion's rules turn into joins as SQL means them.
//!
//! Those rules know EXISTS, IN and scalar sub-queries, and what they make of NULLs is not always three-valued logic. So:
//! 1. `x NOT IN (S)` becomes `NOT EXISTS (S with x = y) AND NOT EXISTS (S with y IS NULL) AND NOT EXISTS (S with x IS NULL)`.
//! 2. IN where NULL and FALSE differ becomes a CASE over the same three.
//! 3. EXISTS in a SELECT list becomes `(SELECT count(*) FROM S) > 0`.
//! 4. A scalar sub-query that may have several rows gets a [`Operation::SingleRow`] on top, which fails on them.
//!
//! Known limits: IN in a SELECT list is refused where a side may be NULL. EXISTS and IN over an aggregate without GROUP BY that reads columns of the query around it is refused: the rules
//! forget that such an aggregate has a row also where nothing matches.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, Result, ScalarValue, plan_err};
use datafusion_expr::expr::{Case, Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion_expr::logical_plan::Subquery;
use datafusion_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, lit};
use datafusion_functions_aggregate::expr_fn::count;

use super::extension::{Operated, Operation};

/// The plan with the sub-queries in its expressions brought into those forms.
pub(super) fn normalise(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        match plan {
            LogicalPlan::Filter(filter) => {
                let mut conditions = Vec::new();
                for e in split_conjunction_owned(filter.predicate) {
                    conditions.push(condition(e, &schema, true)?);
                }
                let predicate = conjunction(conditions).unwrap_or_else(|| lit(true));
                Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
            }
            LogicalPlan::Projection(_) => plan.map_expressions(|e| {
                let name = e.schema_name().to_string();
                let value = value(e, &schema)?.transform_data(|e| e.transform_up(counted))?;
                Ok(if value.transformed { Transformed::yes(value.data.alias_if_changed(name)?) } else { value })
            }),
            // Filters that are pushed down would take it where its columns are not known.
            LogicalPlan::Join(ref join) if join.filter.as_ref().is_some_and(has_subquery) => plan_err!("{NOT_A_JOIN}"),
            other => other.map_expressions(|e| value(e, &schema)),
        }
    })
    .data()
}

/// An error if the optimizer has left a sub-query in an expression.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut is_left = false;
    plan.apply(|plan| {
        plan.apply_expressions(|e| {
            is_left |= e.exists(|e| Ok(is_subquery(e) || matches!(e, Expr::OuterReferenceColumn(..))))?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if is_left { plan_err!("{NOT_A_JOIN}") } else { Ok(()) }
}

/// What is wrong with a sub-query that is left.
pub(super) const NOT_A_JOIN: &str = "this sub-query cannot be turned into a join, and is not supported yet";
/// What is wrong with an aggregate that EXISTS or IN must not look into.
pub(super) const AGGREGATE_OF_NOTHING: &str = "EXISTS or IN over an aggregate without GROUP BY that reads columns of the query around it is \
                                               not supported yet";

fn is_subquery(e: &Expr) -> bool {
    matches!(e, Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_))
}

/// A condition of which only TRUE counts, not what tells FALSE from NULL. `is_whole`: it is not part of another one.
fn condition(e: Expr, schema: &DFSchema, is_whole: bool) -> Result<Expr> {
    let e = if_in(e);
    match e {
        Expr::InSubquery(InSubquery { ref expr, ref subquery, negated }) if !has_subquery(expr) => {
            check_rows(subquery)?;
            match (negated, is_whole) {
                (false, _) => Ok(e),
                (true, true) => {
                    let Membership { found, null, unknown } = membership(expr, subquery, schema)?;
                    let others = null.into_iter().chain(unknown);
                    Ok(others.fold(not_exists(found), |all, e| all.and(not_exists(e))))
                }
                (true, false) => value(e, schema).data(),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let (left, right) = (condition(*left, schema, false)?, condition(*right, schema, false)?);
            Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
        }
        e => value(e, schema).data(),
    }
}

/// `= ANY` and `<> ALL` as IN and NOT IN, `NOT x IN` as `x NOT IN`.
fn if_in(e: Expr) -> Expr {
    match e {
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => match (op, quantifier) {
            (Operator::Eq, SetQuantifier::Any) => Expr::InSubquery(InSubquery::new(expr, subquery, false)),
            (Operator::NotEq, SetQuantifier::All) => Expr::InSubquery(InSubquery::new(expr, subquery, true)),
            _ => Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }),
        },
        Expr::Not(e) => match *e {
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                Expr::InSubquery(InSubquery::new(expr, subquery, !negated))
            }
            e => Expr::Not(Box::new(e)),
        },
        e => e,
    }
}

/// An expression whose value counts, NULL too.
fn value(e: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    e.transform_up(|e| match if_in(e) {
        Expr::InSubquery(InSubquery { expr, subquery, negated }) if !has_subquery(&expr) => {
            check_rows(&subquery)?;
            let Membership { found, null, unknown } = membership(&expr, &subquery, schema)?;
            let unknowns =
                null.into_iter().chain(unknown).map(|e| (e, Expr::Literal(ScalarValue::Boolean(None), None)));
            let when = std::iter::once((found, lit(!negated))).chain(unknowns);
            let when_then_expr = when.map(|(when, then)| (Box::new(when), Box::new(then))).collect();
            let else_expr = Some(Box::new(lit(negated)));
            Ok(Transformed::yes(Expr::Case(Case { expr: None, when_then_expr, else_expr })))
        }
        Expr::Exists(Exists { subquery, negated }) => {
            check_rows(&subquery)?;
            Ok(Transformed::no(Expr::Exists(Exists { subquery, negated })))
        }
        Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty() => {
            check_names(&subquery)?;
            Ok(Transformed::no(Expr::ScalarSubquery(subquery)))
        }
        Expr::ScalarSubquery(subquery) if subquery.subquery.max_rows().is_none_or(|n| n > 1) => {
            let plan = Operated::plan(Operation::SingleRow, subquery.subquery.as_ref().clone())?;
            // The rules ask for the expression that its first column is.
            let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
            let plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
            Ok(Transformed::yes(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), ..subquery })))
        }
        e => Ok(Transformed::no(e)),
    })
}

/// EXISTS as a comparison of a count.
fn counted(e: Expr) -> Result<Transformed<Expr>> {
    let Expr::Exists(Exists { subquery, negated }) = e else { return Ok(Transformed::no(e)) };
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
    let plan = plan.aggregate(Vec::<Expr>::new(), vec![count(lit(1i64))])?.build()?;
    let rows = Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), ..subquery });
    Ok(Transformed::yes(if negated { rows.eq(lit(0i64)) } else { rows.gt(lit(0i64)) }))
}

fn has_subquery(e: &Expr) -> bool {
    e.exists(|e| Ok(is_subquery(e))).unwrap_or(true)
}

/// An error if the rules would make of this EXISTS or IN what it does not mean.
fn check_rows(subquery: &Subquery) -> Result<()> {
    let has_row_of_nothing = |plan: &LogicalPlan| match plan {
        LogicalPlan::Aggregate(a) => a.group_expr.iter().all(|e| matches!(e, Expr::GroupingSet(_))),
        _ => false,
    };
    if has_outer(subquery, &has_row_of_nothing)? {
        return plan_err!("{AGGREGATE_OF_NOTHING}");
    }
    // The rules would drop a limit.
    if has_outer(subquery, &|plan| matches!(plan, LogicalPlan::Limit(_)))? {
        return plan_err!("{NOT_A_JOIN}");
    }
    check_names(subquery)
}

/// An error if the rules would take columns for others: they do not see what they add below an alias, and tell columns by their
/// relations' names alone.
fn check_names(subquery: &Subquery) -> Result<()> {
    let relation = |e: &Expr| match e {
        Expr::OuterReferenceColumn(_, column) => column.relation.clone(),
        _ => None,
    };
    let outer: Vec<_> = subquery.outer_ref_columns.iter().filter_map(relation).collect();
    let is_inside = |plan: &LogicalPlan| plan.schema().iter().any(|(q, _)| q.is_some_and(|q| outer.contains(q)));
    let clashes = subquery.subquery.exists(|plan| Ok(is_inside(plan)))?;
    if clashes || has_outer(subquery, &|plan| matches!(plan, LogicalPlan::SubqueryAlias(_)))? {
        return plan_err!("{NOT_A_JOIN}");
    }
    Ok(())
}

/// Whether a node of that kind reads columns of the query around the sub-query.
fn has_outer(subquery: &Subquery, is_meant: &dyn Fn(&LogicalPlan) -> bool) -> Result<bool> {
    subquery.subquery.exists(|plan| Ok(is_meant(plan) && !plan.all_out_ref_exprs().is_empty()))
}

/// What decides about `x IN (S)`.
struct Membership {
    /// EXISTS over the rows equal to `x`.
    found: Expr,
    /// EXISTS over the NULLs of S, if it can have any.
    null: Option<Expr>,
    /// EXISTS over all rows of S if `x` is NULL, if it can be.
    unknown: Option<Expr>,
}

/// The relation that S is called by in them, so that its columns are told from `x`'s.
const MEMBERS: &str = "__members";

fn membership(x: &Expr, subquery: &Subquery, schema: &DFSchema) -> Result<Membership> {
    let outer = x.clone().transform_up(|e| match e {
        Expr::Column(column) => {
            let field = Arc::clone(schema.qualified_field_from_column(&column)?.1);
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        e => Ok(Transformed::no(e)),
    });
    let outer = outer.data()?;
    let rows = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
    let is_correlated = !subquery.outer_ref_columns.is_empty();
    // Not below an alias: see `check_names`.
    let rows = if is_correlated { rows } else { rows.alias(MEMBERS)? }.build()?;
    let y = Expr::Column(Column::from(rows.schema().qualified_field(0)));
    let exists = |predicate: Expr| -> Result<Expr> {
        let plan = LogicalPlanBuilder::from(rows.clone()).filter(predicate)?.build()?;
        let outer_ref_columns = plan.all_out_ref_exprs();
        let subquery = Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: subquery.spans.clone() };
        if is_correlated {
            check_names(&subquery)?;
        }
        Ok(Expr::Exists(Exists { subquery, negated: false }))
    };
    Ok(Membership {
        found: exists(outer.clone().eq(y.clone()))?,
        null: rows.schema().field(0).is_nullable().then(|| exists(y.is_null())).transpose()?,
        unknown: x.nullable(schema)?.then(|| exists(outer.is_null())).transpose()?,
    })
}

fn not_exists(e: Expr) -> Expr {
    match e {
        Expr::Exists(Exists { subquery, negated }) => Expr::Exists(Exists { subquery, negated: !negated }),
        e => Expr::Not(Box::new(e)),
    }
}
