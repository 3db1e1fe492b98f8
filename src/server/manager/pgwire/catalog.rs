//! `pg_catalog` and `information_schema`, as far as clients ask for them when they connect and show what there is.
//!
//! The relations are made anew for each query, from the pipeline's program, and the query runs over them as any other does, in
//! a circuit of its own; [`dialect`](super::dialect) makes our SQL of it. What PostgreSQL has and pipelines have not (indexes, policies, …) is there, and empty.
//!
//! It runs in a process of the [`compiler`](super::super::compiler)'s, since a query without FROM may compute anything.
//!
//! Known limits: no more columns than psql, psycopg and Grafana's data source ask for. A query reads the catalog or the pipeline, not both.

mod relations;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow_pg::datatypes::into_pg_type;
use datafusion_sql::sqlparser::tokenizer::Token;
use pgwire::api::Type;
use pgwire::error::{PgWireError, PgWireResult};

use super::super::compiler::child::Refusal;
use super::super::program::{Column, Relation};
use super::statement::{Statement, word};
use super::{dialect, error};
use crate::pipeline::answer::{Format, write};
use crate::pipeline::query::answer_over;
use crate::sql::quoted_text;

/// What clients are told that they talk to: they choose their catalog queries by it.
pub(super) const SERVER_VERSION: &str = "15.0";
/// Who owns everything.
pub(super) const USER: &str = "backstay";

/// Words and signs of a query of the catalog, and parentheses around one of them: what is made of it is made recursively, before the parser looks.
const MOST_TOKENS: usize = 5_000;
const MOST_DEPTH: usize = 100;

fn depth(tokens: &[(Token, Range<usize>)]) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for (token, _) in tokens {
        match token {
            Token::LParen => now += 1,
            Token::RParen => now = now.saturating_sub(1),
            _ => {}
        }
        most = most.max(now);
    }
    most
}

/// Whether a statement reads the catalog.
pub(super) fn is_asked(tokens: &[(Token, Range<usize>)]) -> bool {
    let is_schema = |word: &str| matches!(word, "pg_catalog" | "information_schema");
    tokens.iter().filter_map(|(token, _)| word(token)).any(|word| is_schema(&word) || relations::is_known(&word))
}

/// A setting's value.
pub(super) fn setting(name: &str) -> Option<&'static str> {
    SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

const SETTINGS: [(&str, &str); 18] = [
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, YMD"),
    ("default_transaction_read_only", "on"),
    ("extra_float_digits", "1"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("lc_collate", "C"),
    ("max_identifier_length", "63"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "150000"),
    ("standard_conforming_strings", "on"),
    ("timezone", "UTC"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
];

/// What `version()` says.
pub(super) fn version() -> String {
    format!("PostgreSQL {SERVER_VERSION} (Backstay {})", env!("CARGO_PKG_VERSION"))
}

/// Types by what `format_type` calls them.
const TYPES: [(Type, &str); 14] = [
    (Type::BOOL, "boolean"),
    (Type::INT2, "smallint"),
    (Type::INT4, "integer"),
    (Type::INT8, "bigint"),
    (Type::FLOAT4, "real"),
    (Type::FLOAT8, "double precision"),
    (Type::NUMERIC, "numeric"),
    (Type::TEXT, "text"),
    (Type::BYTEA, "bytea"),
    (Type::DATE, "date"),
    (Type::TIME, "time without time zone"),
    (Type::TIMESTAMP, "timestamp without time zone"),
    (Type::TIMESTAMPTZ, "timestamp with time zone"),
    (Type::INTERVAL, "interval"),
];

/// `format_type` of an expression that is a type's oid.
pub(super) fn format_type(oid: &str) -> String {
    let arms: String = TYPES.iter().map(|(t, name)| format!(" WHEN {} THEN {}", t.oid(), quoted_text(name))).collect();
    format!("(CASE {oid}{arms} ELSE 'text' END)")
}

/// A column's type; what clients see as JSON is text.
fn type_of(column: &Column) -> Type {
    let data_type = column.data_type.parse::<DataType>().ok();
    data_type
        .and_then(|t| into_pg_type(&t).ok())
        .filter(|t| TYPES.iter().any(|(known, _)| known == t))
        .unwrap_or(Type::TEXT)
}

/// The rows of a query of the catalog of a pipeline with these relations, as Arrow's stream.
///
/// # Errors
/// It is wrong, or asks for more than there is.
pub(in crate::server::manager) fn answer(
    database: &str,
    sql: &str,
    relations: &[Relation],
) -> Result<Vec<u8>, Refusal> {
    let failed = |e: &dyn std::fmt::Display| Refusal { state: "XX000".to_owned(), message: e.to_string() };
    let rows = rows(database, sql, relations).map_err(|e| match e {
        PgWireError::UserError(info) => Refusal { state: info.code.clone(), message: info.message.clone() },
        other => failed(&other),
    })?;
    let mut stream = Vec::new();
    write(&rows, Format::Arrow, &mut stream).map_err(|e| failed(&e))?;
    Ok(stream)
}

fn rows(database: &str, sql: &str, relations: &[Relation]) -> PgWireResult<RecordBatch> {
    let statement = Statement::split(sql)?.into_iter().next().ok_or_else(|| error("42601", "there is no query"))?;
    if statement.tokens.len() > MOST_TOKENS || depth(&statement.tokens) > MOST_DEPTH {
        return Err(error("54001", "this query of the catalog is too long or too deep"));
    }
    if statement.tokens.iter().filter_map(|(token, _)| word(token)).any(|w| relations::NOTHING.contains(&w.as_str())) {
        return Ok(RecordBatch::new_empty(Arc::new(Schema::new(vec![Field::new("nothing", DataType::Utf8, true)]))));
    }
    let sql = dialect::translate(&statement, database);
    let relations = relations::all(database, relations).map_err(|e| error("XX000", e.to_string()))?;
    answer_over(&sql, &relations).map(|answer| answer.rows).map_err(|e| error("42000", e.to_string()))
}
