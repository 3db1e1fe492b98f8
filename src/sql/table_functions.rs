//! Windows of time as table functions in FROM, as Calcite, Flink and Feldera have them: a relation with the columns
//! `window_start` and `window_end` added.
//!
//! - `TUMBLE(TABLE t, DESCRIPTOR(ts), size [, offset])`: each row in the one window of `size` that its time lies in;
//! - `HOP(TABLE t, DESCRIPTOR(ts), slide, size [, offset])`: each row once for every window of `size` that its time lies in; one begins
//!   every `slide`;
//! - `SESSION(TABLE t [PARTITION BY k, …], DESCRIPTOR(ts), gap)` or `SESSION(TABLE t, DESCRIPTOR(ts), DESCRIPTOR(k, …), gap)`: each row in the
//!   window from the first row of its session to a gap after the last one, where rows of a session follow each other within the gap.
//!
//! Invariants:
//! 1. A window is `[window_start, window_end)`, and starts at a multiple of its size (or slide) from 1970-01-01 00:00, moved by the offset.
//! 2. Rows whose time is NULL are in no window.
//! 3. Windows are computed on the microseconds as integers: no calendar, no months.
//!
//! `TUMBLE` is a projection; `HOP` is a UNION ALL of size / slide of them, all over one relation; `SESSION` is an operator of its own. The
//! word TABLE is taken out of the tokens before they are parsed, since the parser takes it for a name, and PARTITION BY becomes an argument
//! ([`without_table`]).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion_common::{
    Column, DataFusionError, Diagnostic, Result, ScalarValue, Span as PlannerSpan, TableReference,
};
use datafusion_expr::logical_plan::Union;
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion_sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, ObjectNamePart, Spanned, TableAlias,
    TableFactor,
};
use datafusion_sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::lateness::DAY_US;
use super::tokens::is_word;
use crate::circuit::plan::Session;

mod session;

pub(super) use session::SessionWindow;

/// The most windows that `HOP` puts a row into.
const MAX_WINDOWS: i64 = 500;

/// The columns that are added.
const ADDED: [&str; 2] = ["window_start", "window_end"];

/// Which of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tumble,
    Hop,
    Session,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        match name.to_lowercase().as_str() {
            "tumble" => Some(Self::Tumble),
            "hop" => Some(Self::Hop),
            "session" => Some(Self::Session),
            _ => None,
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE(TABLE t, DESCRIPTOR(ts), size [, offset])",
            Self::Hop => "HOP(TABLE t, DESCRIPTOR(ts), slide, size [, offset])",
            Self::Session => "SESSION(TABLE t [PARTITION BY k], DESCRIPTOR(ts), gap)",
        }
    }
}

/// A call of one of the functions.
#[derive(Debug)]
pub(super) struct Call<'a> {
    kind: Kind,
    span: Span,
    args: &'a [FunctionArg],
    alias: Option<&'a TableAlias>,
}

impl<'a> Call<'a> {
    /// The call that a part of FROM is: `TUMBLE(…)` or `TABLE(TUMBLE(…))`.
    pub fn of(factor: &'a TableFactor) -> Option<Self> {
        let (name, args, alias) = match factor {
            TableFactor::Table { name, args: Some(args), alias, .. } if args.settings.is_none() => {
                (name, args.args.as_slice(), alias)
            }
            TableFactor::TableFunction { expr: SqlExpr::Function(function), alias } => match &function.args {
                FunctionArguments::List(list) => (&function.name, list.args.as_slice(), alias),
                _ => return None,
            },
            _ => return None,
        };
        let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return None };
        Some(Self { kind: Kind::named(&ident.value)?, span: ident.span, args, alias: alias.as_ref() })
    }

    /// The arguments that are no expressions though they are parsed as such: the relation, and DESCRIPTORs.
    pub fn relation_and_descriptor(&self) -> impl Iterator<Item = &'a SqlExpr> + use<'a> {
        let count = match self.kind {
            Kind::Tumble | Kind::Hop => 2,
            Kind::Session => self.args.len().saturating_sub(1),
        };
        self.args.iter().take(count).filter_map(expression)
    }
}

/// The expression that an argument is.
pub(super) fn expression(arg: &FunctionArg) -> Option<&SqlExpr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// What `PARTITION BY` of a `SESSION` becomes: a function around its columns.
const PARTITION_BY: &str = "partition_by";

