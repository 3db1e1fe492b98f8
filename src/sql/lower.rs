//! An optimized logical plan → circuit nodes.
//!
//! Invariants:
//! 1. The columns of a [`Stream`] are the logical plan's, by position and type; names and nullability may differ. A plan without
//!    columns (`count(*)` needs none) is a stream of one constant column, since a batch without columns loses its length easily.
//! 2. Filters and projections pile up in a stream and become one [`NodeKind::Linear`] node where an operator or a view needs it.
//! 3. Two nodes of equal kind, inputs and column types are one: views share what they compute alike. A view that reads another view
//!    starts from that view's node, and is not fused with it. What joins keep alike they keep once (`share`, when the program is whole).
//! 4. Fields of computed columns are nullable whatever the planner says, so that no batch is refused for it.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::Expr;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::logical_plan::{self, Distinct, LogicalPlan};
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};

use super::as_of::AsOfJoin;
use super::catalog::Catalog;
use super::clock::{self, uses_now};
use super::extension::{Operated, Operation};
use super::table_functions::SessionWindow;
use crate::circuit::plan::{Node, NodeId, NodeKind, Stage};

mod aggregate;
mod constant;
mod distance;
mod join;
mod limit;
mod nodes;
mod output;
mod project;
mod share;
mod temporal;
mod unnest;
mod window;

pub(super) use nodes::Nodes;
use project::{Computed, column, project};
pub(super) use share::share;
use temporal::with_clock_column;

/// Rows on their way: a node's output and what is done to it next.
#[derive(Clone, Debug)]
struct Stream {
    node: NodeId,
    stages: Vec<Stage>,
    schema: SchemaRef,
}

/// Why a plan cannot be lowered, in the user's words.
#[derive(Debug)]
pub(super) struct Refusal {
    pub message: String,
    pub help: Option<&'static str>,
    /// The functions that it is about, if it is about a call of one of them.
    pub about: Vec<String>,
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, about: Vec::new() }
    }

    fn with_help(message: impl Into<String>, help: &'static str) -> Self {
        Self { message: message.into(), help: Some(help), about: Vec::new() }
    }

    /// About calls of these functions, if it is not about others.
    fn about<S: Into<String>>(mut self, functions: impl IntoIterator<Item = S>) -> Self {
        if self.about.is_empty() {
            self.about = functions.into_iter().map(Into::into).collect();
        }
        self
    }
}

impl From<DataFusionError> for Refusal {
    fn from(e: DataFusionError) -> Self {
        Self::new(e.strip_backtrace())
    }
}

/// The deepest expression with the casts that the planner adds: workers evaluate recursively, on stacks of the usual size.
const MAX_DEPTH: usize = 400;

type Result<T, E = Refusal> = std::result::Result<T, E>;

/// Lowers one view's plan into `nodes`.
pub(super) struct Lowering<'a> {
    pub catalog: &'a Catalog,
    pub nodes: &'a mut Nodes,
    /// The view, for labels.
    pub view: &'a str,
}

