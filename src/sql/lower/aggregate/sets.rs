//! GROUPING SETS, ROLLUP and CUBE: one aggregate a set over the same rows, and the union of all.
//!
//! `__grouping_id`, from which the planner computes GROUPING(), has a bit for each group column, the first one's the highest:
//! whether the set does not have it. Above them it counts the sets before this one that have the same columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use datafusion_expr::Expr;
use datafusion_expr::expr::GroupingSet;
use datafusion_expr::utils::enumerate_grouping_sets;
use datafusion_physical_expr::expressions::Literal;

use super::super::project::{Computed, column, project};
use super::super::{Lowering, Refusal, Result, Stream};
use crate::circuit::plan::{Aggregate, NodeKind};

/// A grouping set: for each group column whether the set has it.
pub(super) type Set = Vec<bool>;

/// The expressions to group by, each once, and the GROUPING SETS, if there are any.
pub(super) fn grouping_sets(group: &[Expr]) -> Result<(Vec<Expr>, Option<Vec<Set>>)> {
    // As the plan's schema has it.
    let group = enumerate_grouping_sets(group.to_vec())?;
    let [Expr::GroupingSet(sets)] = group.as_slice() else { return Ok((group, None)) };
    let exprs: Vec<Expr> = sets.distinct_expr().into_iter().cloned().collect();
    let has = |set: &[Expr]| exprs.iter().map(|e| set.contains(e)).collect();
    let sets = match sets {
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| has(set)).collect(),
        GroupingSet::Rollup(all) => (0..=all.len()).rev().map(|n| has(all.get(..n).unwrap_or(all))).collect(),
        GroupingSet::Cube(all) if all.len() <= 16 => (0..1u32 << all.len())
            .map(|without| (0..all.len()).map(|i| without >> (all.len() - 1 - i) & 1 == 0).collect())
            .collect(),
        GroupingSet::Cube(all) => return Err(Refusal::new(format!("a CUBE of {} columns is too large", all.len()))),
    };
    Ok((exprs, Some(sets)))
}

impl Lowering<'_> {
    /// The union of the aggregates over all sets. `schema` is the whole's: the group columns, the id, the aggregates.
    pub(super) fn sets(
        &mut self,
        stream: Stream,
        group: &[usize],
        sets: &[Set],
        aggregates: &[Aggregate],
        schema: &SchemaRef,
    ) -> Result<Stream> {
        let fields = schema.fields();
        let width = group.len();
        let id_type = fields.get(width).map(|f| f.data_type().clone()).unwrap_or(DataType::Null);
        let mut parts = Vec::with_capacity(sets.len());
        for (number, set) in sets.iter().enumerate() {
            let columns = || (0..width).filter(|&i| set[i]);
            let results = fields.iter().skip(width + 1);
            let part: Vec<Arc<Field>> = columns().map(|i| &fields[i]).chain(results).cloned().collect();
            let kind =
                NodeKind::Aggregate { group: columns().map(|i| group[i]).collect(), aggregates: aggregates.to_vec() };
            let part = self.push(kind, vec![stream.clone()], Arc::new(Schema::new(part)), "group by a set");

            let same = sets.iter().take(number).filter(|other| *other == set).count();
            let missing = set.iter().fold(0u64, |bits, &has| bits << 1 | u64::from(!has));
            let id = ScalarValue::from(missing | (same as u64) << width).cast_to(&id_type)?;
            let (mut computed, mut at) = (Vec::with_capacity(fields.len()), 0);
            for (i, field) in fields.iter().enumerate() {
                let constant = match i {
                    i if i == width => Some(id.clone()),
                    i if i < width && !set[i] => Some(ScalarValue::try_new_null(field.data_type())?),
                    _ => None,
                };
                computed.push(match constant {
                    Some(value) => Computed { expr: Arc::new(Literal::new(value)), name: field.name().clone() },
                    None => {
                        at += 1;
                        Computed { name: field.name().clone(), ..column(&part.schema, at - 1) }
                    }
                });
            }
            parts.push(project(part, computed)?);
        }
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => Ok(self.push(NodeKind::Union, parts, Arc::clone(schema), "grouping sets")),
        }
    }
}
