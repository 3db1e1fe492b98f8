//! Sides of joins that keep one relation by one key become readers of one arrangement, which keeps it once.
//!
//! The rule: two sides share where all of these are equal.
//! - The relation: a node, behind the same filters. What a side chooses of its columns does not matter: the arrangement has those that any
//!   of its readers chooses, and each reader chooses its own from these. Computed columns are part of the relation, unless they are the key.
//! - The key: the same columns or expressions in the same order, and whether NULLs are equal.
//! - What is freed of it: by the same column of the key, or nothing. The arrangement is freed behind the least of its readers' watermarks.
//! - Whether it keeps columns besides the key. Keys alone are kept with the number of their rows, one entry a key: looked up in whole rows, they
//!   would cost all rows of a key.
//!
//! Invariants:
//! 1. The rewritten plan computes what the plan did: views and tables keep their nodes' output, under other ids.
//! 2. A plan in which nothing is shared stays as it is.
//!
//! A side that has the rows of a table by its primary key reads what the table keeps, without an arrangement.
//!
//! Known limits: sides of ASOF joins, groups and windows keep their rows in other orders, and do not share. Equalities in another
//! order are another key.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use super::nodes::{same_expr, same_exprs, same_kind, same_stage};
use crate::circuit::CircuitPlan;
use crate::circuit::floors::Floors;
use crate::circuit::plan::{Arrange, JoinSide, Node, NodeId, NodeKind, Stage};

type Expr = Arc<dyn PhysicalExpr>;

/// A side of a join, by what it would keep.
struct Side {
    /// The join, and its input.
    reader: (NodeId, usize),
    /// The node that the relation begins at, and what is done to its rows.
    relation: (NodeId, Vec<Stage>),
    /// The key, over the relation's columns.
    keys: Vec<Expr>,
    null_equals_null: bool,
    /// The side's columns, over the relation's, and their fields.
    columns: Vec<(Expr, FieldRef)>,
    /// What is freed of it.
    freed: Option<usize>,
}

impl Side {
    /// The side of a join node, if it can be shared.
    fn of(plan: &CircuitPlan, floors: &Floors, reader: (NodeId, usize)) -> Option<Self> {
        let (node, port) = reader;
        let join = plan.nodes.get(node)?;
        let JoinSide { keys, null_equals_null, counts_keys } = join.kind.side(port)?;
        if plan.arranged(node, port).is_some() {
            return None;
        }
        let input = *join.inputs.get(port)?;
        let fields = plan.nodes.get(input)?.schema.fields();
        let mut columns: Vec<Expr> =
            fields.iter().enumerate().map(|(i, f)| Arc::new(Column::new(f.name(), i)) as Expr).collect();
        let mut keys: Vec<Expr> = keys.iter().map(|&i| columns.get(i).map(Arc::clone)).collect::<Option<_>>()?;
        let mut relation = (input, Vec::new());
        while let Some((below, stages, exprs)) = plan.nodes.get(relation.0).and_then(projected) {
            let below_keys = keys.iter().map(|key| over(key, exprs)).collect::<Option<Vec<_>>>()?;
            let is_chosen = |expr: &Expr| is_column(expr) || below_keys.iter().any(|key| same_expr(key, expr));
            // A view's filters are not looked at twice.
            let is_filtered_view = !stages.is_empty() && plan.views.iter().any(|view| view.node == relation.0);
            if is_filtered_view || !exprs.iter().all(is_chosen) {
                break;
            }
            columns = columns.iter().map(|column| over(column, exprs)).collect::<Option<_>>()?;
            keys = below_keys;
            relation = (below, stages.to_vec());
            if !stages.is_empty() {
                break;
            }
        }
        // One row is not worth an operator.
        let is_one_row = match plan.nodes.get(relation.0).map(|node| &node.kind) {
            Some(NodeKind::Aggregate { group, .. }) => group.is_empty(),
            kind => matches!(kind, Some(NodeKind::Clock | NodeKind::SingleRow)),
        };
        if is_one_row {
            return None;
        }
        let columns = columns.into_iter().zip(fields.iter().map(Arc::clone)).collect();
        let freed = floors.place(node, port);
        let side = Self { reader, relation, keys, null_equals_null, columns, freed };
        (!counts_keys || side.is_keys()).then_some(side)
    }

    /// Whether it has no other columns than those of the key.
    fn is_keys(&self) -> bool {
        self.columns.iter().all(|(column, _)| self.keys.iter().any(|key| same_expr(key, column)))
    }

    fn shares_with(&self, other: &Self) -> bool {
        self.relation.0 == other.relation.0
            && self.relation.1.len() == other.relation.1.len()
            && self.relation.1.iter().zip(&other.relation.1).all(|(a, b)| same_stage(a, b))
            && same_exprs(&self.keys, &other.keys)
            && self.null_equals_null == other.null_equals_null
            && self.freed == other.freed
            && self.is_keys() == other.is_keys()
    }
}

