//! UNNEST in FROM: DataFusion plans it as a lateral sub-query that no rule of its turns into a join; it becomes an UNNEST of the
//! rows that it stands beside.
//!
//! ```text
//! Join(t, u: Subquery(Projection(Unnest(Projection(outer_ref(t.arr), one row)))))
//! → Projection(Unnest(Projection(t.*, t.arr, t)))
//! ```

use datafusion_common::NullHandling;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{Column, DFSchema, Result, TableReference, UnnestOptions, plan_err};
use datafusion_expr::logical_plan::{EmptyRelation, Join, JoinType, LogicalPlan, LogicalPlanBuilder, SubqueryAlias};
use datafusion_expr::{Expr, lit};

/// What is wrong with a condition of an outer join with UNNEST.
pub(super) const UNNEST_ON: &str = "LEFT JOIN UNNEST takes ON TRUE only";

/// The plan without lateral UNNEST on the right of this join.
pub(super) fn beside_unnest(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(join) = plan else { return Ok(Transformed::no(plan)) };
    let (subquery, alias) = match join.right.as_ref() {
        LogicalPlan::Subquery(subquery) => (&subquery.subquery, None),
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => match input.as_ref() {
            LogicalPlan::Subquery(subquery) => (&subquery.subquery, Some(alias)),
            _ => return Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        _ => return Ok(Transformed::no(LogicalPlan::Join(join))),
    };
    let is_known = matches!(join.join_type, JoinType::Inner | JoinType::Left) && join.on.is_empty();
    if !is_known || !is_unnest(subquery) {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    Ok(Transformed::yes(joined(&join, subquery, alias)?))
}

/// Whether a sub-query unnests what it computes from one row, and does nothing else.
fn is_unnest(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_unnest(&projection.input),
        LogicalPlan::Unnest(unnest) => computes_one_row(&unnest.input),
        _ => false,
    }
}

fn computes_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => computes_one_row(&projection.input),
        LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row, .. }) => *produce_one_row,
        _ => false,
    }
}

fn joined(join: &Join, subquery: &LogicalPlan, alias: Option<&TableReference>) -> Result<LogicalPlan> {
    let left = Left { schema: join.left.schema() };
    let carried = join.left.schema().iter().enumerate().map(|(i, (qualifier, field))| {
        Expr::Column(Column::new(qualifier.cloned(), field.name())).alias(Left::name(i))
    });
    let base = LogicalPlanBuilder::from(join.left.clone()).project(carried.collect::<Vec<_>>())?.build()?;
    let keeps_empty = join.join_type == JoinType::Left;
    let is_true = join.filter.as_ref().is_none_or(|filter| *filter == lit(true));
    if keeps_empty && !is_true {
        return plan_err!("{UNNEST_ON}");
    }
    let plan = left.under(subquery, base, keeps_empty)?;
    let own = left.schema.iter().enumerate().map(|(i, (qualifier, field))| {
        Expr::Column(Column::new_unqualified(Left::name(i))).alias_qualified(qualifier.cloned(), field.name())
    });
    let elements = subquery.schema().iter().map(|(qualifier, field)| {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        column.alias_qualified(alias.or(qualifier).cloned(), field.name())
    });
    let plan = LogicalPlanBuilder::from(plan).project(own.chain(elements).collect::<Vec<_>>())?;
    match &join.filter {
        Some(filter) if !is_true => plan.filter(filter.clone())?.build(),
        _ => plan.build(),
    }
}

/// The rows that the elements stand beside. Their columns go through the sub-query under names that nothing in it has.
struct Left<'a> {
    schema: &'a DFSchema,
}

impl Left<'_> {
    fn name(i: usize) -> String {
        format!("__left_{i}")
    }

    /// The sub-query over these rows in the place of its one row, with their columns in front of its own.
    fn under(&self, plan: &LogicalPlan, base: LogicalPlan, keeps_empty: bool) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let below = self.under(&projection.input, base, keeps_empty)?;
                let own = (0..self.schema.fields().len()).map(|i| Expr::Column(Column::new_unqualified(Self::name(i))));
                let mut exprs: Vec<Expr> = own.collect();
                for e in &projection.expr {
                    let name = e.schema_name().to_string();
                    exprs.push(self.resolved(e.clone())?.alias_if_changed(name)?);
                }
                LogicalPlanBuilder::from(below).project(exprs)?.build()
            }
            LogicalPlan::Unnest(unnest) => {
                let below = self.under(&unnest.input, base, keeps_empty)?;
                let nulls = if keeps_empty { NullHandling::PreserveAndExpandEmpty } else { NullHandling::Drop };
                let options: UnnestOptions = unnest.options.clone().with_null_handling(nulls);
                LogicalPlanBuilder::from(below)
                    .unnest_columns_with_options(unnest.exec_columns.clone(), options)?
                    .build()
            }
            _ => Ok(base),
        }
    }

    /// The expression over the carried columns.
    fn resolved(&self, e: Expr) -> Result<Expr> {
        let column = |e: Expr| match &e {
            Expr::OuterReferenceColumn(_, column) => Ok(match self.schema.maybe_index_of_column(column) {
                Some(i) => Transformed::yes(Expr::Column(Column::new_unqualified(Self::name(i)))),
                None => Transformed::no(e),
            }),
            _ => Ok(Transformed::no(e)),
        };
        e.transform(column).data()
    }
}
