//! Which state a watermark frees: derived from the plan once, and put to the spines at the start of each step.
//!
//! A column of a node is *bounded* if no change of the node in a step has a value below a bound that the watermarks give: columns with LATENESS,
//! and what is derived from them: monotone expressions, unions, group and partition columns, equal keys of joins whose sides are both
//! bounded. An operator whose state is keyed by a bounded column never needs again what lies below: its groups and partitions
//! there do not change any more, and a join's rows there meet no row of the *other* side any more.
//!
//! Invariant: what a floor hides is never asked for. So nothing is put out when state is freed, and results stand.
//!
//! An [arrangement](super::plan::Arrange) lets go of what all of its readers would let go of, if all of them would by the same column of the key.
//!
//! Known limits: the columns before the bounded one in a key must have a fixed width (numbers, times, booleans). State that
//! another operator keeps by other columns is not freed (a join on an id with a condition on times, say). Whole numbers wrap around when
//! they overflow, and are taken for monotone all the same: a column must stay as far from the ends of its type as constants move it.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, kernels::cmp::lt};
use arrow::datatypes::{DataType, SchemaRef};
use backstay_storage::spine::Floor;
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::error::Result;
use super::plan::{AsOf, CircuitPlan, Node, NodeId, NodeKind, SemiOutput, Session, Stage, TimeSide, TopK, Window};
use super::row::RowCodec;

/// What a column of a node is never below.
#[derive(Clone, Debug)]
enum Bound {
    /// The watermark of this number.
    Watermark(usize),
    /// A monotone expression over a column of this number, in rows of this schema.
    Of { inner: Arc<Bound>, expr: Arc<dyn PhysicalExpr>, column: usize, schema: SchemaRef },
    /// The least of several.
    Least(Vec<Bound>),
}

impl Bound {
    /// Whether it is of a watermark of a whole number, where it is that of a column of this type.
    fn is_of_number(&self, data_type: &DataType) -> bool {
        match self {
            Self::Watermark(_) => data_type.is_integer(),
            Self::Of { inner, column, schema, .. } => inner.is_of_number(schema.field(*column).data_type()),
            Self::Least(all) => all.iter().any(|bound| bound.is_of_number(data_type)),
        }
    }
}

/// State of a node, and what it can let go of.
#[derive(Clone, Debug)]
struct Rule {
    node: NodeId,
    /// The side of a join whose rows they are; `None`: all state.
    side: Option<usize>,
    /// The spine's place among the operator's; `None`: all.
    spine: Option<usize>,
    /// Bytes of a key before the bounded column.
    skip: usize,
    data_type: DataType,
    bound: Bound,
}

/// A floor for a node's spines.
#[derive(Clone, Debug)]
pub(super) struct NodeFloor {
    pub(super) node: NodeId,
    /// The spine's place among the operator's; `None`: all.
    pub(super) spine: Option<usize>,
    pub(super) floor: Floor,
}

/// The rules of a plan; see the module.
#[derive(Debug)]
pub struct Floors {
    rules: Vec<Rule>,
    last: Vec<Option<i64>>,
}

impl Floors {
    /// Derives the rules of a plan.
    pub fn of(plan: &CircuitPlan) -> Self {
        let mut bounds: Vec<Vec<Option<Bound>>> = Vec::with_capacity(plan.nodes.len());
        let mut rules = Vec::new();
        for (id, node) in plan.nodes.iter().enumerate() {
            let inputs: Vec<&Vec<Option<Bound>>> = node.inputs.iter().filter_map(|&i| bounds.get(i)).collect();
            keyed(plan, id, node, &inputs, &mut rules);
            let mut own = bounded(plan, id, node, &inputs);
            own.resize(node.schema.fields().len(), None);
            bounds.push(own);
        }
        let mut rules = shared(plan, rules);
        rules.sort_by_key(|rule| rule.node);
        Self { rules, last: Vec::new() }
    }

    /// Where in the key of a join's side the column is that frees its rows, in bytes; `None` if nothing does.
    pub fn place(&self, node: NodeId, side: usize) -> Option<usize> {
        self.rules.iter().find(|r| r.node == node && r.side == Some(side)).map(|r| r.skip)
    }

