//! `WITH ('skip_unused_columns' = 'true')`: a table without the columns that nothing reads. Connectors neither parse nor keep them.
//!
//! Kept are the columns that a view's plan reads (not: that its text names), those of the primary key, those with LATENESS, and those that a connector's
//! configuration names. A table `WITH ('materialized' = 'true')` keeps all. One column stays in any case.
//!
//! Invariants:
//! 1. What is left is a table like any other: its rows in the log, in state and in queries have the columns that are left.
//! 2. The program's identity names the skipped columns ([`Table::definition`]): state and log are never read with other columns.
//! 3. A table and the one for its late rows have the same columns.
//!
//! Known limit: an operator over the table's whole rows (`SELECT DISTINCT *`, a view that is the table) reads all columns, whatever is made of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_expr::utils::collect_columns;
use serde_json::Value;

use super::program::{Declared, Table, View};
use crate::circuit::plan::{Node, NodeId, NodeKind, Stage, TableNode, ViewNode};
use crate::connector::config::ConnectorConfig;

/// Takes unused columns out of the tables that ask for it, and out of the operators that read them.
pub(super) fn skip(tables: &mut [(Table, TableNode)], views: &[(View, ViewNode)], nodes: &mut [Node]) {
    for at in 0..tables.len() {
        let is_for_late = tables.iter().any(|(_, node)| node.late == Some(at));
        let Some((table, node)) = tables.get(at).filter(|(table, _)| !is_for_late && table.skips_unused()) else {
            continue;
        };
        // The table, and the one for its late rows.
        let both: Vec<usize> = [Some(at), node.late].into_iter().flatten().collect();
        let filled = filled(table);
        let mut used = own(table, &filled);
        for (_, node) in both.iter().filter_map(|&i| tables.get(i)) {
            used.extend(read(node.node, table.schema.fields().len(), views, nodes));
        }
        // A format must have a column to fill, beside those that are filled from a message's metadata.
        if used.is_subset(&filled) {
            used.extend(narrowest(&table.schema, &filled));
        }
        if used.len() == table.schema.fields().len() {
            continue;
        }
        let used: Vec<usize> = used.into_iter().collect();
        for i in both {
            if let Some((table, node)) = tables.get_mut(i) {
                narrow(table, node, &used, nodes);
            }
        }
    }
}

/// The columns that connectors fill from what messages carry besides their value: `"include_key": true` the column `kafka_key`, a string another one.
fn filled(table: &Table) -> BTreeSet<usize> {
    let settings = || {
        let configs = table.connectors.iter().filter_map(|c| c.transport.config.as_object());
        configs.flatten().filter_map(|(key, value)| Some((key.strip_prefix("include_")?, value)))
    };
    let is_filled = |column: &str| {
        settings().any(|(what, value)| match value {
            Value::Bool(is) => *is && column.strip_prefix("kafka_") == Some(what),
            value => value.as_str() == Some(column),
        })
    };
    let fields = table.schema.fields().iter().enumerate();
    fields.filter(|(_, field)| is_filled(field.name())).map(|(i, _)| i).collect()
}

/// The columns of a table that are needed whatever reads it, those that are `filled` among them.
fn own(table: &Table, filled: &BTreeSet<usize>) -> BTreeSet<usize> {
    // Which column has the bytes is told by there being one only.
    let is_raw = |c: &ConnectorConfig| c.format.as_ref().is_some_and(|format| format.name == "raw");
    if table.connectors.iter().any(is_raw) {
        return (0..table.schema.fields().len()).collect();
    }
    let mut used: BTreeSet<usize> = table.primary_key.iter().chain(filled).copied().collect();
    used.extend(table.lateness.iter().map(|l| l.column));
    for (i, field) in table.schema.fields().iter().enumerate() {
        let is_named = |config: &Value| names(config, field.name());
        let mut configs =
            table.connectors.iter().flat_map(|c| [Some(&c.transport.config), c.format.as_ref().map(|f| &f.config)]);
        if configs.any(|config| config.is_some_and(is_named)) {
            used.insert(i);
        }
    }
    used
}

