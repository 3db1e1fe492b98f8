//! A query → DataFusion's optimized logical plan, and its errors → mistakes with a place.
//!
//! Only rules that keep to what a circuit has are run: those that make limits are left out, and so is the one that turns DISTINCT
//! aggregates into groupings. There is no clock that anything could be folded by. Sub-queries in expressions become joins.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion_common::tree_node::TransformedResult;
use datafusion_common::{Column, DataFusionError, SchemaError};
use datafusion_expr::LogicalPlan;
use datafusion_expr::planner::ContextProvider;
use datafusion_optimizer::analyzer::Analyzer;
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion_optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion_optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion_optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion_optimizer::eliminate_filter::EliminateFilter;
use datafusion_optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion_optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion_optimizer::optimize_projections::OptimizeProjections;
use datafusion_optimizer::optimize_unions::OptimizeUnions;
use datafusion_optimizer::push_down_filter::PushDownFilter;
use datafusion_optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion_optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion_optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion_optimizer::simplify_expressions::SimplifyExpressions;
use datafusion_optimizer::{Optimizer, OptimizerContext, OptimizerRule};
use datafusion_sql::planner::{ParserOptions, SqlToRel};
use datafusion_sql::sqlparser::ast::{
    Expr, JoinOperator, Query, Select, Spanned, Statement, TableFactor, Visit, Visitor, visit_expressions,
    visit_relations,
};
use datafusion_sql::sqlparser::tokenizer::{Location, Span};

use super::as_of::{self, NOT_AN_ASOF_JOIN};
use super::catalog::Catalog;
use super::clock::plan_uses_now;
use super::ddl::normalized;
use super::error::{Mistake, suggestion};
use super::lateral::{self, UNNEST_ON};
use super::set_operation;
use super::subquery::{self, AGGREGATE_OF_NOTHING, NOT_A_JOIN};
use crate::suggest::nearest;

pub(super) mod guard;
mod lengths;
mod rewrite;

/// Why a query cannot be planned.
#[derive(Debug)]
pub(super) struct Problem {
    /// With an empty span if there is no better place than the view.
    pub mistake: Mistake,
    /// The relation that is not there, if that is the reason.
    pub missing: Option<String>,
}

impl From<Mistake> for Problem {
    fn from(mistake: Mistake) -> Self {
        Self { mistake, missing: None }
    }
}

/// Whether an error is one of a sub-query in an expression as a whole.
pub(super) fn is_about_subquery(message: &str) -> bool {
    [NOT_A_JOIN, AGGREGATE_OF_NOTHING].contains(&message) || message.starts_with("Correlated scalar subquery")
}

/// Plans a query over the catalog's relations.
pub(super) fn plan(query: &Query, catalog: &Catalog) -> Result<LogicalPlan, Problem> {
    catalog.take_missing();
    optimized(query, catalog).map_err(|e| match catalog.take_missing() {
        None => Problem { mistake: mistake(&e, query, catalog), missing: None },
        Some(name) => {
            let names: Vec<String> = catalog.relations.keys().cloned().collect();
            let mut mistake = Mistake::new(relation_span(query, &name), format!("there is no table or view `{name}`"));
            mistake.help = suggestion(&name, "only", &names);
            Problem { mistake, missing: Some(name) }
        }
    })
}

/// The plan of a query. Columns that differ by a cast only have one name (`sum(x)` and `sum(CAST(x AS DOUBLE))`): where that is in the way, they get
/// others.
fn optimized(query: &Query, catalog: &Catalog) -> Result<LogicalPlan, DataFusionError> {
    let query = rewrite::standard(query);
    let is_duplicate = |e: &DataFusionError| match e.find_root() {
        DataFusionError::SchemaError(e, _) => {
            matches!(**e, SchemaError::DuplicateUnqualifiedField { .. } | SchemaError::DuplicateQualifiedField { .. })
        }
        other => other.strip_backtrace().contains("require unique expression names"),
    };
    match optimized_as(query.clone(), catalog) {
        Err(e) if is_duplicate(&e) => optimized_as(rewrite::told_apart(query), catalog).or(Err(e)),
        planned => planned,
    }
}

