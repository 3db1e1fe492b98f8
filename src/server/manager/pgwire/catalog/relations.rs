//! The relations of `pg_catalog` and `information_schema`, made of a pipeline's program.
//!
//! Both schemas' relations have names of their own, so that they stand side by side without a schema here.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;

use super::super::super::program::{Column, Relation, RelationKind};
use super::{SETTINGS, TYPES, USER, type_of};

/// The oid of the schema `public`.
const PUBLIC: i64 = 2200;
const PG_CATALOG: i64 = 11;
const INFORMATION_SCHEMA: i64 = 13000;
/// The oid of the first relation.
const FIRST_RELATION: i64 = 16384;

/// Relations of `pg_catalog` that have rows.
const MADE: [&str; 10] = [
    "pg_class",
    "pg_namespace",
    "pg_attribute",
    "pg_type",
    "pg_database",
    "pg_settings",
    "pg_roles",
    "pg_tables",
    "pg_views",
    "pg_matviews",
];

/// Whether a word is the name of a relation of `pg_catalog`.
pub(super) fn is_known(word: &str) -> bool {
    MADE.contains(&word) || NOTHING.contains(&word) || EMPTY.iter().any(|(name, _)| *name == word)
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
pub(super) const NOTHING: [&str; 5] =
    ["pg_policy", "pg_statistic_ext", "pg_publication", "pg_publication_rel", "pg_inherits"];

/// Relations that are always empty.
const EMPTY: [(&str, Columns<'static>); 10] = [
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
    ("pg_extension", &[("oid", I), ("extname", T), ("extversion", T)]),
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
    columns: &'a [Column],
    /// `r`, `m` or `v`.
    kind: &'static str,
}

fn listed(relations: &[Relation]) -> Vec<Listed<'_>> {
    let kind = |relation: &Relation| match relation.kind {
        RelationKind::Table => "r",
        RelationKind::View => "v",
        RelationKind::MaterializedView => "m",
    };
    let all = (FIRST_RELATION..).zip(relations);
    all.map(|(oid, r)| Listed { oid, name: &r.name, columns: &r.columns, kind: kind(r) }).collect()
}

/// Relations by name.
#[derive(Default)]
struct Relations(BTreeMap<String, RecordBatch>);

impl Relations {
    fn add(&mut self, name: &str, columns: Columns<'_>, rows: Vec<Vec<Value>>) -> Result<(), ArrowError> {
        self.0.insert(name.to_owned(), batch(columns, &rows)?);
        Ok(())
    }
}

/// All of them, for a pipeline of this name that has these relations.
pub(super) fn all(database: &str, relations: &[Relation]) -> Result<BTreeMap<String, RecordBatch>, ArrowError> {
    let mut all = Relations::default();
    of_any_pipeline(&mut all, database)?;
    of_the_program(&mut all, database, &listed(relations))?;
    Ok(all.0)
}

fn of_any_pipeline(all: &mut Relations, database: &str) -> Result<(), ArrowError> {
    for (name, columns) in EMPTY {
        all.add(name, columns, Vec::new())?;
    }
    let schemas = [(PUBLIC, "public"), (PG_CATALOG, "pg_catalog"), (INFORMATION_SCHEMA, "information_schema")];
    all.add(
        "pg_namespace",
        &[("oid", I), ("nspname", T), ("nspowner", I), ("nspacl", T)],
        schemas.map(|(oid, name)| vec![Value::Int(oid), text(name), Value::Int(10), Value::Null]).to_vec(),
    )?;
    all.add(
        "schemata",
        &[("catalog_name", T), ("schema_name", T), ("schema_owner", T)],
        schemas.map(|(_, name)| vec![text(database), text(name), text(USER)]).to_vec(),
    )?;
    all.add(
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
    all.add(
        "pg_roles",
        &[("oid", I), ("rolname", T), ("rolsuper", B)],
        vec![vec![Value::Int(10), text(USER), Value::Bool(false)]],
    )?;
    all.add(
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
    all.add(
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
    Ok(())
}

fn of_the_program(all: &mut Relations, database: &str, listed: &[Listed<'_>]) -> Result<(), ArrowError> {
    let class = |r: &Listed<'_>| {
        let count = i64::try_from(r.columns.len()).unwrap_or(i64::MAX);
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
    all.add(
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
    let attributes = listed.iter().flat_map(|r| r.columns.iter().zip(1..).map(move |(c, n)| (r, c, n)));
    let attribute = |(r, column, number): (&Listed<'_>, &Column, i64)| {
        let oid = i64::from(type_of(column).oid());
        let mut row = vec![
            Value::Int(r.oid),
            text(&column.name),
            Value::Int(oid),
            Value::Int(number),
            Value::Int(-1),
            Value::Bool(!column.nullable),
        ];
        row.extend([Value::Bool(false), Value::Bool(false), text(""), text(""), Value::Int(0), Value::Int(0)]);
        row
    };
    all.add(
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
    let column = |(r, column, number): (&Listed<'_>, &Column, i64)| {
        let t = type_of(column);
        let name = TYPES.iter().find(|(known, _)| *known == t).map_or("text", |(_, name)| name);
        let nullable = if column.nullable { "YES" } else { "NO" };
        vec![
            text(database),
            text("public"),
            text(r.name),
            text(&column.name),
            Value::Int(number),
            Value::Null,
            text(nullable),
            text(name),
            text(t.name()),
        ]
    };
    all.add(
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
    all.add(
        "tables",
        &[("table_catalog", T), ("table_schema", T), ("table_name", T), ("table_type", T)],
        listed.iter().map(table).collect(),
    )?;
    for (name, kind, column) in
        [("pg_tables", "r", "tablename"), ("pg_views", "v", "viewname"), ("pg_matviews", "m", "matviewname")]
    {
        let rows = listed.iter().filter(|r| r.kind == kind).map(|r| vec![text("public"), text(r.name)]);
        all.add(name, &[("schemaname", T), (column, T)], rows.collect())?;
    }
    Ok(())
}

fn batch(columns: Columns<'_>, rows: &[Vec<Value>]) -> Result<RecordBatch, ArrowError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_there() {
        let all = all("p", &[]).unwrap();
        for name in MADE.iter().chain(EMPTY.iter().map(|(name, _)| name)) {
            assert!(all.contains_key(*name), "{name}");
        }
    }
}
