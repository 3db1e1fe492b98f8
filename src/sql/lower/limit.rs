//! LIMIT and OFFSET, and ranks with an upper bound: top-k over the order below.
//!
//! ORDER BY by itself is dropped: a relation has no order. It counts for the LIMIT right above it, with nothing but projections
//! between them; a LIMIT without one takes the first rows in the order of all their columns.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{Column, DFSchema, ScalarValue};
use datafusion_expr::expr::{self, Sort};
use datafusion_expr::logical_plan::{self, FetchType, LogicalPlan, SkipType};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{BinaryExpr, Expr, Operator};
use datafusion_physical_expr::expressions::Literal;

use super::{Computed, Lowering, Refusal, Result, Stream, column, project};
use crate::circuit::plan::{NodeKind, Ranking, SortColumn, TopK};

/// How many rows are taken and how they are counted.
struct Bound {
    ranking: Ranking,
    skip: u64,
    fetch: Option<u64>,
    numbered: bool,
}

/// A stream whose partition and order are columns.
pub(super) struct Sorted {
    pub(super) stream: Stream,
    pub(super) partition: Vec<usize>,
    /// Each column once.
    pub(super) order: Vec<SortColumn>,
}

impl Lowering<'_> {
    pub(super) fn limit(&mut self, limit: &logical_plan::Limit) -> Result<Stream> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Err(Refusal::new("LIMIT and OFFSET take a number"));
        };
        if skip == 0 && fetch.is_none() {
            return self.plan(&limit.input);
        }
        let bound =
            Bound { ranking: Ranking::RowNumber, skip: skip as u64, fetch: fetch.map(|n| n as u64), numbered: false };
        self.first_rows(&limit.input, &bound)
    }

    /// The first rows of a plan, in its order if it has one.
    fn first_rows(&mut self, plan: &LogicalPlan, bound: &Bound) -> Result<Stream> {
        match plan {
            LogicalPlan::Projection(projection) if is_sorted(&projection.input) => {
                let stream = self.first_rows(&projection.input, bound)?;
                self.project_plan(projection, stream)
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                let stream = self.plan(&sort.input)?;
                self.top(stream, &[], &sort.expr, sort.input.schema(), bound)
            }
            other => {
                let stream = self.plan(other)?;
                self.top(stream, &[], &[], other.schema(), bound)
            }
        }
    }

    /// A filter that bounds the one rank of the window below it, with nothing but a projection between them. `readers` are the
    /// expressions that read what comes out, if they are known: a rank that none of them reads is NULL. To number rows for
    /// nobody would change all of them behind a new one.
    pub(super) fn ranked(&mut self, filter: &logical_plan::Filter, readers: Option<&[Expr]>) -> Result<Option<Stream>> {
        let (window, projection) = match filter.input.as_ref() {
            LogicalPlan::Window(window) => (window, None),
            LogicalPlan::Projection(projection) => match projection.input.as_ref() {
                LogicalPlan::Window(window) => (window, Some(projection)),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let [Expr::WindowFunction(function)] = window.window_expr.as_slice() else { return Ok(None) };
        let Some(ranking) = ranking(function) else { return Ok(None) };
        let last = window.schema.fields().len() - 1;
        let made = Column::from(window.schema.qualified_field(last));
        let projected = projection.map_or(&[][..], |p| p.expr.as_slice());
        let place = match projection {
            None => Some(last),
            Some(_) => projected.iter().position(|e| is_column(e, &made)),
        };
        let Some(place) = place else { return Ok(None) };
        let rank = Column::from(filter.input.schema().qualified_field(place));
        let conjuncts = split_conjunction(&filter.predicate);
        let Some(fetch) = conjuncts.iter().filter_map(|e| upper_bound(e, &rank)).min() else { return Ok(None) };
        // Of ranks from 1 on, `= 1` says the same as `<= 1`.
        let is_said = |e: &Expr| upper_bound(e, &rank).is_some_and(|bound| !is_equality(e) || bound <= 1);
        let rest: Vec<&Expr> = conjuncts.into_iter().filter(|e| !is_said(e)).collect();
        let reads = |e: &Expr| e.column_refs().contains(&rank);
        let elsewhere = projected.iter().enumerate().any(|(i, e)| i != place && e.column_refs().contains(&made));
        let numbered =
            readers.is_none_or(|readers| readers.iter().any(reads)) || rest.iter().any(|e| reads(e)) || elsewhere;
        let stream = self.plan(&window.input)?;
        let params = &function.params;
        let bound = Bound { ranking, skip: 0, fetch: Some(fetch), numbered };
        let mut stream = self.top(stream, &params.partition_by, &params.order_by, window.input.schema(), &bound)?;
        if !numbered {
            let null = Arc::new(Literal::new(ScalarValue::UInt64(None)));
            let mut computed: Vec<Computed> = (0..last).map(|i| column(&stream.schema, i)).collect();
            computed.push(Computed { expr: null, name: ranking.to_string() });
            stream = project(stream, computed)?;
        }
        if let Some(projection) = projection {
            stream = self.project_plan(projection, stream)?;
        }
        for predicate in rest {
            stream = self.filter(stream, predicate, filter.input.schema())?;
        }
        Ok(Some(stream))
    }

    fn top(
        &mut self,
        stream: Stream,
        partition: &[Expr],
        order: &[Sort],
        schema: &DFSchema,
        bound: &Bound,
    ) -> Result<Stream> {
        let width = stream.schema.fields().len();
        let Sorted { stream, partition, order } = self.sorted(stream, partition, order, schema)?;
        let keyed_width = stream.schema.fields().len();
        let mut fields: Vec<Field> =
            stream.schema.fields().iter().map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect();
        if bound.numbered {
            fields.push(Field::new(bound.ranking.to_string(), DataType::UInt64, true));
        }
        let schema = Arc::new(Schema::new(fields));
        let kept: Vec<Computed> =
            (0..width).chain(bound.numbered.then_some(keyed_width)).map(|i| column(&schema, i)).collect();
        let Bound { ranking, skip, fetch, numbered } = *bound;
        let kind = NodeKind::TopK(TopK { partition, order, ranking, skip, fetch, numbered });
        let top = self.push(kind, vec![stream], schema, "top");
        project(top, kept)
    }

    /// Makes columns of partition and order.
    pub(super) fn sorted(
        &self,
        stream: Stream,
        partition: &[Expr],
        order: &[Sort],
        schema: &DFSchema,
    ) -> Result<Sorted> {
        let exprs: Vec<&Expr> = partition.iter().chain(order.iter().map(|key| &key.expr)).collect();
        let (stream, mut partition_columns) = self.keyed(stream, &exprs, schema)?;
        let order_columns = partition_columns.split_off(partition.len());
        let mut keys: Vec<SortColumn> = Vec::with_capacity(order.len());
        for (column, key) in order_columns.into_iter().zip(order) {
            if keys.iter().all(|k| k.column != column) {
                let options = SortOptions { descending: !key.asc, nulls_first: key.nulls_first };
                keys.push(SortColumn { column, options });
            }
        }
        Ok(Sorted { stream, partition: partition_columns, order: keys })
    }
}

/// Whether a plan's rows have an order.
fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => is_sorted(&projection.input),
        _ => false,
    }
}

