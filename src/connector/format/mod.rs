//! Formats: bytes to rows ([`csv`], [`json`], [`raw`]) and rows to bytes ([`render`], [`message`]).
//!
//! Parsing is columnar: a block of bytes is [`split`] into records, the records into [`cell`]s (spans of text) by column, and each
//! column is parsed in one loop of its own type. A cell that does not parse spoils its own record only, which is one row, or two (an
//! update of Debezium's), or many (the lines of one message).

mod avro;
pub(crate) mod cell;
pub(crate) mod columns;
pub(crate) mod csv;
mod debezium;
pub(crate) mod document;
pub(crate) mod json;
pub(crate) mod message;
mod nested;
pub(crate) mod parquet;
pub(crate) mod raw;
pub(crate) mod render;
mod scan;
pub(crate) mod split;
pub(crate) mod text;

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;

use super::config::FormatConfig;
use super::options::suggestion;
use super::{Chunk, ConnectorError, Context, Identity, Result, RowError};
use split::{Framing, Record};

/// Rows of one block.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// The good rows.
    pub(crate) rows: RecordBatch,
    /// Their weights, if not all 1.
    pub(crate) weights: Option<Vec<i64>>,
    /// For each good row, the offset after its record. Rows of one record have the same.
    pub(crate) ends: Vec<u64>,
    /// The others.
    pub(crate) errors: Vec<RowError>,
}

impl Parsed {
    /// Takes out the rows that `keep` says false of.
    pub(crate) fn keep(&mut self, connector: &str, keep: &[bool]) -> Result<()> {
        self.rows = filter_record_batch(&self.rows, &BooleanArray::from(keep.to_vec()))
            .map_err(|e| ConnectorError::new(connector, format!("rows cannot be taken out: {e}")))?;
        let mut kept = keep.iter();
        self.ends.retain(|_| kept.next().is_none_or(|k| *k));
        let mut kept = keep.iter();
        if let Some(weights) = &mut self.weights {
            weights.retain(|_| kept.next().is_none_or(|k| *k));
        }
        Ok(())
    }

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
    /// One column of bytes.
    Raw(raw::Raw),
    /// A record of Avro's a message.
    Avro(Box<avro::Avro>),
}

impl Format {
    /// The format of an input connector.
    pub(crate) fn new(config: Option<&FormatConfig>, ctx: &Context) -> Result<Self> {
        let names = ["csv", "json", "raw", "avro", "parquet"];
        let Some(config) = config else {
            let message = "a \"format\" is missing: {\"name\": \"csv\"}, {\"name\": \"json\"} or {\"name\": \"raw\"}";
            return Err(ConnectorError::new(&ctx.name, message));
        };
        match config.name.as_str() {
            "csv" => Ok(Self::Csv(csv::Csv::new(&config.config, ctx)?)),
            "json" => Ok(Self::Json(json::Json::new(&config.config, ctx)?)),
            "raw" => Ok(Self::Raw(raw::Raw::new(&config.config, ctx)?)),
            "avro" => Ok(Self::Avro(Box::new(avro::Avro::new(&config.config, ctx)?))),
            "parquet" => {
                let message = "the format \"parquet\" is one of files: of file_input, url_input and s3_input";
                Err(ConnectorError::new(&ctx.name, message))
            }
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

    /// How [`split`] finds the records of a file.
    pub(crate) fn framing(&self) -> Framing {
        match self {
            Self::Csv(csv) => Framing::Quoted(csv.delimiter),
            Self::Json(_) => Framing::Lines,
            Self::Raw(raw) => raw.framing(),
            Self::Avro(_) => Framing::Whole,
        }
    }

    /// What stands where in the records of the content of this name whose header is `header` (empty if there is none).
    pub(crate) fn layout(&self, name: &str, header: &[u8]) -> Result<csv::Layout> {
        match self {
            Self::Csv(csv) => csv.layout(name, header),
            Self::Json(_) | Self::Raw(_) | Self::Avro(_) => Ok(csv::Layout::default()),
        }
    }

    /// Parses records of `block`, which begins at `base` in its file.
    pub(crate) fn parse(&self, layout: &csv::Layout, block: &[u8], base: u64, records: &[Record]) -> Result<Parsed> {
        match self {
            Self::Csv(csv) => csv.parse(layout, block, base, records),
            Self::Json(json) => json.parse(block, base, records),
            Self::Raw(raw) => raw.parse(block, base, records),
            Self::Avro(avro) => avro.parse(block, base, records),
        }
    }
}
