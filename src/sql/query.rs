//! An ad-hoc query: one SELECT over relations whose rows are kept, as a program of its own.
//!
//! Its relations are tables without a key, which are fed the kept rows, and the query is a view over them: the circuit that maintains
//! views answers queries too. Only what gives the result an order is not the circuit's: [`Order`] is applied to the finished rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow_row::{RowConverter, SortField};
use datafusion_common::DataFusionError;
use datafusion_expr::logical_plan::{Limit, LogicalPlan, Projection, Sort};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_sql::sqlparser::ast::{self, Statement};
use datafusion_sql::sqlparser::tokenizer::Span;

use super::catalog::{Catalog, Relation};
use super::compile::on_a_large_stack;
use super::error::{Mistake, Source, SqlErrors};
use super::lower::{Lowering, Nodes, Refusal, share};
use super::{locate, parse, planner, unsupported};
use crate::circuit::CircuitPlan;
use crate::circuit::plan::{Node, NodeId, NodeKind, TableNode, ViewNode};

/// A compiled query.
#[derive(Debug)]
pub struct Query {
    /// Tables in the order of the names that were given; only those that the query reads. One view, the result before [`Query::order`].
    pub plan: CircuitPlan,
    /// What is done to the finished rows.
    pub order: Order,
}

impl Query {
    /// The columns of the result; there is always one view, and so they are there.
    pub fn schema(&self) -> Option<&SchemaRef> {
        match &self.order.project {
            Some((_, schema)) => Some(schema),
            None => self.plan.views.first().and_then(|view| self.plan.nodes.get(view.node)).map(|node| &node.schema),
        }
    }
}

/// ORDER BY of the whole query, and the columns that are left after it.
#[derive(Debug, Default)]
pub struct Order {
    keys: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    /// The last projection, where what is sorted by is not part of the result.
    project: Option<(Vec<Arc<dyn PhysicalExpr>>, SchemaRef)>,
}

/// Compiles a query over relations by name. `unkept` are relations that exist, but whose rows nobody kept.
///
/// # Errors
/// Everything that is wrong with the text, each with its place.
pub fn compile_query(
    sql: &str,
    relations: &BTreeMap<String, SchemaRef>,
    unkept: &[String],
) -> Result<Query, SqlErrors> {
    let source = Source { name: "query", text: sql };
    on_a_large_stack(source, || compile_here(source, relations, unkept))
}

fn compile_here(
    source: Source<'_>,
    relations: &BTreeMap<String, SchemaRef>,
    unkept: &[String],
) -> Result<Query, SqlErrors> {
    let mut mistakes = Vec::new();
    let query = compile_one(source, relations, unkept, &mut mistakes);
    match query {
        Some(query) if mistakes.is_empty() => Ok(query),
        _ => Err(SqlErrors(mistakes.into_iter().map(|m| source.locate(m)).collect())),
    }
}

fn compile_one(
    source: Source<'_>,
    relations: &BTreeMap<String, SchemaRef>,
    unkept: &[String],
    mistakes: &mut Vec<Mistake>,
) -> Option<Query> {
    let mut statements = parse::parse(source, mistakes).statements.into_iter();
    let Some(first) = statements.next() else {
        if mistakes.is_empty() {
            mistakes.push(Mistake::new(Span::empty(), "there is no query").help("write SELECT … FROM …"));
        }
        return None;
    };
    if let Some(second) = statements.next() {
        mistakes.push(Mistake::new(second.span, "a query is one statement"));
    }
    let Statement::Query(query) = first.statement else {
        mistakes.push(Mistake::new(first.span, "this is no query").help("write SELECT … FROM …"));
        return None;
    };
    let mut catalog = Catalog::new();
    let mut nodes = Nodes::default();
    let mut tables = Vec::new();
    for (name, schema) in relations {
        let kind = NodeKind::Table { primary_key: Vec::new() };
        let label = format!("table {name}");
        let node = nodes.add(Node { kind, inputs: Vec::new(), schema: Arc::clone(schema), label });
        catalog.relations.insert(name.clone(), Relation { schema: Arc::clone(schema), node });
        tables.push(TableNode::new(name, node));
    }
    unsupported::check(&query, &first.tokens, first.span, &catalog, mistakes);
    if !mistakes.is_empty() {
        return None;
    }
    match planned(&query, &catalog, &mut nodes) {
        Ok((node, order)) => {
            let plan = CircuitPlan { nodes: nodes.0, tables, views: vec![ViewNode { name: "query".to_owned(), node }] };
            Some(Query { plan: share(plan), order })
        }
        Err(problem) => {
            let again = |query: &ast::Query| planned(query, &catalog, &mut nodes.clone());
            let problem = locate::placed(problem, &query, again);
            mistakes.push(explain(problem, unkept).or_at(first.span));
            None
        }
    }
}

/// Plans a query (or what is left of it) and makes operators of it: the node of its rows, and their order.
fn planned(query: &ast::Query, catalog: &Catalog, nodes: &mut Nodes) -> Result<(NodeId, Order), planner::Problem> {
    let plan = planner::plan(query, catalog)?;
    lower(&plan, catalog, nodes).map_err(|refusal| {
        let mut mistake = Mistake::new(planner::call_span(query, &refusal.about, catalog), refusal.message);
        mistake.help = refusal.help.map(str::to_owned);
        mistake.into()
    })
}

