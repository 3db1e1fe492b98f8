//! Formats: bytes to rows ([`csv`], [`json`]) and rows to bytes ([`render`]).
//!
//! Parsing is columnar: a block of bytes is [`split`] into records, the records into [`cell`]s (spans of text) by column, and each
//! column is parsed in one loop of its own type. A cell that does not parse spoils its own row only.

pub(crate) mod cell;
pub(crate) mod csv;
pub(crate) mod document;
pub(crate) mod json;
pub(crate) mod message;
mod nested;
pub(crate) mod render;
mod scan;
pub(crate) mod split;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::config::FormatConfig;
use super::options::suggestion;
use super::{Chunk, ConnectorError, Context, Identity, Result, RowError};
use split::Record;

/// Rows of one block.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// The good rows.
    pub(crate) rows: RecordBatch,
    /// Their weights, if not all 1.
    pub(crate) weights: Option<Vec<i64>>,
    /// For each good row, the offset after its record.
    pub(crate) ends: Vec<u64>,
    /// The others.
    pub(crate) errors: Vec<RowError>,
}

impl Parsed {
    /// The chunk of a partition that these rows are, for the offsets from `start` to `end`.
    pub(crate) fn into_chunk(
        self,
        partition: Arc<str>,
        (start, end): (u64, u64),
        identity: Arc<dyn Identity>,
    ) -> Chunk {
        let Self { rows, weights, ends, errors } = self;
        Chunk { partition, start, end, rows, weights, ends, errors, identity }
    }
}

/// How the bytes of input files are rows.
#[derive(Debug)]
pub(crate) enum Format {
    /// Comma-separated values.
    Csv(csv::Csv),
    /// One JSON document a line.
    Json(json::Json),
}

impl Format {
    /// The format of an input connector.
    pub(crate) fn new(config: Option<&FormatConfig>, ctx: &Context) -> Result<Self> {
        let names = ["csv", "json"];
        let Some(config) = config else {
            let message = "a \"format\" is missing: {\"name\": \"csv\"} or {\"name\": \"json\"}";
            return Err(ConnectorError::new(&ctx.name, message));
        };
        match config.name.as_str() {
            "csv" => Ok(Self::Csv(csv::Csv::new(&config.config, ctx)?)),
            "json" => Ok(Self::Json(json::Json::new(&config.config, ctx)?)),
            other => {
                let message = format!("there is no input format \"{other}\"; {}", suggestion(other, &names));
                Err(ConnectorError::new(&ctx.name, message))
            }
        }
    }

    /// Whether a file begins with a record that names its columns.
    pub(crate) fn has_header(&self) -> bool {
        matches!(self, Self::Csv(csv) if csv.headers)
    }

    /// The delimiter for [`split`], which also means that records have quoted fields.
    pub(crate) fn delimiter(&self) -> Option<u8> {
        match self {
            Self::Csv(csv) => Some(csv.delimiter),
            Self::Json(_) => None,
        }
    }

    /// What stands where in the records of the file whose header is `header` (empty if files have none).
    pub(crate) fn layout(&self, file: &Path, header: &[u8]) -> Result<csv::Layout> {
        match self {
            Self::Csv(csv) => csv.layout(file, header),
            Self::Json(_) => Ok(csv::Layout::default()),
        }
    }

    /// Parses records of `block`, which begins at `base` in its file.
    pub(crate) fn parse(&self, layout: &csv::Layout, block: &[u8], base: u64, records: &[Record]) -> Result<Parsed> {
        match self {
            Self::Csv(csv) => csv.parse(layout, block, base, records),
            Self::Json(json) => json.parse(block, base, records),
        }
    }
}
