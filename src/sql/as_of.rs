//! ASOF joins: `FROM t [LEFT] ASOF JOIN u MATCH_CONDITION (t.ts >= u.ts) ON t.k = u.k`.
//!
//! A way through a planner that does not know them: the parser's join becomes an inner or left join whose condition has the comparison in a call
//! of [`MATCH`], which becomes a node of ours ([`AsOfJoin`]) before any rule of the optimizer sees it. No rule may look through that
//! node: a filter on the right side's columns before it would change what is nearest.
//!
//! `LEFT` is not the parser's either: it is cut out of the tokens, and leaves a call of [`KEEPS_UNMATCHED`] around the comparison.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, JoinType, Result, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::logical_plan::builder::build_join_schema;
use datafusion_expr::logical_plan::{Extension, LogicalPlan};
use datafusion_expr::utils::split_conjunction_owned;
use datafusion_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    UserDefinedLogicalNodeCore, Volatility,
};
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr as Ast, FunctionArg, FunctionArgExpr, FunctionArguments, Join, JoinConstraint, JoinOperator,
};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{closing, is_word};
use crate::circuit::plan::TimeSide;

/// The function that the comparison is an argument of until the join has a node of its own.
pub(super) const MATCH: &str = "asof_match";
/// What stands around the comparison of a LEFT ASOF JOIN.
pub(super) const KEEPS_UNMATCHED: &str = "asof_or_null";

/// What is wrong with a condition.
pub(super) const NOT_AN_ASOF_JOIN: &str = "ASOF JOIN takes MATCH_CONDITION (left.time >= right.time), also with >, <= or <, and equalities of both sides in ON";

/// The tokens without LEFT before ASOF.
pub(super) fn without_left(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !tokens.iter().any(|t| is_word(Some(t), "ASOF")) {
        return tokens;
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    // Of each ASOF whose MATCH_CONDITION has not come yet, whether LEFT stood before it. A sub-query that is joined may have its own.
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        if is_word(Some(token), "LEFT") && is_word(tokens.get(at), "ASOF") {
            continue;
        }
        if is_word(Some(token), "ASOF") {
            open.push(at >= 2 && is_word(tokens.get(at - 2), "LEFT"));
        }
        out.push(token.clone());
        let opens = tokens.get(at).filter(|t| t.token == Token::LParen);
        if let (true, Some(paren)) = (is_word(Some(token), "MATCH_CONDITION"), opens)
            && open.pop() == Some(true)
            && let Some(close) = closing(&tokens, at, &Token::LParen, &Token::RParen)
        {
            let inner = tokens.get(at + 1..close).unwrap_or_default();
            // At the comparison's places, where mistakes are told.
            let (first, last) = (inner.first().unwrap_or(paren).span, inner.last().unwrap_or(paren).span);
            let with = |token: Token, span| TokenWithSpan { token, span };
            let word = Token::make_word(KEEPS_UNMATCHED, None);
            out.extend([paren.clone(), with(word, first), with(Token::LParen, first)]);
            out.extend(inner.iter().cloned());
            out.push(with(Token::RParen, last));
            at = close;
        }
    }
    out
}

/// The comparison of a MATCH_CONDITION, and whether the join keeps left rows without a match.
fn condition(of: &Ast) -> (&Ast, bool) {
    if let Ast::Function(function) = of
        && function.name.to_string() == KEEPS_UNMATCHED
        && let FunctionArguments::List(list) = &function.args
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))] = list.args.as_slice()
    {
        return (inner, true);
    }
    (of, false)
}

/// The join as one that the planner takes; others stay as they are.
pub(super) fn standard(join: &mut Join, call: impl Fn(&str, Vec<Ast>) -> Ast) {
    let JoinOperator::AsOf { match_condition, constraint } = &join.join_operator else { return };
    let (comparison, keeps_unmatched) = condition(match_condition);
    let mut on = call(MATCH, vec![comparison.clone()]);
    if let JoinConstraint::On(equalities) = constraint {
        let equalities = Ast::Nested(Box::new(equalities.clone()));
        on = Ast::BinaryOp { left: Box::new(on), op: BinaryOperator::And, right: Box::new(equalities) };
    }
    let on = JoinConstraint::On(on);
    join.join_operator = if keeps_unmatched { JoinOperator::LeftOuter(on) } else { JoinOperator::Inner(on) };
}

/// [`MATCH`] as the planner knows it. It is never evaluated.
pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(Match { signature: Signature::exact(vec![DataType::Boolean], Volatility::Volatile) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Match {
    signature: Signature,
}

impl ScalarUDFImpl for Match {
    fn name(&self) -> &str {
        MATCH
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Plan(NOT_AN_ASOF_JOIN.to_owned()))
    }
}

/// An ASOF join, whose columns are both sides'.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AsOfJoin {
    pub left: LogicalPlan,
    pub right: LogicalPlan,
    /// The comparison of the times.
    pub comparison: Expr,
    /// Equalities of both sides.
    pub on: Vec<Expr>,
    pub keeps_unmatched: bool,
    schema: DFSchemaRef,
}

