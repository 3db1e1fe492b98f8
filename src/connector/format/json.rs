//! Newline-delimited JSON: one document a line.
//!
//! Settings: `update_format`: `insert_delete` (the default: a line is `{"insert": {…row…}}` or `{"delete": {…row…}}`), `raw` (a line is a
//! row, inserted) or [`debezium`]; `json_flavor`: what numbers mean where a date or time is wanted ([`Flavor`]). A row's keys are matched to the table's columns whatever their case, an exact match first; other keys
//! are passed over, and where a key stands twice, the last one counts. Numbers may stand in strings.
//!
//! A table with a primary key is deleted from by key: such a row needs the key's columns only, others that are NOT NULL, and missing or null, are
//! filled with their type's zero.

use arrow::datatypes::SchemaRef;
use serde_json::Value;

use super::Parsed;
use super::cell::{Cell, Cells, Flavor, Kind, check_types, finish};
use super::debezium;
use super::scan::Scan;
use super::split::Record;
use crate::connector::options::Options;
use crate::connector::{Context, Result};

/// How a line says what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpdateFormat {
    /// A line is a row.
    Raw,
    /// A line is `{"insert": row}` or `{"delete": row}`.
    InsertDelete,
    /// A line is `{"before": row, "after": row, "op": …}`.
    Debezium,
}

impl UpdateFormat {
    /// Reads the setting.
    pub(crate) fn new(options: &Options<'_>) -> Result<Self> {
        let names = ["insert_delete", "raw", "debezium"];
        match options.string("update_format")? {
            None | Some("insert_delete") => Ok(Self::InsertDelete),
            Some("raw") => Ok(Self::Raw),
            Some("debezium") => Ok(Self::Debezium),
            Some(other @ ("snowflake" | "weighted" | "redis")) => Err(options.error(format!(
                "\"update_format\": \"{other}\" is not supported yet; there are: {}",
                names.join(", ")
            ))),
            Some(other) => Err(options.unknown("update_format", other, &names)),
        }
    }
}

/// The settings of JSON input.
#[derive(Debug)]
pub(crate) struct Json {
    pub(super) connector: String,
    pub(super) schema: SchemaRef,
    pub(super) primary_key: Vec<usize>,
    pub(super) append_only: bool,
    pub(super) flavor: Flavor,
    update_format: UpdateFormat,
}

fn flavor(options: &Options<'_>) -> Result<Flavor> {
    let names = ["default", "debezium_postgres", "debezium_mysql"];
    match options.string("json_flavor")? {
        None | Some("default") => Ok(Flavor::Default),
        Some("debezium_postgres") => Ok(Flavor::DebeziumPostgres),
        Some("debezium_mysql") => Ok(Flavor::DebeziumMysql),
        Some(other @ ("snowflake" | "kafka_connect_json_converter" | "pandas" | "blockchain" | "c_hex")) => {
            Err(options
                .error(format!("\"json_flavor\": \"{other}\" is not supported yet; there are: {}", names.join(", "))))
        }
        Some(other) => Err(options.unknown("json_flavor", other, &names)),
    }
}

impl Json {
    pub(crate) fn new(config: &Value, ctx: &Context) -> Result<Self> {
        let (known, later) = (["update_format", "json_flavor"], ["array", "lines"]);
        let options = Options::new(&ctx.name, "format.config of json", config, &known, &later)?;
        check_types(&ctx.name, &ctx.schema)?;
        Ok(Self {
            connector: ctx.name.clone(),
            schema: ctx.schema.clone(),
            primary_key: ctx.primary_key.clone(),
            append_only: ctx.append_only,
            flavor: flavor(&options)?,
            update_format: UpdateFormat::new(&options)?,
        })
    }

    /// Parses records.
    pub(crate) fn parse(&self, block: &[u8], base: u64, records: &[Record]) -> Result<Parsed> {
        if self.update_format == UpdateFormat::Debezium {
            return debezium::parse(self, block, base, records);
        }
        let mut cells = Cells::new(block, self.schema.fields().len(), records.len());
        cells.is_json = true;
        cells.flavor = self.flavor;
        let mut arena = Vec::new();
        let mut weights = vec![1; records.len()];
        for (row, (record, weight)) in records.iter().zip(&mut weights).enumerate() {
            let text = block.get(..record.text_end).unwrap_or_default();
            let mut scan = Scan::new(text, record.start, &mut arena);
            match self.record(&mut scan, row, &mut cells) {
                Ok(w) => *weight = w,
                Err(e) => {
                    cells.mark(row, format!("not JSON as expected, at byte {}: {e}", e.at.saturating_sub(record.start)))
                }
            }
            if *weight < 0 && !self.primary_key.is_empty() {
                self.fill(row, &mut cells);
            }
        }
        cells.arena = arena;
        let weights = weights.contains(&-1).then_some(weights);
        finish(&self.connector, cells, &self.schema, &[], base, records, weights)
    }

    /// Reads one line; gives its weight.
    fn record(&self, scan: &mut Scan<'_>, row: usize, cells: &mut Cells<'_>) -> Result<i64, super::scan::Error> {
        let weight = match self.update_format {
            UpdateFormat::Raw | UpdateFormat::Debezium => {
                self.row(scan, row, cells)?;
                1
            }
            UpdateFormat::InsertDelete => {
                scan.open(b'{', "{\"insert\": {…}} or {\"delete\": {…}}")?;
                let key = scan.key()?;
                let weight = match scan.text(&key) {
                    b"insert" => 1,
                    b"delete" if self.append_only => {
                        return Err(scan.error("a delete, but the table is append-only".to_owned()));
                    }
                    b"delete" => -1,
                    other => {
                        let other = String::from_utf8_lossy(other).into_owned();
                        return Err(scan.error(format!("expected \"insert\" or \"delete\", got \"{other}\"")));
                    }
                };
                self.row(scan, row, cells)?;
                scan.close()?;
                weight
            }
        };
        scan.end()?;
        Ok(weight)
    }

    /// Reads one row's object.
    pub(super) fn row(&self, scan: &mut Scan<'_>, row: usize, cells: &mut Cells<'_>) -> Result<(), super::scan::Error> {
        scan.open(b'{', "an object")?;
        if scan.empty(b'}') {
            return Ok(());
        }
        let mut expected = 0;
        loop {
            let key = scan.key()?;
            let column = self.column(scan.text(&key), expected);
            let value = scan.value()?;
            if let Some(column) = column {
                cells.set(column, row, value);
                expected = column + 1;
            }
            if !scan.more()? {
                return Ok(());
            }
        }
    }

    /// The column that a key names. Keys mostly come in the columns' order, so the one behind the last is looked at first.
    fn column(&self, key: &[u8], expected: usize) -> Option<usize> {
        let fields = self.schema.fields();
        if fields.get(expected).is_some_and(|f| f.name().as_bytes() == key) {
            return Some(expected);
        }
        let exact = fields.iter().position(|f| f.name().as_bytes() == key);
        exact.or_else(|| fields.iter().position(|f| f.name().as_bytes().eq_ignore_ascii_case(key)))
    }

    /// Fills what a delete by key need not have.
    pub(super) fn fill(&self, row: usize, cells: &mut Cells<'_>) {
        for (i, field) in self.schema.fields().iter().enumerate() {
            let is_open = matches!(cells.get(i, row).kind, Kind::Missing | Kind::Null);
            if is_open && !field.is_nullable() && !self.primary_key.contains(&i) {
                cells.set(i, row, Cell { kind: Kind::Default, ..Cell::MISSING });
            }
        }
    }
}