    /// The nodes of which state is freed, ascending, each once.
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.rules.iter().map(|r| r.node).collect();
        nodes.dedup();
        nodes
    }

    /// Whether the state that a node keeps of its input of this number is freed.
    pub(super) fn frees(&self, node: NodeId, side: usize) -> bool {
        self.rules.iter().any(|r| r.node == node && r.side.is_none_or(|own| own == side))
    }

    /// The floors at these watermarks, if they are others than those of the last call.
    ///
    /// # Errors
    /// A type without a row encoding.
    pub(super) fn at(&mut self, watermarks: &[Option<i64>]) -> Result<Vec<NodeFloor>> {
        if self.rules.is_empty() || self.last == watermarks {
            return Ok(Vec::new());
        }
        let mut floors = Vec::new();
        for rule in &self.rules {
            // An expression that fails for the watermark (an overflow) leaves the floor where it is.
            let value = rule.bound.value(watermarks).ok().flatten();
            if let Some(Ok(value)) = value.map(|value| of_type(&value, &rule.data_type)) {
                let codec = RowCodec::new(std::slice::from_ref(&rule.data_type))?;
                if value.is_null(0) {
                    continue;
                }
                let below = codec.encode(&[value], 1)?.get(0).to_vec();
                floors.push(NodeFloor { node: rule.node, spine: rule.spine, floor: Floor { skip: rule.skip, below } });
            }
        }
        self.last = watermarks.to_vec();
        Ok(floors)
    }
}

impl Bound {
    /// Its value, in an array of one; `None` while a watermark has none.
    fn value(&self, watermarks: &[Option<i64>]) -> Result<Option<ArrayRef>, arrow::error::ArrowError> {
        match self {
            Self::Watermark(i) => {
                Ok(watermarks.get(*i).copied().flatten().map(|w| Arc::new(Int64Array::from(vec![w])) as ArrayRef))
            }
            Self::Of { inner, expr, column, schema } => {
                let Some(value) = inner.value(watermarks)? else { return Ok(None) };
                let columns = schema.fields().iter().enumerate().map(|(i, field)| match i == *column {
                    true => of_type(&value, field.data_type()),
                    false => Ok(new_null_array(field.data_type(), 1)),
                });
                let columns = columns.collect::<Result<Vec<_>, _>>()?;
                let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
                let options = RecordBatchOptions::new().with_row_count(Some(1));
                let schema = Arc::new(arrow::datatypes::Schema::new(fields));
                let row = RecordBatch::try_new_with_options(schema, columns, &options)?;
                let value = expr.evaluate(&row).and_then(|v| v.into_array(1));
                Ok(Some(value.map_err(|e| arrow::error::ArrowError::ExternalError(Box::new(e)))?))
            }
            Self::Least(all) => {
                let mut least: Option<ArrayRef> = None;
                for bound in all {
                    let Some(value) = bound.value(watermarks)?.filter(|v| v.is_valid(0)) else { return Ok(None) };
                    let is_less = match &least {
                        None => true,
                        Some(least) => {
                            let value = of_type(&value, least.data_type())?;
                            value.is_valid(0) && lt(&value, least)?.value(0)
                        }
                    };
                    if is_less {
                        least = Some(value);
                    }
                }
                Ok(least)
            }
        }
    }
}

/// A whole number as a time, and the like.
fn of_type(value: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    match (value.data_type(), data_type) {
        (from, to) if from == to => Ok(ArrayRef::clone(value)),
        (DataType::Int64, DataType::Date32) => cast(&cast(value, &DataType::Int32)?, data_type),
        _ => cast(value, data_type),
    }
}