/// Its expressions, sorted by the sides that they are over.
pub(super) struct Sorted<'a> {
    /// Keys, and behind them the time.
    pub left: Vec<&'a Expr>,
    pub right: Vec<&'a Expr>,
    pub side: TimeSide,
    pub takes_equal: bool,
}

impl AsOfJoin {
    fn new(left: LogicalPlan, right: LogicalPlan, mut exprs: Vec<Expr>, keeps_unmatched: bool) -> Result<Self> {
        if exprs.is_empty() {
            return plan_err!("{NOT_AN_ASOF_JOIN}");
        }
        let comparison = exprs.remove(0);
        let kind = if keeps_unmatched { JoinType::Left } else { JoinType::Inner };
        let schema = Arc::new(build_join_schema(left.schema(), right.schema(), &kind)?);
        let join = Self { left, right, comparison, on: exprs, keeps_unmatched, schema };
        join.sorted()?;
        Ok(join)
    }

    /// What is compared.
    ///
    /// # Errors
    /// A condition that is none of an ASOF join.
    pub fn sorted(&self) -> Result<Sorted<'_>> {
        let wrong = || DataFusionError::Plan(NOT_AN_ASOF_JOIN.to_owned());
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for equality in &self.on {
            let (of_left, of_right, _) = self.sides(equality, |op| op == Operator::Eq).ok_or_else(wrong)?;
            left.push(of_left);
            right.push(of_right);
        }
        let is_order = |op| matches!(op, Operator::GtEq | Operator::Gt | Operator::LtEq | Operator::Lt);
        let (left_time, right_time, op) = self.sides(&self.comparison, is_order).ok_or_else(wrong)?;
        left.push(left_time);
        right.push(right_time);
        let side = if matches!(op, Operator::GtEq | Operator::Gt) { TimeSide::Before } else { TimeSide::After };
        let takes_equal = matches!(op, Operator::GtEq | Operator::LtEq);
        Ok(Sorted { left, right, side, takes_equal })
    }

    /// A comparison of the left side with the right one.
    fn sides<'a>(&self, e: &'a Expr, wanted: impl Fn(Operator) -> bool) -> Option<(&'a Expr, &'a Expr, Operator)> {
        // Rules of the optimizer that turn a comparison around keep its name by an alias.
        let mut e = e;
        while let Expr::Alias(alias) = e {
            e = &alias.expr;
        }
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = e else { return None };
        let of = |e: &Expr, schema: &DFSchema| {
            let columns = e.column_refs();
            !columns.is_empty() && columns.iter().all(|c| schema.has_column(c)) && !e.is_volatile()
        };
        let is = |l: &Expr, r: &Expr| of(l, self.left.schema()) && of(r, self.right.schema());
        let found = match (is(left, right), is(right, left)) {
            (true, _) => (left.as_ref(), right.as_ref(), *op),
            (_, true) => (right.as_ref(), left.as_ref(), op.swap()?),
            _ => return None,
        };
        wanted(found.2).then_some(found)
    }
}

/// A join that has [`MATCH`] in its condition as a node of its own.
pub(super) fn normalise(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(join) = &plan else { return Ok(Transformed::no(plan)) };
    let conjuncts = join.filter.clone().map(split_conjunction_owned).unwrap_or_default();
    let is_match = |e: &Expr| matches!(e, Expr::ScalarFunction(ScalarFunction { func, .. }) if func.name() == MATCH);
    let (matches, on): (Vec<Expr>, Vec<Expr>) = conjuncts.into_iter().partition(is_match);
    let Some(Expr::ScalarFunction(ScalarFunction { args, .. })) = matches.into_iter().next() else {
        return Ok(Transformed::no(plan));
    };
    let (left, right) = (join.left.as_ref().clone(), join.right.as_ref().clone());
    let exprs = args.into_iter().chain(on).collect();
    let node = AsOfJoin::new(left, right, exprs, join.join_type == JoinType::Left)?;
    Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
}

impl PartialOrd for AsOfJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.left, &self.right, &self.comparison, &self.on, self.keeps_unmatched).partial_cmp(&(
            &other.left,
            &other.right,
            &other.comparison,
            &other.on,
            other.keeps_unmatched,
        ))
    }
}

impl UserDefinedLogicalNodeCore for AsOfJoin {
    fn name(&self) -> &str {
        "AsOfJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.comparison).chain(&self.on).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsOfJoin: {} on {:?}", self.comparison, self.on)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[LogicalPlan; 2]>::try_from(inputs) {
            Ok([left, right]) => Self::new(left, right, exprs, self.keeps_unmatched),
            Err(inputs) => Err(DataFusionError::Internal(format!("AsOfJoin over {} inputs", inputs.len()))),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let mut needed = [Vec::new(), Vec::new()];
        for &i in output_columns {
            match i.checked_sub(width) {
                None => needed[0].push(i),
                Some(i) => needed[1].push(i),
            }
        }
        for column in std::iter::once(&self.comparison).chain(&self.on).flat_map(Expr::column_refs) {
            for (schema, needed) in [self.left.schema(), self.right.schema()].into_iter().zip(&mut needed) {
                needed.extend(schema.maybe_index_of_column(column));
            }
        }
        for needed in &mut needed {
            needed.sort_unstable();
            needed.dedup();
        }
        Some(needed.into())
    }
}
