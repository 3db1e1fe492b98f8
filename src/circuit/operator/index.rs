//! A side of a join: its rows by key, kept by the operator itself, or by an [arrangement](super::arrange) or a table with that primary key.
//!
//! Invariant: a probe finds what stood before the step, until the operator puts its delta in; an arrangement takes its delta in when the step ends.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use backstay_storage::spine::{Discipline, KeyBatch, Probe, RowBatch, Spine};

use super::{OpenRole, StateKeys, StepContext, any_null, pick};
use crate::circuit::delta::Delta;
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::{CircuitPlan, JoinSide, NodeId, NodeKind};
use crate::circuit::row::{RowCodec, normalise};

/// What an index has behind a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// The whole row.
    Row,
    /// The columns that are not in the key.
    Rest,
    /// Nothing: the weights of a key's rows add up.
    Nothing,
}

/// How the rows of an index lie: vnode ‖ key → value.
pub(super) struct Layout {
    keys: Vec<usize>,
    values: Vec<usize>,
    /// Of each column that is kept the place among the key's columns followed by the value's.
    sources: Vec<usize>,
    key_codec: RowCodec,
    value_codec: RowCodec,
    null_equals_null: bool,
}

impl Layout {
    pub(super) fn new(schema: &SchemaRef, keys: &[usize], value: Value, null_equals_null: bool) -> Result<Self> {
        let columns = 0..schema.fields().len();
        let values: Vec<usize> = match value {
            Value::Row => columns.clone().collect(),
            Value::Rest => columns.clone().filter(|column| !keys.contains(column)).collect(),
            Value::Nothing => Vec::new(),
        };
        let place = |columns: &[usize], column: usize| columns.iter().position(|&other| other == column);
        let sources =
            columns.filter_map(|column| place(&values, column).map(|i| keys.len() + i).or_else(|| place(keys, column)));
        let types = |columns: &[usize]| -> Vec<DataType> {
            columns.iter().map(|&i| schema.field(i).data_type().clone()).collect()
        };
        Ok(Self {
            sources: sources.collect(),
            key_codec: RowCodec::new(&types(keys))?,
            value_codec: RowCodec::new(&types(&values))?,
            keys: keys.to_vec(),
            values,
            null_equals_null,
        })
    }

    /// Where a row has a NULL in its key and so equals nothing; `None` if nowhere.
    fn unequal(&self, keys: &[ArrayRef]) -> Option<NullBuffer> {
        any_null(keys).filter(|_| !self.null_equals_null)
    }

    /// The consolidated rows of a delta by key, without those that equal nothing.
    pub(super) fn delta(&self, chunks: &[Delta]) -> Result<RowBatch> {
        let mut out = RowBatch::new();
        for chunk in chunks {
            let columns: Vec<ArrayRef> = chunk.rows.columns().iter().map(normalise).collect();
            let key_columns = pick(&columns, &self.keys);
            let nulls = self.unequal(&key_columns);
            let values = self.value_codec.encode(&pick(&columns, &self.values), chunk.len())?;
            let mut keys = StateKeys::new(&self.key_codec, &key_columns, chunk.len())?;
            for (i, &weight) in chunk.weights.iter().enumerate() {
                if nulls.as_ref().is_none_or(|n| n.is_valid(i)) {
                    out.push(keys.state(i), values.get(i), weight);
                }
            }
        }
        out.consolidate(Discipline::Weighted);
        Ok(out)
    }

    /// The rows of a chunk that equal nothing, which no index keeps.
    pub(super) fn left_out(&self, chunk: &Delta) -> UInt32Array {
        let nulls = self.unequal(&pick(chunk.rows.columns(), &self.keys));
        nulls
            .map_or_else(Vec::new, |n| (0u32..).zip(n.iter()).filter(|(_, valid)| !valid).map(|(i, _)| i).collect())
            .into()
    }

    /// The columns of rows as an index has them.
    fn decode<'a>(&self, rows: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Result<Vec<ArrayRef>> {
        let needs_keys = self.sources.iter().any(|&source| source < self.keys.len());
        let mut stored = match needs_keys {
            // The first byte of a key is its vnode.
            true => self.key_codec.decode(rows.clone().map(|(key, _)| key.get(1..).unwrap_or_default()))?,
            false => Vec::new(),
        };
        let skipped = if needs_keys { 0 } else { self.keys.len() };
        stored.extend(self.value_codec.decode(rows.map(|(_, value)| value))?);
        let sources: Vec<usize> = self.sources.iter().map(|source| source - skipped).collect();
        Ok(pick(&stored, &sources))
    }
}

/// A side of a join; see the module.
pub(super) struct Index {
    /// How the side's delta lies, and its rows unless an arrangement keeps more columns.
    layout: Layout,
    kept: Kept,
}

enum Kept {
    /// In a spine of its own.
    Own(Spine),
    /// By this node; if its rows are others than the side's delta has, how they lie, and which of their columns are the side's.
    Shared { node: NodeId, wider: Option<(Layout, Vec<usize>)> },
}

/// Where rows come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stand {
    /// A probe found them: they stood there before the step.
    Before,
    /// The step brings them.
    Delta,
}

impl Index {
    /// Both sides of the join of a node, the left one first.
    ///
    /// # Errors
    /// Keys of different types; types without a row encoding; spines that do not open.
    pub(super) fn both(
        plan: &CircuitPlan,
        id: NodeId,
        values: [Value; 2],
        open: &mut OpenRole<'_>,
    ) -> Result<(Self, Self)> {
        let [left, right] = values;
        let (left, right) = (Self::new(plan, (id, 0), left, open)?, Self::new(plan, (id, 1), right, open)?);
        let (left_types, right_types) = (left.layout.key_codec.types(), right.layout.key_codec.types());
        if left_types != right_types {
            let label = plan.nodes.get(id).map_or("join", |node| node.label.as_str());
            return Err(CircuitError::plan(label, format!("joins {left_types:?} with {right_types:?}")));
        }
        Ok((left, right))
    }

