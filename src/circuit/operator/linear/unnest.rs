//! A row for each element of its lists.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;

use crate::circuit::delta::Delta;

/// Each row once for each place in the longest of its lists, with their elements in the place of the lists; a list that is shorter
/// gives NULL. A row whose lists are all empty or NULL is gone or, with `keeps_empty`, stays once with NULLs.
pub(super) fn unnest(
    delta: &Delta,
    lists: &[usize],
    keeps_empty: bool,
    schema: &SchemaRef,
) -> Result<Delta, ArrowError> {
    let columns = delta.rows.columns();
    let typed: Vec<ListArray> = lists.iter().map(|&i| as_list(&columns[i])).collect::<Result<_, _>>()?;
    let length = |list: &ListArray, row: usize| if list.is_null(row) { 0 } else { list.value_length(row) as usize };
    let mut rows: Vec<u32> = Vec::new();
    let mut places: Vec<Vec<Option<u32>>> = vec![Vec::new(); lists.len()];
    for row in 0..delta.len() {
        let longest = typed.iter().map(|list| length(list, row)).max().unwrap_or(0);
        let count = if keeps_empty { longest.max(1) } else { longest };
        rows.extend(std::iter::repeat_n(row as u32, count));
        for (list, places) in typed.iter().zip(&mut places) {
            let (first, length) = (list.value_offsets()[row] as u32, length(list, row));
            places.extend((0..count).map(|n| (n < length).then_some(first + n as u32)));
        }
    }
    let rows = UInt32Array::from(rows);
    let mut elements = lists.iter().zip(typed.iter().zip(places)).collect::<Vec<_>>();
    let mut out: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for (i, column) in columns.iter().enumerate() {
        let list = elements.iter_mut().find(|(at, _)| **at == i);
        out.push(match list {
            Some((_, (list, places))) => take(list.values(), &UInt32Array::from(std::mem::take(places)), None)?,
            None => take(column, &rows, None)?,
        });
    }
    let weights = rows.values().iter().map(|&row| delta.weights[row as usize]).collect();
    Delta::new(schema, out, weights)
}

fn as_list(column: &ArrayRef) -> Result<ListArray, ArrowError> {
    if let DataType::LargeList(item) | DataType::FixedSizeList(item, _) = column.data_type() {
        return Ok(cast(column, &DataType::List(Arc::clone(item)))?.as_list::<i32>().clone());
    }
    let list = column.as_list_opt::<i32>().cloned();
    list.ok_or_else(|| ArrowError::ComputeError(format!("a column of type {} is no list", column.data_type())))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, RecordBatch};
    use arrow::datatypes::{Field, Int32Type, Schema};

    use super::*;

    fn lists(of: Vec<Option<Vec<Option<i32>>>>) -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(of))
    }

    /// Three rows of (a number, a list, a list), unnested by both lists: `number list list × weight`.
    fn unnested(keeps_empty: bool) -> Vec<String> {
        let number: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3, 4]));
        let a = lists(vec![Some(vec![Some(10), None]), Some(vec![]), None, Some(vec![Some(40)])]);
        let b = lists(vec![Some(vec![Some(5)]), None, Some(vec![]), Some(vec![Some(6), Some(7)])]);
        // The rows of a slice begin in the middle of their lists' values.
        let rows = RecordBatch::try_from_iter([("n", number), ("a", a), ("b", b)]).unwrap();
        let delta = Delta { rows, weights: vec![1, 2, -1, 3] }.slice(0, 4);
        let fields = ["n", "a", "b"].map(|name| Field::new(name, DataType::Int32, true));
        let out = unnest(&delta, &[1, 2], keeps_empty, &Arc::new(Schema::new(fields.to_vec()))).unwrap();
        (0..out.len())
            .map(|i| {
                let cell = |c: &ArrayRef| {
                    if c.is_null(i) { "-".to_owned() } else { c.as_primitive::<Int32Type>().value(i).to_string() }
                };
                let cells: Vec<String> = out.rows.columns().iter().map(cell).collect();
                format!("{} × {}", cells.join(" "), out.weights[i])
            })
            .collect()
    }

    #[test]
    fn lists_side_by_side() {
        assert_eq!(unnested(false), ["1 10 5 × 1", "1 - - × 1", "4 40 6 × 3", "4 - 7 × 3"]);
    }

    #[test]
    fn rows_without_elements_are_kept_once() {
        let kept = unnested(true);
        assert_eq!(kept[2..4], ["2 - - × 2", "3 - - × -1"]);
    }
}
