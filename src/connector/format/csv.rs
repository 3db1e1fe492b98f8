//! CSV, as RFC 4180 has it, with LF or CRLF.
//!
//! Settings: `headers` (default true: the first record names the columns, matched to the table's whatever their case; without, the
//! fields are the table's columns in order, those that nothing reads among them), `delimiter` (default `,`), `null_values` (default none: texts that mean NULL where they
//! stand without quotes, such as `["NA"]`; `""` makes empty strings NULL too).
//!
//! An empty field of a column that is not a string is NULL. Columns that the table does not have are passed over; columns that the
//! file does not have are NULL. Blank lines are passed over.

use arrow::datatypes::SchemaRef;
use memchr::memchr;
use serde_json::Value;

use super::Parsed;
use super::cell::{Cell, Cells, Kind, check_types, excerpt, finish};
use super::split::{Record, closing_quote};
use crate::connector::options::{Options, suggestion};
use crate::connector::{ConnectorError, Context, Result};
use crate::sql::Declared;

/// The settings of CSV input.
#[derive(Debug)]
pub(crate) struct Csv {
    connector: String,
    schema: SchemaRef,
    declared: Vec<Declared>,
    pub(crate) headers: bool,
    pub(crate) delimiter: u8,
    nulls: Vec<Vec<u8>>,
}

/// Which field is which column, in one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// By field: the column, `None` if the table does not have it or nothing reads it.
    columns: Vec<Option<usize>>,
}

/// Reads a delimiter setting: one ASCII character.
pub(crate) fn delimiter(options: &Options<'_>) -> Result<u8> {
    match options.string("delimiter")?.map(str::as_bytes) {
        None => Ok(b','),
        Some(&[byte]) if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(byte),
        Some(_) => Err(options.error(
            "\"delimiter\" must be one ASCII character other than a quote or newline, such as \",\" or \"\\t\"",
        )),
    }
}

impl Csv {
    pub(crate) fn new(config: &Value, ctx: &Context) -> Result<Self> {
        let options = Options::new(
            &ctx.name,
            "format.config of csv",
            config,
            &["headers", "delimiter", "null_values"],
            &["trim"],
        )?;
        check_types(&ctx.name, &ctx.schema)?;
        let nulls = options.strings("null_values")?.unwrap_or_default();
        Ok(Self {
            connector: ctx.name.clone(),
            schema: ctx.schema.clone(),
            declared: ctx.declared.clone(),
            headers: options.bool("headers")?.unwrap_or(true),
            delimiter: delimiter(&options)?,
            nulls: nulls.into_iter().map(String::into_bytes).collect(),
        })
    }

