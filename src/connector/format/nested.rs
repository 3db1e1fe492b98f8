//! Cells that are lists and objects: their elements become the cells of a block of their own, with a column for each part, so that
//! they too are parsed in one loop a column.
//!
//! A list is a JSON list, a STRUCT an object whose keys are matched to its fields whatever their case, a MAP an object whose keys are
//! its keys, in the order of their texts (objects have none of their own). In CSV, and in a JSON string, it stands as JSON text.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, MapArray, StructArray, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef};

use super::cell::{Cell, Cells, Kind, excerpt, expected};
use super::scan::{Error, Scan};

/// What a column's cells are made of.
enum Shape<'a> {
    List(&'a FieldRef),
    Struct(&'a [FieldRef]),
    Map { entries: &'a FieldRef, parts: &'a [FieldRef] },
}

impl<'a> Shape<'a> {
    fn of(data_type: &'a DataType) -> Option<Self> {
        match data_type {
            DataType::List(item) => Some(Self::List(item)),
            DataType::Struct(fields) => Some(Self::Struct(fields)),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(parts) => Some(Self::Map { entries, parts }),
                _ => None,
            },
            _ => None,
        }
    }

    fn parts(&self) -> &'a [FieldRef] {
        match self {
            Self::List(item) => std::slice::from_ref(item),
            Self::Struct(fields) => fields,
            Self::Map { parts, .. } => parts,
        }
    }
}

/// The elements of a column, by part.
struct Elements {
    columns: Vec<Vec<Cell>>,
    /// For each element its row in the column.
    rows: Vec<usize>,
    /// For each row its number of elements.
    lengths: Vec<usize>,
}

/// Parses a column of lists, structs or maps.
pub(super) fn nested(cells: &mut Cells<'_>, column: usize, field: &Field, nulls: &[Vec<u8>]) -> ArrayRef {
    let rows = cells.rows();
    let Some(shape) = Shape::of(field.data_type()) else { return new_null_array(field.data_type(), rows) };
    let (block, texts) = texts(cells, column, field, nulls);
    let parts = shape.parts();
    let mut arena = Vec::new();
    let mut elements =
        Elements { columns: vec![Vec::new(); parts.len()], rows: Vec::new(), lengths: Vec::with_capacity(rows) };
    let mut valid = Vec::with_capacity(rows);
    for (row, text) in texts.into_iter().enumerate() {
        let before = elements.rows.len();
        let read = text.as_ref().map(|text| {
            let mut scan = Scan::new(block.get(..text.end).unwrap_or_default(), text.start, &mut arena);
            elements.read(&mut scan, &shape, row).and_then(|()| scan.end())
        });
        if let Some(Err(e)) = &read {
            elements.truncate(before);
            let at = e.at.saturating_sub(text.map_or(0, |t| t.start));
            cells.mark(row, format!("column {}: not {}, at byte {at}: {e}", field.name(), expected(field.data_type())));
        }
        let is_there = matches!(read, Some(Ok(())));
        if !is_there && matches!(shape, Shape::Struct(_)) {
            elements.push(row, vec![Cell::MISSING; parts.len()]);
        }
        valid.push(is_there);
        elements.lengths.push(elements.rows.len() - before);
    }
    let nulls = NullBuffer::from(valid);
    let mut inner = Cells::of_columns(&block, arena, elements.columns, elements.rows.len(), cells.flavor);
    let arrays: Vec<ArrayRef> = parts.iter().enumerate().map(|(i, part)| inner.array(i, part, &[])).collect();
    for (element, message) in inner.take_bad() {
        let row = elements.rows.get(element).copied().unwrap_or_default();
        cells.mark(row, format!("column {}: {message}", field.name()));
    }
    let offsets = || OffsetBuffer::from_lengths(elements.lengths.iter().copied());
    let array = match (shape, arrays.as_slice()) {
        (Shape::List(item), [values]) => {
            ListArray::try_new(Arc::clone(item), offsets(), Arc::clone(values), Some(nulls))
                .map(|a| Arc::new(a) as ArrayRef)
        }
        (Shape::Struct(fields), _) => {
            StructArray::try_new(fields.into(), arrays, Some(nulls)).map(|a| Arc::new(a) as ArrayRef)
        }
        (Shape::Map { entries, parts }, _) => StructArray::try_new(parts.into(), arrays, None)
            .and_then(|rows| MapArray::try_new(Arc::clone(entries), offsets(), rows, Some(nulls), false))
            .map(|a| Arc::new(a) as ArrayRef),
        _ => return new_null_array(field.data_type(), rows),
    };
    // Parts are as many and as long as the type says; a bad element is a null, and its row is taken out.
    array.unwrap_or_else(|_| new_null_array(field.data_type(), rows))
}

