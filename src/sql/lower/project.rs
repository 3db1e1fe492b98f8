//! Projections of a stream, fused where one of two only picks columns.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{Column, Literal};

use super::{Result, Stream};
use crate::circuit::plan::Stage;

/// A column to be computed.
pub(super) struct Computed {
    pub expr: Arc<dyn PhysicalExpr>,
    pub name: String,
}

/// Column `i` of a schema.
pub(super) fn column(schema: &SchemaRef, i: usize) -> Computed {
    let name = schema.field(i).name();
    Computed { expr: Arc::new(Column::new(name, i)), name: name.clone() }
}

/// Adds a projection, unless it would change nothing but names. Without columns it has one constant column.
pub(super) fn project(stream: Stream, mut computed: Vec<Computed>) -> Result<Stream> {
    if computed.is_empty() {
        let one = Literal::new(ScalarValue::Boolean(Some(true)));
        computed.push(Computed { expr: Arc::new(one), name: "_".to_owned() });
    }
    if is_identity(&computed, stream.schema.fields().len()) { Ok(stream) } else { push_project(stream, computed) }
}

/// Adds a projection, or changes the last one to do both.
pub(super) fn push_project(mut stream: Stream, mut computed: Vec<Computed>) -> Result<Stream> {
    let last = match stream.stages.last() {
        Some(Stage::Project { exprs, .. })
            if exprs.iter().all(is_cheap) || computed.iter().all(|c| is_cheap(&c.expr)) =>
        {
            Some(exprs.clone())
        }
        _ => None,
    };
    // Types are looked up before the stage below is gone.
    let mut fields = Vec::with_capacity(computed.len());
    for c in &computed {
        fields.push(Field::new(&c.name, c.expr.data_type(&stream.schema)?, true));
    }
    if let Some(below) = last {
        for c in &mut computed {
            c.expr = substitute(&c.expr, &below)?;
        }
        stream.stages.pop();
    }
    stream.schema = Arc::new(Schema::new(fields));
    let exprs = computed.into_iter().map(|c| c.expr).collect();
    stream.stages.push(Stage::Project { exprs, schema: Arc::clone(&stream.schema) });
    Ok(stream)
}

fn is_identity(computed: &[Computed], width: usize) -> bool {
    let in_place =
        |(i, c): (usize, &Computed)| c.expr.downcast_ref::<Column>().is_some_and(|column| column.index() == i);
    computed.len() == width && computed.iter().enumerate().all(in_place)
}

/// Whether to compute this twice costs nothing.
fn is_cheap(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.is::<Column>() || expr.is::<Literal>()
}

/// The expression over the input of a projection, from one over its output.
fn substitute(expr: &Arc<dyn PhysicalExpr>, below: &[Arc<dyn PhysicalExpr>]) -> Result<Arc<dyn PhysicalExpr>> {
    // Bottom up would meet the columns of what it has put in.
    let substituted = Arc::clone(expr).transform_down(|e| {
        let index = e.downcast_ref::<Column>().map(Column::index);
        Ok(match index.and_then(|i| below.get(i)) {
            Some(replacement) => {
                Transformed::new(Arc::clone(replacement), true, datafusion_common::tree_node::TreeNodeRecursion::Jump)
            }
            None => Transformed::no(e),
        })
    });
    Ok(substituted.data()?)
}
