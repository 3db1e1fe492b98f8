//! Which operators' state grows with the input for ever: found from the plan, before anything runs.
//!
//! A relation *grows* if it may have ever more rows: a table without a primary key does, and what is derived from one, unless it is one
//! row, a bounded number of rows, or rows that time takes away. State over such rows grows unless a watermark frees it.
//!
//! Known limits: a table with a primary key counts as bounded, by its keys; that groups are few is not known.

use super::append_only::only_inserts;
use super::floors::Floors;
use super::plan::{Aggregate, AggregateFunction, CircuitPlan, Edge, Node, NodeId, NodeKind, TopK};

/// An operator whose state grows, and what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The operator.
    pub node: NodeId,
    /// For people: the view it was made for and the SQL construct.
    pub label: String,
    /// What it keeps.
    pub keeps: &'static str,
}

/// The operators of a plan whose state grows, ascending.
pub fn growing_state(plan: &CircuitPlan) -> Vec<Growth> {
    let floors = Floors::of(plan);
    let inserts = only_inserts(plan);
    let mut grows: Vec<bool> = Vec::with_capacity(plan.nodes.len());
    let mut found = Vec::new();
    for (id, node) in plan.nodes.iter().enumerate() {
        let inputs: Vec<bool> = node.inputs.iter().filter_map(|&i| grows.get(i).copied()).collect();
        let append_only = node.inputs.iter().all(|&i| inserts.get(i).copied().unwrap_or(false));
        // What an arrangement keeps for a join is that one's state.
        let is_freed = |side| floors.frees(id, side) || plan.arranged(id, side).is_some();
        if let Some(keeps) = kept(node, &inputs, append_only, is_freed) {
            found.push(Growth { node: id, label: node.label.clone(), keeps });
        }
        grows.push(relation_grows(node, &inputs));
    }
    found
}

fn relation_grows(node: &Node, inputs: &[bool]) -> bool {
    let any = inputs.contains(&true);
    match &node.kind {
        NodeKind::Table { primary_key } => primary_key.is_empty(),
        NodeKind::Aggregate { group, .. } => any && !group.is_empty(),
        NodeKind::TopK(TopK { partition, fetch, .. }) => any && !(partition.is_empty() && fetch.is_some()),
        NodeKind::Temporal { bounds } => any && !bounds.iter().any(|b| b.edge == Edge::Leave),
        NodeKind::Semi { .. } | NodeKind::AsOf(_) => inputs.first().copied().unwrap_or(false),
        NodeKind::SingleRow | NodeKind::Clock | NodeKind::Constant(_) => false,
        _ => any,
    }
}

/// What a node keeps that grows; `append_only` says whether its inputs take no row back, `is_freed` whether a watermark frees its rows of the input of this number,
/// or an arrangement keeps them.
fn kept(node: &Node, inputs: &[bool], append_only: bool, is_freed: impl Fn(usize) -> bool) -> Option<&'static str> {
    let grows = |port: usize| inputs.get(port).copied().unwrap_or(false);
    match &node.kind {
        NodeKind::Join { .. } | NodeKind::AsOf(_) => match (grows(0) && !is_freed(0), grows(1) && !is_freed(1)) {
            (true, true) => Some("all rows of both sides"),
            (true, false) => Some("all rows of its left side"),
            (false, true) => Some("all rows of its right side"),
            (false, false) => None,
        },
        NodeKind::Semi { .. } => match (grows(0) && !is_freed(0), grows(1) && !is_freed(1)) {
            (true, _) => Some("all rows of its left side"),
            (false, true) => Some("all keys of its right side"),
            (false, false) => None,
        },
        NodeKind::Aggregate { group, aggregates } if grows(0) && !is_freed(0) => {
            use AggregateFunction as F;
            let counts = |f: F| {
                matches!(f, F::Count | F::Sum | F::Avg | F::VarSamp | F::VarPop | F::StddevSamp | F::StddevPop)
                    || matches!(f, F::CovarSamp | F::CovarPop | F::Corr | F::BoolAnd | F::BoolOr | F::BitAnd | F::BitOr)
                    || matches!(f, F::BitXor | F::RegrSlope | F::RegrIntercept | F::RegrCount | F::RegrR2 | F::RegrAvgx)
                    || matches!(f, F::RegrAvgy | F::RegrSxx | F::RegrSyy | F::RegrSxy)
            };
            let extremum = |f: F| matches!(f, F::Min | F::Max | F::AnyValue | F::FirstValue | F::LastValue);
            let values = |a: &Aggregate| match extremum(a.function) {
                true => !append_only,
                false => a.distinct || !counts(a.function),
            };
            let values = aggregates.iter().any(values);
            match (group.is_empty(), values) {
                (false, true) => Some("a row for each group, and the values of MIN, MAX, DISTINCT and the like"),
                (false, false) => Some("a row for each group"),
                (true, true) => Some("the values of MIN, MAX, DISTINCT and the like"),
                (true, false) => None,
            }
        }
        NodeKind::TopK(TopK { partition, .. }) if append_only && grows(0) && !is_freed(0) => {
            (!partition.is_empty()).then_some("the first rows of each partition")
        }
        NodeKind::TopK(_) | NodeKind::Window(_) | NodeKind::Session(_) if grows(0) && !is_freed(0) => Some("all rows"),
        NodeKind::Arrange(_) if grows(0) && !is_freed(0) => Some("all rows, for all joins that read it"),
        NodeKind::Temporal { bounds } if grows(0) && !bounds.iter().any(|b| b.edge == Edge::Leave) => {
            Some("the rows whose time is still to come")
        }
        NodeKind::SingleRow if grows(0) => Some("all rows"),
        NodeKind::Materialize if grows(0) => Some("all rows, for queries"),
        _ => None,
    }
}