/// The texts of a column's cells, one behind the other. A row without one is NULL or marked as bad.
fn texts(
    cells: &mut Cells<'_>,
    column: usize,
    field: &Field,
    nulls: &[Vec<u8>],
) -> (Vec<u8>, Vec<Option<Range<usize>>>) {
    let mut block = Vec::new();
    let mut texts = Vec::with_capacity(cells.rows());
    for (row, cell) in cells.take_column(column).iter().enumerate() {
        let text = cells.text(cell);
        let wrong = match cell.kind {
            Kind::Nested | Kind::Plain | Kind::Quoted if !text.is_empty() => {
                let is_null = cell.kind == Kind::Plain && nulls.iter().any(|n| n == text);
                if !is_null {
                    let start = block.len();
                    block.extend_from_slice(text);
                    texts.push(Some(start..block.len()));
                    continue;
                }
                None
            }
            // What stands in the place of a value that no one looks at.
            Kind::Default => {
                let start = block.len();
                block.extend_from_slice(if matches!(field.data_type(), DataType::List(_)) { b"[]" } else { b"{}" });
                texts.push(Some(start..block.len()));
                continue;
            }
            Kind::Missing | Kind::Null | Kind::Plain | Kind::Quoted | Kind::Nested => None,
            Kind::Number | Kind::Bool => {
                Some(format!("expected {}, got \"{}\"", expected(field.data_type()), excerpt(text)))
            }
        };
        let wrong = wrong.or_else(|| match cell.kind {
            _ if field.is_nullable() => None,
            Kind::Missing => Some("is NOT NULL, and is missing".to_owned()),
            _ => Some("is NOT NULL, and is null".to_owned()),
        });
        if let Some(wrong) = wrong {
            cells.mark(row, format!("column {} {wrong}", field.name()));
        }
        texts.push(None);
    }
    (block, texts)
}

impl Elements {
    /// Adds the elements of one row's text.
    fn read(&mut self, scan: &mut Scan<'_>, shape: &Shape<'_>, row: usize) -> Result<(), Error> {
        match shape {
            Shape::List(_) => {
                scan.open(b'[', "a list")?;
                if scan.empty(b']') {
                    return Ok(());
                }
                loop {
                    let value = scan.value()?;
                    self.push(row, vec![value]);
                    if scan.empty(b']') {
                        return Ok(());
                    }
                    scan.open(b',', "',' or ']'")?;
                }
            }
            Shape::Struct(fields) => {
                let mut values = vec![Cell::MISSING; fields.len()];
                object(scan, |scan, key, value| {
                    let name = scan.text(&key);
                    let exact = fields.iter().position(|f| f.name().as_bytes() == name);
                    let place =
                        exact.or_else(|| fields.iter().position(|f| f.name().as_bytes().eq_ignore_ascii_case(name)));
                    if let Some(place) = place.and_then(|i| values.get_mut(i)) {
                        *place = value;
                    }
                })?;
                self.push(row, values);
            }
            Shape::Map { .. } => {
                let mut entries = BTreeMap::new();
                object(scan, |scan, key, value| {
                    entries.insert(scan.text(&key).to_vec(), vec![key, value]);
                })?;
                for entry in entries.into_values() {
                    self.push(row, entry);
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, row: usize, cells: Vec<Cell>) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(cell);
        }
        self.rows.push(row);
    }

    fn truncate(&mut self, elements: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(elements));
        self.rows.truncate(elements);
    }
}

/// Calls `put` with each key and value of an object.
fn object(scan: &mut Scan<'_>, mut put: impl FnMut(&Scan<'_>, Cell, Cell)) -> Result<(), Error> {
    scan.open(b'{', "an object")?;
    if scan.empty(b'}') {
        return Ok(());
    }
    loop {
        let key = scan.key()?;
        let value = scan.value()?;
        put(scan, key, value);
        if !scan.more()? {
            return Ok(());
        }
    }
}
