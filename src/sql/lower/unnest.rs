//! UNNEST: lists become rows, structs become columns.

use arrow::datatypes::{Field, Schema};
use std::sync::Arc;

use datafusion_common::{Column, DFSchema};
use datafusion_expr::logical_plan;
use datafusion_expr::{Expr, lit};
use datafusion_functions::core::get_field;

use super::project::push_project;
use super::{Computed, Lowering, Refusal, Result, Stream, column};
use crate::circuit::plan::Stage;

impl Lowering<'_> {
    pub(super) fn unnest(&mut self, unnest: &logical_plan::Unnest) -> Result<Stream> {
        let mut stream = self.plan(&unnest.input)?;
        let input = unnest.input.schema();
        let mut columns: Vec<Computed> = Vec::new();
        let mut lists: Vec<(usize, usize)> = Vec::new();
        for i in 0..input.fields().len() {
            if unnest.struct_type_columns.contains(&i) {
                columns.extend(self.fields_of(i, input)?);
                continue;
            }
            let depths = unnest.list_type_columns.iter().filter(|(at, _)| *at == i).map(|(_, list)| list.depth);
            let before = lists.len();
            for depth in depths {
                lists.push((columns.len(), depth));
                columns.push(column(&stream.schema, i));
            }
            if lists.len() == before {
                columns.push(column(&stream.schema, i));
            }
        }
        let rounds = lists.first().map_or(0, |(_, depth)| *depth);
        if lists.len() > 1 && lists.iter().any(|(_, depth)| *depth > 1) {
            return Err(Refusal::with_help(
                "several UNNESTs, of which one unnests lists of lists, are not supported yet",
                "unnest one after the other: the inner one in a sub-query",
            )
            .about(["unnest"]));
        }
        if columns.len() != stream.schema.fields().len() || !unnest.struct_type_columns.is_empty() {
            stream = push_project(stream, columns)?;
        }
        let lists: Vec<usize> = lists.into_iter().map(|(at, _)| at).collect();
        for _ in 0..rounds {
            let fields = stream.schema.fields().iter().enumerate().map(|(i, field)| {
                let item = lists.contains(&i).then(|| item(field)).flatten();
                Field::new(field.name(), item.unwrap_or(field).data_type().clone(), true)
            });
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            stream.schema = Arc::clone(&schema);
            let keeps_empty = unnest.options.expand_empty_as_null();
            if unnest.options.preserve_nulls() && !keeps_empty {
                return Err(Refusal::new("UNNEST that keeps NULL and drops empty lists is not supported yet"));
            }
            stream.stages.push(Stage::Unnest { lists: lists.clone(), keeps_empty, schema });
        }
        Ok(stream)
    }

    /// The fields of a struct as columns.
    fn fields_of(&self, i: usize, input: &DFSchema) -> Result<Vec<Computed>> {
        let arrow::datatypes::DataType::Struct(fields) = input.field(i).data_type() else {
            return Err(Refusal::new(format!("UNNEST of {} is not supported yet", input.field(i).data_type())));
        };
        let whole = Expr::Column(Column::from(input.qualified_field(i)));
        let field = |field: &Arc<Field>| {
            let e = get_field().call(vec![whole.clone(), lit(field.name().as_str())]);
            Ok(Computed { expr: self.physical(&e, input)?, name: field.name().clone() })
        };
        fields.iter().map(field).collect()
    }
}

/// What the elements of a list are.
fn item(field: &Field) -> Option<&Field> {
    use arrow::datatypes::DataType::{FixedSizeList, LargeList, List};
    match field.data_type() {
        List(item) | LargeList(item) | FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}
