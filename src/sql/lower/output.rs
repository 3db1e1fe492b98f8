//! A view's last node: its columns have the view's names, each once, and types that connectors can render.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion_expr::logical_plan::LogicalPlan;
use datafusion_physical_expr::expressions::{Column, cast};

use super::project::{Computed, column, push_project};
use super::{Lowering, Refusal, Result, Stream};
use crate::circuit::plan::{Node, NodeId, NodeKind, Stage};

impl Lowering<'_> {
    /// Lowers a view's whole plan to a node whose columns are called `names`. The schema is that node's.
    pub fn view(&mut self, plan: &LogicalPlan, names: &[String]) -> Result<(NodeId, SchemaRef)> {
        let first = self.nodes.0.len();
        let mut stream = self.plan(plan)?;
        if names.len() != stream.schema.fields().len() {
            return Err(Refusal::new(format!(
                "the query has {} column(s), and {} names are given",
                stream.schema.fields().len(),
                names.len()
            )));
        }
        let mut computed = Vec::with_capacity(names.len());
        let mut as_is = true;
        for (i, (field, name)) in stream.schema.fields().iter().zip(names).enumerate() {
            if *field.data_type() == DataType::Null {
                return Err(Refusal::new(format!(
                    "the column `{name}` is always NULL and has no type; write CAST(NULL AS type)"
                )));
            }
            let column = Arc::new(Column::new(field.name(), i));
            let plain = plain_type(field.data_type());
            as_is &= field.name() == name && plain == *field.data_type();
            computed.push(Computed { expr: cast(column, &stream.schema, plain)?, name: name.clone() });
        }
        if !as_is {
            let only_names = computed.iter().all(|c| c.expr.is::<Column>());
            if !(only_names && self.rename(&mut stream, names, first)) {
                stream = push_project(stream, computed)?;
            }
        }
        let schema = Arc::clone(&stream.schema);
        let node = self.materialize(stream);
        if self.nodes.0[node].schema == schema {
            return Ok((node, schema));
        }
        // Another view has the same node under other names.
        let stream = Stream { node, stages: Vec::new(), schema: Arc::clone(&self.nodes.0[node].schema) };
        let computed =
            names.iter().enumerate().map(|(i, n)| Computed { name: n.clone(), ..column(&stream.schema, i) }).collect();
        let stream = push_project(stream, computed)?;
        let schema = Arc::clone(&stream.schema);
        let kind = NodeKind::Linear(stream.stages);
        let label = format!("{}: rename", self.view);
        let node = self.nodes.add(Node { kind, inputs: vec![stream.node], schema: Arc::clone(&schema), label });
        Ok((node, schema))
    }
}

impl Lowering<'_> {
    /// Renames the columns where they are made, if that is inside this view, whose nodes are those from `first` on.
    fn rename(&mut self, stream: &mut Stream, names: &[String], first: NodeId) -> bool {
        let last_project = stream.stages.iter_mut().rev().find_map(|stage| match stage {
            Stage::Project { schema, .. } | Stage::Repeat { schema } | Stage::Unnest { schema, .. } => Some(schema),
            Stage::Filter(_) => None,
        });
        let made = match last_project {
            Some(schema) => schema,
            // Filters keep the names of the node below; nothing else in this view reads its last operator.
            None => match self.nodes.0.get_mut(stream.node) {
                Some(node) if stream.node >= first => &mut node.schema,
                _ => return false,
            },
        };
        *made = renamed(made, names);
        stream.schema = Arc::clone(made);
        true
    }
}

/// The same columns under other names.
fn renamed(schema: &SchemaRef, names: &[String]) -> SchemaRef {
    let fields = schema.fields().iter().zip(names);
    Arc::new(Schema::new(fields.map(|(f, name)| f.as_ref().clone().with_name(name)).collect::<Vec<_>>()))
}

/// Functions give strings in several layouts; a view has one.
fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value),
        other => other.clone(),
    }
}
