//! Refuses, with its place, what a circuit cannot maintain yet: a walk over the syntax tree before it is planned.
//!
//! What stands here need not be refused again in `lower`, which still has an error for everything that it does not know.

use std::ops::ControlFlow;

use datafusion_expr::Volatility;
use datafusion_expr::planner::ContextProvider;
use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr, Join, JoinConstraint,
    JoinOperator, LimitClause, ObjectName, Query, Select, SetExpr, SetQuantifier, Spanned, TableFactor, Value,
    ValueWithSpan, Visit, Visitor,
};
use datafusion_sql::sqlparser::tokenizer::{Location, Span, TokenWithSpan};

use super::as_of;
use super::catalog::Catalog;
use super::clock::is_clock;
use super::error::Mistake;
use super::table_functions::{Call, expression};
use super::tokens::is_word;
use crate::circuit::plan::AggregateFunction;
use crate::suggest::nearest;

/// The aggregates that take OVER.
const FRAMED_AGGREGATES: [&str; 5] = ["count", "sum", "avg", "min", "max"];
/// The functions that need OVER.
const WINDOW_FUNCTIONS: [&str; 11] = [
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
    "first_value",
    "last_value",
    "nth_value",
];
const WINDOW_FUNCTIONS_HELP: &str = "with OVER there are COUNT, SUM, AVG, MIN, MAX, ROW_NUMBER, RANK, DENSE_RANK, PERCENT_RANK, \
                                     CUME_DIST, NTILE, LAG, LEAD, FIRST_VALUE, LAST_VALUE and NTH_VALUE";

/// The deepest expression: the planner's time grows faster than its depth.
const MAX_DEPTH: usize = 200;

/// Adds a mistake for everything in `query` that is not supported. `tokens` are the statement's, `place` is where a mistake is
/// told if nothing nearer is known.
pub(super) fn check(
    query: &Query,
    tokens: &[TokenWithSpan],
    place: Span,
    catalog: &Catalog,
    mistakes: &mut Vec<Mistake>,
) {
    let mut walk = Walk { tokens, place, catalog, mistakes, depth: 0, arguments: Vec::new() };
    let ControlFlow::Continue(()) = query.visit(&mut walk);
}

struct Walk<'a> {
    tokens: &'a [TokenWithSpan],
    place: Span,
    catalog: &'a Catalog,
    mistakes: &'a mut Vec<Mistake>,
    /// Expressions around the one being visited, and itself.
    depth: usize,
    /// Arguments of table functions that are no expressions.
    arguments: Vec<Span>,
}

