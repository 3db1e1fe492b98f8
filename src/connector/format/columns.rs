//! Columns of another schema as a table's: what Parquet and Avro bring.
//!
//! Columns are matched by name, whatever its case, an exact match first. Others are passed over; one that is not there is NULL. A type fits if every
//! value has its like in the column's type, or is found not to (a number out of range): whole numbers, longer floats and decimals, text, bytes, dates,
//! times and timestamps of any unit (in UTC; what is finer than a microsecond is cut off), and lists, maps and structs of these. UUID and JSON are checked.
//!
//! Invariant: a value that does not fit spoils its own row only. Limit: what lies within lists, maps and structs is not checked; there it becomes NULL.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt32Array, make_array, new_null_array,
};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use arrow::error::ArrowError;

use super::cell::{expected, parse_uuid};
use crate::sql::Semantics;

/// Which columns of a source are those of a table.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    table: SchemaRef,
    /// By the table's columns: the source's.
    places: Vec<Option<usize>>,
}

/// What is wrong with rows, by their number; the first thing of each.
pub(crate) type Wrong = BTreeMap<usize, String>;

impl Columns {
    /// Finds the table's columns among a source's; the error says which one is missing or does not fit, and what there is.
    pub(crate) fn new(source: &Fields, table: &SchemaRef) -> Result<Self, String> {
        let place = |field: &Arc<Field>| {
            let exact = source.iter().position(|f| f.name() == field.name());
            let found = exact.or_else(|| source.iter().position(|f| f.name().eq_ignore_ascii_case(field.name())));
            match found.map(|at| (at, source.get(at))) {
                None if field.is_nullable() => Ok(None),
                None => {
                    let there: Vec<&str> = source.iter().map(|f| f.name().as_str()).collect();
                    Err(format!(
                        "there is no column {}, which is NOT NULL in the table; there are: {}",
                        field.name(),
                        there.join(", ")
                    ))
                }
                Some((at, Some(from))) if field_fits(from.data_type(), field) => Ok(Some(at)),
                Some((_, from)) => Err(format!(
                    "column {} is {} there, which is not {}, as the table wants: give the table's column another type",
                    field.name(),
                    from.map_or(&DataType::Null, |f| f.data_type()),
                    expected(field.data_type())
                )),
            }
        };
        let places = table.fields().iter().map(place).collect::<Result<_, _>>()?;
        Ok(Self { table: Arc::clone(table), places })
    }

    /// The source's columns that are wanted, in its order.
    pub(crate) fn wanted(&self) -> Vec<usize> {
        let mut wanted: Vec<usize> = self.places.iter().flatten().copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// The same of a source that has only the columns that are [wanted](Columns::wanted).
    pub(crate) fn of_wanted(&self) -> Self {
        let wanted = self.wanted();
        let places = self.places.iter().map(|place| place.and_then(|at| wanted.binary_search(&at).ok())).collect();
        Self { table: Arc::clone(&self.table), places }
    }

    /// The table's columns of `rows` rows of the source. Rows that do not fit have NULL there, and are told in `wrong`; those that `by_key` says true
    /// of need not have what is NOT NULL and no part of `key`: that is filled with its type's zero.
    pub(crate) fn take(
        &self,
        source: &[ArrayRef],
        rows: usize,
        by_key: Option<(&BooleanArray, &[usize])>,
        wrong: &mut Wrong,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut taken = Vec::with_capacity(self.places.len());
        for (i, (place, field)) in self.places.iter().zip(self.table.fields()).enumerate() {
            let Some(from) = place.and_then(|at| source.get(at)) else {
                taken.push(new_null_array(field.data_type(), rows));
                continue;
            };
            let mut column = converted(from, field)?;
            // A dictionary's nulls, and those of a column of nothing, are not in its own buffer.
            let nulls = from.logical_nulls();
            if column.null_count() > nulls.as_ref().map_or(0, |n| n.null_count()) {
                let was_null = |row: usize| nulls.as_ref().is_some_and(|n| n.is_null(row));
                for row in (0..rows).filter(|row| column.is_null(*row) && !was_null(*row)) {
                    let what = || format!("column {}: {} is not {}", field.name(), shown(from, row), wants(field));
                    wrong.entry(row).or_insert_with(what);
                }
            }
            if !field.is_nullable() && column.null_count() > 0 {
                if let Some((by_key, _)) = by_key.filter(|(_, key)| !key.contains(&i)) {
                    column = zip(by_key, &filled(&column)?, &column)?;
                }
                for row in (0..rows).filter(|row| column.is_null(*row)) {
                    wrong.entry(row).or_insert_with(|| format!("column {} is NOT NULL, and is null", field.name()));
                }
            }
            taken.push(column);
        }
        Ok(taken)
    }
}

/// These rows of a table's columns.
pub(crate) fn chosen(table: &SchemaRef, columns: Vec<ArrayRef>, rows: &[usize]) -> Result<RecordBatch, ArrowError> {
    let is_all = columns.first().is_none_or(|c| c.len() == rows.len()) && rows.iter().copied().eq(0..rows.len());
    if is_all {
        return RecordBatch::try_new(Arc::clone(table), columns);
    }
    let places = UInt32Array::from_iter_values(rows.iter().filter_map(|row| u32::try_from(*row).ok()));
    let taken = columns.iter().map(|column| take(column, &places, None));
    RecordBatch::try_new(Arc::clone(table), taken.collect::<Result<_, _>>()?)
}

/// What a value of a column must be.
fn wants(field: &Field) -> &'static str {
    match Semantics::of(field) {
        Some(Semantics::Uuid) => "a UUID",
        Some(Semantics::Json) => "a JSON document",
        None => expected(field.data_type()),
    }
}