/// Whether a configuration names a column, as a key or a value.
fn names(config: &Value, column: &str) -> bool {
    match config {
        Value::String(text) => text.eq_ignore_ascii_case(column),
        Value::Array(items) => items.iter().any(|item| names(item, column)),
        Value::Object(map) => map.iter().any(|(key, value)| key.eq_ignore_ascii_case(column) || names(value, column)),
        _ => false,
    }
}

/// The columns of a table's node that are read.
fn read(table: NodeId, width: usize, views: &[(View, ViewNode)], nodes: &[Node]) -> BTreeSet<usize> {
    if views.iter().any(|(_, view)| view.node == table) {
        return (0..width).collect();
    }
    let mut used = BTreeSet::new();
    for reader in nodes.iter().filter(|node| node.inputs.contains(&table)) {
        match &reader.kind {
            NodeKind::Linear(stages) => used.extend(read_by(stages).unwrap_or_else(|| (0..width).collect())),
            _ => used.extend(0..width),
        }
    }
    used
}

/// The input's columns that a chain reads, if it does not pass on all.
fn read_by(stages: &[Stage]) -> Option<BTreeSet<usize>> {
    let mut used = BTreeSet::new();
    for stage in stages {
        match stage {
            Stage::Filter(expr) => used.extend(collect_columns(expr).iter().map(Column::index)),
            Stage::Project { exprs, .. } => {
                used.extend(exprs.iter().flat_map(collect_columns).map(|column| column.index()));
                return Some(used);
            }
            Stage::Repeat { .. } | Stage::Unnest { .. } => return None,
        }
    }
    None
}

/// The column that stands for rows of which nothing is read; none that is `filled`.
fn narrowest(schema: &SchemaRef, filled: &BTreeSet<usize>) -> Option<usize> {
    let width = |i: &usize| schema.field(*i).data_type().primitive_width().unwrap_or(usize::MAX);
    (0..schema.fields().len()).filter(|i| !filled.contains(i)).min_by_key(width)
}

/// Leaves these columns in a table and in what reads it.
fn narrow(table: &mut Table, node: &mut TableNode, used: &[usize], nodes: &mut [Node]) {
    let place = |column: usize| used.binary_search(&column).unwrap_or_default();
    let declared = table.schema.fields().iter().enumerate();
    table.declared = declared
        .map(|(i, field)| Declared { field: Arc::clone(field), is_skipped: used.binary_search(&i).is_err() })
        .collect();
    let kept = table.declared.iter().filter(|d| !d.is_skipped).map(|d| Arc::clone(&d.field));
    table.schema = Arc::new(Schema::new(kept.collect::<Vec<_>>()));
    table.primary_key.iter_mut().for_each(|column| *column = place(*column));
    for lateness in table.lateness.iter_mut().chain(&mut node.lateness) {
        lateness.column = place(lateness.column);
    }
    for (id, of_plan) in nodes.iter_mut().enumerate() {
        match &mut of_plan.kind {
            NodeKind::Table { primary_key } if id == node.node => {
                *primary_key = table.primary_key.clone();
                of_plan.schema = Arc::clone(&table.schema);
            }
            NodeKind::Linear(stages) if of_plan.inputs == [node.node] => {
                for stage in stages {
                    match stage {
                        Stage::Filter(expr) => *expr = moved(expr, &place),
                        Stage::Project { exprs, .. } => {
                            exprs.iter_mut().for_each(|expr| *expr = moved(expr, &place));
                            break;
                        }
                        Stage::Repeat { .. } | Stage::Unnest { .. } => break,
                    }
                }
            }
            _ => {}
        }
    }
}

/// The expression over the columns that are left.
fn moved(expr: &Arc<dyn PhysicalExpr>, place: &impl Fn(usize) -> usize) -> Arc<dyn PhysicalExpr> {
    let at = |expr: Arc<dyn PhysicalExpr>| {
        Ok(match expr.downcast_ref::<Column>() {
            Some(column) => {
                Transformed::yes(Arc::new(Column::new(column.name(), place(column.index()))) as Arc<dyn PhysicalExpr>)
            }
            None => Transformed::no(expr),
        })
    };
    // Nothing in it fails.
    Arc::clone(expr).transform(at).data().unwrap_or_else(|_| Arc::clone(expr))
}