/// The bounds of a node's columns.
fn bounded(plan: &CircuitPlan, id: NodeId, node: &Node, inputs: &[&Vec<Option<Bound>>]) -> Vec<Option<Bound>> {
    let width = node.schema.fields().len();
    let first = || inputs.first().map_or_else(Vec::new, |columns| (*columns).clone());
    let only = |columns: &[usize]| {
        let of = |i: usize| if columns.contains(&i) { first().get(i).cloned().flatten() } else { None };
        (0..width).map(of).collect()
    };
    match &node.kind {
        // Upserts take old rows away.
        NodeKind::Table { primary_key } if !primary_key.is_empty() => Vec::new(),
        NodeKind::Table { .. } => table(plan, id, width),
        NodeKind::Linear(stages) => {
            let input = node.inputs.first().and_then(|&i| plan.nodes.get(i));
            input.map_or_else(Vec::new, |input| linear(stages, &input.schema, first()))
        }
        NodeKind::Union => (0..width)
            .map(|i| {
                let all = inputs.iter().map(|columns| columns.get(i).cloned().flatten());
                Some(Bound::Least(all.collect::<Option<Vec<_>>>()?)).filter(|_| !inputs.is_empty())
            })
            .collect(),
        NodeKind::Aggregate { group, .. } => group.iter().map(|&i| first().get(i).cloned().flatten()).collect(),
        NodeKind::Join { left_keys, right_keys, .. } => {
            let left_width =
                node.inputs.first().and_then(|&i| plan.nodes.get(i)).map_or(0, |n| n.schema.fields().len());
            let mut columns = vec![None; width];
            for (&left, &right) in left_keys.iter().zip(right_keys) {
                if let Some(both) = both(inputs, left, right) {
                    for at in [left, left_width + right] {
                        if let Some(column) = columns.get_mut(at) {
                            *column = Some(both.clone());
                        }
                    }
                }
            }
            columns
        }
        NodeKind::Semi { left_keys, right_keys, output, .. } => {
            let mut columns = vec![None; width];
            for (&left, &right) in left_keys.iter().zip(right_keys) {
                if let (Some(column), SemiOutput::Matched | SemiOutput::Unmatched | SemiOutput::Marked) =
                    (columns.get_mut(left), output)
                {
                    *column = both(inputs, left, right);
                }
            }
            columns
        }
        // Rows come with the left row, or change when a right row does that is before it.
        NodeKind::AsOf(AsOf { left_keys, right_keys, left_time, right_time, side, .. }) => {
            let mut columns = vec![None; width];
            let time = (*side == TimeSide::Before).then_some((left_time, right_time));
            for (&left, &right) in left_keys.iter().zip(right_keys).chain(time) {
                if let Some(column) = columns.get_mut(left) {
                    *column = both(inputs, left, right);
                }
            }
            columns
        }
        // A partition changes where a row of it does.
        NodeKind::TopK(TopK { partition, .. }) | NodeKind::Window(Window { partition, .. }) => only(partition),
        // A changed row changes rows of any time in its session, but before and after that session ends behind it.
        NodeKind::Session(Session { partition, time, .. }) => {
            let mut columns: Vec<Option<Bound>> = only(partition);
            if let Some(end) = columns.last_mut() {
                *end = first().get(*time).cloned().flatten();
            }
            columns
        }
        NodeKind::Arrange(_) => first(),
        NodeKind::SingleRow
        | NodeKind::Temporal { .. }
        | NodeKind::Clock
        | NodeKind::Materialize
        | NodeKind::Constant(_) => Vec::new(),
    }
}

fn table(plan: &CircuitPlan, id: NodeId, width: usize) -> Vec<Option<Bound>> {
    let mut columns = vec![None; width];
    let mut number = 0;
    for table in &plan.tables {
        for lateness in &table.lateness {
            if let (true, Some(column)) = (table.node == id, columns.get_mut(lateness.column)) {
                *column = Some(Bound::Watermark(number));
            }
            number += 1;
        }
    }
    columns
}

fn both(inputs: &[&Vec<Option<Bound>>], left: usize, right: usize) -> Option<Bound> {
    let [lefts, rights] = inputs else { return None };
    Some(Bound::Least(vec![lefts.get(left)?.clone()?, rights.get(right)?.clone()?]))
}

fn linear(stages: &[Stage], schema: &SchemaRef, mut columns: Vec<Option<Bound>>) -> Vec<Option<Bound>> {
    let mut schema = Arc::clone(schema);
    for stage in stages {
        match stage {
            Stage::Filter(_) => {}
            Stage::Repeat { schema: after } => {
                columns.truncate(after.fields().len());
                schema = Arc::clone(after);
            }
            Stage::Unnest { lists, schema: after, .. } => {
                columns.resize(after.fields().len(), None);
                lists.iter().filter_map(|&i| columns.get_mut(i).map(Option::take)).for_each(drop);
                schema = Arc::clone(after);
            }
            Stage::Project { exprs, schema: after } => {
                let project = |expr: &Arc<dyn PhysicalExpr>| {
                    let column = monotone_in(expr)?;
                    let inner = columns.get(column)?.clone()?;
                    if downcast::<Column>(expr).is_some() {
                        return Some(inner);
                    }
                    if adds_number(expr) && inner.is_of_number(schema.field(column).data_type()) {
                        return None;
                    }
                    Some(Bound::Of {
                        inner: Arc::new(inner),
                        expr: Arc::clone(expr),
                        column,
                        schema: Arc::clone(&schema),
                    })
                };
                columns = exprs.iter().map(project).collect();
                schema = Arc::clone(after);
            }
        }
    }
    columns
}

fn downcast<T: 'static>(expr: &Arc<dyn PhysicalExpr>) -> Option<&T> {
    let any: &dyn Any = expr.as_ref();
    any.downcast_ref()
}

