//! INTERSECT ALL and EXCEPT ALL as multisets: DataFusion plans them as semi and anti joins, which know no numbers of copies.
//!
//! `L EXCEPT ALL R` counts each row in both, by one aggregate over the union of L and R, and [`Operation::Repeat`] puts it out `l - r` times;
//! INTERSECT ALL as often as the smaller of `l` and `r` says. Over a `SELECT DISTINCT`, where the joins are right, they stay: so do
//! those of INTERSECT and EXCEPT without ALL.

use datafusion_common::tree_node::{Transformed, TransformedResult};
use datafusion_common::{Column, JoinType, NullEquality, Result};
use datafusion_expr::logical_plan::{Distinct, Join};
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit, when};
use datafusion_functions_aggregate::expr_fn::sum;

use super::extension::{Operated, Operation};

/// The columns that count a row on the left and on the right.
const COUNTS: [&str; 2] = ["__left", "__right"];

/// The plan with its set operations brought into that form. It comes from the planner as it is: later other joins look alike.
pub(super) fn normalise(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join)
            if join.null_equality == NullEquality::NullEqualsNull
                && matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
                && !matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_))) =>
        {
            counted(&join).map(Transformed::yes)
        }
        plan => Ok(Transformed::no(plan)),
    })
    .data()
}

fn counted(join: &Join) -> Result<LogicalPlan> {
    let side = |plan: &LogicalPlan, counts: [i64; 2]| {
        let columns = plan.schema().columns().into_iter().map(Expr::Column);
        let counts = counts.into_iter().zip(COUNTS).map(|(n, name)| lit(n).alias(name));
        LogicalPlanBuilder::from(plan.clone()).project(columns.chain(counts).collect::<Vec<_>>())?.build()
    };
    let both = LogicalPlanBuilder::from(side(&join.left, [1, 0])?).union(side(&join.right, [0, 1])?)?.build()?;
    let width = join.left.schema().fields().len();
    let columns: Vec<Column> = both.schema().columns().into_iter().collect();
    let (rows, counts) = columns.split_at(width);
    let sums: Vec<Expr> = counts.iter().zip(COUNTS).map(|(c, name)| sum(Expr::Column(c.clone())).alias(name)).collect();
    let rows: Vec<Expr> = rows.iter().cloned().map(Expr::Column).collect();
    let [left, right] = COUNTS.map(|name| Expr::Column(Column::new_unqualified(name)));
    let times = match join.join_type {
        JoinType::LeftSemi => when(left.clone().lt(right.clone()), left).otherwise(right)?,
        _ => left - right,
    };
    let counted = LogicalPlanBuilder::from(both)
        .aggregate(rows.clone(), sums)?
        .project(rows.iter().cloned().chain([times.alias("__times")]).collect::<Vec<_>>())?
        .build()?;
    let repeated = Operated::plan(Operation::Repeat, counted)?;
    // Under the names of the left side.
    let names = join.left.schema().iter().zip(rows).map(|((qualifier, field), row)| match qualifier {
        Some(qualifier) => row.alias_qualified(Some(qualifier.clone()), field.name()),
        None => row.alias(field.name()),
    });
    LogicalPlanBuilder::from(repeated).project(names.collect::<Vec<_>>())?.build()
}
