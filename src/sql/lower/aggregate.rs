//! Aggregates: group and argument expressions become columns of the node below.
//!
//! An argument has the type that DataFusion's type coercion gives it (`sum` of an INT takes a BIGINT column, `avg` of an
//! integer a DOUBLE one), and [`Aggregate::result`] the type of its result.
//!
//! A FILTER becomes a boolean column. What it guards is computed only where it is true ([`guard`]): `sum(1 / x) FILTER (WHERE x <> 0)` divides by
//! no zero.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion_common::DFSchema;
use datafusion_expr::{Expr, logical_plan};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use super::super::planner::guard;
use super::super::types::is_summable;
use super::project::{Computed, project};
use super::{Lowering, Refusal, Result, Stream, nullable};
use crate::circuit::plan::{Aggregate, AggregateFunction, NodeKind, SortColumn};
use call::{Call, call};
use sets::grouping_sets;

mod call;
mod sets;

/// The columns that an aggregate takes from below, each once.
#[derive(Default)]
struct Needed(Vec<Computed>);

impl Needed {
    fn column(&mut self, expr: Arc<dyn PhysicalExpr>, name: String) -> usize {
        let at = self.0.iter().position(|c| c.expr.eq(&expr));
        at.unwrap_or_else(|| {
            self.0.push(Computed { expr, name });
            self.0.len() - 1
        })
    }
}

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &logical_plan::Aggregate) -> Result<Stream> {
        let stream = self.plan(&aggregate.input)?;
        let exprs = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
        let (stream, input) = self.clocked(stream, aggregate.input.schema(), exprs)?;
        let input = &input;
        let mut needed = Needed::default();
        let (group_exprs, sets) = grouping_sets(&aggregate.group_expr)?;
        let mut group = Vec::with_capacity(group_exprs.len());
        for e in &group_exprs {
            group.push(needed.column(self.physical(e, input)?, e.schema_name().to_string()));
        }
        let id_columns = usize::from(sets.is_some());
        let results = aggregate.schema.fields().iter().skip(group.len() + id_columns);
        let mut aggregates = Vec::with_capacity(aggregate.aggr_expr.len());
        for (e, result) in aggregate.aggr_expr.iter().zip(results) {
            aggregates.push(self.one_aggregate(&call(e, input)?, result.data_type(), input, &mut needed)?);
        }
        // The group and the arguments are all that the operator is to carry around.
        let stream = arrange(stream, needed.0, &mut group, &mut aggregates)?;
        let schema = nullable(aggregate.schema.as_arrow());
        match sets {
            Some(sets) => self.sets(stream, &group, &sets, &aggregates, &schema),
            None => {
                let label = if aggregates.is_empty() { "distinct" } else { "group by" };
                Ok(self.push(NodeKind::Aggregate { group, aggregates }, vec![stream], schema, label))
            }
        }
    }

    fn one_aggregate(
        &self,
        call: &Call<'_>,
        result: &DataType,
        input: &DFSchema,
        needed: &mut Needed,
    ) -> Result<Aggregate> {
        let filter = match call.filter {
            None => None,
            Some(filter) => Some(needed.column(self.physical(filter, input)?, filter.schema_name().to_string())),
        };
        let guarded = |e: &Expr| match call.filter {
            Some(filter) => guard::argument(e, filter, input),
            None => Ok(e.clone()),
        };
        let mut arguments = Vec::with_capacity(call.arguments.len());
        for &argument in &call.arguments {
            let expr = self.physical(&guarded(argument)?, input)?;
            let data_type = expr.data_type(input.as_arrow())?;
            let sums = matches!(call.function, AggregateFunction::Sum | AggregateFunction::Avg);
            if sums && !is_summable(&data_type) {
                return Err(Refusal::new(format!("{} over {data_type} is not supported yet", call.function)));
            }
            arguments.push(needed.column(expr, argument.schema_name().to_string()));
        }
        if arguments.is_empty() {
            // count(*) FILTER (WHERE x) counts the rows in which x is true.
            arguments.extend(filter);
        }
        let mut order_by = Vec::with_capacity(call.order_by.len());
        for sort in call.order_by {
            let expr = self.physical(&guarded(&sort.expr)?, input)?;
            let column = needed.column(expr, sort.expr.schema_name().to_string());
            let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
            order_by.push(SortColumn { column, options });
        }
        Ok(Aggregate {
            function: call.function,
            arguments,
            distinct: call.distinct,
            filter,
            order_by,
            ignore_nulls: call.ignore_nulls,
            parameter: call.parameter.clone(),
            result: result.clone(),
        })
    }
}

/// Projects `needed` before an aggregate, or points its columns at the input's, if that has no others.
fn arrange(stream: Stream, needed: Vec<Computed>, group: &mut [usize], aggregates: &mut [Aggregate]) -> Result<Stream> {
    let columns: Option<Vec<usize>> =
        needed.iter().map(|c| c.expr.downcast_ref::<Column>().map(|column| column.index())).collect();
    match columns {
        Some(columns) if !columns.is_empty() && columns.len() == stream.schema.fields().len() => {
            for i in group.iter_mut().chain(aggregates.iter_mut().flat_map(Aggregate::columns_mut)) {
                *i = columns[*i];
            }
            Ok(stream)
        }
        // Whatever one column there is will do for count(*).
        _ if needed.is_empty() && stream.schema.fields().len() == 1 => Ok(stream),
        _ => project(stream, needed),
    }
}
