//! The settings of a `postgres_output`.

use crate::connector::config::ConnectorConfig;
use crate::connector::options::{Options, suggestion};
use crate::connector::postgres::server::{self, Server};
use crate::connector::{Context, Result};

/// Feldera's default of `max_buffer_size_bytes`.
const BUFFER_BYTES: u64 = 1 << 20;

/// How rows come into the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The table holds the view: rows are inserted, updated and deleted by key.
    Materialized,
    /// The table is a log of changes: a row for each.
    Cdc {
        /// The column that takes `i`, `u` or `d`.
        op: String,
        /// The column that takes the time of the transaction.
        ts: String,
        /// The column that takes the step's number, if it is wanted.
        step: Option<String>,
    },
}

/// The settings, checked as far as they can be without the server.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) server: Server,
    /// The table's name as the user wrote it: an SQL name, that may have a schema.
    pub(super) table: String,
    pub(super) mode: Mode,
    /// The columns of the key; empty: the table's primary key.
    pub(super) key: Vec<String>,
    pub(super) max_rows: u64,
    pub(super) max_bytes: u64,
}

const KNOWN: &[&str] = &[
    "table",
    "mode",
    "key",
    "cdc_op_column",
    "cdc_ts_column",
    "cdc_step_column",
    "max_records_in_buffer",
    "max_buffer_size_bytes",
];
const LATER: &[&str] = &["ssl_certificate_chain_location", "on_conflict_do_nothing", "threads", "extra_columns"];

impl Settings {
    pub(super) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let place = "transport.config of postgres_output";
        let known = [KNOWN, &server::KEYS].concat();
        let options = Options::new(&ctx.name, place, &config.transport.config, &known, LATER)?;
        if config.format.is_some() {
            return Err(options.error("postgres_output writes columns, and so has no \"format\"; leave it out"));
        }
        let server = Server::new(&options, ctx)?;
        let table = options.require_string("table")?.to_owned();
        if table.is_empty() {
            return Err(options.error("\"table\" must name a table"));
        }
        let cdc = ["cdc_op_column", "cdc_ts_column", "cdc_step_column"];
        let mode = match options.string("mode")?.unwrap_or("materialized") {
            "materialized" => {
                if let Some(key) = cdc.iter().find(|key| options.value(key).is_some()) {
                    return Err(options.error(format!("\"{key}\" belongs to \"mode\": \"cdc\"")));
                }
                Mode::Materialized
            }
            "cdc" => Mode::Cdc {
                op: options.string("cdc_op_column")?.unwrap_or("__feldera_op").to_owned(),
                ts: options.string("cdc_ts_column")?.unwrap_or("__feldera_ts").to_owned(),
                step: options.string("cdc_step_column")?.map(str::to_owned),
            },
            other => {
                let hint = suggestion(other, &["materialized", "cdc"]);
                return Err(options.error(format!("there is no mode \"{other}\"; {hint}")));
            }
        };
        let key = options.strings("key")?.unwrap_or_default();
        let names: Vec<&str> = ctx.schema.fields().iter().map(|f| f.name().as_str()).collect();
        if let Some(wrong) = key.iter().find(|k| !names.contains(&k.as_str())) {
            return Err(
                options.error(format!("\"key\": the view has no column \"{wrong}\"; {}", suggestion(wrong, &names)))
            );
        }
        Ok(Self {
            server,
            table,
            mode,
            key,
            max_rows: options.u64("max_records_in_buffer")?.unwrap_or(u64::MAX),
            max_bytes: options.u64("max_buffer_size_bytes")?.unwrap_or(BUFFER_BYTES),
        })
    }
}