/// The tokens without the TABLE in `TUMBLE(TABLE t, …)` and the like, and with `SESSION(t PARTITION BY k, DESCRIPTOR(ts), …)` as
/// `SESSION(t, partition_by(k), DESCRIPTOR(ts), …)`.
pub(super) fn without_table(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let word = |i: usize, wanted: &str| is_word(tokens.get(i), wanted);
    let called = |paren: usize| match paren.checked_sub(1).and_then(|i| tokens.get(i)).map(|t| &t.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => Kind::named(&word.value),
        _ => None,
    };
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    // What each open parenthesis belongs to, and whether its columns of PARTITION BY have not ended yet.
    let mut open: Vec<(Option<Kind>, bool)> = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        let mut add = |token_: Token| out.push(TokenWithSpan { token: token_, span: token.span });
        match (&token.token, open.last_mut()) {
            (Token::LParen, _) => open.push((called(i), false)),
            (Token::RParen, last) => {
                if last.is_some_and(|(_, partition)| *partition) {
                    add(Token::RParen);
                }
                open.pop();
            }
            (Token::Word(_), Some((Some(_), _))) if word(i, "TABLE") && tokens[i - 1].token == Token::LParen => {
                continue;
            }
            (Token::Word(_), Some((Some(Kind::Session), false))) if word(i, "PARTITION") && word(i + 1, "BY") => {
                continue;
            }
            (Token::Word(_), Some((Some(Kind::Session), partition @ false)))
                if word(i, "BY") && word(i - 1, "PARTITION") =>
            {
                *partition = true;
                add(Token::Comma);
                add(Token::make_word(PARTITION_BY, None));
                add(Token::LParen);
                continue;
            }
            (Token::Comma, Some((_, partition @ true))) if word(i + 1, "DESCRIPTOR") => {
                *partition = false;
                add(Token::RParen);
            }
            _ => {}
        }
        out.push(token.clone());
    }
    out
}

/// Plans the calls.
#[derive(Debug)]
pub(super) struct WindowFunctions;

impl RelationPlanner for WindowFunctions {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some(call) = Call::of(&relation) else { return Ok(RelationPlanning::Original(Box::new(relation))) };
        let plan = call.plan(context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, call.alias.cloned()))))
    }
}

/// Where windows start, and how long they are, in microseconds.
#[derive(Debug)]
struct Grid {
    slide: i64,
    size: i64,
    offset: i64,
}

