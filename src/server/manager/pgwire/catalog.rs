//! `pg_catalog` and `information_schema`, as far as clients ask for them when they connect and show what there is.
//!
//! The relations are made anew for each query, from the pipeline's program, and the query runs over them as any other does, in
//! a circuit of its own; [`dialect`](super::dialect) makes our SQL of it. What PostgreSQL has and pipelines have not (indexes, policies, …) is there, and empty.
//!
//! Known limits: it runs in the service's own process, and takes the memory that it takes there; no more columns than psql, psycopg and Grafana were seen to ask for. A query reads the catalog or the pipeline, not both.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_pg::datatypes::into_pg_type;
use datafusion_sql::sqlparser::tokenizer::Token;
use pgwire::api::Type;
use pgwire::error::PgWireResult;

use super::super::managed::Managed;
use super::statement::{Statement, word};
use super::{dialect, error};
use crate::pipeline::query::answer_over;
use crate::sql::Program;

/// What clients are told that they talk to: they choose their catalog queries by it.
pub(super) const SERVER_VERSION: &str = "15.0";
/// Who owns everything.
pub(super) const USER: &str = "backstay";

/// The oid of the schema `public`.
const PUBLIC: i64 = 2200;
const PG_CATALOG: i64 = 11;
const INFORMATION_SCHEMA: i64 = 13000;
/// The oid of the first relation.
const FIRST_RELATION: i64 = 16384;

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

/// What queries are about.
pub(super) struct About<'a> {
    /// The pipeline's name.
    pub database: &'a str,
}

/// Whether a statement reads the catalog.
pub(super) fn is_asked(tokens: &[(Token, Range<usize>)]) -> bool {
    tokens.iter().filter_map(|(token, _)| word(token)).any(|w| {
        matches!(w.as_str(), "pg_catalog" | "information_schema")
            || EMPTY.iter().any(|(name, _)| *name == w)
            || NOTHING.contains(&w.as_str())
            || matches!(
                w.as_str(),
                "pg_class"
                    | "pg_namespace"
                    | "pg_attribute"
                    | "pg_type"
                    | "pg_database"
                    | "pg_settings"
                    | "pg_roles"
                    | "pg_tables"
                    | "pg_views"
                    | "pg_matviews"
            )
    })
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

/// A text as a literal.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
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
    let arms: String = TYPES.iter().map(|(t, name)| format!(" WHEN {} THEN {}", t.oid(), quoted(name))).collect();
    format!("(CASE {oid}{arms} ELSE 'text' END)")
}

/// A column's type; what clients see as JSON is text.
fn type_of(data_type: &DataType) -> Type {
    into_pg_type(data_type).ok().filter(|t| TYPES.iter().any(|(known, _)| known == t)).unwrap_or(Type::TEXT)
}

/// The rows of a query of the catalog.
///
/// # Errors
/// It is wrong, or asks for more than there is.
pub(super) fn answer(managed: &Managed, sql: &str) -> PgWireResult<RecordBatch> {
    let name = managed.name();
    let statement = Statement::split(sql)?.into_iter().next().ok_or_else(|| error("42601", "there is no query"))?;
    if statement.tokens.len() > MOST_TOKENS || depth(&statement.tokens) > MOST_DEPTH {
        return Err(error("54001", "this query of the catalog is too long or too deep"));
    }
    if statement.tokens.iter().filter_map(|(token, _)| word(token)).any(|w| NOTHING.contains(&w.as_str())) {
        return Ok(RecordBatch::new_empty(Arc::new(Schema::new(vec![Field::new("nothing", DataType::Utf8, true)]))));
    }
    let sql = dialect::translate(&statement, &About { database: &name });
    let compiled = managed.compiled();
    let relations = relations(&name, compiled.program()).map_err(|e| error("XX000", e.to_string()))?;
    answer_over(&sql, &relations).map(|answer| answer.rows).map_err(|e| error("42000", e.to_string()))
}

/// A value of the catalog.
#[derive(Clone, Debug)]
enum Value {
    Int(i64),
    Text(String),
    Bool(bool),
    Null,
}

/// A column's type.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Int,
    Text,
    Bool,
}

use Kind::{Bool as B, Int as I, Text as T};

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

