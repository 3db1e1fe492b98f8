use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, StringArray};
use arrow::datatypes::{Field, Int64Type, Schema};

use super::*;

/// Rows of (partition, order, text), ordered by the second column downward.
fn ordered() -> (SchemaRef, OrderedRows) {
    let fields = [("p", DataType::Int64), ("x", DataType::Int64), ("t", DataType::Utf8)];
    let schema = Arc::new(Schema::new(fields.map(|(name, of)| Field::new(name, of, true)).to_vec()));
    let order = [SortColumn { column: 1, options: SortOptions { descending: true, nulls_first: false } }];
    let rows = OrderedRows::new(&schema, &[0], &order, &mut |_, discipline| Ok(Spine::ephemeral(discipline))).unwrap();
    (schema, rows)
}

fn delta(schema: &SchemaRef, rows: &[(i64, Option<i64>, &str, i64)]) -> Delta {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.2))),
    ];
    Delta::new(schema, columns, rows.iter().map(|r| r.3).collect()).unwrap()
}

/// What a cursor shows, decoded: order, text, weight.
fn read(rows: &OrderedRows, mut cursor: Cursor) -> Vec<(Option<i64>, String, i64)> {
    let mut out = Vec::new();
    cursor.seek(&[]).unwrap();
    while cursor.valid() {
        let columns = rows.decode(std::iter::once(cursor.value())).unwrap();
        let x = columns[1].as_primitive::<Int64Type>().iter().next().unwrap();
        out.push((x, columns[2].as_string::<i32>().value(0).to_owned(), cursor.weight()));
        cursor.next().unwrap();
    }
    out
}

#[test]
fn values_of_a_partition_stand_in_its_order_and_ties_in_that_of_their_other_columns() {
    let (schema, mut rows) = ordered();
    let input = delta(&schema, &[(1, Some(1), "b", 1), (1, None, "c", 1), (1, Some(3), "z", 1), (1, Some(1), "a", 2)]);
    let update = rows.update(&[input], "test").unwrap().unwrap();
    assert_eq!(read(&rows, update.before), []);
    let row = |x, text: &str, weight| (x, text.to_owned(), weight);
    assert_eq!(
        read(&rows, update.after),
        [row(Some(3), "z", 1), row(Some(1), "a", 2), row(Some(1), "b", 1), row(None, "c", 1)]
    );
    // Longer texts come behind shorter ones that they begin with, whatever the lengths at the end say.
    let input = delta(&schema, &[(1, Some(1), "a long text of more than one block", 1), (1, Some(3), "z", -1)]);
    let update = rows.update(&[input], "test").unwrap().unwrap();
    assert_eq!(read(&rows, update.before).len(), 4);
    let texts: Vec<String> = read(&rows, update.after).into_iter().map(|r| r.1).collect();
    assert_eq!(texts, ["a", "a long text of more than one block", "b", "c"]);
}

#[test]
fn chunks_that_cancel_out_change_nothing() {
    let (schema, mut rows) = ordered();
    let chunks = [delta(&schema, &[(1, Some(1), "a", 1)]), delta(&schema, &[(1, Some(1), "a", -1)])];
    assert!(rows.update(&chunks, "test").unwrap().is_none());
    assert!(rows.update(&[], "test").unwrap().is_none());
}

#[test]
fn partitions_are_stretches_of_equal_keys() {
    let (schema, rows) = ordered();
    let batch = rows.delta(&[delta(&schema, &[(1, Some(1), "a", 1), (2, None, "b", 1), (1, None, "a", 1)])]).unwrap();
    let sizes: Vec<usize> = partitions(&batch).map(|rows| rows.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 3);
    assert_eq!(sizes.len(), 2);
}

#[test]
fn a_damaged_row_is_an_error() {
    let (_, rows) = ordered();
    for value in [&b""[..], b"abc", b"\xff\xff\xff\xff"] {
        assert_eq!(order_key(value), b"");
        assert!(rows.decode(std::iter::once(value)).is_err(), "{value:?}");
    }
}