impl Call<'_> {
    fn plan(&self, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        if self.kind == Kind::Session {
            return self.session(context);
        }
        let given: Vec<&SqlExpr> = self.args.iter().filter_map(expression).collect();
        let most = if self.kind == Kind::Tumble { 4 } else { 5 };
        if given.len() != self.args.len() || given.len() > most || given.len() < most - 1 {
            return Err(self.not_its_arguments());
        }
        let (Some(&relation), Some(&descriptor), Some(numbers)) = (given.first(), given.get(1), given.get(2..)) else {
            return Err(self.not_its_arguments());
        };
        let input = context.plan(self.relation(relation)?)?;
        let time = self.time(descriptor, &input, context)?;
        let grid = self.grid(numbers, context)?;
        let (rows, columns) = rows_with_time(relation, input, &time)?;
        let mut windows = Vec::new();
        for back in 0..grid.size / grid.slide {
            let start = grid.last_start(&time, back);
            let timestamp = |e| cast(e, Session::TIME);
            let end = timestamp(start.clone() + lit(grid.size));
            let added = [timestamp(start), end].into_iter().zip(ADDED).map(|(e, name)| e.alias(name));
            let window = LogicalPlanBuilder::from(rows.clone()).project(columns.iter().cloned().chain(added))?;
            windows.push(Arc::new(window.build()?));
        }
        match windows.as_slice() {
            [one] => Ok(one.as_ref().clone()),
            _ => Ok(LogicalPlan::Union(Union::try_new(windows)?)),
        }
    }

    fn session(&self, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let given: Vec<&SqlExpr> = self.args.iter().filter_map(expression).collect();
        if given.len() != self.args.len() {
            return Err(self.not_its_arguments());
        }
        let (relation, descriptor, partition, gap) = match given.as_slice() {
            [relation, descriptor, gap] => (*relation, *descriptor, Vec::new(), *gap),
            [relation, first, second, gap] => match (columns_of(first, PARTITION_BY), columns_of(second, DESCRIPTOR)) {
                (Some(partition), _) => (*relation, *second, partition, *gap),
                (None, Some(partition)) => (*relation, *first, partition, *gap),
                (None, None) => return Err(self.not_its_arguments()),
            },
            _ => return Err(self.not_its_arguments()),
        };
        let input = context.plan(self.relation(relation)?)?;
        let time = self.time(descriptor, &input, context)?;
        let Expr::Column(named) = &time else {
            let message = format!("`{descriptor}` is no TIMESTAMP in microseconds");
            return Err(mistake(descriptor.span(), &message, "cast it to TIMESTAMP in a sub-query"));
        };
        let mut keys = Vec::with_capacity(partition.len());
        for column in partition {
            match context.sql_to_expr(column.clone(), input.schema())? {
                Expr::Column(key) => keys.push(Column::from_name(key.name)),
                _ => {
                    let help = "compute it as a column of a sub-query";
                    return Err(mistake(column.span(), "sessions are parted by columns", help));
                }
            }
        }
        let gap_us = length(gap, false, context)?;
        let named = Column::from_name(&named.name);
        let (rows, columns) = rows_with_time(relation, input, &time)?;
        let rows = LogicalPlanBuilder::from(rows).project(columns)?.build()?;
        SessionWindow::plan(rows, named, keys, gap_us)
    }

    fn not_its_arguments(&self) -> DataFusionError {
        mistake(self.span, "these are not its arguments", &format!("write {}", self.kind.usage()))
    }

    /// The first argument as a part of FROM.
    fn relation(&self, relation: &SqlExpr) -> Result<TableFactor> {
        let name = match relation {
            SqlExpr::Identifier(ident) => vec![ident.clone()],
            SqlExpr::CompoundIdentifier(idents) => idents.clone(),
            SqlExpr::Subquery(query) => {
                return Ok(TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None });
            }
            _ => {
                let help = format!("write {}; a query stands in parentheses of its own", self.kind.usage());
                return Err(mistake(relation.span(), "the first argument must be a table, a view or a query", &help));
            }
        };
        Ok(TableFactor::Table {
            name: ObjectName::from(name),
            alias: None,
            args: None,
            with_hints: Vec::new(),
            version: None,
            with_ordinality: false,
            partitions: Vec::new(),
            json_path: None,
            sample: None,
            index_hints: Vec::new(),
        })
    }

    /// The column of DESCRIPTOR.
    fn time(
        &self,
        descriptor: &SqlExpr,
        input: &LogicalPlan,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Expr> {
        let help = || format!("write {}", self.kind.usage());
        let Some(columns) = columns_of(descriptor, DESCRIPTOR) else {
            return Err(mistake(descriptor.span(), "the second argument must be DESCRIPTOR(column)", &help()));
        };
        let column = match columns.as_slice() {
            [column @ SqlExpr::Identifier(_)] => *column,
            _ => return Err(mistake(descriptor.span(), "DESCRIPTOR names one column", &help())),
        };
        let time = context.sql_to_expr(column.clone(), input.schema())?;
        let data_type = input.schema().index_of_column(match &time {
            Expr::Column(c) => c,
            _ => return Err(mistake(column.span(), "DESCRIPTOR names one column", &help())),
        });
        let data_type = input.schema().field(data_type?).data_type().clone();
        match data_type {
            Session::TIME => Ok(time),
            DataType::Timestamp(_, None) => Ok(cast(time, Session::TIME)),
            other => {
                let message = format!("`{column}` is {other}, and a window needs a TIMESTAMP");
                Err(mistake(column.span(), &message, "cast it to TIMESTAMP in a sub-query"))
            }
        }
    }

    fn grid(&self, numbers: &[&SqlExpr], context: &mut dyn RelationPlannerContext) -> Result<Grid> {
        let mut micros = Vec::new();
        for (i, expr) in numbers.iter().enumerate() {
            let is_offset = i == numbers.len() - 1 && numbers.len() == if self.kind == Kind::Tumble { 2 } else { 3 };
            micros.push(length(expr, is_offset, context)?);
        }
        let (slide, size, offset) = match (self.kind, micros.as_slice()) {
            (Kind::Tumble, [size, rest @ ..]) => (*size, *size, rest.first()),
            (Kind::Hop, [slide, size, rest @ ..]) => (*slide, *size, rest.first()),
            _ => return Err(self.not_its_arguments()),
        };
        let size_span = numbers.get(1).map_or(self.span, |e| e.span());
        if size % slide != 0 {
            let help = "the slide comes first, then the size: HOP(…, slide, size)";
            return Err(mistake(size_span, "the size of a HOP must be a multiple of its slide", help));
        }
        if size / slide > MAX_WINDOWS {
            let message = format!("each row would be in {} windows; at most {MAX_WINDOWS} are supported", size / slide);
            return Err(mistake(size_span, &message, "take a larger slide"));
        }
        Ok(Grid { slide, size, offset: offset.copied().unwrap_or(0) })
    }
}

