//! Where in a query an error comes from, if the planner does not say: found by planning it again with parts of it taken out.
//!
//! Parts are replaced by something that cannot be wrong, one after another, for as long as the error stays. The one without which there is no error is
//! the place. Within it, an operand that has the error on its own, where its operation stood, is a better one; the expressions of a sub-query are tried
//! as those of the whole query.
//!
//! Known limits: the parts of a large query are not tried ([`MAX_PARTS`]), and no more than [`MAX_TRIALS`] plans are made: then the place is the best that has
//! been found until then. A second error elsewhere may hide the place, if it stands on both sides of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr, Query, Spanned, Value, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::Span;

use super::planner::{self, Problem};

/// Queries with more expressions are not searched.
const MAX_PARTS: usize = 400;
/// The most plans that are made for a place.
const MAX_TRIALS: usize = 100;

/// What may be the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Among {
    /// Any expression.
    Expressions,
    /// A sub-query in an expression.
    Subqueries,
}

impl Among {
    /// What an error may come from.
    fn of(message: &str) -> Self {
        if planner::is_about_subquery(message) { Self::Subqueries } else { Self::Expressions }
    }
}

/// The problem that a query has with the place in it that it comes from, if it has none yet and that is found. `compile` does again what came to it.
pub(super) fn placed<T>(problem: Problem, query: &Query, compile: impl Fn(&Query) -> Result<T, Problem>) -> Problem {
    if problem.mistake.span != Span::empty() || problem.missing.is_some() {
        return problem;
    }
    let fails = |query: &Query| compile(query).err().map(|problem| problem.mistake.message);
    let span = locate(query, &problem.mistake.message, &fails);
    Problem { mistake: problem.mistake.or_at(span), ..problem }
}

/// The place of the error with which a query fails; empty, if it is not found. `fails` gives an error's text, and none of a query that has none.
fn locate(query: &Query, error: &str, fails: &dyn Fn(&Query) -> Option<String>) -> Span {
    let among = Among::of(error);
    let mut parts = Parts { among, all: Vec::new(), open: Vec::new(), count: 0 };
    let _ = Visit::visit(query, &mut parts);
    if parts.count > MAX_PARTS {
        return Span::empty();
    }
    let search = Search { query, parts: parts.all, fails, error, trials: Cell::new(0) };
    search.run().map_or(Span::empty(), |at| search.span(at))
}

/// Whether an expression has a query of its own.
fn has_query(expr: &Expr) -> bool {
    match expr {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => true,
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => matches!(right.as_ref(), Expr::Subquery(_)),
        _ => false,
    }
}

/// An expression that may be the place.
struct Part {
    /// Its number among all expressions of the query.
    number: usize,
    /// The place in the list of the nearest one around it.
    parent: Option<usize>,
    expr: Expr,
}

/// Collects them, in the order of the text, each before those within it.
struct Parts {
    among: Among,
    all: Vec<Part>,
    /// For each expression around: the place in the list of the nearest part that it is or is in.
    open: Vec<Option<usize>>,
    count: usize,
}

impl Visitor for Parts {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let around = self.open.last().copied().flatten();
        let number = self.count;
        self.count += 1;
        if number > MAX_PARTS {
            return ControlFlow::Break(());
        }
        if self.among == Among::Expressions || has_query(expr) {
            self.open.push(Some(self.all.len()));
            self.all.push(Part { number, parent: around, expr: expr.clone() });
        } else {
            self.open.push(around);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.open.pop();
        ControlFlow::Continue(())
    }
}

/// Puts expressions in the place of others, by number.
struct Replacing<'a> {
    by: &'a BTreeMap<usize, Expr>,
    open: Vec<usize>,
    count: usize,
}

impl VisitorMut for Replacing<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.open.push(self.count);
        self.count += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(new) = self.open.pop().and_then(|number| self.by.get(&number)) {
            *expr = new.clone();
        }
        ControlFlow::Continue(())
    }
}

/// What stands in the place of a part that is taken out: TRUE, a number, NULL. By its number none looks like another one, and none is a position.
fn neutral(number: usize) -> [Expr; 3] {
    let literal = |value: Value| Box::new(Expr::Value(value.with_empty_span()));
    let n = || literal(Value::Number(number.to_string(), false));
    let of = |op, right| Expr::BinaryOp { left: n(), op, right };
    [of(BinaryOperator::Eq, n()), of(BinaryOperator::Plus, n()), *literal(Value::Null)]
}

struct Search<'a> {
    query: &'a Query,
    parts: Vec<Part>,
    fails: &'a dyn Fn(&Query) -> Option<String>,
    error: &'a str,
    trials: Cell<usize>,
}

/// What came of a trial.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// The error is there still.
    Same,
    /// There is none.
    Gone,
    /// There is another one, or nothing is known.
    Other,
}

impl Search<'_> {
    fn run(&self) -> Option<usize> {
        let mut replaced = BTreeMap::new();
        let mut found: Option<usize> = None;
        loop {
            let next = match found.and_then(|at| self.parts.get(at)) {
                // An operand that has the error without the operation.
                Some(part) if !has_query(&part.expr) => self.within(found).find(|(_, operand)| {
                    let mut by = replaced.clone();
                    by.insert(part.number, operand.expr.clone());
                    self.outcome(&by) == Outcome::Same
                }),
                _ => self.culprit(&self.within(found).collect::<Vec<_>>(), &mut replaced),
            };
            match next {
                Some((i, _)) => found = Some(i),
                None => return found,
            }
        }
    }

    /// The parts right within another one, or those within none.
    fn within(&self, around: Option<usize>) -> impl Iterator<Item = (usize, &Part)> {
        self.parts.iter().enumerate().filter(move |(_, part)| part.parent == around)
    }

    /// The one of these parts without which there is no error; the others are taken out as far as it stays without them.
    fn culprit<'p>(
        &self,
        among: &[(usize, &'p Part)],
        replaced: &mut BTreeMap<usize, Expr>,
    ) -> Option<(usize, &'p Part)> {
        let before = replaced.clone();
        let orders: [Vec<_>; 2] = [among.iter().rev().copied().collect(), among.to_vec()];
        for order in orders {
            replaced.clone_from(&before);
            for (i, part) in order {
                for expr in neutral(part.number) {
                    replaced.insert(part.number, expr);
                    match self.outcome(replaced) {
                        Outcome::Same => break,
                        Outcome::Gone => {
                            replaced.remove(&part.number);
                            return Some((i, part));
                        }
                        Outcome::Other => drop(replaced.remove(&part.number)),
                    }
                }
            }
        }
        *replaced = before;
        None
    }

    fn outcome(&self, by: &BTreeMap<usize, Expr>) -> Outcome {
        if self.trials.replace(self.trials.get() + 1) >= MAX_TRIALS {
            return Outcome::Other;
        }
        let mut query = self.query.clone();
        let _ = VisitMut::visit(&mut query, &mut Replacing { by, open: Vec::new(), count: 0 });
        match (self.fails)(&query) {
            None => Outcome::Gone,
            Some(error) if *error == *self.error => Outcome::Same,
            Some(_) => Outcome::Other,
        }
    }

    /// The place of a part, or of the nearest one around it that has one.
    fn span(&self, at: usize) -> Span {
        let Some(part) = self.parts.get(at) else { return Span::empty() };
        let own = match &part.expr {
            Expr::Function(function) => function.name.span(),
            expr => expr.span(),
        };
        match part.parent {
            Some(parent) if own == Span::empty() => self.span(parent),
            _ => own,
        }
    }
}
