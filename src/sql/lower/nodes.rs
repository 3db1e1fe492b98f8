//! The nodes of a circuit while it is being built: equal ones are one, whatever their columns are called.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use crate::circuit::plan::{Node, NodeId, NodeKind, Stage};

/// Nodes in topological order.
#[derive(Clone, Debug, Default)]
pub(in crate::sql) struct Nodes(pub Vec<Node>);

impl Nodes {
    /// Adds a node; one that is never shared, as a table.
    pub fn add(&mut self, node: Node) -> NodeId {
        self.0.push(node);
        self.0.len() - 1
    }

    /// The node that does the same to the same inputs, or a new one. Programs are small: a search through all is fine.
    pub fn intern(&mut self, node: Node) -> NodeId {
        let same =
            |n: &Node| n.inputs == node.inputs && same_types(&n.schema, &node.schema) && same_kind(&n.kind, &node.kind);
        match self.0.iter().position(same) {
            Some(id) => id,
            None => self.add(node),
        }
    }
}

/// Whether two schemas differ in names at most.
fn same_types(a: &Schema, b: &Schema) -> bool {
    let same = |(a, b): (&FieldRef, &FieldRef)| a.data_type() == b.data_type() && a.is_nullable() == b.is_nullable();
    a.fields().len() == b.fields().len() && a.fields().iter().zip(b.fields()).all(same)
}

pub(super) fn same_kind(a: &NodeKind, b: &NodeKind) -> bool {
    match (a, b) {
        (NodeKind::Linear(a), NodeKind::Linear(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_stage(a, b))
        }
        (
            NodeKind::Join { left_keys: l1, right_keys: r1, null_equals_null: n1, filter: f1 },
            NodeKind::Join { left_keys: l2, right_keys: r2, null_equals_null: n2, filter: f2 },
        ) => l1 == l2 && r1 == r2 && n1 == n2 && same_exprs(f1.as_slice(), f2.as_slice()),
        (NodeKind::Aggregate { group: g1, aggregates: a1 }, NodeKind::Aggregate { group: g2, aggregates: a2 }) => {
            g1 == g2 && a1 == a2
        }
        (
            NodeKind::Semi { left_keys: l1, right_keys: r1, null_equals_null: n1, output: o1 },
            NodeKind::Semi { left_keys: l2, right_keys: r2, null_equals_null: n2, output: o2 },
        ) => l1 == l2 && r1 == r2 && n1 == n2 && o1 == o2,
        (NodeKind::SingleRow, NodeKind::SingleRow) => true,
        (NodeKind::TopK(a), NodeKind::TopK(b)) => a == b,
        (NodeKind::Window(a), NodeKind::Window(b)) => a == b,
        (NodeKind::Session(a), NodeKind::Session(b)) => a == b,
        (NodeKind::AsOf(a), NodeKind::AsOf(b)) => a == b,
        (NodeKind::Temporal { bounds: a }, NodeKind::Temporal { bounds: b }) => a == b,
        (NodeKind::Constant(a), NodeKind::Constant(b)) => a.columns() == b.columns() && a.num_rows() == b.num_rows(),
        (NodeKind::Union, NodeKind::Union)
        | (NodeKind::Clock, NodeKind::Clock)
        | (NodeKind::Materialize, NodeKind::Materialize) => true,
        // Tables have no inputs and may look alike.
        _ => false,
    }
}

pub(super) fn same_stage(a: &Stage, b: &Stage) -> bool {
    match (a, b) {
        (Stage::Filter(a), Stage::Filter(b)) => same_expr(a, b),
        (Stage::Project { exprs: a, schema: s }, Stage::Project { exprs: b, schema: t }) => {
            same_exprs(a, b) && same_types(s, t)
        }
        (Stage::Repeat { schema: a }, Stage::Repeat { schema: b }) => same_types(a, b),
        (
            Stage::Unnest { lists: a, keeps_empty: m, schema: s },
            Stage::Unnest { lists: b, keeps_empty: n, schema: t },
        ) => a == b && m == n && same_types(s, t),
        _ => false,
    }
}

pub(super) fn same_exprs(a: &[Arc<dyn PhysicalExpr>], b: &[Arc<dyn PhysicalExpr>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_expr(a, b))
}

/// Whether two expressions are the same over columns of the same places, whatever these are called: the optimizer numbers the names of
/// common parts through the whole query, so that equal sub-queries have other ones.
pub(super) fn same_expr(a: &Arc<dyn PhysicalExpr>, b: &Arc<dyn PhysicalExpr>) -> bool {
    a == b || matches!((nameless(a), nameless(b)), (Some(a), Some(b)) if *a == *b)
}

fn nameless(expr: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
    let without_name = |expr: Arc<dyn PhysicalExpr>| {
        let any: &dyn Any = expr.as_ref();
        Ok(match any.downcast_ref::<Column>() {
            Some(column) => Transformed::yes(Arc::new(Column::new("", column.index())) as Arc<dyn PhysicalExpr>),
            None => Transformed::no(expr),
        })
    };
    Arc::clone(expr).transform(without_name).ok().map(|done| done.data)
}