/// A linear node that ends with a projection: its input, the stages before that, and its expressions.
fn projected(node: &Node) -> Option<(NodeId, &[Stage], &[Expr])> {
    let NodeKind::Linear(stages) = &node.kind else { return None };
    let [before @ .., Stage::Project { exprs, .. }] = stages.as_slice() else { return None };
    Some((*node.inputs.first()?, before, exprs))
}

fn is_column(expr: &Expr) -> bool {
    let any: &dyn Any = expr.as_ref();
    any.is::<Column>()
}

/// An expression over columns that are these expressions.
fn over(expr: &Expr, columns: &[Expr]) -> Option<Expr> {
    let replaced = |expr: Expr| {
        let any: &dyn Any = expr.as_ref();
        let column = any.downcast_ref::<Column>().map(|column| columns.get(column.index()));
        Ok(match column {
            // What it is replaced by has the columns of another relation.
            Some(Some(below)) => Transformed::new(Arc::clone(below), true, TreeNodeRecursion::Jump),
            _ => Transformed::no(expr),
        })
    };
    Arc::clone(expr).transform_down(replaced).ok().map(|done| done.data)
}

/// The plan with arrangements for what several sides of joins keep alike.
pub(in crate::sql) fn share(plan: CircuitPlan) -> CircuitPlan {
    let floors = Floors::of(&plan);
    let mut groups: Vec<Vec<Side>> = Vec::new();
    let readers = (0..plan.nodes.len()).flat_map(|node| [(node, 0), (node, 1)]);
    for side in readers.filter_map(|reader| Side::of(&plan, &floors, reader)) {
        match groups.iter_mut().find(|group| group.first().is_some_and(|first| first.shares_with(&side))) {
            Some(group) => group.push(side),
            None => groups.push(vec![side]),
        }
    }
    groups.retain(|group| group.len() > 1);
    if groups.is_empty() {
        return plan;
    }
    let gone = unread(&plan, &groups);
    let mut rewrite = Rewrite { nodes: Vec::new(), ids: Vec::new(), inputs: BTreeMap::new() };
    for (id, node) in plan.nodes.iter().enumerate() {
        for group in groups.iter().filter(|group| group.iter().map(|side| side.reader.0).min() == Some(id)) {
            rewrite.arrange(&plan, group);
        }
        if gone.contains(&id) {
            rewrite.ids.push(None);
            continue;
        }
        let mut node = node.clone();
        for (port, input) in node.inputs.iter_mut().enumerate() {
            *input = rewrite.inputs.get(&(id, port)).copied().unwrap_or_else(|| rewrite.id(*input));
        }
        rewrite.ids.push(Some(rewrite.nodes.len()));
        rewrite.nodes.push(node);
    }
    let CircuitPlan { mut tables, mut views, .. } = plan;
    tables.iter_mut().for_each(|table| table.node = rewrite.id(table.node));
    views.iter_mut().for_each(|view| view.node = rewrite.id(view.node));
    CircuitPlan { nodes: rewrite.nodes, tables, views }
}

/// Linear nodes that nobody reads any more once these sides read arrangements.
fn unread(plan: &CircuitPlan, groups: &[Vec<Side>]) -> Vec<NodeId> {
    let is_relation = |node: NodeId| groups.iter().flatten().any(|side| side.relation.0 == node);
    let moved = |node: NodeId, port: usize| groups.iter().flatten().any(|side| side.reader == (node, port));
    let mut gone: Vec<NodeId> = Vec::new();
    // Readers come behind what they read.
    for (id, node) in plan.nodes.iter().enumerate().rev() {
        let readers = plan.nodes.iter().enumerate().flat_map(|(reader, n)| {
            n.inputs.iter().enumerate().filter(|(_, input)| **input == id).map(move |(port, _)| (reader, port))
        });
        let readers: Vec<(NodeId, usize)> = readers.collect();
        let is_read = readers.iter().any(|&(reader, port)| !gone.contains(&reader) && !moved(reader, port));
        let is_view = plan.views.iter().any(|view| view.node == id);
        // An arrangement reads its relation.
        let is_kept = is_read || is_view || is_relation(id);
        if matches!(node.kind, NodeKind::Linear(_)) && !readers.is_empty() && !is_kept {
            gone.push(id);
        }
    }
    gone
}

/// A plan on its way to another.
struct Rewrite {
    nodes: Vec<Node>,
    /// By old id the new one.
    ids: Vec<Option<NodeId>>,
    /// By old id and port of a reader the new node that it reads.
    inputs: BTreeMap<(NodeId, usize), NodeId>,
}

