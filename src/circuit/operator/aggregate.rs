//! GROUP BY and DISTINCT: for each group that a step touches, the old result goes and the new one comes, if they differ.
//!
//! Invariants:
//! 1. A group stands in the output while its row count is not zero; its state is kept while anything in it is not zero.
//! 2. Without group columns there is one output row from the first step on, on the worker that owns the empty key.
//! 3. A state is the row count followed by each aggregate's state in the order of the plan; it depends on the group's
//!    rows alone.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use arrow::util::display::array_value_to_string;
use backstay_storage::spine::{Discipline, KeyBatch, RowBatch, Spine};

use super::accumulator::{Accumulate, Accumulator};
use super::extrema::{Current, Extrema};
use super::{OpenRole, Operator, StateKeys, StepContext, pick};
use crate::circuit::delta::{Delta, concat_columns, take_columns};
use crate::circuit::error::{CircuitError, EvalError, Result};
use crate::circuit::plan::{Aggregate, AggregateFunction, Node, SortColumn};
use crate::circuit::row::{RowCodec, normalise};
use crate::circuit::vnode::vnode;
use bits::Bits;
use distinct::DistinctValues;
use grouping::{Grouped, group_rows};
use moments::Moments;
use ordered::{OrderedCall, OrderedValues};
use selection::Selection;
use states::{States, Values};

mod bits;
mod distinct;
mod grouping;
mod moments;
mod ordered;
mod selection;
mod states;

/// The operator; see the module.
pub struct AggregateOperator {
    label: String,
    schema: SchemaRef,
    group: Vec<usize>,
    key_codec: RowCodec,
    result_codec: RowCodec,
    aggregates: Vec<Maintained>,
    distinct: Vec<DistinctValues>,
    ordered: Vec<OrderedValues>,
    /// Group key → state.
    groups: Spine,
    /// Without group columns: whether this worker owns the one row and has not yet made sure that it is there.
    must_emit: bool,
}

/// An aggregate of the plan and how it is maintained.
struct Maintained {
    arguments: Vec<usize>,
    filter: Option<usize>,
    /// Index in [`AggregateOperator::distinct`].
    distinct: Option<usize>,
    kind: Kind,
}

enum Kind {
    /// `count(*)`: the group's row count.
    Rows,
    Accumulated(Box<dyn Accumulate>),
    Extremum(Box<Extrema>),
    /// Over the values of this index in [`AggregateOperator::ordered`].
    Ordered(OrderedCall, usize),
}