fn optimized_as(query: Query, catalog: &Catalog) -> Result<LogicalPlan, DataFusionError> {
    let options = ParserOptions::new().with_map_string_types_to_utf8view(false).with_collect_spans(true);
    let planner = SqlToRel::new_with_options(catalog, options);
    let plan = planner.sql_statement_to_plan(Statement::Query(Box::new(query)))?;
    let plan = plan.transform_up_with_subqueries(rewrite::distinct_on).data()?;
    let plan = plan.transform_up_with_subqueries(lateral::beside_unnest).data()?;
    let plan = plan.transform_up_with_subqueries(as_of::normalise).data()?;
    let plan = subquery::normalise(set_operation::normalise(plan)?)?;
    let plan = Analyzer::new().execute_and_check(plan, &catalog.options, |_, _| {})?;
    let plan = plan.transform_up_with_subqueries(lengths::compared).data()?;
    let plan = plan.transform_up_with_subqueries(guard::guarded).data()?;
    // Fresh names for each view (their generator is the context's), and no clock.
    let settings =
        OptimizerContext::new_with_config_options(Arc::clone(&catalog.options)).without_query_execution_start_time();
    // What several conditions have in common would hide the clock from those that are temporal filters.
    let shares_expressions = !plan_uses_now(&plan);
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(RewriteSetComparison::new()),
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        // Before filters are pushed down: `false` would pass an aggregate without groups, which has a row of no input.
        Arc::new(EliminateFilter::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownFilter::new()),
    ];
    if shares_expressions {
        rules.push(Arc::new(CommonSubexprEliminate::new()));
    }
    rules.push(Arc::new(OptimizeProjections::new()));
    let plan = Optimizer::with_rules(rules).optimize(plan, &settings, |_, _| {})?;
    subquery::check(&plan)?;
    Ok(plan)
}

fn mistake(error: &DataFusionError, query: &Query, catalog: &Catalog) -> Mistake {
    let told = error.diagnostic().and_then(|d| d.span).map(|s| {
        let location = |l: datafusion_common::Location| Location { line: l.line, column: l.column };
        Span::new(location(s.start), location(s.end))
    });
    let place = |name: &str| told.unwrap_or_else(|| column_span(query, name));
    match error.find_root() {
        DataFusionError::SchemaError(e, _) => match e.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let mut mistake = Mistake::new(place(&field.name), format!("there is no column `{}`", written(field)));
                mistake.help = column_help(field, valid_fields);
                mistake
            }
            SchemaError::AmbiguousReference { field } => {
                let mistake = Mistake::new(place(&field.name), format!("the column `{}` is ambiguous", written(field)));
                mistake.help("write it with its table: table.column")
            }
            other => Mistake::new(told.unwrap_or(Span::empty()), one_line(&other.to_string())),
        },
        other => {
            let text = one_line(&other.strip_backtrace());
            let span = told.unwrap_or_else(|| function_span(query, &text, catalog));
            let diagnostic = error.diagnostic().map(|d| one_line(&d.message)).unwrap_or_default();
            if diagnostic.contains("must appear in GROUP BY") {
                Mistake::new(span, diagnostic).help("add it to GROUP BY, or use an aggregate such as MIN or MAX")
            } else if text.starts_with("Projections require unique expression names") {
                Mistake::new(span, "a SELECT has the same column twice")
                    .help("give one another name: expression AS name")
            } else if let Some((_, rest)) = text.split_once("No function matches the given name and argument types '") {
                let (call, rest) = rest.split_once('\'').unwrap_or((rest, ""));
                let mut mistake = Mistake::new(span, format!("there is no function {call}"));
                mistake.help =
                    rest.split_once("Candidate functions: ").map(|(_, c)| format!("there is {c}; casts may be needed"));
                mistake
            } else if text == NOT_A_JOIN {
                Mistake::new(subquery_span(query), text).help("join with the sub-query in FROM instead")
            } else if text == NOT_AN_ASOF_JOIN {
                Mistake::new(match_span(query), text)
            } else if text == UNNEST_ON {
                Mistake::new(unnest_span(query), text).help("put the condition into WHERE, or unnest in a sub-query")
            } else if text == AGGREGATE_OF_NOTHING {
                Mistake::new(subquery_span(query), text)
                    .help("compare with the aggregate as a scalar sub-query instead")
            } else {
                let mut mistake = Mistake::new(span, text);
                mistake.help = error.diagnostic().and_then(|d| d.helps.first()).map(|help| help.message.clone());
                mistake
            }
        }
    }
}

fn written(column: &Column) -> String {
    match &column.relation {
        Some(relation) => format!("{relation}.{}", column.name),
        None => column.name.clone(),
    }
}

fn column_help(wanted: &Column, fields: &[Column]) -> Option<String> {
    let same_relation = |c: &&Column| wanted.relation.is_none() || wanted.relation == c.relation;
    let near = |columns: Vec<&Column>| {
        let name = nearest(&wanted.name, columns.iter().map(|c| c.name.as_str()))?.to_owned();
        let column = columns.iter().find(|c| c.name == name)?;
        let column = if wanted.relation.is_some() { written(column) } else { name };
        Some(format!("did you mean `{column}`?"))
    };
    near(fields.iter().filter(same_relation).collect()).or_else(|| near(fields.iter().collect())).or_else(|| {
        let names: Vec<String> = fields.iter().map(written).collect();
        (!names.is_empty() && names.len() <= 20).then(|| format!("there are {}", names.join(", ")))
    })
}

