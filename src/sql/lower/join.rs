//! Joins: key expressions become columns of their sides, and are dropped behind the join.
//!
//! An outer join is the inner join, and the rows of a side that have no match with NULLs in the place of the other. Which rows
//! have a match is a semi join by the keys; with further conditions it is one by all columns with the rows of the inner join.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{DFSchema, JoinType, NullEquality, ScalarValue};
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{Expr, LogicalPlan, logical_plan};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{Column, Literal};

use super::{Computed, Lowering, Refusal, Result, Stream, column, nullable, project};
use crate::circuit::plan::{AsOf, NodeKind, SemiOutput};
use crate::sql::as_of::AsOfJoin;
use crate::sql::clock::uses_now;
use crate::sql::extension::{Operated, Operation};

/// One input of a join, with a column for each key expression behind its own.
struct Side {
    stream: Stream,
    keys: Vec<usize>,
    /// How many columns the plan has, without those of key expressions; they come first.
    width: usize,
}

/// What is joined, and how.
struct Sides {
    left: Side,
    right: Side,
    null_equals_null: bool,
    /// A condition over the columns of the left stream followed by the right one's.
    filter: Option<Arc<dyn PhysicalExpr>>,
}

/// The side that is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Left,
    Right,
}

impl Sides {
    fn get(&self, which: Which) -> &Side {
        match which {
            Which::Left => &self.left,
            Which::Right => &self.right,
        }
    }
}

