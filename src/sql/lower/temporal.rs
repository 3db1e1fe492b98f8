//! The clock in a query: temporal filters, and the clock's relation for everything else.
//!
//! A conjunct `row's time ± interval <, <=, =, >= or > NOW() ± interval`, however it is arranged, is a bound of a
//! [`NodeKind::Temporal`]: `row + offset ? clock`. Any other expression with `NOW()` is evaluated over the rows joined with the clock's
//! one row, which makes all of them change whenever the clock does.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion_common::{Column as ColumnName, DFSchema, ScalarValue, TableReference};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Between, BinaryExpr, Expr, ExprSchemable, Operator, cast};

use super::{Lowering, Result, Stream, column, nullable, project};
use crate::circuit::plan::{Edge, Grain, Node, NodeKind, Stage, TimeBound};
use crate::sql::clock::{is_now, replace_now, uses_now};
use crate::sql::lateness::DAY_US;
use crate::sql::table_functions::micros;

/// The name of the clock's column in the schemas that expressions are planned over.
const CLOCK: &str = "the step's clock";

/// A bound whose column is still an expression.
type Bound = (Expr, TimeBound);

impl Lowering<'_> {
    /// Filters by a predicate over `schema`.
    pub(super) fn filter(&mut self, mut stream: Stream, predicate: &Expr, schema: &DFSchema) -> Result<Stream> {
        if matches!(predicate, Expr::Literal(ScalarValue::Boolean(Some(true)), _)) {
            return Ok(stream);
        }
        if !uses_now(predicate) {
            stream.stages.push(Stage::Filter(self.physical(predicate, schema)?));
            return Ok(stream);
        }
        let (mut bounds, mut others): (Vec<Bound>, Vec<&Expr>) = (Vec::new(), Vec::new());
        for conjunct in split_conjunction(predicate) {
            if !uses_now(conjunct) {
                stream.stages.push(Stage::Filter(self.physical(conjunct, schema)?));
                continue;
            }
            match temporal(conjunct, schema) {
                Some(found) => bounds.extend(found),
                None => others.push(conjunct),
            }
        }
        if !bounds.is_empty() {
            stream = self.temporal(stream, bounds, schema)?;
        }
        if others.is_empty() {
            return Ok(stream);
        }
        let width = schema.fields().len();
        let (mut stream, schema) = self.with_clock(stream, schema)?;
        for conjunct in others {
            stream.stages.push(Stage::Filter(self.physical(conjunct, &schema)?));
        }
        first_columns(stream, width)
    }

    /// The rows while all bounds hold.
    fn temporal(&mut self, stream: Stream, bounds: Vec<Bound>, schema: &DFSchema) -> Result<Stream> {
        let width = stream.schema.fields().len();
        let (times, bounds): (Vec<Expr>, Vec<TimeBound>) = bounds.into_iter().unzip();
        let times = times.into_iter().map(|time| cast_to_micros(time, schema)).collect::<Result<Vec<_>>>()?;
        let (stream, places) = self.keyed(stream, &times.iter().collect::<Vec<_>>(), schema)?;
        let placed = bounds.into_iter().zip(places).map(|(bound, column)| TimeBound { column, ..bound }).collect();
        let schema = nullable(&stream.schema);
        let filtered = self.push(NodeKind::Temporal { bounds: placed }, vec![stream], schema, "temporal filter");
        first_columns(filtered, width)
    }

    /// The rows with the clock behind their columns if an expression needs it, and the schema to plan over.
    pub(super) fn clocked<'e>(
        &mut self,
        stream: Stream,
        schema: &DFSchema,
        mut exprs: impl Iterator<Item = &'e Expr>,
    ) -> Result<(Stream, DFSchema)> {
        if exprs.any(uses_now) { self.with_clock(stream, schema) } else { Ok((stream, schema.clone())) }
    }

    fn with_clock(&mut self, stream: Stream, schema: &DFSchema) -> Result<(Stream, DFSchema)> {
        let clock = Arc::new(Schema::new(vec![Field::new("now", TimeBound::TYPE, true)]));
        let node = Node {
            kind: NodeKind::Clock,
            inputs: Vec::new(),
            schema: Arc::clone(&clock),
            label: format!("{}: clock", self.view),
        };
        let node = self.nodes.intern(node);
        let fields = nullable(&stream.schema).fields().iter().chain(clock.fields()).cloned().collect::<Vec<_>>();
        let kind =
            NodeKind::Join { left_keys: Vec::new(), right_keys: Vec::new(), null_equals_null: false, filter: None };
        let right = Stream { node, stages: Vec::new(), schema: clock };
        let last = fields.len() - 1;
        let joined = self.push(kind, vec![stream, right], Arc::new(Schema::new(fields)), "join with the clock");
        // The plan's columns: a stream of none has one all the same.
        let kept = (0..schema.fields().len()).chain([last]).map(|i| column(&joined.schema, i)).collect();
        let joined = project(joined, kept)?;
        let mut fields: Vec<(Option<TableReference>, _)> =
            schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        fields.push((None, Arc::new(Field::new(CLOCK, TimeBound::TYPE, true))));
        Ok((joined, DFSchema::new_with_metadata(fields, schema.metadata().clone())?))
    }
}

/// The expression with the clock's column for `now()`, if the schema has it.
pub(super) fn with_clock_column(e: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let has_clock = schema.fields().last().is_some_and(|f| f.name() == CLOCK);
    Ok(match has_clock {
        true => Some(replace_now(e.clone(), &Expr::Column(ColumnName::new_unqualified(CLOCK)))?),
        false => None,
    })
}