/// A value for an error.
fn shown(array: &ArrayRef, row: usize) -> String {
    let options = arrow::util::display::FormatOptions::default();
    let text = arrow::util::display::ArrayFormatter::try_new(array, &options).map(|f| f.value(row).to_string());
    format!("\"{}\"", super::cell::excerpt(text.unwrap_or_default().as_bytes()))
}

/// The column with its type's zero where it is null.
fn filled(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let zeros =
        make_array(new_null_array(column.data_type(), column.len()).to_data().into_builder().nulls(None).build()?);
    zip(&arrow::compute::is_null(column)?, &zeros, column)
}

/// A column in the type of the table's, with NULL for what does not fit.
fn converted(from: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    match (Semantics::of(field), from.data_type()) {
        (Some(Semantics::Uuid), DataType::FixedSizeBinary(_)) => {
            let text = |bytes: &[u8]| uuid::Uuid::from_slice(bytes).ok().map(|u| u.hyphenated().to_string());
            let texts = from.as_fixed_size_binary().iter().map(|bytes| bytes.and_then(text));
            Ok(Arc::new(texts.collect::<StringArray>()))
        }
        (Some(semantics), _) => {
            let texts = cast_with_options(from, &DataType::Utf8, &options)?;
            let checked = texts.as_string::<i32>().iter().map(|text| match semantics {
                Semantics::Uuid => text.and_then(parse_uuid),
                Semantics::Json => text
                    .filter(|t| serde_json::from_str::<serde::de::IgnoredAny>(t).is_ok())
                    .map(|t| t.trim_ascii().to_owned()),
            });
            Ok(Arc::new(checked.collect::<StringArray>()))
        }
        (None, data_type) if data_type == field.data_type() => Ok(Arc::clone(from)),
        (None, _) => cast_with_options(from, field.data_type(), &options),
    }
}

fn field_fits(from: &DataType, field: &Field) -> bool {
    match (Semantics::of(field), from) {
        (Some(Semantics::Uuid), DataType::FixedSizeBinary(16)) => true,
        _ => fits(from, field.data_type()),
    }
}

fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let text = |t: &T| matches!(t, T::Utf8 | T::LargeUtf8 | T::Utf8View);
    match (from, to) {
        _ if from == to => true,
        (T::Null, _) => true,
        (T::Dictionary(_, value), _) => fits(value, to),
        _ if from.is_integer() && (to.is_integer() || matches!(to, T::Decimal128(..))) => true,
        (T::Float16 | T::Float32, T::Float32 | T::Float64) => true,
        (T::Decimal32(_, a) | T::Decimal64(_, a) | T::Decimal128(_, a), T::Decimal128(_, b)) => a <= b,
        _ if text(from) && text(to) => true,
        (T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_), T::Binary) => true,
        (T::Date32 | T::Date64, T::Date32) => true,
        (T::Time32(_) | T::Time64(_), T::Time64(_)) => true,
        (T::Timestamp(_, None), T::Timestamp(_, None)) => true,
        (T::Timestamp(_, Some(zone)), T::Timestamp(_, None)) => matches!(&**zone, "UTC" | "+00:00" | "Z"),
        (T::List(a) | T::LargeList(a) | T::ListView(a), T::List(b)) => fits(a.data_type(), b.data_type()),
        (T::Struct(a), T::Struct(b)) => {
            let same = |(a, b): (&Arc<Field>, &Arc<Field>)| a.name() == b.name() && fits(a.data_type(), b.data_type());
            a.len() == b.len() && a.iter().zip(b).all(same)
        }
        (T::Map(a, _), T::Map(b, _)) => match (a.data_type(), b.data_type()) {
            (T::Struct(a), T::Struct(b)) => a.iter().zip(b).all(|(a, b)| fits(a.data_type(), b.data_type())),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, TimestampMillisecondArray};
    use arrow::datatypes::{Schema, TimeUnit};

    use super::*;
    use crate::connector::testing::text;

    fn table() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int32, false),
            Field::new("At", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("gone", DataType::Utf8, true),
        ]))
    }

    fn source() -> (Fields, Vec<ArrayRef>) {
        let fields = vec![
            Field::new("more", DataType::Boolean, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
            Field::new("ID", DataType::Int64, true),
        ];
        let at = TimestampMillisecondArray::from(vec![Some(1_357_002_000_123), None, Some(0)]).with_timezone("UTC");
        let ids = Int64Array::from(vec![Some(7), Some(1 << 40), None]);
        (fields.into(), vec![new_null_array(&DataType::Boolean, 3), Arc::new(at), Arc::new(ids)])
    }

    #[test]
    fn columns_are_found_and_values_checked() {
        let (fields, arrays) = source();
        let columns = Columns::new(&fields, &table()).unwrap();
        assert_eq!(columns.wanted(), [1, 2]);
        let mut wrong = Wrong::new();
        let taken = columns.of_wanted().take(&arrays[1..], 3, None, &mut wrong).unwrap();
        let said: Vec<(usize, &str)> = wrong.iter().map(|(row, what)| (*row, what.as_str())).collect();
        let range = "column id: \"1099511627776\" is not an INT (-2147483648 to 2147483647)";
        assert_eq!(said, [(1, range), (2, "column id is NOT NULL, and is null")]);
        let first: Vec<ArrayRef> = taken.iter().map(|c| c.slice(0, 1)).collect();
        let rows = RecordBatch::try_new(table(), first).unwrap();
        assert_eq!(text(&rows), "7,2013-01-01T01:00:00.123,NULL");
    }

    #[test]
    fn a_column_of_nothing_is_null() {
        let fields: Fields = vec![Field::new("k", DataType::Null, true)].into();
        let table = Arc::new(Schema::new(vec![Field::new("k", DataType::Int32, true)]));
        let (mut wrong, nothing) = (Wrong::new(), new_null_array(&DataType::Null, 2));
        let taken = Columns::new(&fields, &table).unwrap().take(&[nothing], 2, None, &mut wrong).unwrap();
        assert!(wrong.is_empty() && taken[0].null_count() == 2, "{wrong:?}");
    }

    #[test]
    fn deletes_by_key_need_the_key_only() {
        let fields: Fields =
            vec![Field::new("k", DataType::Int32, true), Field::new("v", DataType::Int32, true)].into();
        let table = vec![Field::new("k", DataType::Int32, false), Field::new("v", DataType::Int32, false)];
        let columns = Columns::new(&fields, &Arc::new(Schema::new(table))).unwrap();
        let array = |values: [Option<i32>; 3]| Arc::new(Int32Array::from(values.to_vec())) as ArrayRef;
        let source = [array([Some(1), None, Some(3)]), array([None, None, None])];
        let (mut wrong, by_key) = (Wrong::new(), BooleanArray::from(vec![true, true, false]));
        let taken = columns.take(&source, 3, Some((&by_key, &[0])), &mut wrong).unwrap();
        assert_eq!(wrong.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(taken[1].as_primitive::<arrow::datatypes::Int32Type>().value(0), 0);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let error = |fields: Vec<Field>| Columns::new(&fields.into(), &table()).unwrap_err();
        let e = error(vec![Field::new("x", DataType::Utf8, true)]);
        assert_eq!(e, "there is no column id, which is NOT NULL in the table; there are: x");
        let e = error(vec![Field::new("id", DataType::Float64, true)]);
        assert!(e.starts_with("column id is Float64 there, which is not an INT"), "{e}");
    }
}