impl Grid {
    /// The start of the window, in microseconds, that is `back` windows before the last one that `time` lies in.
    fn last_start(&self, time: &Expr, back: i64) -> Expr {
        let micros = cast(time.clone(), DataType::Int64);
        let moved = match self.offset % self.slide {
            0 => micros.clone(),
            offset => micros.clone() - lit(offset),
        };
        // The remainder has the sign of what is divided.
        let into = (moved % lit(self.slide) + lit(self.slide)) % lit(self.slide);
        let start = micros - into;
        if back == 0 { start } else { start - lit(back * self.slide) }
    }
}

/// The function around a column of time.
const DESCRIPTOR: &str = "descriptor";

/// The columns in `name(…)`, or `name((…))`; none, if it is not called so.
fn columns_of<'a>(expr: &'a SqlExpr, name: &str) -> Option<Vec<&'a SqlExpr>> {
    let SqlExpr::Function(function) = expr else { return None };
    if !function.name.to_string().eq_ignore_ascii_case(name) {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else { return Some(Vec::new()) };
    let columns: Vec<&SqlExpr> = list.args.iter().filter_map(expression).collect();
    match columns.as_slice() {
        [SqlExpr::Tuple(columns)] => Some(columns.iter().collect()),
        [SqlExpr::Nested(column)] => Some(vec![column.as_ref()]),
        _ => Some(columns),
    }
}

/// The rows that have a time, and their columns, which are then called by their names alone.
fn rows_with_time(relation: &SqlExpr, input: LogicalPlan, time: &Expr) -> Result<(LogicalPlan, Vec<Expr>)> {
    for name in ADDED {
        if input.schema().fields().iter().any(|f| f.name() == name) {
            let message = format!("{relation} already has a column `{name}`");
            return Err(mistake(relation.span(), &message, "give it another name in a sub-query"));
        }
    }
    let named = |(qualifier, field): (Option<&TableReference>, &Arc<Field>)| {
        Expr::Column(Column::new(qualifier.cloned(), field.name())).alias(field.name())
    };
    let columns = input.schema().iter().map(named).collect();
    Ok((LogicalPlanBuilder::from(input).filter(time.clone().is_not_null())?.build()?, columns))
}

/// The microseconds of a constant interval without months; positive unless it is an offset.
fn length(expr: &SqlExpr, is_offset: bool, context: &mut dyn RelationPlannerContext) -> Result<i64> {
    let schema = datafusion_common::DFSchema::empty();
    let span = expr.span();
    let planned = match expr {
        SqlExpr::Interval(_) => context.sql_to_expr(expr.clone(), &schema)?,
        _ => return Err(mistake(span, "this must be an interval", "write it as INTERVAL '10 seconds'")),
    };
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = planned else {
        return Err(mistake(span, "this must be a constant interval", "write it as INTERVAL '10 seconds'"));
    };
    match micros(interval) {
        Some(length) if length > 0 || is_offset => Ok(length),
        Some(_) => Err(mistake(span, "the length of a window must be positive", "write it as INTERVAL '10 seconds'")),
        None => {
            let help = "use days, hours, minutes, seconds, milliseconds and microseconds";
            Err(mistake(span, "months differ in length, and nothing is shorter than a microsecond", help))
        }
    }
}

/// The microseconds of an interval of days and whole microseconds; none if it has months or is too long.
pub(super) fn micros(interval: arrow::datatypes::IntervalMonthDayNano) -> Option<i64> {
    if interval.months != 0 || interval.nanoseconds % 1000 != 0 {
        return None;
    }
    i64::from(interval.days).checked_mul(DAY_US)?.checked_add(interval.nanoseconds / 1000)
}

fn mistake(span: Span, message: &str, help: &str) -> DataFusionError {
    let place = PlannerSpan::try_from_sqlparser_span(span);
    let diagnostic = Diagnostic::new_error(message, place).with_help(help, None);
    DataFusionError::Plan(message.to_owned()).with_diagnostic(diagnostic)
}