impl Rewrite {
    fn id(&self, old: NodeId) -> NodeId {
        self.ids.get(old).copied().flatten().unwrap_or(old)
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Adds the arrangement of a group, with what its readers choose from it.
    fn arrange(&mut self, plan: &CircuitPlan, group: &[Side]) {
        // The order is that of the widest, which then needs no choice of its own.
        let widest = group.iter().rev().max_by_key(|side| side.columns.len());
        let mut kept: Vec<(Expr, FieldRef)> = Vec::new();
        for column in widest.into_iter().chain(group).flat_map(|side| &side.columns) {
            if place(&kept, &column.0).is_none() {
                kept.push(column.clone());
            }
        }
        let Some(first) = group.first() else { return };
        let (kept_exprs, schema) = parted(&kept);
        let label = label(plan, group);
        let (relation, stages) = (self.id(first.relation.0), &first.relation.1);
        let whole = plan.nodes.get(first.relation.0).map_or(0, |node| node.schema.fields().len());
        let is_whole = stages.is_empty() && kept.len() == whole && kept_exprs.iter().enumerate().all(is_in_place);
        let input = match is_whole {
            true => relation,
            false => {
                let project = Stage::Project { exprs: kept_exprs, schema: Arc::clone(&schema) };
                let kind = NodeKind::Linear(stages.iter().cloned().chain([project]).collect());
                let same = |n: &Node| n.inputs == [relation] && same_kind(&n.kind, &kind);
                match self.nodes.iter().position(same) {
                    Some(known) => known,
                    None => {
                        let (schema, label) = (Arc::clone(&schema), format!("{label}: project"));
                        self.push(Node { kind, inputs: vec![relation], schema, label })
                    }
                }
            }
        };
        let keys = first.keys.iter().filter_map(|key| place(&kept, key)).collect();
        let kind = NodeKind::Arrange(Arrange { keys, null_equals_null: first.null_equals_null });
        let schema = self.nodes.get(input).map_or(schema, |node| Arc::clone(&node.schema));
        let arrangement = self.push(Node {
            kind,
            inputs: vec![input],
            schema: Arc::clone(&schema),
            label: format!("{label}: shared arrangement"),
        });
        let mut chosen: Vec<(Vec<usize>, NodeId)> = Vec::new();
        for side in group {
            let columns: Vec<usize> = side.columns.iter().filter_map(|(column, _)| place(&kept, column)).collect();
            let known = chosen.iter().find(|(other, _)| *other == columns).map(|(_, node)| *node);
            let node = match known {
                Some(node) => node,
                None if columns.iter().copied().eq(0..kept.len()) => arrangement,
                None => self.choose(arrangement, &columns, side, format!("{label}: project")),
            };
            chosen.push((columns, node));
            self.inputs.insert(side.reader, node);
        }
    }

    /// Adds a choice of an arrangement's columns, called as a side calls them.
    fn choose(&mut self, arrangement: NodeId, columns: &[usize], side: &Side, label: String) -> NodeId {
        let names = columns.iter().zip(&side.columns);
        let exprs = names.map(|(&i, (_, field))| Arc::new(Column::new(field.name(), i)) as Expr).collect();
        let (_, schema) = parted(&side.columns);
        let kind = NodeKind::Linear(vec![Stage::Project { exprs, schema: Arc::clone(&schema) }]);
        self.push(Node { kind, inputs: vec![arrangement], schema, label })
    }
}

fn is_in_place((i, expr): (usize, &Expr)) -> bool {
    let any: &dyn Any = expr.as_ref();
    any.downcast_ref::<Column>().is_some_and(|column| column.index() == i)
}

fn place(columns: &[(Expr, FieldRef)], expr: &Expr) -> Option<usize> {
    columns.iter().position(|(column, _)| same_expr(column, expr))
}

fn parted(columns: &[(Expr, FieldRef)]) -> (Vec<Expr>, SchemaRef) {
    let (exprs, fields): (Vec<Expr>, Vec<FieldRef>) = columns.iter().cloned().unzip();
    (exprs, Arc::new(Schema::new(fields)))
}

/// The views that a group's joins were made for.
fn label(plan: &CircuitPlan, group: &[Side]) -> String {
    let mut views: Vec<&str> = Vec::new();
    for label in group.iter().filter_map(|side| plan.nodes.get(side.reader.0)).map(|node| &node.label) {
        let view = label.rsplit_once(": ").map_or(label.as_str(), |(view, _)| view);
        if !views.contains(&view) {
            views.push(view);
        }
    }
    match views.as_slice() {
        [first, second, third, _, ..] => format!("{first}, {second}, {third} and {} more", views.len() - 3),
        few => few.join(", "),
    }
}