impl AggregateOperator {
    /// The operator of an aggregate node over rows of `input`.
    ///
    /// # Errors
    /// Aggregates that are not supported; types without a row encoding; spines that do not open.
    pub fn new(
        node: &Node,
        input: &SchemaRef,
        (group, aggregates): (&[usize], &[Aggregate]),
        owns_global: bool,
        append_only: bool,
        open: &mut OpenRole<'_>,
    ) -> Result<Self> {
        let type_of = |i: usize| input.field(i).data_type();
        let key_types: Vec<_> = group.iter().map(|&i| type_of(i).clone()).collect();
        let result_types: Vec<_> = aggregates.iter().map(|a| a.result.clone()).collect();
        let groups = open("groups", Discipline::Latest)?;
        let mut maintained = Vec::new();
        let mut distinct: Vec<DistinctValues> = Vec::new();
        let mut ordered: Vec<OrderedValues> = Vec::new();
        for (i, aggregate) in aggregates.iter().enumerate() {
            let Aggregate { function, arguments, filter, result, .. } = aggregate;
            let mut arguments = arguments.clone();
            let refuse = |message: String| CircuitError::plan(&node.label, message);
            let kind = if arguments.is_empty() && *function == AggregateFunction::Count {
                Kind::Rows
            } else if let Some(columns) = extremum(aggregate) {
                let types: Vec<_> = columns.iter().map(|sort| (type_of(sort.column).clone(), sort.options)).collect();
                if types.last().is_none_or(|(argument, _)| argument != result) {
                    return Err(refuse(format!("{function:?} of {types:?} cannot be {result}")));
                }
                arguments = columns.iter().map(|sort| sort.column).collect();
                let values = match append_only {
                    true => None,
                    false => Some(open(&format!("values{i}"), Discipline::Weighted)?),
                };
                Kind::Extremum(Box::new(Extrema::new(&types, ignores_nulls(aggregate), values)?))
            } else if let Some(call) = OrderedCall::new(aggregate) {
                let at = match ordered.iter().position(|values| call.is_over(values, *filter)) {
                    Some(shared) => shared,
                    None => {
                        let values = open(&format!("ordered{i}"), Discipline::Weighted)?;
                        ordered.push(call.open(*filter, type_of, values)?);
                        ordered.len() - 1
                    }
                };
                Kind::Ordered(call, at)
            } else if let Some(moments) = Moments::new(*function, arguments.len(), result) {
                Kind::Accumulated(Box::new(moments))
            } else if let Some(bits) = Bits::new(*function, result) {
                Kind::Accumulated(Box::new(bits))
            } else {
                let argument = arguments.first().map(|&i| type_of(i));
                Kind::Accumulated(Box::new(Accumulator::new(*function, argument, result).map_err(refuse)?))
            };
            let distinct = match (&kind, aggregate.distinct) {
                (Kind::Accumulated(_), true) => {
                    let same = |d: &DistinctValues| d.arguments == arguments && d.filter == *filter;
                    Some(match distinct.iter().position(same) {
                        Some(shared) => shared,
                        None => {
                            let types: Vec<_> = arguments.iter().map(|&i| type_of(i).clone()).collect();
                            let values = open(&format!("distinct{i}"), Discipline::Weighted)?;
                            distinct.push(DistinctValues::new(&arguments, *filter, &types, values)?);
                            distinct.len() - 1
                        }
                    })
                }
                _ => None,
            };
            maintained.push(Maintained { arguments, filter: *filter, distinct, kind });
        }
        Ok(Self {
            label: node.label.clone(),
            schema: node.schema.clone(),
            group: group.to_vec(),
            key_codec: RowCodec::new(&key_types)?,
            result_codec: RowCodec::new(&result_types)?,
            aggregates: maintained,
            distinct,
            ordered,
            groups,
            must_emit: group.is_empty() && owns_global,
        })
    }
}

/// The columns in whose order an aggregate's value is the first, the argument last; `None` if it is of another kind.
fn extremum(aggregate: &Aggregate) -> Option<Vec<SortColumn>> {
    use AggregateFunction as F;
    let last = matches!(aggregate.function, F::Max | F::LastValue);
    let &column = aggregate.arguments.first()?;
    let order_by = match aggregate.function {
        F::Min | F::Max | F::AnyValue => &[],
        F::FirstValue | F::LastValue => aggregate.order_by.as_slice(),
        _ => return None,
    };
    let argument = SortColumn { column, options: SortOptions { descending: false, nulls_first: true } };
    // The last of an order is the first of the opposite one.
    let turn = |sort: SortColumn| if last { SortColumn { options: !sort.options, ..sort } } else { sort };
    Some(order_by.iter().copied().chain([argument]).map(turn).collect())
}

fn ignores_nulls(aggregate: &Aggregate) -> bool {
    match aggregate.function {
        AggregateFunction::FirstValue | AggregateFunction::LastValue => aggregate.ignore_nulls,
        _ => true,
    }
}

impl AggregateOperator {
    fn load(&mut self, keys: &KeyBatch) -> Result<States> {
        let probe = self.groups.probe(keys).map_err(CircuitError::storage(&self.label))?;
        let values = self.aggregates.iter().map(|a| match &a.kind {
            Kind::Rows => Values::Rows,
            Kind::Accumulated(accumulator) => Values::Accumulated(accumulator.fresh()),
            Kind::Extremum(_) => Values::Extremum(Current::default()),
            Kind::Ordered(..) => Values::Ordered,
        });
        let values = values.collect();
        let ordered = self.ordered.iter_mut().map(|o| o.load(keys, &self.label)).collect::<Result<_>>()?;
        let mut states = States { known: Vec::new(), rows: Vec::new(), values, ordered };
        for found in probe.offsets.windows(2) {
            let known = found[0] < found[1];
            states.known.push(known);
            match known {
                true => states.push_saved(probe.rows.value(found[0] as usize)).ok_or_else(|| {
                    CircuitError::RowFormat(format!("{}: a stored group is not a state of its aggregates", self.label))
                })?,
                false => states.push_empty(),
            }
        }
        Ok(states)
    }