/// The column of which an expression is a monotone function, and of nothing else: it is not NULL where that is not, and
/// never becomes less where that becomes more.
fn monotone_in(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    if let Some(column) = downcast::<Column>(expr) {
        return Some(column.index());
    }
    if let Some(cast) = downcast::<CastExpr>(expr) {
        let is_counted = matches!(cast.cast_type(), DataType::Int64 | DataType::Timestamp(..) | DataType::Date32);
        return monotone_in(cast.expr()).filter(|_| is_counted);
    }
    if let Some(binary) = downcast::<BinaryExpr>(expr) {
        let (left, right) = (binary.left(), binary.right());
        return match binary.op() {
            Operator::Plus if is_constant(right) => monotone_in(left),
            Operator::Plus if is_constant(left) => monotone_in(right),
            Operator::Minus if is_constant(right) => monotone_in(left),
            // x - ((x - c) % n + n) % n: the last multiple of n, moved by c, that is not above x.
            Operator::Minus => monotone_in(left).filter(|_| is_remainder(right, left)),
            _ => None,
        };
    }
    let function = downcast::<ScalarFunctionExpr>(expr)?;
    let arguments = function.args();
    match (function.name(), arguments) {
        ("date_trunc", [unit, time]) if is_constant(unit) => monotone_in(time),
        // Not `date_bin`: it is NULL for times that nanoseconds cannot say, and NULLs come before all floors.
        _ => None,
    }
}

/// Whether a number is added or taken away. A sum of whole numbers wraps around, and is less then; those that times are made of are far from that.
fn adds_number(expr: &Arc<dyn PhysicalExpr>) -> bool {
    if let Some(cast) = downcast::<CastExpr>(expr) {
        return adds_number(cast.expr());
    }
    if let Some(binary) = downcast::<BinaryExpr>(expr) {
        let is_number = |e| downcast::<Literal>(e).is_some_and(|l| l.value().data_type().is_numeric());
        let (left, right) = (binary.left(), binary.right());
        return match binary.op() {
            Operator::Plus | Operator::Minus if is_number(right) => true,
            Operator::Plus => is_number(left) || adds_number(left) || adds_number(right),
            Operator::Minus => adds_number(left),
            _ => false,
        };
    }
    downcast::<ScalarFunctionExpr>(expr).is_some_and(|function| function.args().iter().any(adds_number))
}

/// A literal that is not NULL and moves all times alike: months do not, since a day that a month does not have becomes its last.
fn is_constant(expr: &Arc<dyn PhysicalExpr>) -> bool {
    downcast::<Literal>(expr).is_some_and(|literal| match literal.value() {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => interval.months == 0,
        ScalarValue::IntervalYearMonth(_) => false,
        value => !value.is_null(),
    })
}

/// Whether `expr` is `((x or x - c) % n + n) % n`, with the same positive n.
fn is_remainder(expr: &Arc<dyn PhysicalExpr>, x: &Arc<dyn PhysicalExpr>) -> bool {
    let parts = |expr: &Arc<dyn PhysicalExpr>, op: Operator| {
        let binary = downcast::<BinaryExpr>(expr).filter(|b| *b.op() == op)?;
        Some((Arc::clone(binary.left()), Arc::clone(binary.right())))
    };
    let found = || {
        let (sum, n) = parts(expr, Operator::Modulo)?;
        let (remainder, added) = parts(&sum, Operator::Plus)?;
        let (of, again) = parts(&remainder, Operator::Modulo)?;
        let moved = parts(&of, Operator::Minus).filter(|(_, by)| is_constant(by)).map(|(of, _)| of);
        let is_x = &of == x || moved.is_some_and(|of| &of == x);
        Some(is_x && is_constant(&n) && n == added && n == again)
    };
    found().unwrap_or(false)
}

