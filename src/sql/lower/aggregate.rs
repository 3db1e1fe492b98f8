//! Aggregates: group and argument expressions become columns of the node below.
//!
//! An argument has the type that DataFusion's type coercion gives it (`sum` of an INT takes a BIGINT column, `avg` of an
//! integer a DOUBLE one), and [`Aggregate::result`] the type of its result.
//!
//! A FILTER becomes a boolean column. An argument that may fail is computed only where it is true: `sum(1 / x) FILTER
//! (WHERE x <> 0)` divides by no zero.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::DFSchema;
use datafusion_expr::{Expr, ExprSchemable, expr, logical_plan, when};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use super::super::types::is_summable;
use super::project::{Computed, project};
use super::{Lowering, Refusal, Result, Stream};
use crate::circuit::plan::{Aggregate, AggregateFunction, NodeKind};

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

/// An aggregate as it is called.
struct Call<'a> {
    function: AggregateFunction,
    /// None for `count(*)`.
    arguments: Vec<&'a Expr>,
    distinct: bool,
    filter: Option<&'a Expr>,
}

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &logical_plan::Aggregate) -> Result<Stream> {
        let stream = self.plan(&aggregate.input)?;
        let input = aggregate.input.schema();
        let mut needed = Needed::default();
        let mut group = Vec::with_capacity(aggregate.group_expr.len());
        for e in &aggregate.group_expr {
            if matches!(e, Expr::GroupingSet(_)) {
                return Err(Refusal::new("GROUPING SETS is not supported yet"));
            }
            group.push(needed.column(self.physical(e, input)?, e.schema_name().to_string()));
        }
        let results = aggregate.schema.fields().iter().skip(group.len());
        let mut aggregates = Vec::with_capacity(aggregate.aggr_expr.len());
        for (e, result) in aggregate.aggr_expr.iter().zip(results) {
            aggregates.push(self.one_aggregate(&call(e)?, result.data_type(), input, &mut needed)?);
        }
        let fields: Vec<Field> =
            aggregate.schema.fields().iter().map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect();
        // The group and the arguments are all that the operator is to carry around.
        let stream = arrange(stream, needed.0, &mut group, &mut aggregates)?;
        let label = if aggregates.is_empty() { "distinct" } else { "group by" };
        Ok(self.push(NodeKind::Aggregate { group, aggregates }, vec![stream], Arc::new(Schema::new(fields)), label))
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
        let mut arguments = Vec::with_capacity(call.arguments.len());
        for &argument in &call.arguments {
            let expr = match call.filter {
                Some(filter) if !cannot_fail(argument, input)? => {
                    self.physical(&when(filter.clone(), argument.clone()).end()?, input)?
                }
                _ => self.physical(argument, input)?,
            };
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
        Ok(Aggregate { function: call.function, arguments, distinct: call.distinct, filter, result: result.clone() })
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

/// Whether an argument has a value for every row: a column, a constant, or a number made wider.
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

/// What an aggregate expression calls.
fn call(e: &Expr) -> Result<Call<'_>> {
    let function = match e {
        Expr::Alias(alias) => return call(&alias.expr),
        Expr::AggregateFunction(function) => function,
        other => return Err(Refusal::new(format!("`{other}` is not an aggregate"))),
    };
    let expr::AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = &function.params;
    if !order_by.is_empty() || null_treatment.is_some() {
        return Err(Refusal::new(format!("ORDER BY or IGNORE NULLS in `{e}` is not supported yet")));
    }
    let kind = match function.func.name() {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "avg" => AggregateFunction::Avg,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        other => return Err(Refusal::new(format!("the aggregate {} is not supported yet", other.to_uppercase()))),
    };
    // The extremum of a set is that of the multiset.
    let distinct = *distinct && !matches!(kind, AggregateFunction::Min | AggregateFunction::Max);
    let arguments: Vec<&Expr> = match (kind, args.as_slice()) {
        // The planner writes count(*) as count(1).
        (AggregateFunction::Count, [Expr::Literal(value, _)]) if !value.is_null() && !distinct => Vec::new(),
        (_, [argument]) => vec![argument],
        _ => {
            return Err(Refusal::new(format!(
                "`{e}`: an aggregate with {} arguments is not supported yet",
                args.len()
            )));
        }
    };
    Ok(Call { function: kind, arguments, distinct, filter: filter.as_deref() })
}