    /// The aggregates' results, one row a group. Overflows are reported if `report` is given.
    fn finish(&self, states: &States, report: Option<(&mut StepContext, &[ArrayRef])>) -> Result<Vec<ArrayRef>> {
        let mut overflowed = Vec::new();
        let columns = self
            .aggregates
            .iter()
            .zip(&states.values)
            .enumerate()
            .map(|(i, (aggregate, values))| match (&aggregate.kind, values) {
                (Kind::Extremum(extrema), Values::Extremum(current)) => extrema.finish(current),
                (Kind::Ordered(call, at), _) => call.finish(&self.ordered[*at], &states.ordered[*at], &self.label),
                (_, Values::Accumulated(accumulator)) => {
                    let finished = accumulator.finish().map_err(CircuitError::arrow(&self.label))?;
                    overflowed.extend(finished.overflowed.into_iter().map(|group| (i, group)));
                    Ok(normalise(&finished.column))
                }
                _ => Ok(Arc::new(arrow::array::Int64Array::from(states.rows.clone())) as ArrayRef),
            })
            .collect::<Result<Vec<_>>>()?;
        if let Some((context, group_columns)) = report {
            for (aggregate, group) in overflowed {
                self.overflow(context, group_columns, aggregate, group)?;
            }
        }
        Ok(columns)
    }

    fn overflow(&self, context: &mut StepContext, columns: &[ArrayRef], aggregate: usize, group: usize) -> Result<()> {
        let field = self.schema.field(self.group.len() + aggregate);
        let key = columns.iter().zip(self.schema.fields()).map(|(column, field)| {
            format!("{}: {}", field.name(), array_value_to_string(column, group).unwrap_or_default())
        });
        context.fail(EvalError {
            label: self.label.clone(),
            expression: field.name().clone(),
            message: format!("the result does not fit {}", field.data_type()),
            row: key.collect::<Vec<_>>().join(", "),
            rows: 1,
        })
    }