type Columns<'a> = &'a [(&'a str, Kind)];

/// What pipelines have none of, and clients ask for in queries that only PostgreSQL can run: there are no rows.
const NOTHING: [&str; 5] = ["pg_policy", "pg_statistic_ext", "pg_publication", "pg_publication_rel", "pg_inherits"];

/// Relations that are always empty.
const EMPTY: [(&str, Columns<'static>); 9] = [
    ("pg_am", &[("oid", I), ("amname", T)]),
    ("pg_attrdef", &[("oid", I), ("adrelid", I), ("adnum", I), ("adbin", T)]),
    ("pg_collation", &[("oid", I), ("collname", T)]),
    (
        "pg_constraint",
        &[
            ("oid", I),
            ("conname", T),
            ("conrelid", I),
            ("conindid", I),
            ("contype", T),
            ("conkey", T),
            ("confrelid", I),
            ("condeferrable", B),
            ("condeferred", B),
        ],
    ),
    ("pg_description", &[("objoid", I), ("classoid", I), ("objsubid", I), ("description", T)]),
    ("pg_enum", &[("oid", I), ("enumtypid", I), ("enumlabel", T)]),
    (
        "pg_index",
        &[
            ("indexrelid", I),
            ("indrelid", I),
            ("indisprimary", B),
            ("indisunique", B),
            ("indisclustered", B),
            ("indisvalid", B),
            ("indisreplident", B),
            ("indkey", T),
        ],
    ),
    ("pg_proc", &[("oid", I), ("proname", T), ("pronamespace", I)]),
    ("pg_range", &[("rngtypid", I), ("rngsubtype", I)]),
];

/// One of the pipeline's relations.
struct Listed<'a> {
    oid: i64,
    name: &'a str,
    columns: &'a Schema,
    /// `r`, `m` or `v`.
    kind: &'static str,
}

fn listed(program: Option<&Program>) -> Vec<Listed<'_>> {
    let Some(program) = program else { return Vec::new() };
    let tables = program.tables.iter().map(|t| (t.name.as_str(), t.schema.as_ref(), "r"));
    let views =
        program.views.iter().map(|v| (v.name.as_str(), v.schema.as_ref(), if v.materialized { "m" } else { "v" }));
    let all = (FIRST_RELATION..).zip(tables.chain(views));
    all.map(|(oid, (name, columns, kind))| Listed { oid, name, columns, kind }).collect()
}

fn relations(
    database: &str,
    program: Option<&Program>,
) -> Result<BTreeMap<String, RecordBatch>, arrow::error::ArrowError> {
    let listed = listed(program);
    let mut all = BTreeMap::new();
    let mut add = |name: &str, columns: Columns<'_>, rows: Vec<Vec<Value>>| {
        batch(columns, &rows).map(|rows| drop(all.insert(name.to_owned(), rows)))
    };
    for (name, columns) in EMPTY {
        add(name, columns, Vec::new())?;
    }
    let schemas = [(PUBLIC, "public"), (PG_CATALOG, "pg_catalog"), (INFORMATION_SCHEMA, "information_schema")];
    add(
        "pg_namespace",
        &[("oid", I), ("nspname", T), ("nspowner", I), ("nspacl", T)],
        schemas.map(|(oid, name)| vec![Value::Int(oid), text(name), Value::Int(10), Value::Null]).to_vec(),
    )?;
    add(
        "schemata",
        &[("catalog_name", T), ("schema_name", T), ("schema_owner", T)],
        schemas.map(|(_, name)| vec![text(database), text(name), text(USER)]).to_vec(),
    )?;
    add(
        "pg_database",
        &[
            ("oid", I),
            ("datname", T),
            ("datdba", I),
            ("encoding", I),
            ("datcollate", T),
            ("datctype", T),
            ("datlocprovider", T),
            ("daticulocale", T),
            ("datacl", T),
            ("datallowconn", B),
            ("datistemplate", B),
        ],
        vec![vec![
            Value::Int(1),
            text(database),
            Value::Int(10),
            Value::Int(6),
            text("C"),
            text("C"),
            text("c"),
            Value::Null,
            Value::Null,
            Value::Bool(true),
            Value::Bool(false),
        ]],
    )?;
    add(
        "pg_roles",
        &[("oid", I), ("rolname", T), ("rolsuper", B)],
        vec![vec![Value::Int(10), text(USER), Value::Bool(false)]],
    )?;
    add(
        "pg_settings",
        &[("name", T), ("setting", T)],
        SETTINGS.map(|(name, value)| vec![text(name), text(value)]).to_vec(),
    )?;
    let types = TYPES.iter().map(|(t, _)| {
        vec![
            Value::Int(t.oid().into()),
            text(t.name()),
            Value::Int(PG_CATALOG),
            text("b"),
            Value::Int(0),
            Value::Int(0),
            Value::Int(0),
            text(","),
            Value::Int(0),
            Value::Bool(false),
            Value::Int(0),
        ]
    });
    add(
        "pg_type",
        &[
            ("oid", I),
            ("typname", T),
            ("typnamespace", I),
            ("typtype", T),
            ("typrelid", I),
            ("typelem", I),
            ("typarray", I),
            ("typdelim", T),
            ("typbasetype", I),
            ("typnotnull", B),
            ("typcollation", I),
        ],
        types.collect(),
    )?;
    let class = |r: &Listed<'_>| {
        let count = i64::try_from(r.columns.fields().len()).unwrap_or(i64::MAX);
        let mut row = vec![
            Value::Int(r.oid),
            text(r.name),
            Value::Int(PUBLIC),
            text(r.kind),
            Value::Int(10),
            text("p"),
            text("d"),
            Value::Int(count),
        ];
        row.extend([Value::Int(0), Value::Int(0), Value::Int(0), Value::Int(0), Value::Int(0), Value::Int(0)]);
        row.extend(std::iter::repeat_n(Value::Bool(false), 6));
        row.extend([Value::Null, Value::Null]);
        row
    };
    add(
        "pg_class",
        &[
            ("oid", I),
            ("relname", T),
            ("relnamespace", I),
            ("relkind", T),
            ("relowner", I),
            ("relpersistence", T),
            ("relreplident", T),
            ("relnatts", I),
            ("relam", I),
            ("reloftype", I),
            ("reltablespace", I),
            ("relchecks", I),
            ("reltoastrelid", I),
            ("reltuples", I),
            ("relhasindex", B),
            ("relhasrules", B),
            ("relhastriggers", B),
            ("relrowsecurity", B),
            ("relforcerowsecurity", B),
            ("relispartition", B),
            ("relpartbound", T),
            ("relacl", T),
        ],
        listed.iter().map(class).collect(),
    )?;
    let attributes = listed.iter().flat_map(|r| r.columns.fields().iter().zip(1..).map(move |(f, n)| (r, f, n)));
    let attribute = |(r, field, number): (&Listed<'_>, &Arc<Field>, i64)| {
        let oid = i64::from(type_of(field.data_type()).oid());
        let mut row = vec![
            Value::Int(r.oid),
            text(field.name()),
            Value::Int(oid),
            Value::Int(number),
            Value::Int(-1),
            Value::Bool(!field.is_nullable()),
        ];
        row.extend([Value::Bool(false), Value::Bool(false), text(""), text(""), Value::Int(0), Value::Int(0)]);
        row
    };
    add(
        "pg_attribute",
        &[
            ("attrelid", I),
            ("attname", T),
            ("atttypid", I),
            ("attnum", I),
            ("atttypmod", I),
            ("attnotnull", B),
            ("atthasdef", B),
            ("attisdropped", B),
            ("attidentity", T),
            ("attgenerated", T),
            ("attcollation", I),
            ("attndims", I),
        ],
        attributes.clone().map(attribute).collect(),
    )?;
    let column = |(r, field, number): (&Listed<'_>, &Arc<Field>, i64)| {
        let t = type_of(field.data_type());
        let name = TYPES.iter().find(|(known, _)| *known == t).map_or("text", |(_, name)| name);
        let nullable = if field.is_nullable() { "YES" } else { "NO" };
        vec![
            text(database),
            text("public"),
            text(r.name),
            text(field.name()),
            Value::Int(number),
            Value::Null,
            text(nullable),
            text(name),
            text(t.name()),
        ]
    };
    add(
        "columns",
        &[
            ("table_catalog", T),
            ("table_schema", T),
            ("table_name", T),
            ("column_name", T),
            ("ordinal_position", I),
            ("column_default", T),
            ("is_nullable", T),
            ("data_type", T),
            ("udt_name", T),
        ],
        attributes.map(column).collect(),
    )?;
    let table = |r: &Listed<'_>| {
        let kind = if r.kind == "r" { "BASE TABLE" } else { "VIEW" };
        vec![text(database), text("public"), text(r.name), text(kind)]
    };
    add(
        "tables",
        &[("table_catalog", T), ("table_schema", T), ("table_name", T), ("table_type", T)],
        listed.iter().map(table).collect(),
    )?;
    for (name, kind, column) in
        [("pg_tables", "r", "tablename"), ("pg_views", "v", "viewname"), ("pg_matviews", "m", "matviewname")]
    {
        let rows = listed.iter().filter(|r| r.kind == kind).map(|r| vec![text("public"), text(r.name)]);
        add(name, &[("schemaname", T), (column, T)], rows.collect())?;
    }
    Ok(all)
}

fn batch(columns: Columns<'_>, rows: &[Vec<Value>]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for (i, (name, kind)) in columns.iter().enumerate() {
        let values = rows.iter().map(|row| row.get(i).unwrap_or(&Value::Null));
        let array: ArrayRef = match kind {
            Kind::Int => {
                Arc::new(values.map(|v| if let Value::Int(n) = v { Some(*n) } else { None }).collect::<Int64Array>())
            }
            Kind::Text => Arc::new(
                values.map(|v| if let Value::Text(t) = v { Some(t.as_str()) } else { None }).collect::<StringArray>(),
            ),
            Kind::Bool => {
                Arc::new(values.map(|v| if let Value::Bool(b) = v { Some(*b) } else { None }).collect::<BooleanArray>())
            }
        };
        fields.push(Field::new(*name, array.data_type().clone(), true));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}