/// The rules of sides of joins that an arrangement keeps, as rules of that: what none of its readers asks for can go. A table keeps all of its rows.
fn shared(plan: &CircuitPlan, rules: Vec<Rule>) -> Vec<Rule> {
    let (of_readers, mut out): (Vec<(Option<NodeId>, Rule)>, Vec<_>) = rules
        .into_iter()
        .map(|rule| (rule.side.and_then(|side| plan.arranged(rule.node, side)).map(|a| a.node), rule))
        .partition(|(arrangement, _)| arrangement.is_some());
    for (_, rule) in &mut out {
        // The left spine is missing where an arrangement has its rows.
        if rule.side == Some(1) && plan.arranged(rule.node, 0).is_some() {
            rule.spine = Some(0);
        }
    }
    let mut out: Vec<Rule> = out.into_iter().map(|(_, rule)| rule).collect();
    let mut arrangements: Vec<NodeId> = of_readers.iter().filter_map(|(arrangement, _)| *arrangement).collect();
    arrangements.sort_unstable();
    arrangements.dedup();
    for node in arrangements {
        let of_it: Vec<&Rule> = of_readers.iter().filter(|(a, _)| *a == Some(node)).map(|(_, rule)| rule).collect();
        let is_arrangement = plan.nodes.get(node).is_some_and(|n| matches!(n.kind, NodeKind::Arrange(_)));
        let Some(first) = of_it.first().filter(|_| is_arrangement) else { continue };
        let is_alike = of_it.iter().all(|rule| rule.skip == first.skip && rule.data_type == first.data_type);
        if is_alike && of_it.len() == plan.readers(node).len() {
            let bound = Bound::Least(of_it.iter().map(|rule| rule.bound.clone()).collect());
            out.push(Rule { node, side: None, spine: None, bound, ..(*first).clone() });
        }
    }
    out
}

/// The rules of a node's state.
fn keyed(plan: &CircuitPlan, id: NodeId, node: &Node, inputs: &[&Vec<Option<Bound>>], rules: &mut Vec<Rule>) {
    let types = |port: usize| node.inputs.get(port).and_then(|&i| plan.nodes.get(i)).map(|n| &n.schema);
    let of = |port: usize, key: &[usize]| -> Vec<Option<Bound>> {
        key.iter().map(|&i| inputs.get(port).and_then(|columns| columns.get(i)).cloned().flatten()).collect()
    };
    let (left, right) = (|key: &[usize]| of(0, key), |key: &[usize]| of(1, key));
    // Keys of both sides have the same types: those of the first input are named, but for a join's right side.
    let mut rule = |side: Option<usize>, key: &[usize], bounds: &[Option<Bound>]| {
        let port = usize::from(matches!((&node.kind, side), (NodeKind::Join { .. } | NodeKind::AsOf(_), Some(1))));
        let Some(schema) = types(port) else { return };
        // The vnode.
        let mut skip = 1;
        for (&column, bound) in key.iter().zip(bounds) {
            let Some(field) = schema.fields().get(column) else { return };
            if let Some(bound) = bound.clone() {
                rules.push(Rule { node: id, side, spine: side, skip, data_type: field.data_type().clone(), bound });
                return;
            }
            let Some(width) = encoded_width(field.data_type()) else { return };
            skip += width;
        }
    };
    match &node.kind {
        NodeKind::Aggregate { group, .. } => rule(None, group, &left(group)),
        NodeKind::TopK(TopK { partition, .. }) | NodeKind::Window(Window { partition, .. }) => {
            rule(None, partition, &left(partition));
        }
        // The key's last column is the session's end, which is behind the time of every change.
        NodeKind::Session(Session { partition, time, .. }) => {
            let key: Vec<usize> = partition.iter().chain([time]).copied().collect();
            rule(None, &key, &left(&key));
        }
        // What one side keeps is looked for by the other side's keys.
        NodeKind::Join { left_keys, right_keys, .. } => {
            rule(Some(0), left_keys, &right(right_keys));
            rule(Some(1), right_keys, &left(left_keys));
        }
        // Left rows are looked for by right rows of their key that are before them. Right rows are what later left rows match, however old.
        NodeKind::AsOf(AsOf { left_keys, right_keys, left_time, right_time, side, .. }) => {
            let time = (*side == TimeSide::Before).then_some((*left_time, *right_time));
            let key: Vec<usize> = left_keys.iter().copied().chain(time.map(|(left, _)| left)).collect();
            let by: Vec<usize> = right_keys.iter().copied().chain(time.map(|(_, right)| right)).collect();
            rule(Some(0), &key, &right(&by));
            // Changes of either side look right rows up.
            let either = left_keys.iter().zip(right_keys).map(|(&l, &r)| both(inputs, l, r));
            rule(Some(1), right_keys, &either.collect::<Vec<_>>());
        }
        // How many matches there are, which is what the right side keeps, is asked by changes of either side.
        NodeKind::Semi { left_keys, right_keys, .. } => {
            rule(Some(0), left_keys, &right(right_keys));
            let either = left_keys.iter().zip(right_keys).map(|(&l, &r)| both(inputs, l, r));
            rule(Some(1), left_keys, &either.collect::<Vec<_>>());
        }
        _ => {}
    }
}

/// The bytes of a value of this type in a key, if they are always as many: one says whether it is NULL.
fn encoded_width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Boolean => Some(2),
        other => other.primitive_width().map(|width| width + 1),
    }
}