    /// Which field is which column in the file with this header.
    pub(crate) fn layout(&self, name: &str, header: &[u8]) -> Result<Layout> {
        let fields = self.schema.fields();
        if !self.headers {
            if self.declared.is_empty() {
                return Ok(Layout { columns: (0..fields.len()).map(Some).collect() });
            }
            // Those that are neither skipped nor in the schema are made of something else than the fields.
            let place = |column: &Declared| match column.is_skipped {
                true => Some(None),
                false => self.schema.index_of(column.field.name()).ok().map(Some),
            };
            return Ok(Layout { columns: self.declared.iter().filter_map(place).collect() });
        }
        let fail = |message: String| ConnectorError::new(&self.connector, format!("{name}: {message}"));
        let header = header.strip_prefix(b"\xef\xbb\xbf").unwrap_or(header);
        let mut names: Vec<String> = Vec::new();
        let mut arena = Vec::new();
        self.fields(header, 0, &mut arena, |_, _, text| {
            names.push(String::from_utf8_lossy(text).trim().to_owned());
        })
        .map_err(|e| fail(format!("its header does not parse: {e}; it is: {}", excerpt(header))))?;
        let mut columns: Vec<Option<usize>> = vec![None; names.len()];
        for (i, field) in fields.iter().enumerate() {
            let name = field.name();
            let found = names.iter().position(|n| n == name);
            let found = found.or_else(|| names.iter().position(|n| n.to_lowercase() == name.to_lowercase()));
            match found.and_then(|at| columns.get_mut(at)) {
                Some(place @ None) => *place = Some(i),
                Some(Some(_)) => return Err(fail(format!("two columns of the table are named like {name}"))),
                None if field.is_nullable() => {}
                None => {
                    let known: Vec<&str> = names.iter().map(String::as_str).collect();
                    let message = format!(
                        "its header has no column {name}, which is NOT NULL in the table; {}. Without a header line, set \"headers\": false",
                        suggestion(name, &known)
                    );
                    return Err(fail(message));
                }
            }
        }
        if !fields.is_empty() && columns.iter().all(Option::is_none) {
            let message = format!(
                "its header has none of the table's columns ({}); without a header line, set \"headers\": false; it is: {}",
                fields.iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", "),
                excerpt(header)
            );
            return Err(fail(message));
        }
        Ok(Layout { columns })
    }

    /// Parses records.
    pub(crate) fn parse(&self, layout: &Layout, block: &[u8], base: u64, records: &[Record]) -> Result<Parsed> {
        let mut cells = Cells::new(block, self.schema.fields().len(), records.len());
        let mut arena = Vec::new();
        for (row, record) in records.iter().enumerate() {
            if record.broken {
                cells.mark(row, "a quoted field is never closed".to_owned());
                continue;
            }
            let text = block.get(record.start..record.text_end).unwrap_or_default();
            let put = |i: usize, cell: Cell, _: &[u8]| {
                if let Some(Some(column)) = layout.columns.get(i) {
                    cells.set(*column, row, cell);
                }
            };
            match self.fields(text, record.start, &mut arena, put) {
                Err(e) => cells.mark(row, e),
                Ok(n) if n != layout.columns.len() => {
                    let whose = if self.headers { "the header" } else { "the table" };
                    cells.mark(row, format!("it has {n} fields, {whose} has {}", layout.columns.len()));
                }
                Ok(_) => {}
            }
        }
        cells.arena = arena;
        finish(&self.connector, cells, &self.schema, &self.nulls, base, records, None)
    }

    /// Calls `put` with each field of a record: its number, cell and text. Gives their count.
    fn fields(
        &self,
        text: &[u8],
        base: usize,
        arena: &mut Vec<u8>,
        mut put: impl FnMut(usize, Cell, &[u8]),
    ) -> Result<usize, String> {
        let mut at = 0;
        let mut count = 0;
        loop {
            let rest = text.get(at..).unwrap_or_default();
            let len;
            if rest.first() == Some(&b'"') {
                let close = closing_quote(rest, 1).ok_or("a quoted field is never closed")?;
                let inner = rest.get(1..close).unwrap_or_default();
                if memchr(b'"', inner).is_some() {
                    let start = arena.len();
                    let mut piece = inner;
                    while let Some(i) = memchr(b'"', piece) {
                        arena.extend_from_slice(piece.get(..=i).unwrap_or_default());
                        piece = piece.get(i + 2..).unwrap_or_default();
                    }
                    arena.extend_from_slice(piece);
                    let text = arena.get(start..).unwrap_or_default();
                    put(count, Cell::new(Kind::Quoted, true, start, arena.len()), text);
                } else {
                    put(count, Cell::new(Kind::Quoted, false, base + at + 1, base + at + close), inner);
                }
                len = close + 1;
                if rest.get(len).is_some_and(|b| *b != self.delimiter) {
                    return Err(format!("field {} has text behind its closing quote", count + 1));
                }
            } else {
                len = memchr(self.delimiter, rest).unwrap_or(rest.len());
                let field = rest.get(..len).unwrap_or_default();
                put(count, Cell::new(Kind::Plain, false, base + at, base + at + len), field);
            }
            count += 1;
            at += len;
            if at >= text.len() {
                return Ok(count);
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use serde_json::json;

    use super::super::split;
    use super::*;

    /// A table `a BIGINT, b BIGINT NOT NULL, c VARCHAR` of which `b` is skipped.
    fn skipping() -> Context {
        let [a, b, c] = [
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Int64, false),
            Field::new("c", DataType::Utf8, true),
        ]
        .map(Arc::new);
        let schema = Arc::new(Schema::new(vec![Arc::clone(&a), Arc::clone(&c)]));
        let declared = [(a, false), (b, true), (c, false)].map(|(field, is_skipped)| Declared { field, is_skipped });
        Context { declared: declared.to_vec(), ..Context::of_format("t.c".to_owned(), &schema) }
    }

    fn parsed(config: &Value, header: &str, text: &str) -> Parsed {
        let csv = Csv::new(config, &skipping()).unwrap();
        let mut records = Vec::new();
        let framing = split::Framing::Quoted(csv.delimiter);
        split::split(text.as_bytes(), 0, framing, true, usize::MAX, &mut records).unwrap();
        let layout = csv.layout("f.csv", header.as_bytes()).unwrap();
        csv.parse(&layout, text.as_bytes(), 0, &records).unwrap()
    }

    fn expected() -> [ArrayRef; 2] {
        [Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec!["x", "y"]))]
    }

    #[test]
    fn skipped_columns_are_not_parsed() {
        for (header, text) in [("c,b,a", "x,no number,1\n\"y\",,2\n"), ("c,a", "x,1\ny,2\n")] {
            let parsed = parsed(&json!({}), header, text);
            assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
            assert_eq!(parsed.rows.columns(), expected());
        }
    }

    #[test]
    fn without_a_header_they_have_their_places() {
        let parsed = parsed(&json!({"headers": false}), "", "1,no number,x\n2,,y\n3,z\n");
        assert_eq!(parsed.rows.columns(), expected());
        let errors: Vec<String> = parsed.errors.iter().map(|e| e.message.clone()).collect();
        assert_eq!(errors, ["it has 2 fields, the table has 3; in: 3,z"]);
    }
}