impl Side {
    fn columns(&self) -> usize {
        self.stream.schema.fields().len()
    }
}

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &logical_plan::Join) -> Result<Stream> {
        use SemiOutput::{Marked, Matched, Unmatched};
        use Which::{Left, Right};
        if join.null_aware {
            return Err(Refusal::new("this form of NOT IN is not supported yet"));
        }
        match join.join_type {
            JoinType::Inner => self.inner_join(join),
            // A scalar sub-query: no row of the left side is without a match.
            JoinType::Left if join.on.is_empty() && filter(join).is_none() && always_one_row(&join.right) => {
                self.inner_join(join)
            }
            JoinType::Left => self.outer_join(join, &[Left]),
            JoinType::Right => self.outer_join(join, &[Right]),
            JoinType::Full => self.outer_join(join, &[Left, Right]),
            JoinType::LeftSemi => self.semi_join(join, Left, Matched),
            JoinType::RightSemi => self.semi_join(join, Right, Matched),
            JoinType::LeftAnti => self.semi_join(join, Left, Unmatched),
            JoinType::RightAnti => self.semi_join(join, Right, Unmatched),
            JoinType::LeftMark => self.semi_join(join, Left, Marked),
            JoinType::RightMark => self.semi_join(join, Right, Marked),
        }
    }

    fn inner_join(&mut self, join: &logical_plan::Join) -> Result<Stream> {
        // The clock changes what is joined, not how.
        let (timed, fixed): (Vec<&Expr>, Vec<&Expr>) =
            filter(join).into_iter().flat_map(split_conjunction).partition(|e| uses_now(e));
        let sides = self.sides(join, conjunction(fixed.into_iter().cloned()).as_ref())?;
        let mut joined = self.matches(&sides)?;
        for condition in timed {
            joined = self.filter(joined, condition, &join.schema)?;
        }
        Ok(joined)
    }

    fn outer_join(&mut self, join: &logical_plan::Join, kept: &[Which]) -> Result<Stream> {
        let sides = self.sides(join, filter(join))?;
        let matches = self.matches(&sides)?;
        let schema = nullable(&matches.schema);
        let mut parts = vec![matches];
        for &which in kept {
            let alone = self.semi(&sides, which, SemiOutput::Unmatched)?;
            let mut computed = Vec::with_capacity(schema.fields().len());
            for (i, field) in schema.fields().iter().enumerate() {
                let own = match which {
                    Which::Left => (i < sides.left.width).then_some(i),
                    Which::Right => i.checked_sub(sides.left.width),
                };
                computed.push(match own {
                    Some(i) => column(&alone.schema, i),
                    None => {
                        let null = Literal::new(ScalarValue::try_new_null(field.data_type())?);
                        Computed { expr: Arc::new(null), name: field.name().clone() }
                    }
                });
            }
            parts.push(project(alone, computed)?);
        }
        Ok(self.push(NodeKind::Union, parts, schema, "outer join"))
    }

    fn semi_join(&mut self, join: &logical_plan::Join, which: Which, output: SemiOutput) -> Result<Stream> {
        let input = match which {
            Which::Left => &join.left,
            Which::Right => &join.right,
        };
        // A row for which a condition over it alone does not hold has no match, and need not be kept.
        let conditions = filter(join).map(split_conjunction).unwrap_or_default();
        let (own, both): (Vec<&Expr>, Vec<&Expr>) =
            conditions.into_iter().partition(|e| e.column_refs().iter().all(|c| input.schema().has_column(c)));
        let both = conjunction(both.into_iter().cloned());
        let mut sides = self.sides(join, both.as_ref())?;
        let side = match which {
            Which::Left => &mut sides.left,
            Which::Right => &mut sides.right,
        };
        let width = side.width;
        let mut without_match = None;
        if let Some(own) = conjunction(own.into_iter().cloned()) {
            let whole = side.stream.clone();
            side.stream = self.filter(whole.clone(), &own, input.schema())?;
            if output != SemiOutput::Matched {
                let not = Expr::IsNotTrue(Box::new(own));
                without_match = Some(self.filter(whole, &not, input.schema())?);
            }
        }
        let found = self.semi(&sides, which, output)?;
        let mark = found.schema.fields().len() - 1;
        let is_marked = output == SemiOutput::Marked;
        let mut columns: Vec<Computed> = (0..width).map(|i| column(&found.schema, i)).collect();
        if is_marked {
            columns.push(column(&found.schema, mark));
        }
        let found = project(found, columns)?;
        let Some(alone) = without_match else { return Ok(found) };
        let mut columns: Vec<Computed> = (0..width).map(|i| column(&alone.schema, i)).collect();
        if is_marked {
            let unmarked = Literal::new(ScalarValue::Boolean(Some(false)));
            columns.push(Computed { expr: Arc::new(unmarked), name: "mark".to_owned() });
        }
        let alone = project(alone, columns)?;
        let schema = nullable(&found.schema);
        Ok(self.push(NodeKind::Union, vec![found, alone], schema, "without match"))
    }

    /// An ASOF join, whose times are columns of their sides as the keys are.
    pub(super) fn as_of_join(&mut self, join: &AsOfJoin) -> Result<Stream> {
        let sorted = join.sorted()?;
        let (left, right) = (self.plan(&join.left)?, self.plan(&join.right)?);
        let mut left = self.side(left, &sorted.left, join.left.schema())?;
        let mut right = self.side(right, &sorted.right, join.right.schema())?;
        for (l, r) in left.keys.iter().zip(&right.keys) {
            let (l, r) = (left.stream.schema.field(*l), right.stream.schema.field(*r));
            if l.data_type() != r.data_type() {
                let (lt, rt) = (l.data_type(), r.data_type());
                return Err(Refusal::new(format!(
                    "an ASOF JOIN compares `{}` ({lt}) with `{}` ({rt}); add a cast",
                    l.name(),
                    r.name()
                )));
            }
        }
        let (Some(left_time), Some(right_time)) = (left.keys.pop(), right.keys.pop()) else {
            return Err(Refusal::new("an ASOF JOIN without a comparison"));
        };
        let fields = left.stream.schema.fields().iter().chain(right.stream.schema.fields());
        let fields: Vec<Field> = fields.map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect();
        let kind = NodeKind::AsOf(AsOf {
            left_keys: left.keys.clone(),
            right_keys: right.keys.clone(),
            left_time,
            right_time,
            side: sorted.side,
            takes_equal: sorted.takes_equal,
            keeps_unmatched: join.keeps_unmatched,
        });
        let kept = (0..left.width).chain((0..right.width).map(|i| left.columns() + i)).collect::<Vec<_>>();
        let joined = self.push(kind, vec![left.stream, right.stream], Arc::new(Schema::new(fields)), "asof join");
        let kept = kept.into_iter().map(|i| column(&joined.schema, i)).collect();
        project(joined, kept)
    }

    /// Lowers both inputs; `filter` is what of the join's condition is not in its equalities.
    fn sides(&mut self, join: &logical_plan::Join, filter: Option<&Expr>) -> Result<Sides> {
        let left = self.plan(&join.left)?;
        let right = self.plan(&join.right)?;
        let left_on: Vec<&Expr> = join.on.iter().map(|(l, _)| l).collect();
        let right_on: Vec<&Expr> = join.on.iter().map(|(_, r)| r).collect();
        let left = self.side(left, &left_on, join.left.schema())?;
        let right = self.side(right, &right_on, join.right.schema())?;
        for ((l, r), (le, re)) in left.keys.iter().zip(&right.keys).zip(&join.on) {
            let (lt, rt) = (left.stream.schema.field(*l).data_type(), right.stream.schema.field(*r).data_type());
            if lt != rt {
                return Err(Refusal::new(format!("a join compares `{le}` ({lt}) with `{re}` ({rt}); add a cast")));
            }
        }
        let filter = match filter {
            None => None,
            Some(filter) => {
                // A semi join's own schema has one side only.
                let schema = join.left.schema().join(join.right.schema())?;
                Some(shift(self.physical(filter, &schema)?, left.width, left.columns() - left.width)?)
            }
        };
        Ok(Sides { left, right, null_equals_null: join.null_equality == NullEquality::NullEqualsNull, filter })
    }

    /// The inner join with all columns, those of the keys too.
    fn keyed_matches(&mut self, sides: &Sides) -> Stream {
        let fields = sides.left.stream.schema.fields().iter().chain(sides.right.stream.schema.fields());
        let fields: Vec<Field> = fields.map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect();
        let kind = NodeKind::Join {
            left_keys: sides.left.keys.clone(),
            right_keys: sides.right.keys.clone(),
            null_equals_null: sides.null_equals_null,
            filter: sides.filter.clone(),
        };
        let inputs = vec![sides.left.stream.clone(), sides.right.stream.clone()];
        self.push(kind, inputs, Arc::new(Schema::new(fields)), "join")
    }

    /// The inner join.
    fn matches(&mut self, sides: &Sides) -> Result<Stream> {
        let joined = self.keyed_matches(sides);
        let kept = (0..sides.left.width).chain((0..sides.right.width).map(|i| sides.left.columns() + i));
        let kept = kept.map(|i| column(&joined.schema, i)).collect();
        project(joined, kept)
    }

    /// The rows of one side by whether they have a match, with all of their columns.
    fn semi(&mut self, sides: &Sides, which: Which, output: SemiOutput) -> Result<Stream> {
        let (this, other) = match which {
            Which::Left => (&sides.left, &sides.right),
            Which::Right => (&sides.right, &sides.left),
        };
        let (keys, matches, null_equals_null) = match &sides.filter {
            None => {
                let keys = other.keys.iter().map(|&i| column(&other.stream.schema, i)).collect();
                (this.keys.clone(), project(other.stream.clone(), keys)?, sides.null_equals_null)
            }
            Some(_) => {
                let joined = self.keyed_matches(sides);
                let first = if which == Which::Left { 0 } else { sides.left.columns() };
                let own = (first..first + this.columns()).map(|i| column(&joined.schema, i)).collect();
                ((0..this.columns()).collect(), project(joined, own)?, true)
            }
        };
        let this = sides.get(which);
        let mut fields: Vec<Field> =
            this.stream.schema.fields().iter().map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect();
        let label = match output {
            SemiOutput::Matched => "semi join",
            SemiOutput::Unmatched => "anti join",
            SemiOutput::Marked => "mark join",
        };
        if output == SemiOutput::Marked {
            fields.push(Field::new("mark", DataType::Boolean, true));
        }
        let right_keys = (0..keys.len()).collect();
        let kind = NodeKind::Semi { left_keys: keys, right_keys, null_equals_null, output };
        Ok(self.push(kind, vec![this.stream.clone(), matches], Arc::new(Schema::new(fields)), label))
    }

    /// The side of a join: a stream of this schema and its key expressions.
    fn side(&self, stream: Stream, on: &[&Expr], schema: &DFSchema) -> Result<Side> {
        let (stream, keys) = self.keyed(stream, on, schema)?;
        // The plan's: a stream of no columns has one all the same.
        Ok(Side { stream, keys, width: schema.fields().len() })
    }

    /// The stream with a column for each key expression, and these columns.
    pub(super) fn keyed(&self, stream: Stream, on: &[&Expr], schema: &DFSchema) -> Result<(Stream, Vec<usize>)> {
        let mut columns: Vec<Computed> = (0..stream.schema.fields().len()).map(|i| column(&stream.schema, i)).collect();
        let mut keys = Vec::with_capacity(on.len());
        for e in on {
            let expr = self.physical(e, schema)?;
            let at = match expr.downcast_ref::<Column>() {
                Some(column) => Some(column.index()),
                None => columns.iter().position(|c| c.expr.eq(&expr)),
            };
            keys.push(at.unwrap_or_else(|| {
                columns.push(Computed { expr, name: e.schema_name().to_string() });
                columns.len() - 1
            }));
        }
        Ok((project(stream, columns)?, keys))
    }
}

/// What of the join's condition is not in its equalities.
fn filter(join: &logical_plan::Join) -> Option<&Expr> {
    join.filter.as_ref().filter(|e| !matches!(e, Expr::Literal(ScalarValue::Boolean(Some(true)), _)))
}

/// Whether a plan gives exactly one row from the first step on, whatever the tables hold.
fn always_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => always_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => always_one_row(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Extension(extension) => {
            let node: Option<&Operated> = extension.node.as_any().downcast_ref();
            node.is_some_and(|node| node.operation == Operation::SingleRow)
        }
        _ => false,
    }
}

/// Moves the columns from `from` on by `extra` to the right.
fn shift(expr: Arc<dyn PhysicalExpr>, from: usize, extra: usize) -> Result<Arc<dyn PhysicalExpr>> {
    if extra == 0 {
        return Ok(expr);
    }
    let shifted = expr.transform(|e| {
        Ok(match e.downcast_ref::<Column>() {
            Some(c) if c.index() >= from => {
                Transformed::yes(Arc::new(Column::new(c.name(), c.index() + extra)) as Arc<dyn PhysicalExpr>)
            }
            _ => Transformed::no(e),
        })
    });
    Ok(shifted.data()?)
}