fn explain(problem: planner::Problem, unkept: &[String]) -> Mistake {
    match problem.missing {
        Some(name) if unkept.contains(&name) => {
            let mut mistake = problem.mistake;
            mistake.message = format!("`{name}` is not materialized: its rows are not kept");
            mistake.help("write CREATE MATERIALIZED VIEW, or CREATE TABLE … WITH ('materialized' = 'true')")
        }
        _ => problem.mistake,
    }
}

fn lower(plan: &LogicalPlan, catalog: &Catalog, nodes: &mut Nodes) -> Result<(NodeId, Order), Refusal> {
    let mut lowering = Lowering { catalog, nodes, view: "query" };
    let mut order = Order::default();
    let plan = &limit_first(plan)?;
    let mut rows = plan;
    if let LogicalPlan::Projection(projection) = plan
        && sort_of(&projection.input).is_some()
    {
        let input = projection.input.schema();
        let exprs = projection.expr.iter().map(|e| lowering.physical(e, input)).collect::<Result<Vec<_>, _>>()?;
        let fields = projection.schema.fields().iter().zip(&exprs);
        let fields: Result<Vec<Field>, DataFusionError> =
            fields.map(|(f, e)| Ok(Field::new(f.name(), e.data_type(input.as_arrow())?, true))).collect();
        order.project = Some((exprs, Arc::new(Schema::new(fields?))));
        rows = &projection.input;
    }
    if let Some(sort) = sort_of(rows) {
        for key in &sort.expr {
            let options = SortOptions { descending: !key.asc, nulls_first: key.nulls_first };
            order.keys.push((lowering.physical(&key.expr, sort.input.schema())?, options));
        }
    }
    // A limit needs the order to choose its rows by; without one the circuit need not know of it.
    if let LogicalPlan::Sort(sort) = rows
        && sort.fetch.is_none()
    {
        rows = &sort.input;
    }
    let names: Vec<String> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
    let (node, _) = lowering.view(rows, &unique(&names))?;
    Ok((node, order))
}

/// Where a projection drops what its rows are sorted by, and a limit stands above it, the limit comes first: it is the same.
fn limit_first(plan: &LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    if let LogicalPlan::Limit(limit) = plan
        && let LogicalPlan::Projection(projection) = limit.input.as_ref()
        && sort_of(&projection.input).is_some()
    {
        let limit = Limit { input: Arc::clone(&projection.input), ..limit.clone() };
        let (exprs, schema) = (projection.expr.clone(), Arc::clone(&projection.schema));
        let limit = Arc::new(LogicalPlan::Limit(limit));
        return Ok(LogicalPlan::Projection(Projection::try_new_with_schema(exprs, limit, schema)?));
    }
    Ok(plan.clone())
}

/// The sort that a plan is, or that it limits.
fn sort_of(plan: &LogicalPlan) -> Option<&Sort> {
    match plan {
        LogicalPlan::Sort(sort) => Some(sort),
        LogicalPlan::Limit(limit) => match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => Some(sort),
            _ => None,
        },
        _ => None,
    }
}

/// Names for columns of which several may be called alike, as `SELECT *` of a join gives them.
fn unique(names: &[String]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let numbered = names.iter().map(|name| {
        let count = seen.entry(name).and_modify(|n| *n += 1).or_insert(1);
        if *count == 1 { name.clone() } else { format!("{name}_{count}") }
    });
    numbered.collect()
}

impl Order {
    /// Sorts the result's rows, and drops the columns that were there for that only. Rows that are equal to the order stay as they were.
    ///
    /// # Errors
    /// An expression that fails on a row; a type that has no order.
    pub fn apply(&self, mut rows: RecordBatch) -> Result<RecordBatch, DataFusionError> {
        if !self.keys.is_empty() {
            let evaluate =
                |e: &Arc<dyn PhysicalExpr>| e.evaluate(&rows).and_then(|value| value.into_array(rows.num_rows()));
            let columns = self.keys.iter().map(|(e, _)| evaluate(e)).collect::<Result<Vec<ArrayRef>, _>>()?;
            let fields = columns.iter().zip(&self.keys);
            let fields = fields.map(|(c, (_, o))| SortField::new_with_options(c.data_type().clone(), *o)).collect();
            let keys = RowConverter::new(fields)?.convert_columns(&columns)?;
            let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
            order.sort_by(|&a, &b| keys.row(a as usize).cmp(&keys.row(b as usize)));
            let order = UInt32Array::from(order);
            let sorted = rows.columns().iter().map(|c| take(c, &order, None)).collect::<Result<Vec<_>, _>>()?;
            rows = RecordBatch::try_new(rows.schema(), sorted)?;
        }
        if let Some((exprs, schema)) = &self.project {
            let columns = exprs.iter().map(|e| e.evaluate(&rows)?.into_array(rows.num_rows()));
            rows = RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)?;
        }
        Ok(rows)
    }
}
