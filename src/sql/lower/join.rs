//! Joins: key expressions become columns of their sides, and are dropped behind the join.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{DFSchema, JoinType, NullEquality};
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{Expr, logical_plan};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use super::{Computed, Lowering, Refusal, Result, Stream, column, project};
use crate::circuit::plan::NodeKind;
use crate::sql::clock::uses_now;

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &logical_plan::Join) -> Result<Stream> {
        if join.join_type != JoinType::Inner {
            return Err(Refusal::new(format!(
                "{} JOIN is not supported yet",
                join.join_type.to_string().to_uppercase()
            )));
        }
        if join.on.is_empty() {
            let help = Some("add ON left.column = right.column, or the same in WHERE");
            return Err(Refusal { message: "a join needs an equality between its two sides".to_owned(), help });
        }
        let left = self.plan(&join.left)?;
        let right = self.plan(&join.right)?;
        let (left_width, right_width) = (left.schema.fields().len(), right.schema.fields().len());
        let left_on: Vec<&Expr> = join.on.iter().map(|(l, _)| l).collect();
        let right_on: Vec<&Expr> = join.on.iter().map(|(_, r)| r).collect();
        let (left, left_keys) = self.keyed(left, &left_on, join.left.schema())?;
        let (right, right_keys) = self.keyed(right, &right_on, join.right.schema())?;
        for ((l, r), (le, re)) in left_keys.iter().zip(&right_keys).zip(&join.on) {
            let (lt, rt) = (left.schema.field(*l).data_type(), right.schema.field(*r).data_type());
            if lt != rt {
                return Err(Refusal::new(format!("a join compares `{le}` ({lt}) with `{re}` ({rt}); add a cast")));
            }
        }
        let extra = left.schema.fields().len() - left_width;
        // The clock changes what is joined, not how.
        let (timed, fixed): (Vec<&Expr>, Vec<&Expr>) =
            join.filter.iter().flat_map(split_conjunction).partition(|e| uses_now(e));
        let filter = match &conjunction(fixed.into_iter().cloned()) {
            None => None,
            Some(filter) => Some(shift(self.physical(filter, &join.schema)?, left_width, extra)?),
        };
        let fields: Vec<Field> = left
            .schema
            .fields()
            .iter()
            .chain(right.schema.fields())
            .map(|f| Field::new(f.name(), f.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let kept = (0..left_width).chain((0..right_width).map(|i| left_width + extra + i));
        let kept: Vec<Computed> = kept.map(|i| column(&schema, i)).collect();
        let null_equals_null = join.null_equality == NullEquality::NullEqualsNull;
        let kind = NodeKind::Join { left_keys, right_keys, null_equals_null, filter };
        let joined = self.push(kind, vec![left, right], schema, "join");
        let mut joined = project(joined, kept)?;
        for condition in timed {
            joined = self.filter(joined, condition, &join.schema)?;
        }
        Ok(joined)
    }

    /// The stream with a column for each key expression, and these columns.
    pub(super) fn keyed(&self, stream: Stream, on: &[&Expr], schema: &DFSchema) -> Result<(Stream, Vec<usize>)> {
        let mut columns: Vec<Computed> = (0..stream.schema.fields().len()).map(|i| column(&stream.schema, i)).collect();
        let mut keys = Vec::with_capacity(on.len());
        for e in on {
            let expr = self.physical(e, schema)?;
            let at = match expr.downcast_ref::<Column>() {
                Some(column) => Some(column.index()),
                None => columns.iter().position(|c| c.expr.eq(&expr)),
            };
            keys.push(at.unwrap_or_else(|| {
                columns.push(Computed { expr, name: e.schema_name().to_string() });
                columns.len() - 1
            }));
        }
        Ok((project(stream, columns)?, keys))
    }
}

/// Moves the columns from `from` on by `extra` to the right.
fn shift(expr: Arc<dyn PhysicalExpr>, from: usize, extra: usize) -> Result<Arc<dyn PhysicalExpr>> {
    if extra == 0 {
        return Ok(expr);
    }
    let shifted = expr.transform(|e| {
        Ok(match e.downcast_ref::<Column>() {
            Some(c) if c.index() >= from => {
                Transformed::yes(Arc::new(Column::new(c.name(), c.index() + extra)) as Arc<dyn PhysicalExpr>)
            }
            _ => Transformed::no(e),
        })
    });
    Ok(shifted.data()?)
}