impl Lowering<'_> {
    fn plan(&mut self, plan: &LogicalPlan) -> Result<Stream> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.plan(&alias.input),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => {
                if let Some(ranked) = self.ranked(filter, None)? {
                    return Ok(ranked);
                }
                let stream = self.plan(&filter.input)?;
                self.filter(stream, &filter.predicate, filter.input.schema())
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let stream = self.plan(input)?;
                let group = (0..stream.schema.fields().len()).collect();
                let schema = nullable(&stream.schema);
                Ok(self.push(NodeKind::Aggregate { group, aggregates: Vec::new() }, vec![stream], schema, "distinct"))
            }
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Limit(limit) => self.limit(limit),
            // A relation has no order.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.plan(&sort.input),
            LogicalPlan::Extension(extension) => self.extension(extension),
            LogicalPlan::EmptyRelation(empty) => self.empty(empty),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            other => Err(Refusal::new(format!("{} is not supported yet", construct(other)))),
        }
    }

    fn scan(&mut self, scan: &logical_plan::TableScan) -> Result<Stream> {
        let name = scan.table_name.table();
        let relation = self
            .catalog
            .relations
            .get(name)
            .ok_or_else(|| Refusal::new(format!("there is no table or view `{name}`")))?;
        let whole = Stream { node: relation.node, stages: Vec::new(), schema: Arc::clone(&relation.schema) };
        // Filters of a scan speak about the whole relation.
        let relation_schema = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &relation.schema)?;
        let mut stream = whole;
        for predicate in &scan.filters {
            stream = self.filter(stream, predicate, &relation_schema)?;
        }
        match &scan.projection {
            None => Ok(stream),
            Some(columns) => {
                let computed = columns.iter().map(|&i| column(&stream.schema, i)).collect();
                project(stream, computed)
            }
        }
    }

    fn projection(&mut self, projection: &logical_plan::Projection) -> Result<Stream> {
        if let LogicalPlan::Filter(filter) = projection.input.as_ref()
            && let Some(ranked) = self.ranked(filter, Some(&projection.expr))?
        {
            return self.project_plan(projection, ranked);
        }
        let stream = self.plan(&projection.input)?;
        self.project_plan(projection, stream)
    }

    /// A projection of the stream that its input became.
    fn project_plan(&mut self, projection: &logical_plan::Projection, stream: Stream) -> Result<Stream> {
        let (stream, schema) = self.clocked(stream, projection.input.schema(), projection.expr.iter())?;
        let names = projection.schema.fields().iter().map(|f| f.name());
        let computed = projection
            .expr
            .iter()
            .zip(names)
            .map(|(e, name)| Ok(Computed { expr: self.physical(e, &schema)?, name: name.clone() }))
            .collect::<Result<_>>()?;
        project(stream, computed)
    }

    fn union(&mut self, union: &logical_plan::Union) -> Result<Stream> {
        let streams = union.inputs.iter().map(|input| self.plan(input)).collect::<Result<Vec<_>>>()?;
        let Some(first) = streams.first() else { return Err(Refusal::new("a UNION of nothing")) };
        let types = |s: &SchemaRef| s.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
        if let Some(other) = streams.iter().find(|s| types(&s.schema) != types(&first.schema)) {
            let (expected, got) = (types(&first.schema), types(&other.schema));
            return Err(Refusal::new(format!(
                "the columns of a UNION have different types: {expected:?} and {got:?}; add casts"
            )));
        }
        let schema = nullable(&first.schema);
        Ok(self.push(NodeKind::Union, streams, schema, "union"))
    }

    fn extension(&mut self, extension: &logical_plan::Extension) -> Result<Stream> {
        if let Some(window) = extension.node.as_any().downcast_ref::<SessionWindow>() {
            let stream = self.plan(&window.input)?;
            let field = |f: &Field| Field::new(f.name(), f.data_type().clone(), true);
            let added = window.schema.fields().iter().skip(stream.schema.fields().len());
            let fields: Vec<Field> = stream.schema.fields().iter().chain(added).map(|f| field(f)).collect();
            let kind = NodeKind::Session(window.circuit()?);
            return Ok(self.push(kind, vec![stream], Arc::new(Schema::new(fields)), "session"));
        }
        if let Some(join) = extension.node.as_any().downcast_ref::<AsOfJoin>() {
            return self.as_of_join(join);
        }
        let Some(Operated { operation, input, .. }) = extension.node.as_any().downcast_ref() else {
            return Err(Refusal::new(format!("{} is not supported yet", extension.node.name())));
        };
        let mut stream = self.plan(input)?;
        match operation {
            Operation::SingleRow => {
                let schema = nullable(&stream.schema);
                Ok(self.push(NodeKind::SingleRow, vec![stream], schema, "scalar sub-query"))
            }
            Operation::Repeat => {
                let kept = stream.schema.fields().len().saturating_sub(1);
                let fields: Vec<_> = stream.schema.fields().iter().take(kept).cloned().collect();
                stream.schema = Arc::new(Schema::new(fields));
                stream.stages.push(Stage::Repeat { schema: Arc::clone(&stream.schema) });
                Ok(stream)
            }
        }
    }

    /// The expression over batches of `schema`.
    pub(super) fn physical(&self, e: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        let replaced = match uses_now(e) {
            true => Some(with_clock_column(e, schema)?.ok_or_else(|| {
                let help = "compute it as a column of a sub-query, or compare it in WHERE";
                Refusal::with_help(format!("the clock in `{e}` is not supported here"), help).about(clock::names())
            })?),
            false => None,
        };
        let e = replaced.as_ref().unwrap_or(e);
        let mut props = ExecutionProps::new();
        props.config_options = Some(Arc::clone(&self.catalog.options));
        let physical = create_physical_expr(e, schema, &props, &PhysicalPlanningContext::default())?;
        if is_deeper_than(&physical, MAX_DEPTH) {
            let help =
                "a chain of operators is as deep as it is long: use IN (…), or a join with a table of the values";
            return Err(Refusal::with_help(format!("an expression is nested more than {MAX_DEPTH} levels deep"), help));
        }
        Ok(physical)
    }

    /// A new operator over these inputs.
    fn push(&mut self, kind: NodeKind, inputs: Vec<Stream>, schema: SchemaRef, label: &str) -> Stream {
        let inputs = inputs.into_iter().map(|stream| self.materialize(stream)).collect();
        let label = format!("{}: {label}", self.view);
        let node = self.nodes.intern(Node { kind, inputs, schema: Arc::clone(&schema), label });
        Stream { node, stages: Vec::new(), schema }
    }

    /// The node that puts out what this stream carries.
    fn materialize(&mut self, stream: Stream) -> NodeId {
        if stream.stages.is_empty() {
            return stream.node;
        }
        let what = match stream.stages.as_slice() {
            [Stage::Filter(_)] => "filter",
            stages if stages.iter().any(|s| matches!(s, Stage::Unnest { .. })) => "unnest",
            stages if stages.iter().all(|s| matches!(s, Stage::Project { .. })) => "project",
            _ => "filter and project",
        };
        let label = format!("{}: {what}", self.view);
        let kind = NodeKind::Linear(stream.stages);
        self.nodes.intern(Node { kind, inputs: vec![stream.node], schema: stream.schema, label })
    }
}

fn is_deeper_than(expr: &Arc<dyn PhysicalExpr>, limit: usize) -> bool {
    let mut open = vec![(expr, 1)];
    while let Some((expr, depth)) = open.pop() {
        if depth > limit {
            return true;
        }
        open.extend(expr.children().into_iter().map(|child| (child, depth + 1)));
    }
    false
}

/// The same columns, all nullable, without metadata.
fn nullable(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(
        schema.fields().iter().map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect::<Vec<_>>(),
    ))
}

/// What a user calls a plan node that is not supported.
fn construct(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Subquery(_) => "a sub-query in an expression",
        LogicalPlan::RecursiveQuery(_) => "WITH RECURSIVE",
        _ => "this kind of query",
    }
}