/// Whether an expression is that column, whatever it is called.
fn is_column(e: &Expr, wanted: &Column) -> bool {
    match e {
        Expr::Alias(alias) => is_column(&alias.expr, wanted),
        Expr::Column(column) => column == wanted,
        _ => false,
    }
}

fn ranking(function: &expr::WindowFunction) -> Option<Ranking> {
    match function.fun.name() {
        "row_number" => Some(Ranking::RowNumber),
        "rank" => Some(Ranking::Rank),
        "dense_rank" => Some(Ranking::DenseRank),
        _ => None,
    }
}

fn is_equality(e: &Expr) -> bool {
    matches!(e, Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }))
}

/// The largest rank that the condition lets through, if it compares the rank with a whole number.
fn upper_bound(e: &Expr, rank: &Column) -> Option<u64> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = e else { return None };
    let (op, number) = match (is_rank(left, rank), is_rank(right, rank)) {
        (true, false) => (*op, whole_number(right)?),
        (false, true) => (op.swap()?, whole_number(left)?),
        _ => return None,
    };
    let largest = match op {
        Operator::Eq | Operator::LtEq => number,
        Operator::Lt => number - 1,
        _ => return None,
    };
    Some(u64::try_from(largest.max(0)).unwrap_or(u64::MAX))
}

fn is_rank(e: &Expr, rank: &Column) -> bool {
    match e {
        Expr::Column(column) => column == rank,
        Expr::Cast(cast) if cast.field.data_type().is_integer() => is_rank(&cast.expr, rank),
        _ => false,
    }
}

fn whole_number(e: &Expr) -> Option<i128> {
    match e {
        Expr::Literal(ScalarValue::UInt64(Some(n)), _) => Some(i128::from(*n)),
        Expr::Literal(value, _) if value.data_type().is_integer() => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(n))) => Some(i128::from(n)),
            _ => None,
        },
        _ => None,
    }
}
