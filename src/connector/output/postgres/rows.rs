//! A delta's rows as lines of PostgreSQL's text format for COPY: fields between tabs, `\N` for NULL.
//!
//! Each column is rendered in one loop of its type, by [`column`]; what that leaves to escape is escaped here.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;

use super::types::Form;
use crate::connector::Result;
use crate::connector::format::text::{Quoting, Texts, column};

/// The rows' fields, by column.
#[derive(Debug)]
pub(super) struct Rows {
    fields: Vec<Column>,
    /// The key's columns with their names.
    key: Vec<(usize, String)>,
}

#[derive(Debug)]
struct Column {
    texts: Vec<String>,
}

const NULL: &str = "\\N";

impl Rows {
    /// Renders `batch`, each column in its form; `key` are the columns of the key, if there is one.
    pub(super) fn new(connector: &str, batch: &RecordBatch, forms: &[Form], key: &[usize]) -> Result<Self> {
        let fields = batch
            .columns()
            .iter()
            .zip(forms)
            .map(|(array, form)| render(connector, array, *form).map(|texts| Column { texts }))
            .collect::<Result<_>>()?;
        let name = |&i: &usize| (i, batch.schema_ref().fields().get(i).map(|f| f.name().clone()).unwrap_or_default());
        Ok(Self { fields, key: key.iter().map(name).collect() })
    }

    pub(super) fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    fn field(&self, column: usize, row: usize) -> &str {
        self.fields.get(column).and_then(|c| c.texts.get(row)).map_or("", String::as_str)
    }

    /// A row's fields.
    pub(super) fn row(&self, row: usize) -> String {
        let mut out = String::with_capacity(self.fields.len() * 8);
        for column in 0..self.fields.len() {
            if column > 0 {
                out.push('\t');
            }
            out.push_str(self.field(column, row));
        }
        out
    }

    /// A row's key, equal for equal keys only. `Err`: it is NULL, which no row could be found by.
    pub(super) fn key(&self, row: usize) -> std::result::Result<String, String> {
        let mut key = String::new();
        for (column, name) in &self.key {
            let field = self.field(*column, row);
            if field == NULL {
                return Err(format!(
                    "column {name} of the key is NULL in a row of the view, {}, and no row can be found by that; filter such rows out, or \
                     choose other \"key\" columns",
                    self.name_key(row)
                ));
            }
            key.push_str(field);
            key.push('\t');
        }
        Ok(key)
    }

    /// The key for people to read.
    pub(super) fn name_key(&self, row: usize) -> String {
        let part = |(column, name): &(usize, String)| match self.field(*column, row) {
            NULL => format!("{name} = NULL"),
            text => format!("{name} = {text}"),
        };
        self.key.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

/// The fields of one column.
fn render(connector: &str, array: &dyn Array, form: Form) -> Result<Vec<String>> {
    let is_binary = array.data_type() == &DataType::Binary;
    let escapes = is_binary
        || form != Form::Plain
        || matches!(array.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let texts = column(connector, array, Quoting::Raw)?;
    let items = match form {
        Form::Array => Some(column(connector, array.as_list::<i32>().values(), Quoting::Raw)?),
        Form::Plain | Form::Document => None,
    };
    let field = |row: usize| {
        if array.is_null(row) {
            return NULL.to_owned();
        }
        match &items {
            Some(items) => escape(&array_text(array, row, items)),
            None if is_binary => escape(&format!("\\x{}", texts.get(row))),
            None if escapes => escape(texts.get(row)),
            None => texts.get(row).to_owned(),
        }
    };
    Ok((0..array.len()).map(field).collect())
}

/// A list as PostgreSQL writes arrays: `{1,NULL,"a \"b\""}`.
fn array_text(array: &dyn Array, row: usize, items: &Texts) -> String {
    let list = array.as_list::<i32>();
    let values = list.values();
    let is_binary = values.data_type() == &DataType::Binary;
    let at = |i: usize| list.value_offsets().get(i).map_or(0, |&offset| offset as usize);
    let mut out = String::from("{");
    for item in at(row)..at(row + 1) {
        if out.len() > 1 {
            out.push(',');
        }
        if values.is_null(item) {
            out.push_str("NULL");
            continue;
        }
        out.push('"');
        if is_binary {
            out.push_str("\\\\x");
        }
        for c in items.get(item).chars() {
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push('}');
    out
}

/// Text with what COPY's format has a meaning for escaped.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out
}
