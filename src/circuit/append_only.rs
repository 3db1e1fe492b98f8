//! Which relations only ever get rows: what lies behind tables that are declared append-only, as long as nothing on the way takes rows back.
//!
//! Operators over such inputs keep less: an extremum needs no other value than itself, a top-k no row behind its head.
//!
//! Invariant: a node that is found here never puts out a row of negative weight, whatever the steps bring.

use super::plan::{CircuitPlan, Edge, Node, NodeKind, SemiOutput};

/// Of each node of a plan, whether it only puts out inserts.
pub(super) fn only_inserts(plan: &CircuitPlan) -> Vec<bool> {
    let mut inserts: Vec<bool> = Vec::with_capacity(plan.nodes.len());
    for (id, node) in plan.nodes.iter().enumerate() {
        let is_append_only = plan.tables.iter().any(|t| t.node == id && t.append_only);
        let inputs = node.inputs.iter().all(|&i| inserts.get(i).copied().unwrap_or(false));
        inserts.push(of(node, is_append_only, inputs));
    }
    inserts
}

fn of(node: &Node, is_append_only: bool, inputs: bool) -> bool {
    match &node.kind {
        NodeKind::Table { primary_key } => is_append_only && primary_key.is_empty(),
        NodeKind::Linear(_) | NodeKind::Join { .. } | NodeKind::Union | NodeKind::Arrange(_) => inputs,
        NodeKind::Semi { output: SemiOutput::Matched, .. } => inputs,
        // DISTINCT: a group comes, and stays.
        NodeKind::Aggregate { group, aggregates } => inputs && aggregates.is_empty() && !group.is_empty(),
        NodeKind::Temporal { bounds } => inputs && bounds.iter().all(|b| b.edge == Edge::Enter),
        NodeKind::Constant(_) => true,
        NodeKind::Semi { .. }
        | NodeKind::SingleRow
        | NodeKind::Clock
        | NodeKind::Materialize
        | NodeKind::TopK(_)
        | NodeKind::Window(_)
        | NodeKind::Session(_)
        | NodeKind::AsOf(_) => false,
    }
}