    /// A side (0 is left, 1 is right) of the join of a node. A spine of its own is opened if no arrangement keeps the rows.
    ///
    /// # Errors
    /// Types without a row encoding; a spine that does not open; inputs that are not there.
    fn new(plan: &CircuitPlan, (id, side): (NodeId, usize), value: Value, open: &mut OpenRole<'_>) -> Result<Self> {
        let node = plan.nodes.get(id);
        let keyed = node.and_then(|n| n.kind.side(side)).ok_or_else(|| CircuitError::plan("join", "not a join"))?;
        let JoinSide { keys, null_equals_null, .. } = keyed;
        let schema = node.and_then(|n| plan.nodes.get(*n.inputs.get(side)?)).map(|n| &n.schema);
        let label = node.map_or("join", |n| n.label.as_str());
        let schema = schema.ok_or_else(|| CircuitError::plan(label, format!("it has no input {side}")))?;
        let Some(arranged) = plan.arranged(id, side) else {
            let rows = open(if side == 0 { "left" } else { "right" }, Discipline::Weighted)?;
            let layout = Layout::new(schema, keys, value, null_equals_null)?;
            return Ok(Self { layout, kept: Kept::Own(rows) });
        };
        let (theirs, is_delta_theirs) = match plan.nodes.get(arranged.node).map(|node| (&node.schema, &node.kind)) {
            Some((schema, NodeKind::Arrange(arrange))) => {
                (Layout::new(schema, &arrange.keys, Value::Rest, null_equals_null)?, arranged.columns.is_none())
            }
            Some((schema, NodeKind::Table { primary_key })) => {
                (Layout::new(schema, primary_key, Value::Row, null_equals_null)?, false)
            }
            _ => return Err(CircuitError::plan(label, format!("operator {} keeps no rows", arranged.node))),
        };
        let node = arranged.node;
        if is_delta_theirs {
            return Ok(Self { layout: theirs, kept: Kept::Shared { node, wider: None } });
        }
        let columns = arranged.columns.unwrap_or_else(|| (0..schema.fields().len()).collect());
        let layout = Layout::new(schema, keys, value, null_equals_null)?;
        Ok(Self { layout, kept: Kept::Shared { node, wider: Some((theirs, columns)) } })
    }

    /// How the side's delta lies.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The side's consolidated delta: the arrangement's, if that has the same columns.
    pub(super) fn delta(&self, context: &StepContext, chunks: &[Delta]) -> Result<Arc<RowBatch>> {
        match &self.kept {
            Kept::Shared { node, wider: None } => context.arrangements.delta(*node),
            _ => Ok(Arc::new(self.layout.delta(chunks)?)),
        }
    }

    /// The rows of these keys as they stood before the step.
    pub(super) fn probe(&mut self, context: &mut StepContext, label: &str, keys: &KeyBatch) -> Result<Probe> {
        match &mut self.kept {
            Kept::Own(rows) => rows.probe(keys).map_err(CircuitError::storage(label)),
            Kept::Shared { node, .. } => context.arrangements.probe(*node, keys),
        }
    }

    /// The side's columns of kept rows.
    pub(super) fn decode<'a>(
        &self,
        stand: Stand,
        rows: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Result<Vec<ArrayRef>> {
        match (&self.kept, stand) {
            (Kept::Shared { wider: Some((layout, columns)), .. }, Stand::Before) => {
                Ok(pick(&layout.decode(rows)?, columns))
            }
            _ => self.layout.decode(rows),
        }
    }

    /// The rows of keys that stood before the step (a range of a probe's rows each) and are changed by it (a range of the side's delta), as they stand after it; as
    /// the delta lies.
    pub(super) fn after(
        &self,
        stood: &RowBatch,
        delta: &RowBatch,
        keys: &[(Range<usize>, Range<usize>)],
    ) -> Result<RowBatch> {
        let mut out = RowBatch::new();
        let old = || keys.iter().flat_map(|(old, _)| old.clone());
        if let Kept::Shared { wider: Some(_), .. } = &self.kept
            && !keys.is_empty()
        {
            let columns = self.decode(Stand::Before, old().map(|i| (stood.key(i), stood.value(i))))?;
            let columns: Vec<ArrayRef> = columns.iter().map(normalise).collect();
            let values = self.layout.value_codec.encode(&pick(&columns, &self.layout.values), old().count())?;
            for (place, i) in old().enumerate() {
                out.push(stood.key(i), values.get(place), stood.weight(i));
            }
        } else {
            old().for_each(|i| out.push(stood.key(i), stood.value(i), stood.weight(i)));
        }
        let new = keys.iter().flat_map(|(_, new)| new.clone());
        new.for_each(|i| out.push(delta.key(i), delta.value(i), delta.weight(i)));
        out.consolidate(Discipline::Weighted);
        Ok(out)
    }

    /// Whether others keep its rows.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.kept, Kept::Shared { .. })
    }

    /// Takes the step's delta in, if no arrangement does.
    pub(super) fn insert(&mut self, label: &str, delta: &RowBatch) -> Result<()> {
        match &mut self.kept {
            Kept::Own(rows) => rows.insert_batch(delta).map_err(CircuitError::storage(label)),
            Kept::Shared { .. } => Ok(()),
        }
    }

    /// The spine of its own.
    pub(super) fn spine(&mut self) -> Option<&mut Spine> {
        match &mut self.kept {
            Kept::Own(rows) => Some(rows),
            Kept::Shared { .. } => None,
        }
    }
}
