//! Rows as memcomparable bytes: the keys and values of a pipeline's state.
//!
//! The encoding is arrow-row's. It is not promised to be stable across arrow releases, so [`ROW_FORMAT`] stands in every
//! manifest, the golden bytes in this module's tests pin it, and [`self_check`] refuses to start on a build that differs.
//!
//! Invariants:
//! 1. Equal rows (in SQL's sense of grouping: NULLs equal, NaNs equal, −0.0 = 0.0) are equal bytes; [`normalise`] sees to it.
//! 2. Bytes compare as the rows do, column by column, NULLs first (unless a codec is [`descending`](RowCodec::descending) or
//!    [`ordered`](RowCodec::ordered)).
//! 3. Bytes are decoded only by a codec of the same types; storage has verified their checksums before.
//!
//! Known limit: a codec given bytes of other types may panic, as arrow-row does; the spine's name and format keep that out.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, FixedSizeListArray, Float64Array, GenericListArray,
    Int64Array, MapArray, OffsetSizeTrait, StringArray, StructArray,
};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, SchemaRef};
use arrow_row::{RowConverter, RowParser, Rows, SortField};

use super::error::{CircuitError, Result};

type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// Number of the row encoding, and of the operators' state on top of it, as the storage engine's manifests carry it.
pub const ROW_FORMAT: u32 = 1;

/// Encodes and decodes rows of one list of types.
#[derive(Debug)]
pub struct RowCodec {
    converter: RowConverter,
    parser: RowParser,
    types: Vec<DataType>,
}

/// Encoded rows, one after the other in one buffer.
#[derive(Debug)]
pub struct EncodedRows {
    rows: Rows,
    /// Rows of no columns have no bytes; arrow-row does not count them.
    count: usize,
}

impl EncodedRows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes of row `i`.
    #[inline]
    pub fn get(&self, i: usize) -> &[u8] {
        if self.rows.num_rows() == 0 { &[] } else { self.rows.row(i).data() }
    }
}

impl RowCodec {
    /// A codec for rows of these types.
    ///
    /// # Errors
    /// A type that has no row encoding is named.
    pub fn new(types: &[DataType]) -> Result<Self> {
        Self::with_options(types, SortOptions { descending: false, nulls_first: true })
    }

    /// A codec whose bytes compare in the opposite order of the values.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn descending(types: &[DataType]) -> Result<Self> {
        Self::with_options(types, SortOptions { descending: true, nulls_first: false })
    }

    /// A codec whose bytes compare as these columns do in their orders.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn ordered(columns: &[(DataType, SortOptions)]) -> Result<Self> {
        let types: Vec<DataType> = columns.iter().map(|(data_type, _)| data_type.clone()).collect();
        let fields = columns.iter().map(|(data_type, o)| SortField::new_with_options(data_type.clone(), *o)).collect();
        let converter = RowConverter::new(fields)
            .map_err(|e| CircuitError::RowFormat(format!("rows of types {types:?} cannot be stored: {e}")))?;
        let parser = converter.parser();
        Ok(Self { converter, parser, types })
    }

    /// A codec for all columns of a schema.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_schema(schema: &SchemaRef) -> Result<Self> {
        let types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        Self::new(&types)
    }

    fn with_options(types: &[DataType], options: SortOptions) -> Result<Self> {
        Self::ordered(&types.iter().map(|t| (t.clone(), options)).collect::<Vec<_>>())
    }

    /// The types of the columns.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Encodes `count` rows. The columns must be [normalised](normalise).
    ///
    /// # Errors
    /// Columns of other types or lengths than the codec's.
    pub fn encode(&self, columns: &[ArrayRef], count: usize) -> Result<EncodedRows> {
        if columns.len() != self.types.len() || columns.iter().any(|c| c.len() != count) {
            return Err(CircuitError::RowFormat(format!(
                "expected {} columns of {count} rows, got columns of {:?} rows",
                self.types.len(),
                columns.iter().map(|c| c.len()).collect::<Vec<_>>()
            )));
        }
        let rows = self.converter.convert_columns(columns).map_err(|e| CircuitError::RowFormat(e.to_string()))?;
        Ok(EncodedRows { rows, count })
    }

    /// Decodes rows that a codec of the same types encoded.
    ///
    /// # Errors
    /// Bytes that are no such row, where arrow-row notices it.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        if self.types.is_empty() {
            return Ok(Vec::new());
        }
        self.converter
            .convert_rows(rows.into_iter().map(|bytes| self.parser.parse(bytes)))
            .map_err(|e| CircuitError::RowFormat(format!("stored bytes are not a row of types {:?}: {e}", self.types)))
    }
}