fn relation_span(query: &Query, name: &str) -> Span {
    let mut span = Span::empty();
    let _: ControlFlow<()> = visit_relations(query, |relation| {
        let parts: Vec<String> = relation.0.iter().filter_map(|p| p.as_ident()).map(normalized).collect();
        if parts.join(".") == name {
            span = relation.span();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    // The relation of a table function is parsed as an expression.
    if span == Span::empty() { column_span(query, name.rsplit('.').next().unwrap_or(name)) } else { span }
}

fn column_span(query: &Query, name: &str) -> Span {
    let mut span = Span::empty();
    let _: ControlFlow<()> = visit_expressions(query, |expr| {
        let ident = match expr {
            Expr::Identifier(ident) => Some(ident),
            Expr::CompoundIdentifier(idents) => idents.last(),
            _ => None,
        };
        if ident.is_some_and(|ident| normalized(ident) == name) {
            span = expr.span();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    span
}

/// The first call of the function that an error's text names (`… argument types 'character_length(Utf8)'`), by any of its names.
fn function_span(query: &Query, text: &str, catalog: &Catalog) -> Span {
    let mut span = Span::empty();
    let Some(name) = text.split_once("argument types '").and_then(|(_, rest)| rest.split('(').next()) else {
        return span;
    };
    let _: ControlFlow<()> = visit_expressions(query, |expr| {
        if let Expr::Function(function) = expr {
            let called = function.name.to_string().to_lowercase();
            let scalar = catalog.get_function_meta(&called).is_some_and(|f| f.name() == name);
            if scalar || catalog.get_aggregate_meta(&called).is_some_and(|f| f.name() == name) {
                span = function.name.span();
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    span
}

/// The place of the only call of one of these functions; nothing, if there are several.
pub(super) fn call_span(query: &Query, names: &[String], catalog: &Catalog) -> Span {
    let mut spans = Vec::new();
    let _: ControlFlow<()> = visit_expressions(query, |expr| {
        if let Expr::Function(function) = expr {
            let called = function.name.to_string().to_lowercase();
            let aggregate = catalog.get_aggregate_meta(&called).map(|f| f.name().to_owned());
            if names.iter().any(|name| *name == called || Some(name) == aggregate.as_ref()) {
                spans.push(function.name.span());
            }
        }
        ControlFlow::Continue(())
    });
    match spans.as_slice() {
        [span] => *span,
        _ => Span::empty(),
    }
}

/// The place of the first array that is unnested in FROM.
fn unnest_span(query: &Query) -> Span {
    struct Finder(Span);
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::UNNEST { array_exprs, .. } = factor {
                self.0 = array_exprs.first().map_or(Span::empty(), Spanned::span);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder(Span::empty());
    let _ = query.visit(&mut finder);
    finder.0
}

/// The place of the first condition of an ASOF join.
fn match_span(query: &Query) -> Span {
    struct Finder(Span);
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            for join in select.from.iter().flat_map(|from| &from.joins) {
                if let JoinOperator::AsOf { match_condition, .. } = &join.join_operator {
                    self.0 = match_condition.span();
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder(Span::empty());
    let _ = query.visit(&mut finder);
    finder.0
}

/// The place of the sub-query in an expression, if there is only one.
fn subquery_span(query: &Query) -> Span {
    let mut spans = Vec::new();
    let _: ControlFlow<()> = visit_expressions(query, |expr| {
        let is_subquery = match expr {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => true,
            Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => matches!(right.as_ref(), Expr::Subquery(_)),
            _ => false,
        };
        if is_subquery {
            spans.push(expr.span());
        }
        ControlFlow::Continue(())
    });
    match spans.as_slice() {
        [span] => *span,
        _ => Span::empty(),
    }
}

/// DataFusion's messages have a prefix for the kind of error, and some have several lines.
fn one_line(message: &str) -> String {
    let prefixes = [
        "Internal error: ",
        "Error during planning: ",
        "This feature is not implemented: ",
        "Schema error: ",
        "Arrow error: ",
    ];
    // What it takes for its own fault may be the query's (BETWEEN of types that do not go together).
    let mut message = message.split(". This issue was likely caused by a bug in DataFusion").next().unwrap_or(message);
    while let Some(rest) = prefixes.iter().find_map(|p| message.strip_prefix(p)) {
        message = rest;
    }
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
