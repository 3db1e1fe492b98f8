//! Where a plan's nodes run: which inputs are exchanged between workers, and in which stage a node runs.
//!
//! Each worker runs the nodes of one *stage* in one go; rows cross workers between stages only. So a plan has as many
//! Timely operators as exchanges on its longest path, plus one, and a single worker has one.
//!
//! Invariant: a node that needs all rows of a key in one place gets them on the worker of that key's vnode. An exchange is
//! left out where the rows already lie so: by the same columns, in the same order.

use std::any::Any;
use std::sync::Arc;

use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use super::plan::{Arrange, AsOf, CircuitPlan, Node, NodeId, NodeKind, Session, Stage, TimeBound, TopK, Window};

/// What one input of a node needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The columns of the distribution key if rows must be sent to its worker; `None` if they may stay where they are.
    pub exchange: Option<Vec<usize>>,
}

/// Where a node runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The stage that runs it, from 0.
    pub stage: usize,
    /// One entry an input. A table has one: its raw rows.
    pub ports: Vec<Port>,
    /// The nodes that read it, with their port.
    pub consumers: Vec<(NodeId, usize)>,
    /// The views that are its output.
    pub views: Vec<usize>,
}

/// The places of all nodes, by node id.
pub fn place(plan: &CircuitPlan, workers: usize) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::with_capacity(plan.nodes.len());
    // For each node the column lists that its rows are distributed by.
    let mut distributions: Vec<Vec<Vec<usize>>> = Vec::with_capacity(plan.nodes.len());
    for (id, node) in plan.nodes.iter().enumerate() {
        let mut place = Place { stage: 0, ports: Vec::new(), consumers: Vec::new(), views: Vec::new() };
        if let NodeKind::Table { primary_key } = &node.kind {
            let exchange = (workers > 1 && !primary_key.is_empty()).then(|| primary_key.clone());
            place.ports.push(Port { exchange });
        }
        for (port, &input) in node.inputs.iter().enumerate() {
            let exchange = required(node, port).filter(|key| workers > 1 && !distributions[input].contains(key));
            place.stage = place.stage.max(places[input].stage + usize::from(exchange.is_some()));
            place.ports.push(Port { exchange });
            places[input].consumers.push((id, port));
        }
        distributions.push(distribution(plan, node, &distributions));
        places.push(place);
    }
    for (view, node) in plan.views.iter().enumerate() {
        places[node.node].views.push(view);
    }
    places
}

/// The key by which a port's rows must lie together.
fn required(node: &Node, port: usize) -> Option<Vec<usize>> {
    match &node.kind {
        NodeKind::Join { left_keys, right_keys, .. }
        | NodeKind::Semi { left_keys, right_keys, .. }
        | NodeKind::AsOf(AsOf { left_keys, right_keys, .. }) => {
            Some(if port == 0 { left_keys } else { right_keys }.clone())
        }
        NodeKind::Arrange(Arrange { keys, .. }) => Some(keys.clone()),
        NodeKind::Aggregate { group, .. } => Some(group.clone()),
        NodeKind::TopK(TopK { partition, .. })
        | NodeKind::Window(Window { partition, .. })
        | NodeKind::Session(Session { partition, .. }) => Some(partition.clone()),
        NodeKind::SingleRow => Some(Vec::new()),
        NodeKind::Temporal { bounds } => Some(TimeBound::columns(bounds)),
        NodeKind::Table { .. } | NodeKind::Linear(_) | NodeKind::Constant(_) | NodeKind::Union | NodeKind::Clock => {
            None
        }
        NodeKind::Materialize => Some((0..node.schema.fields().len()).collect()),
    }
}

/// The column lists by which a node's output is distributed.
fn distribution(plan: &CircuitPlan, node: &Node, of: &[Vec<Vec<usize>>]) -> Vec<Vec<usize>> {
    match &node.kind {
        NodeKind::Table { primary_key } if primary_key.is_empty() => Vec::new(),
        NodeKind::Table { primary_key } => vec![primary_key.clone()],
        NodeKind::Join { left_keys, right_keys, .. } => {
            let width = node.inputs.first().map_or(0, |&left| plan.nodes[left].schema.fields().len());
            vec![left_keys.clone(), right_keys.iter().map(|i| i + width).collect()]
        }
        NodeKind::Semi { left_keys, .. } | NodeKind::AsOf(AsOf { left_keys, .. }) => vec![left_keys.clone()],
        NodeKind::Arrange(Arrange { keys, .. }) => vec![keys.clone()],
        NodeKind::SingleRow | NodeKind::Constant(_) => vec![Vec::new()],
        NodeKind::Aggregate { group, .. } => vec![(0..group.len()).collect()],
        NodeKind::TopK(TopK { partition, .. })
        | NodeKind::Window(Window { partition, .. })
        | NodeKind::Session(Session { partition, .. }) => vec![partition.clone()],
        NodeKind::Temporal { bounds } => vec![TimeBound::columns(bounds)],
        // Its row lies with the owner of the empty key.
        NodeKind::Clock => vec![Vec::new()],
        // It puts out nothing.
        NodeKind::Materialize => Vec::new(),
        NodeKind::Union => {
            let mut inputs = node.inputs.iter().map(|&i| &of[i]);
            let first = inputs.next().cloned().unwrap_or_default();
            inputs.fold(first, |common, other| common.into_iter().filter(|key| other.contains(key)).collect())
        }
        NodeKind::Linear(stages) => {
            let input = node.inputs.first().map(|&i| of[i].clone()).unwrap_or_default();
            stages.iter().fold(input, |keys, stage| match stage {
                Stage::Filter(_) => keys,
                Stage::Repeat { schema } => {
                    let width = schema.fields().len();
                    keys.into_iter().filter(|key| key.iter().all(|&column| column < width)).collect()
                }
                Stage::Unnest { lists, .. } => {
                    keys.into_iter().filter(|key| key.iter().all(|column| !lists.contains(column))).collect()
                }
                Stage::Project { exprs, .. } => keys.iter().filter_map(|key| project(key, exprs)).collect(),
            })
        }
    }
}

/// A key's columns after a projection, if all of them are still there.
fn project(key: &[usize], exprs: &[Arc<dyn PhysicalExpr>]) -> Option<Vec<usize>> {
    let is_column = |expr: &Arc<dyn PhysicalExpr>, index: usize| {
        let any: &dyn Any = expr.as_ref();
        any.downcast_ref::<Column>().is_some_and(|c| c.index() == index)
    };
    key.iter().map(|&index| exprs.iter().position(|expr| is_column(expr, index))).collect()
}

#[cfg(test)]
mod tests;
