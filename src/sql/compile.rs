//! The way from a text to a program, statement by statement.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_sql::sqlparser::ast::Query;
use datafusion_sql::sqlparser::tokenizer::{Location, Span};

use super::catalog::{Catalog, Relation};
use super::ddl::{self, Definition, Named, ViewDefinition};
use super::error::{Mistake, Source, SqlErrors};
use super::lower::{Lowering, Nodes, share};
use super::options::LATE_ROWS;
use super::program::{Place, Program, Table, View};
use super::types::{TOO_DEEP, is_too_deep};
use super::{locate, parse, planner, unsupported, unused};
use crate::circuit::CircuitPlan;
use crate::circuit::plan::{Node, NodeId, NodeKind, TableNode, ViewNode};
use crate::connector::ConnectorError;
use crate::connector::order::predecessors;

/// Compiles a program. `source_name` is the name of the text in errors: a file's path, as the user gave it.
///
/// ```
/// let sql = "CREATE TABLE t (a INT, b VARCHAR);
///            CREATE VIEW v AS SELECT b, count(*) AS n FROM t GROUP BY b;";
/// let program = backstay::sql::compile(sql, "p.sql").unwrap();
/// assert_eq!(program.views[0].schema.field(1).name(), "n");
///
/// let errors = backstay::sql::compile("CREATE TABLE t (a INT); CREATE VIEW v AS SELECT a FROM tt", "p.sql").unwrap_err();
/// assert_eq!(errors.0[0].help.as_deref(), Some("did you mean `t`?"));
/// ```
///
/// # Errors
/// Everything that is wrong with the text, in its order: at least one error, each with its place.
pub fn compile(sql: &str, source_name: &str) -> Result<Program, SqlErrors> {
    let source = Source { name: source_name, text: sql };
    on_a_large_stack(source, || compile_here(source))
}

/// What connectors say of each other, and of the relations that they stand at.
fn orchestration(program: &Program) -> Result<(), Mistake> {
    let at = |place: Place, e: ConnectorError| {
        let location = Location { line: place.line, column: place.column };
        Mistake::new(Span::new(location, location), e.to_string())
    };
    for view in &program.views {
        for connector in &view.connectors {
            connector.check_output(&format!("{}.{}", view.name, connector.name)).map_err(|e| at(view.place, e))?;
        }
    }
    predecessors(&program.inputs())
        .map(|_| ())
        .map_err(|e| at(program.table_of(&e.connector).map_or(Place { line: 1, column: 1 }, |t| t.place), e))
}

/// Runs a compilation where there is room for it.
pub(super) fn on_a_large_stack<T: Send>(
    source: Source<'_>,
    compile: impl FnOnce() -> Result<T, SqlErrors> + Send,
) -> Result<T, SqlErrors> {
    // The planner recurses over expressions, and a chain of a thousand ORs is as deep as it is long. The stack is reserved, not
    // used, and the thread ends before this returns.
    // Under the name of who asks, by which the binary knows whether a panic may end it.
    let name = std::thread::current().name().unwrap_or("sql").to_owned();
    let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES);
    std::thread::scope(|scope| match thread.spawn_scoped(scope, compile) {
        Ok(handle) => handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(e) => {
            let mistake = Mistake::new(Span::empty(), format!("no thread to compile on: {e}"));
            Err(SqlErrors(vec![source.locate(mistake.help("allow this process more threads or memory"))]))
        }
    })
}

/// Enough for a statement of [`parse::MAX_TOKENS`], also in an unoptimised build.
const STACK_BYTES: usize = 256 << 20;

