//! Arrangements: indexes of a relation that several operators look rows up in.
//!
//! A join reads one whose input, on that side, *is* an arrangement or a choice of columns of one, by the same key: nothing else in the plan
//! says so ([`CircuitPlan::arranged`]). An input that does not fit is an input as any other, and the join keeps its rows itself. A table with a
//! primary key keeps its rows by that, and is an arrangement of itself.

use std::any::Any;

use datafusion_physical_expr::expressions::Column;

use super::{CircuitPlan, NodeId, NodeKind, Stage};

/// An index of its input by a key. What comes in goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrange {
    /// Columns of the key.
    pub keys: Vec<usize>,
    /// Whether rows are kept that have a NULL in their key.
    pub null_equals_null: bool,
}

/// Where a side of a join has its rows, if it does not keep them itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arranged {
    /// The [`NodeKind::Arrange`] node, or the [`NodeKind::Table`] with a primary key.
    pub node: NodeId,
    /// The side's columns, as columns of the arrangement; `None`: all of them, as they are.
    pub columns: Option<Vec<usize>>,
}

/// What a side of a join looks the other's rows up by.
#[derive(Clone, Copy, Debug)]
pub struct JoinSide<'a> {
    /// Columns of the key, of the side's input.
    pub keys: &'a [usize],
    /// Whether NULL keys match each other.
    pub null_equals_null: bool,
    /// Whether the side is the number of rows of each key, as the right one of a semi join is.
    pub counts_keys: bool,
}

impl NodeKind {
    /// A side (0 is left, 1 is right) of a [`NodeKind::Join`] or [`NodeKind::Semi`]; of no other node.
    pub fn side(&self, side: usize) -> Option<JoinSide<'_>> {
        let (left, right, null_equals_null, is_semi) = match self {
            Self::Join { left_keys, right_keys, null_equals_null, .. } => {
                (left_keys, right_keys, null_equals_null, false)
            }
            Self::Semi { left_keys, right_keys, null_equals_null, .. } => {
                (left_keys, right_keys, null_equals_null, true)
            }
            _ => return None,
        };
        let keys = if side == 0 { left } else { right };
        Some(JoinSide { keys, null_equals_null: *null_equals_null, counts_keys: is_semi && side == 1 })
    }
}

impl CircuitPlan {
    /// Where a side (0 is left, 1 is right) of a [`NodeKind::Join`] or [`NodeKind::Semi`] has its rows, if an arrangement keeps them.
    pub fn arranged(&self, node: NodeId, side: usize) -> Option<Arranged> {
        let join = self.nodes.get(node)?;
        let JoinSide { keys, null_equals_null, counts_keys } = join.kind.side(side)?;
        let input = *join.inputs.get(side)?;
        let (at, columns) = self.chosen(input).map_or((input, None), |(at, columns)| (at, Some(columns)));
        let own = match &columns {
            None => keys.to_vec(),
            Some(columns) => keys.iter().map(|&key| columns.get(key).copied()).collect::<Option<Vec<_>>>()?,
        };
        let kept = self.nodes.get(at)?;
        let fits = match &kept.kind {
            NodeKind::Arrange(arrange) => {
                let is_key = |column: usize| arrange.keys.contains(&column);
                let counted = !counts_keys || (0..kept.schema.fields().len()).all(is_key);
                own == arrange.keys && null_equals_null == arrange.null_equals_null && counted
            }
            // A key is there once, and is never NULL.
            NodeKind::Table { primary_key } => !primary_key.is_empty() && own == *primary_key,
            _ => false,
        };
        fits.then_some(Arranged { node: at, columns })
    }

    /// The sides of joins that read an arrangement.
    pub fn readers(&self, arrangement: NodeId) -> Vec<(NodeId, usize)> {
        let sides = (0..self.nodes.len()).flat_map(|node| [(node, 0), (node, 1)]);
        sides.filter(|&(node, side)| self.arranged(node, side).is_some_and(|a| a.node == arrangement)).collect()
    }

    /// The input of a node that does nothing but choose columns, and these.
    fn chosen(&self, node: NodeId) -> Option<(NodeId, Vec<usize>)> {
        let node = self.nodes.get(node)?;
        let NodeKind::Linear(stages) = &node.kind else { return None };
        let [Stage::Project { exprs, .. }] = stages.as_slice() else { return None };
        let columns = exprs.iter().map(|expr| {
            let any: &dyn Any = expr.as_ref();
            any.downcast_ref::<Column>().map(Column::index)
        });
        Some((*node.inputs.first()?, columns.collect::<Option<Vec<_>>>()?))
    }
}