    fn update(&mut self, states: &mut States, columns: &[ArrayRef], weights: &[i64], grouped: &Grouped) -> Result<()> {
        if weights.is_empty() {
            return Ok(());
        }
        for (&group, &weight) in grouped.of_row.iter().zip(weights) {
            states.rows[group as usize] = states.rows[group as usize].wrapping_add(weight);
        }
        let select = |arguments: &[usize], filter| {
            Selection::new(columns, arguments, filter, weights, &grouped.of_row)
                .map_err(CircuitError::arrow(&self.label))
        };
        let distinct = self.distinct.iter_mut().map(|values| {
            let rows = select(&values.arguments, values.filter)?;
            values.update(&rows, &grouped.keys, &self.label)
        });
        let distinct = distinct.collect::<Result<Vec<_>>>()?;
        for (values, loaded) in self.ordered.iter_mut().zip(&mut states.ordered) {
            let rows = select(&values.columns, values.filter)?;
            values.update(&rows, &grouped.keys, loaded, &self.label)?;
        }
        for (aggregate, values) in self.aggregates.iter_mut().zip(&mut states.values) {
            let selected;
            let rows = match aggregate.distinct {
                _ if matches!(aggregate.kind, Kind::Rows | Kind::Ordered(..)) => continue,
                Some(shared) => &distinct[shared],
                None => {
                    selected = select(&aggregate.arguments, aggregate.filter)?;
                    &selected
                }
            };
            match (&mut aggregate.kind, values) {
                (Kind::Extremum(extrema), Values::Extremum(current)) => extrema
                    .update(current, &rows.columns, &rows.weights, &rows.groups, &grouped.keys, &states.known)?
                    .map_err(CircuitError::storage(&self.label))?,
                (_, Values::Accumulated(accumulator)) => accumulator
                    .update(&rows.columns, &rows.weights, &rows.groups)
                    .map_err(CircuitError::arrow(&self.label))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the new states.
    fn save(&mut self, keys: &KeyBatch, states: &States) -> Result<()> {
        let mut batch = RowBatch::new();
        let mut state = Vec::new();
        for group in 0..keys.len() {
            if self.group.is_empty() || !states.is_zero(group) {
                state.clear();
                states.save(group, &mut state);
                batch.push(keys.get(group), &state, 1);
            } else if states.known[group] {
                batch.push(keys.get(group), &[], -1);
            }
        }
        self.groups.insert_batch(&batch).map_err(CircuitError::storage(&self.label))
    }
}

impl Operator for AggregateOperator {
    fn step(&mut self, context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let chunks: Vec<Delta> = inputs.into_iter().flatten().filter(|c| !c.is_empty()).collect();
        let weights: Vec<i64> = chunks.iter().flat_map(|c| c.weights.iter().copied()).collect();
        let columns = match chunks.first() {
            Some(chunk) => {
                let columns = concat_columns(chunk.rows.num_columns(), &chunks);
                columns.map_err(CircuitError::arrow(&self.label))?.iter().map(normalise).collect()
            }
            None => Vec::new(),
        };
        let mut grouped = if chunks.is_empty() {
            Grouped::default()
        } else {
            let key_columns = pick(&columns, &self.group);
            group_rows(&mut StateKeys::new(&self.key_codec, &key_columns, weights.len())?, weights.len())
        };
        if std::mem::take(&mut self.must_emit) && grouped.keys.is_empty() {
            grouped.keys.push(&[vnode(&[])]);
        }
        if grouped.keys.is_empty() {
            return Ok(Vec::new());
        }

        let global = self.group.is_empty();
        let sample = UInt32Array::from(std::mem::take(&mut grouped.sample));
        let group_columns = if global {
            Vec::new()
        } else {
            take_columns(&pick(&columns, &self.group), &sample).map_err(CircuitError::arrow(&self.label))?
        };
        let mut states = self.load(&grouped.keys)?;
        let old_exists: Vec<bool> = match global {
            true => states.known.clone(),
            false => states.rows.iter().map(|&n| n != 0).collect(),
        };
        let old = self.finish(&states, None)?;
        self.update(&mut states, &columns, &weights, &grouped)?;
        let new = self.finish(&states, Some((context, &group_columns)))?;
        self.save(&grouped.keys, &states)?;

        let count = grouped.keys.len();
        let (old_rows, new_rows) = (self.result_codec.encode(&old, count)?, self.result_codec.encode(&new, count)?);
        let (mut leaving, mut coming) = (Vec::new(), Vec::new());
        for (group, existed) in old_exists.into_iter().enumerate() {
            let before = existed.then(|| old_rows.get(group));
            let after = (global || states.rows[group] != 0).then(|| new_rows.get(group));
            if before != after {
                leaving.extend(before.map(|_| group as u32));
                coming.extend(after.map(|_| group as u32));
            }
        }
        let mut out = Vec::new();
        for (groups, results, weight) in [(leaving, &old, -1), (coming, &new, 1)] {
            if !groups.is_empty() {
                let weights = vec![weight; groups.len()];
                let groups = UInt32Array::from(groups);
                let all: Vec<ArrayRef> = group_columns.iter().chain(results).cloned().collect();
                let delta = take_columns(&all, &groups).and_then(|columns| Delta::new(&self.schema, columns, weights));
                out.push(delta.map_err(CircuitError::arrow(&self.label))?);
            }
        }
        Ok(out)
    }

    fn runs_without_input(&self) -> bool {
        self.must_emit
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        let values = self.aggregates.iter_mut().filter_map(|a| match &mut a.kind {
            Kind::Extremum(extrema) => extrema.values.as_mut(),
            _ => None,
        });
        let distinct = self.distinct.iter_mut().map(|d| &mut d.values);
        let ordered = self.ordered.iter_mut().map(|o| &mut o.values);
        std::iter::once(&mut self.groups).chain(values).chain(distinct).chain(ordered).collect()
    }
}