fn compile_here(source: Source<'_>) -> Result<Program, SqlErrors> {
    let mut mistakes = Vec::new();
    let text = parse::parse(source, &mut mistakes);
    if text.statements.is_empty() && mistakes.is_empty() {
        mistakes.push(Mistake::new(Span::empty(), "there is no statement").help("a program starts with CREATE TABLE"));
    }
    let statements = text.statements.into_iter();
    let defined: Vec<Named> = statements.filter_map(|parsed| ddl::read(source, parsed, &mut mistakes)).collect();
    let mut compiler = Compiler::new(text.broken, &defined);
    for named in defined {
        compiler.define(named, &mut mistakes);
    }
    if mistakes.is_empty() {
        let program = compiler.finish();
        mistakes.extend(orchestration(&program).err());
        if mistakes.is_empty() {
            return Ok(program);
        }
    }
    mistakes.sort_by_key(|m| m.span.start);
    Err(SqlErrors(mistakes.into_iter().map(|m| source.locate(m)).collect()))
}

/// What has been compiled so far.
struct Compiler {
    catalog: Catalog,
    nodes: Nodes,
    tables: Vec<(Table, TableNode)>,
    views: Vec<(View, ViewNode)>,
    /// Names whose definitions were wrong: a view that reads one fails silently.
    broken: BTreeSet<String>,
    /// Names and lines of all definitions, to tell what is defined too late.
    places: Vec<(String, Span)>,
}

impl Compiler {
    fn new(broken: Vec<String>, defined: &[Named]) -> Self {
        Self {
            catalog: Catalog::new(),
            nodes: Nodes::default(),
            tables: Vec::new(),
            views: Vec::new(),
            broken: broken.into_iter().collect(),
            places: defined.iter().flat_map(places).collect(),
        }
    }

    fn define(&mut self, named: Named, mistakes: &mut Vec<Mistake>) {
        let first = self.places.iter().find(|(name, _)| *name == named.name).map_or(named.span, |(_, span)| *span);
        if first != named.span {
            let message = format!("`{}` is defined twice, first in line {}", named.name, first.start.line);
            mistakes.push(Mistake::new(named.span, message));
            return;
        }
        let is_broken = match named.definition {
            None => true,
            Some(Definition::Table(table)) => {
                let late = table.late_rows().map(str::to_owned);
                let first = late.as_ref().and_then(|late| self.places.iter().find(|(name, _)| name == late));
                if let Some((late, span)) = first.filter(|(late, span)| *span != named.span || *late == named.name) {
                    let message =
                        format!("`{late}`, the table for late rows, is defined in line {} too", span.start.line);
                    mistakes.push(Mistake::new(named.span, message).help("give it another name"));
                }
                self.table(*table, late);
                false
            }
            Some(Definition::View(view)) => self.view(*view, mistakes).is_none(),
        };
        if is_broken {
            self.broken.insert(named.name);
        }
    }

    /// Adds a table, and behind it the one for its late rows.
    fn table(&mut self, table: Table, late: Option<String>) {
        let node = self.nodes.add(Node {
            kind: NodeKind::Table { primary_key: table.primary_key.clone() },
            inputs: Vec::new(),
            schema: Arc::clone(&table.schema),
            label: format!("table {}", table.name),
        });
        self.catalog.relations.insert(table.name.clone(), Relation { schema: Arc::clone(&table.schema), node });
        if table.is_kept() && table.primary_key.is_empty() {
            self.materialize(node, &table.schema, &table.name);
        }
        let late = late.map(|name| {
            let mut properties = table.properties.clone();
            properties.remove(LATE_ROWS);
            Table { name, lateness: Vec::new(), connectors: Vec::new(), properties, ..table.clone() }
        });
        let of_plan = TableNode {
            lateness: table.lateness.clone(),
            late: late.is_some().then_some(self.tables.len() + 1),
            append_only: table.is_append_only(),
            ..TableNode::new(&table.name, node)
        };
        self.tables.push((table, of_plan));
        if let Some(late) = late {
            self.table(late, None);
        }
    }