/// Makes equal values equal bits: −0.0 becomes 0.0, every NaN the same NaN, also inside lists, structs and maps. Columns
/// without floats are returned as they are.
pub fn normalise(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float16 => {
            let canonical = |v: Half| match v {
                v if v.is_nan() => Half::NAN,
                v if v == Half::ZERO => Half::ZERO,
                v => v,
            };
            Arc::new(column.as_primitive::<Float16Type>().unary::<_, Float16Type>(canonical)) as ArrayRef
        }
        DataType::Float32 => {
            let canonical = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(canonical))
        }
        DataType::Float64 => {
            let canonical = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(canonical))
        }
        other if !has_floats(other) => Arc::clone(column),
        DataType::List(_) => normalise_list::<i32>(column),
        DataType::LargeList(_) => normalise_list::<i64>(column),
        DataType::FixedSizeList(field, size) => {
            let list = column.as_fixed_size_list();
            let values = normalise(list.values());
            Arc::new(FixedSizeListArray::new(Arc::clone(field), *size, values, list.nulls().cloned()))
        }
        DataType::Map(entries, is_sorted) => {
            let (_, offsets, rows, nulls, _) = column.as_map().clone().into_parts();
            let rows = normalise(&(Arc::new(rows) as ArrayRef)).as_struct().clone();
            Arc::new(MapArray::new(Arc::clone(entries), offsets, rows, nulls, *is_sorted))
        }
        DataType::Struct(fields) => {
            let row = column.as_struct();
            let columns = row.columns().iter().map(normalise).collect();
            Arc::new(StructArray::new(fields.clone(), columns, row.nulls().cloned()))
        }
        _ => Arc::clone(column),
    }
}

fn normalise_list<O: OffsetSizeTrait>(column: &ArrayRef) -> ArrayRef {
    let list = column.as_list::<O>();
    let (field, offsets, values, nulls) = list.clone().into_parts();
    Arc::new(GenericListArray::<O>::new(field, offsets, normalise(&values), nulls))
}

fn has_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) | DataType::Map(f, _) => {
            has_floats(f.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|f| has_floats(f.data_type())),
        _ => false,
    }
}

/// Encodes one known row and compares it with what [`ROW_FORMAT`] stands for.
///
/// # Errors
/// The build's arrow-row encodes otherwise: state written by other builds could not be read.
pub fn self_check() -> Result<()> {
    let columns: [ArrayRef; 4] = [
        Arc::new(Int64Array::from(vec![Some(-2)])),
        Arc::new(StringArray::from(vec![Some("ab")])),
        Arc::new(Float64Array::from(vec![None::<f64>])),
        Arc::new(BinaryArray::from(vec![Some(&[0u8, 255][..])])),
    ];
    let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
    let encoded = RowCodec::new(&types)?.encode(&columns, 1)?;
    if encoded.get(0) != SELF_CHECK {
        return Err(CircuitError::RowFormat(format!(
            "this build encodes rows otherwise than format {ROW_FORMAT}: expected {SELF_CHECK:?}, got {:?}; use the \
             arrow-row release that Cargo.lock names",
            encoded.get(0)
        )));
    }
    Ok(())
}

/// −2; "ab" in a block of 8, its length behind it; NULL; the bytes 0 and 255 in a block of 8.
const SELF_CHECK: &[u8] = b"\x01\x7f\xff\xff\xff\xff\xff\xff\xfe\
    \x02ab\x00\x00\x00\x00\x00\x00\x02\
    \x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x02\x00\xff\x00\x00\x00\x00\x00\x00\x02";

#[cfg(test)]
mod tests;