impl Visitor for Walk<'_> {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        if let Some(with) = &query.with
            && with.recursive
        {
            self.refuse(with.with_token.0.span, "WITH RECURSIVE", None);
        }
        if let Some(LimitClause::LimitOffset { limit_by, .. }) = &query.limit_clause
            && let Some(by) = limit_by.first()
        {
            let help = "number the rows: QUALIFY row_number() OVER (PARTITION BY …) <= n";
            self.refuse(self.keyword(by.span().start, &["BY"]), "LIMIT … BY", Some(help));
        }
        if let Some(fetch) = &query.fetch
            && (fetch.with_ties || fetch.percent)
        {
            let span = self.keyword_behind(query.body.span().end, "FETCH");
            self.refuse(span, "FETCH with PERCENT or WITH TIES", Some("QUALIFY rank() OVER (…) <= n has the ties"));
        }
        let clauses = !query.locks.is_empty()
            || query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty();
        if clauses {
            self.refuse(query.body.span(), "a clause behind this query (FOR, SETTINGS, FORMAT or |>)", None);
        }
        self.set_expr(&query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        let span = select.select_token.0.span;
        if select.projection.is_empty() {
            self.refuse(span, "a SELECT without columns", None);
        }
        let clauses = [
            (select.top.is_some(), "TOP"),
            (select.into.is_some(), "INTO"),
            (!select.lateral_views.is_empty(), "LATERAL VIEW"),
            (select.prewhere.is_some(), "PREWHERE"),
            (!select.connect_by.is_empty(), "CONNECT BY"),
            (!select.cluster_by.is_empty(), "CLUSTER BY"),
            (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
            (!select.sort_by.is_empty(), "SORT BY"),
            (select.value_table_mode.is_some(), "SELECT AS"),
        ];
        for (_, clause) in clauses.into_iter().filter(|(given, _)| *given) {
            self.refuse(span, clause, None);
        }
        if let GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) = &select.group_by
            && !modifiers.is_empty()
        {
            self.refuse(
                span,
                "GROUP BY … WITH",
                Some("write ROLLUP (…), CUBE (…) or GROUPING SETS (…) behind GROUP BY"),
            );
        }
        for join in select.from.iter().flat_map(|from| &from.joins) {
            self.join(join);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        let span = factor.span();
        let call = Call::of(factor);
        if let Some(call) = &call {
            self.arguments.extend(call.relation_and_descriptor().map(Spanned::span));
        }
        match factor {
            TableFactor::TableFunction { expr, .. } if call.is_some() => self.arguments.push(expr.span()),
            TableFactor::Table {
                name,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
                ..
            } => {
                if let (Some(args), None) = (args, &call) {
                    self.arguments.extend(args.args.iter().filter_map(expression).map(Spanned::span));
                    self.refuse(
                        name.span(),
                        &format!("the table function {name}"),
                        Some("there are TUMBLE, HOP and SESSION"),
                    );
                }
                let plain = with_hints.is_empty()
                    && version.is_none()
                    && !with_ordinality
                    && partitions.is_empty()
                    && json_path.is_none()
                    && sample.is_none()
                    && index_hints.is_empty();
                if !plain {
                    self.refuse(
                        name.span(),
                        &format!("a clause behind {name} (hints, version, sample or partitions)"),
                        None,
                    );
                }
            }
            TableFactor::Derived { sample: None, .. } => {}
            TableFactor::Derived { .. } => self.refuse(span, "TABLESAMPLE", None),
            TableFactor::NestedJoin { table_with_joins, .. } => {
                for join in &table_with_joins.joins {
                    self.join(join);
                }
            }
            TableFactor::UNNEST { with_offset: true, .. } => {
                self.refuse(span, "WITH OFFSET", Some("WITH ORDINALITY AS alias (element, number) counts from 1"));
            }
            TableFactor::UNNEST { .. } => {}
            _ => self.refuse(span, "this form of FROM", Some("FROM has tables, views and sub-queries")),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        self.depth += 1;
        if self.depth == MAX_DEPTH + 1 {
            let mistake =
                Mistake::new(expr.span(), format!("an expression is nested more than {MAX_DEPTH} levels deep"));
            let help =
                "a chain of operators is as deep as it is long: use IN (…), or a join with a table of the values";
            self.mistakes.push(mistake.or_at(self.place).help(help));
        }
        match expr {
            Expr::Function(_) | Expr::Subquery(_) if self.arguments.contains(&expr.span()) => {}
            Expr::Function(function) => self.function(function),
            Expr::OuterJoin(_) => self.refuse(expr.span(), "an outer join", None),
            // DataFusion takes its pattern for a regular expression.
            Expr::SimilarTo { .. } => {
                self.refuse(expr.span(), "SIMILAR TO", Some("write ~ and a regular expression, or LIKE"));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<Self::Break> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<Self::Break> {
        if let Value::Placeholder(name) = &value.value {
            self.refuse(value.span, &format!("the parameter {name}"), Some("write the value itself"));
        }
        ControlFlow::Continue(())
    }
}

impl Walk<'_> {
    fn refuse(&mut self, span: Span, what: &str, help: Option<&str>) {
        let mut mistake = Mistake::new(span, format!("{what} is not supported yet")).or_at(self.place);
        mistake.help = help.map(str::to_owned);
        self.mistakes.push(mistake);
    }

    /// The place of the last of these words before `end`.
    fn keyword(&self, end: Location, words: &[&str]) -> Span {
        let is_wanted = |token: &TokenWithSpan| words.iter().any(|word| is_word(Some(token), word));
        let before = self.tokens.iter().take_while(|t| t.span.start < end);
        before.filter(|t| is_wanted(t)).last().map_or(Span::empty(), |t| t.span)
    }

    /// The first place of this word at or behind `start`.
    fn keyword_behind(&self, start: Location, word: &str) -> Span {
        let mut behind = self.tokens.iter().skip_while(|t| t.span.start < start);
        behind.find(|t| is_word(Some(t), word)).map_or(Span::empty(), |t| t.span)
    }

    fn set_expr(&mut self, body: &SetExpr) {
        match body {
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let span = self.keyword(right.span().start, &["UNION", "EXCEPT", "INTERSECT", "MINUS"]);
                match set_quantifier {
                    SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None => {}
                    _ => self.refuse(span, &format!("{op} BY NAME"), None),
                }
                self.set_expr(left);
                self.set_expr(right);
            }
            // A query in parentheses is visited as a query.
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => {}
            SetExpr::Table(_) => self.refuse(body.span(), "TABLE", Some("write SELECT * FROM instead")),
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                self.refuse(body.span(), "a statement that changes data", None);
            }
        }
    }

    fn join(&mut self, join: &Join) {
        use JoinOperator as Op;
        let span = |words: &[&str]| self.keyword(join.relation.span().start, words);
        let (span, what, help) = match &join.join_operator {
            Op::CrossJoin(JoinConstraint::None) => return,
            Op::CrossJoin(_) => (span(&["CROSS"]), "CROSS JOIN with a condition", Some("write JOIN … ON")),
            Op::Right(c) | Op::RightOuter(c) | Op::FullOuter(c)
                if matches!(c, JoinConstraint::Using(_) | JoinConstraint::Natural) =>
            {
                // The planner takes the left column, not the first of both that is not NULL.
                let what = "RIGHT or FULL JOIN with USING or NATURAL";
                (span(&["RIGHT", "FULL"]), what, Some("write ON left.column = right.column, and COALESCE of both"))
            }
            Op::Join(c)
            | Op::Inner(c)
            | Op::Left(c)
            | Op::LeftOuter(c)
            | Op::Right(c)
            | Op::RightOuter(c)
            | Op::FullOuter(c)
            | Op::Semi(c)
            | Op::LeftSemi(c)
            | Op::RightSemi(c)
            | Op::Anti(c)
            | Op::LeftAnti(c)
            | Op::RightAnti(c) => match c {
                JoinConstraint::None => {
                    let help = "add ON left.column = right.column, or write CROSS JOIN";
                    (span(&["JOIN"]), "a JOIN without ON or USING", Some(help))
                }
                _ => return,
            },
            Op::AsOf { constraint: JoinConstraint::On(_) | JoinConstraint::None, .. } => return,
            Op::AsOf { .. } => {
                let help = "write ON left.column = right.column";
                (span(&["ASOF"]), "ASOF JOIN with USING or NATURAL", Some(help))
            }
            Op::CrossApply | Op::OuterApply => (span(&["APPLY"]), "APPLY", None),
            Op::StraightJoin(_) => (span(&["STRAIGHT_JOIN"]), "STRAIGHT_JOIN", Some("write JOIN")),
            Op::ArrayJoin | Op::LeftArrayJoin | Op::InnerArrayJoin => (span(&["ARRAY"]), "ARRAY JOIN", None),
        };
        self.refuse(span, what, help);
    }

    fn function(&mut self, function: &Function) {
        let span = function.name.span();
        let name = function.name.to_string().to_lowercase();
        let upper = name.to_uppercase();
        let is_window = function.over.is_some();
        if is_window && !WINDOW_FUNCTIONS.contains(&name.as_str()) && !FRAMED_AGGREGATES.contains(&name.as_str()) {
            return self.refuse(span, &format!("the window function {upper} … OVER"), Some(WINDOW_FUNCTIONS_HELP));
        }
        let aggregate = self.catalog.get_aggregate_meta(&name).is_some();
        if let FunctionArguments::List(list) = &function.args {
            if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) && !aggregate {
                self.refuse(span, &format!("{upper}(DISTINCT …)"), Some("DISTINCT stands in aggregates only"));
            }
            let is_known = |clause: &FunctionArgumentClause| {
                use FunctionArgumentClause::{IgnoreOrRespectNulls, OrderBy};
                match clause {
                    OrderBy(_) => aggregate,
                    IgnoreOrRespectNulls(_) => aggregate || is_window,
                    _ => false,
                }
            };
            if !list.clauses.iter().all(is_known) {
                self.refuse(span, &format!("a clause inside {upper}(…), such as ORDER BY,"), None);
            }
        }
        if function.filter.is_some() && !aggregate {
            self.refuse(span, &format!("{upper}(…) FILTER"), Some("FILTER stands behind aggregates only"));
        }
        if !function.within_group.is_empty() && !aggregate {
            self.refuse(span, &format!("{upper}(…) WITHIN GROUP"), None);
        }
        if function.null_treatment.is_some() && !aggregate && !is_window {
            self.refuse(span, &format!("IGNORE NULLS or RESPECT NULLS behind {upper}(…)"), None);
        }
        if !(is_window && WINDOW_FUNCTIONS.contains(&name.as_str())) {
            self.function_name(&function.name, &name);
        }
    }

    fn function_name(&mut self, object: &ObjectName, name: &str) {
        let span = object.span();
        let upper = name.to_uppercase();
        let of_users = |name: &str| name != as_of::MATCH;
        if name == "unnest" || name == as_of::KEEPS_UNMATCHED {
            // The planner's own and our parser's: they are in no catalog.
        } else if let Some(scalar) = self.catalog.get_function_meta(name).filter(|f| of_users(f.name())) {
            match scalar.signature().volatility {
                Volatility::Immutable => {}
                Volatility::Stable if is_clock(&scalar) => {}
                Volatility::Stable => self.refuse(span, &upper, Some("take it from NOW()")),
                Volatility::Volatile => {
                    self.refuse(
                        span,
                        &upper,
                        Some("its result is another one at each call, so a view over it cannot be maintained"),
                    );
                }
            }
        } else if let Some(aggregate) = self.catalog.get_aggregate_meta(name) {
            // The planner makes an expression of GROUPING.
            if AggregateFunction::from_name(aggregate.name()).is_none() && aggregate.name() != "grouping" {
                let help = match aggregate.name() {
                    "approx_distinct" => "use COUNT(DISTINCT …), which is exact",
                    "approx_median" => "use MEDIAN, which is exact",
                    _ => "use PERCENTILE_CONT(share) WITHIN GROUP (ORDER BY …), which is exact",
                };
                self.refuse(span, &format!("the aggregate {upper}"), Some(help));
            }
        } else if self.catalog.get_window_meta(name).is_some() {
            self.refuse(span, &format!("the window function {upper} without OVER"), None);
        } else if self.catalog.get_higher_order_meta(name).is_none() {
            let names = self.catalog.functions().names();
            let mut mistake = Mistake::new(span, format!("there is no function `{name}`")).or_at(self.place);
            mistake.help = nearest(name, names.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`?"));
            self.mistakes.push(mistake);
        }
    }
}