/// The first columns, without those that were added for a node.
fn first_columns(stream: Stream, width: usize) -> Result<Stream> {
    let kept = (0..width).map(|i| column(&stream.schema, i)).collect();
    project(stream, kept)
}

fn cast_to_micros(time: Expr, schema: &DFSchema) -> Result<Expr> {
    // What the planner has cast to compare it ([`is_exact`]).
    if let Expr::Cast(c) = &time
        && matches!(c.field.data_type(), DataType::Timestamp(..))
        && c.expr.get_type(schema)? == TimeBound::TYPE
    {
        return Ok(c.expr.as_ref().clone());
    }
    Ok(if time.get_type(schema)? == TimeBound::TYPE { time } else { cast(time, TimeBound::TYPE) })
}

/// The bounds that a condition is; none if it is not of that form.
fn temporal(condition: &Expr, schema: &DFSchema) -> Option<Vec<Bound>> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => compare(left, *op, right, schema),
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let mut bounds = compare(expr, Operator::GtEq, low, schema)?;
            bounds.extend(compare(expr, Operator::LtEq, high, schema)?);
            Some(bounds)
        }
        _ => None,
    }
}

fn compare(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Option<Vec<Bound>> {
    let edges: &[(Edge, bool)] = match op {
        Operator::Lt => &[(Edge::Enter, false)],
        Operator::LtEq => &[(Edge::Enter, true)],
        Operator::Gt => &[(Edge::Leave, false)],
        Operator::GtEq => &[(Edge::Leave, true)],
        Operator::Eq => &[(Edge::Enter, true), (Edge::Leave, true)],
        _ => return None,
    };
    let Sum { now, grain, row, micros } = Sum::of(left, schema)?.minus(Sum::of(right, schema)?)?;
    let (sign, row) = row?;
    // row + offset ? now, or the other way round.
    if now != -sign {
        return None;
    }
    let offset_us = micros.checked_mul(sign)?;
    let bound = |(edge, is_inclusive): &(Edge, bool)| {
        let edge = match (sign, edge) {
            (1, edge) => *edge,
            (_, Edge::Enter) => Edge::Leave,
            (_, Edge::Leave) => Edge::Enter,
        };
        (row.clone(), TimeBound { column: 0, offset_us, edge, is_inclusive: *is_inclusive, grain })
    };
    Some(edges.iter().map(bound).collect())
}

/// A sum of the clock, a row's time and a constant, each with its sign.
struct Sum {
    now: i64,
    grain: Grain,
    row: Option<(i64, Expr)>,
    micros: i64,
}

impl Sum {
    fn of(e: &Expr, schema: &DFSchema) -> Option<Self> {
        let none = Self { now: 0, grain: Grain::Millisecond, row: None, micros: 0 };
        if is_now(e) {
            return Some(Self { now: 1, ..none });
        }
        if !uses_now(e) {
            return match e {
                Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
                    Some(Self { micros: micros(*interval)?, ..none })
                }
                Expr::Literal(ScalarValue::DurationMicrosecond(Some(micros)), _) => {
                    Some(Self { micros: *micros, ..none })
                }
                _ => is_exact(e, schema).then(|| Self { row: Some((1, e.clone())), ..none }),
            };
        }
        match e {
            Expr::Cast(c) => {
                let (to, is_clock) = (c.field.data_type(), is_now(&c.expr));
                match to {
                    DataType::Date32 if is_clock => Some(Self { now: 1, grain: Grain::Day, ..none }),
                    DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, None)
                    | DataType::Duration(_)
                    | DataType::Interval(_) => Self::of(&c.expr, schema),
                    _ => None,
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
                let (sum, other) = (Self::of(left, schema)?, Self::of(right, schema)?);
                let sum = if *op == Operator::Plus { sum.plus(other)? } else { sum.minus(other)? };
                // A date with hours added is a date.
                let is_date = matches!(e.get_type(schema), Ok(DataType::Date32));
                (!is_date || sum.micros % DAY_US == 0).then_some(sum)
            }
            _ => None,
        }
    }

    fn plus(self, other: Self) -> Option<Self> {
        let grain = match (self.now, other.now) {
            (_, 0) => self.grain,
            (0, _) => other.grain,
            _ => return None,
        };
        let row = match (self.row, other.row) {
            (row, None) | (None, row) => row,
            _ => return None,
        };
        Some(Self { now: self.now + other.now, grain, row, micros: self.micros.checked_add(other.micros)? })
    }

    fn minus(self, other: Self) -> Option<Self> {
        let row = other.row.map(|(sign, e)| (-sign, e));
        self.plus(Self { now: -other.now, row, micros: other.micros.checked_neg()?, ..other })
    }
}

/// Whether an expression is a time that microseconds hold exactly.
fn is_exact(e: &Expr, schema: &DFSchema) -> bool {
    match e {
        Expr::Literal(ScalarValue::TimestampNanosecond(Some(nanos), None), _) => nanos % 1000 == 0,
        // The planner casts a column to the unit of what it is compared with.
        Expr::Cast(c) if matches!(c.field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, None)) => {
            is_exact(&c.expr, schema)
        }
        _ => matches!(
            e.get_type(schema),
            Ok(DataType::Date32
                | DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, None))
        ),
    }
}