    fn view(&mut self, view: ViewDefinition, mistakes: &mut Vec<Mistake>) -> Option<()> {
        let before = mistakes.len();
        unsupported::check(&view.query, &view.tokens, view.span, &self.catalog, mistakes);
        if mistakes.len() > before {
            return None;
        }
        let (node, schema) = match compile_query(&view, &view.query, &self.catalog, &mut self.nodes) {
            Ok(output) => output,
            Err(problem) => {
                let again = |query: &Query| compile_query(&view, query, &self.catalog, &mut self.nodes.clone());
                let problem = locate::placed(problem, &view.query, again);
                mistakes.extend(self.explain(problem).map(|m| m.or_at(view.span)));
                return None;
            }
        };
        if let Some(field) = schema.fields().iter().find(|field| is_too_deep(field.data_type())) {
            let message = format!("the view {}: column {}: {TOO_DEEP}", view.name, field.name());
            mistakes.push(Mistake::new(view.span, message));
            return None;
        }
        self.catalog.relations.insert(view.name.clone(), Relation { schema: Arc::clone(&schema), node });
        if view.materialized {
            self.materialize(node, &schema, &view.name);
        }
        let compiled = View {
            name: view.name.clone(),
            schema,
            materialized: view.materialized,
            connectors: view.options.connectors,
            properties: view.options.properties,
            sql: view.query.to_string(),
            place: ddl::place(view.span),
        };
        self.views.push((compiled, ViewNode { name: view.name, node }));
        Some(())
    }

    /// Keeps what `node` puts out.
    fn materialize(&mut self, node: NodeId, schema: &SchemaRef, name: &str) {
        let (kind, label) = (NodeKind::Materialize, format!("{name}: materialize"));
        self.nodes.intern(Node { kind, inputs: vec![node], schema: Arc::clone(schema), label });
    }

    /// What a planner's problem is in the light of the whole text; nothing, if it only follows from another mistake.
    fn explain(&self, problem: planner::Problem) -> Option<Mistake> {
        let Some(name) = &problem.missing else { return Some(problem.mistake) };
        if self.broken.contains(name) {
            return None;
        }
        let mut mistake = problem.mistake;
        if let Some((_, span)) = self.places.iter().find(|(n, _)| n == name) {
            mistake.message = format!("`{name}` is created below, in line {}", span.start.line);
            mistake.help = Some("a view reads tables and views that were created above it".to_owned());
        }
        Some(mistake)
    }

    fn finish(mut self) -> Program {
        unused::skip(&mut self.tables, &self.views, &mut self.nodes.0);
        let (tables, table_nodes) = self.tables.into_iter().unzip();
        let (views, view_nodes) = self.views.into_iter().unzip();
        let plan = CircuitPlan { nodes: self.nodes.0, tables: table_nodes, views: view_nodes };
        Program { tables, views, plan: share(plan) }
    }
}

/// Plans a view's query (or what is left of it) and makes operators of it: the node and the columns of the view.
fn compile_query(
    view: &ViewDefinition,
    query: &Query,
    catalog: &Catalog,
    nodes: &mut Nodes,
) -> Result<(NodeId, SchemaRef), planner::Problem> {
    let plan = planner::plan(query, catalog)?;
    let names: Vec<String> = if view.columns.is_empty() {
        plan.schema().fields().iter().map(|f| f.name().clone()).collect()
    } else {
        view.columns.iter().map(ddl::normalized).collect()
    };
    if let Some((i, name)) = names.iter().enumerate().find(|(i, name)| names.iter().take(*i).any(|n| n == *name)) {
        let span = view.columns.get(i).map_or(Span::empty(), |c| c.span);
        let mistake = Mistake::new(span, format!("the view {} has two columns `{name}`", view.name));
        return Err(mistake.help("give one another name: expression AS name").into());
    }
    let mut lowering = Lowering { catalog, nodes, view: &view.name };
    lowering.view(&plan, &names).map_err(|refusal| {
        let span = planner::call_span(query, &refusal.about, catalog);
        let mut mistake = Mistake::new(span, format!("the view {}: {}", view.name, refusal.message));
        mistake.help = refusal.help.map(str::to_owned);
        mistake.into()
    })
}

/// The names that a statement defines.
fn places(named: &Named) -> Vec<(String, Span)> {
    let late = match &named.definition {
        Some(Definition::Table(table)) => table.late_rows(),
        _ => None,
    };
    std::iter::once(named.name.as_str()).chain(late).map(|name| (name.to_owned(), named.span)).collect()
}
