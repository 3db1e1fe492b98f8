//! A pipeline's program as clients see it: whether it compiles, with its errors in place, and which tables, views and connectors it has.
//!
//! It is made where the program is compiled, in a process of the [`compiler`](super::compiler)'s, and comes to the manager as JSON. It is not
//! kept: a manager that starts compiles all programs again.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, SchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::mask::mask;
use crate::connector::config::ConnectorConfig;
use crate::sql::{self, Program, SqlErrors};

/// What a program's text compiled to.
#[derive(Clone, Debug)]
pub struct Compiled(Arc<Outcome>);

/// The same, as it goes from process to process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    status: Status,
    /// In the shape of Feldera's; `{}` for a program that compiles.
    error: Value,
    /// In the shape of Feldera's; null for a program that does not compile.
    info: Value,
    /// Tables, then views, each in the order of the text.
    relations: Vec<Relation>,
}

/// Whether it compiles, in Feldera's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Status {
    Success,
    SqlError,
    /// It is not known: the compiler did not come to its end.
    SystemError,
}

/// A table or view, for PostgreSQL's catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Its columns.
    pub columns: Vec<Column>,
}

/// What a relation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelationKind {
    /// A table.
    Table,
    /// A view whose rows are not kept.
    View,
    /// A view that can be asked.
    MaterializedView,
}

/// A relation's column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as Arrow writes it.
    pub data_type: String,
    /// Whether it may be NULL.
    pub nullable: bool,
}

impl Outcome {
    /// Compiles a text, here and now: for a process that may be lost over it.
    pub fn of(text: &str) -> Self {
        match sql::compile(text, "program.sql") {
            Ok(program) => {
                Self { status: Status::Success, error: json!({}), info: info(&program), relations: relations(&program) }
            }
            Err(errors) => {
                Self { status: Status::SqlError, error: error(&errors), info: Value::Null, relations: Vec::new() }
            }
        }
    }
}

impl From<Outcome> for Compiled {
    fn from(outcome: Outcome) -> Self {
        Self(Arc::new(outcome))
    }
}

impl Compiled {
    /// Nobody knows whether a program compiles, and why.
    pub fn unknown(why: &str) -> Self {
        let error = json!({ "system_error": why });
        Outcome { status: Status::SystemError, error, info: Value::Null, relations: Vec::new() }.into()
    }

    /// Whether the compiler came to its end.
    pub fn is_known(&self) -> bool {
        self.0.status != Status::SystemError
    }

    /// `Success`, `SqlError` or `SystemError`.
    pub fn status(&self) -> &'static str {
        match self.0.status {
            Status::Success => "Success",
            Status::SqlError => "SqlError",
            Status::SystemError => "SystemError",
        }
    }

    /// Its first error, if it does not compile.
    pub fn first_error(&self) -> Option<String> {
        if let Some(why) = self.error().get("system_error") {
            return why.as_str().map(str::to_owned);
        }
        let first = self.error().pointer("/sql_compilation/messages/0")?;
        let (line, column) = (first.get("start_line_number")?, first.get("start_column")?);
        Some(format!("line {line}, column {column}: {}", first.get("message")?.as_str()?))
    }

    /// Its errors, in the shape of Feldera's; `{}` if there are none.
    pub fn error(&self) -> &Value {
        &self.0.error
    }

    /// Its relations and connectors, in the shape of Feldera's; null if it does not compile.
    pub fn info(&self) -> &Value {
        &self.0.info
    }

    /// Its tables and views; none if it does not compile.
    pub fn relations(&self) -> &[Relation] {
        &self.0.relations
    }

    /// What `POST /v0/validate_program` answers.
    pub fn validated(&self) -> Value {
        match self.0.status {
            Status::Success => json!({ "Success": { "program_info": self.info() } }),
            Status::SqlError => json!({ "SqlError": { "info": self.error().get("sql_compilation") } }),
            Status::SystemError => json!({ "SystemError": { "error": self.error().get("system_error") } }),
        }
    }

    /// Whether a table, or a view, of this name has a connector of that.
    pub fn has_connector(&self, is_table: bool, relation: &str, connector: &str) -> bool {
        let all = self.info().get(if is_table { "input_connectors" } else { "output_connectors" });
        let found = all.and_then(|all| all.get(format!("{relation}.{connector}")));
        // Names may have dots.
        found.is_some_and(|found| found.get("stream").is_some_and(|stream| stream == relation))
    }
}

/// Errors in the shape of Feldera's.
fn error(SqlErrors(errors): &SqlErrors) -> Value {
    let messages: Vec<Value> = errors
        .iter()
        .map(|e| {
            let message = match &e.help {
                Some(help) => format!("{}\nhelp: {help}", e.message),
                None => e.message.clone(),
            };
            json!({
                "start_line_number": e.line,
                "start_column": e.column,
                "end_line_number": e.line,
                "end_column": e.column + e.width - 1,
                "warning": false,
                "error_type": "Compilation error",
                "message": message,
                "snippet": format!("{:>5}|{}\n", e.line, e.line_text),
            })
        })
        .collect();
    json!({ "sql_compilation": { "exit_code": 1, "messages": messages } })
}

/// Relations and connectors in the shape of Feldera's.
fn info(program: &Program) -> Value {
    let mut input_connectors = Map::new();
    let mut output_connectors = Map::new();
    let mut inputs = Vec::new();
    let mut outputs = Vec::new();
    for table in &program.tables {
        let key: Vec<&String> = table.primary_key.iter().map(|&i| table.schema.field(i).name()).collect();
        let key = if key.is_empty() { Value::Null } else { json!(key) };
        let kept = table.is_kept() || !table.primary_key.is_empty();
        inputs.push(relation(&table.name, &table.schema, kept, key));
        connectors(&table.name, &table.connectors, &mut input_connectors);
    }
    for view in &program.views {
        outputs.push(relation(&view.name, &view.schema, view.materialized, Value::Null));
        connectors(&view.name, &view.connectors, &mut output_connectors);
    }
    json!({
        "schema": { "inputs": inputs, "outputs": outputs },
        "udf_stubs": "",
        "input_connectors": input_connectors,
        "output_connectors": output_connectors,
    })
}

fn relations(program: &Program) -> Vec<Relation> {
    let relation = |name: &str, schema: &SchemaRef, kind| {
        let columns = schema.fields().iter().map(|f| Column {
            name: f.name().clone(),
            data_type: f.data_type().to_string(),
            nullable: f.is_nullable(),
        });
        Relation { name: name.to_owned(), kind, columns: columns.collect() }
    };
    let tables = program.tables.iter().map(|t| relation(&t.name, &t.schema, RelationKind::Table));
    let views = program.views.iter().map(|v| {
        let kind = if v.materialized { RelationKind::MaterializedView } else { RelationKind::View };
        relation(&v.name, &v.schema, kind)
    });
    tables.chain(views).collect()
}

fn relation(name: &str, schema: &SchemaRef, materialized: bool, primary_key: Value) -> Value {
    json!({
        "name": name,
        "case_sensitive": is_case_sensitive(name),
        "fields": schema.fields().iter().map(|f| field(f)).collect::<Vec<_>>(),
        "materialized": materialized,
        "primary_key": primary_key,
        "properties": {},
    })
}

/// Unquoted names are lower case.
fn is_case_sensitive(name: &str) -> bool {
    name.to_lowercase() != name
}

fn field(field: &Field) -> Value {
    json!({
        "name": field.name(),
        "case_sensitive": is_case_sensitive(field.name()),
        "columntype": column_type(field.data_type(), field.is_nullable()),
        "lateness": null,
        "default": null,
        "unused": false,
    })
}

/// A type under Feldera's names.
fn column_type(data_type: &DataType, nullable: bool) -> Value {
    let plain = |name: &str| json!({ "type": name, "nullable": nullable });
    match data_type {
        DataType::Boolean => plain("BOOLEAN"),
        DataType::Int8 => plain("TINYINT"),
        DataType::Int16 => plain("SMALLINT"),
        DataType::Int32 => plain("INTEGER"),
        DataType::Int64 => plain("BIGINT"),
        DataType::UInt8 => plain("UTINYINT"),
        DataType::UInt16 => plain("USMALLINT"),
        DataType::UInt32 => plain("UINTEGER"),
        DataType::UInt64 => plain("UBIGINT"),
        DataType::Float32 => plain("REAL"),
        DataType::Float64 => plain("DOUBLE"),
        DataType::Decimal128(precision, scale) => {
            json!({ "type": "DECIMAL", "nullable": nullable, "precision": precision, "scale": scale })
        }
        // Wider than what Feldera's clients know; its digits are right.
        DataType::Decimal256(precision, scale) => {
            json!({ "type": "DECIMAL", "nullable": nullable, "precision": precision, "scale": scale })
        }
        DataType::Utf8 => json!({ "type": "VARCHAR", "nullable": nullable, "precision": -1 }),
        DataType::Binary => json!({ "type": "VARBINARY", "nullable": nullable, "precision": -1 }),
        DataType::Date32 => plain("DATE"),
        DataType::Time64(_) => json!({ "type": "TIME", "nullable": nullable, "precision": 6 }),
        DataType::Timestamp(..) => json!({ "type": "TIMESTAMP", "nullable": nullable, "precision": 6 }),
        DataType::Interval(IntervalUnit::YearMonth) => plain("INTERVAL_YEAR_MONTH"),
        DataType::Interval(_) | DataType::Duration(_) => plain("INTERVAL_DAY_SECOND"),
        DataType::List(item) => json!({
            "type": "ARRAY",
            "nullable": nullable,
            "component": column_type(item.data_type(), item.is_nullable()),
        }),
        DataType::Struct(fields) => json!({
            "type": "STRUCT",
            "nullable": nullable,
            "fields": fields.iter().map(|f| field(f)).collect::<Vec<_>>(),
        }),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                let part = |i: usize| fields.get(i).map(|f| column_type(f.data_type(), f.is_nullable()));
                json!({ "type": "MAP", "nullable": nullable, "key": part(0), "value": part(1) })
            }
            _ => plain("MAP"),
        },
        _ => json!({ "type": "VARCHAR", "nullable": nullable, "precision": -1 }),
    }
}

fn connectors(relation: &str, configs: &[ConnectorConfig], all: &mut Map<String, Value>) {
    for config in configs {
        let mut value = serde_json::to_value(config).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            // The key says it already, and Feldera's clients do not know it here.
            object.remove("name");
            object.insert("stream".into(), json!(relation));
        }
        mask(&mut value);
        all.insert(format!("{relation}.{}", config.name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_shown_with_its_relations() {
        let compiled = Compiled::from(Outcome::of(
            "CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, \"N\" VARCHAR, a ARRAY<INT>) WITH ('connectors' = '[{\"name\": \"c\", \
             \"transport\": {\"name\": \"file_input\", \"config\": {\"path\": \"x\"}}, \"format\": {\"name\": \"csv\"}}]');
             CREATE MATERIALIZED VIEW v AS SELECT id FROM t;",
        ));
        assert_eq!((compiled.status(), compiled.first_error()), ("Success", None));
        let info = compiled.info();
        let table = &info["schema"]["inputs"][0];
        assert_eq!(table["primary_key"], json!(["id"]));
        assert_eq!(table["fields"][0]["columntype"], json!({"type": "BIGINT", "nullable": false}));
        assert_eq!(table["fields"][1]["case_sensitive"], true);
        assert_eq!(table["fields"][2]["columntype"]["component"]["type"], "INTEGER");
        assert_eq!(info["schema"]["outputs"][0]["materialized"], true);
        assert_eq!(info["input_connectors"]["t.c"]["stream"], "t");
        assert!(compiled.has_connector(true, "t", "c") && !compiled.has_connector(false, "v", "c"));
        let of = |r: &Relation| (r.name.clone(), r.kind, r.columns.len());
        let (t, v) = (("t".to_owned(), RelationKind::Table, 3), ("v".to_owned(), RelationKind::MaterializedView, 1));
        assert_eq!(compiled.relations().iter().map(of).collect::<Vec<_>>(), [t, v]);
        assert!(matches!(compiled.relations()[0].columns[2].data_type.parse(), Ok(DataType::List(_))));
    }

    #[test]
    fn an_error_has_its_place() {
        let compiled = Compiled::from(Outcome::of("CREATE TABLE t (a INT);\nCREATE VIEW v AS SELECT b FROM t;"));
        let first = compiled.first_error().unwrap();
        assert!(first.starts_with("line 2, column 25: ") && first.contains("`b`"), "{first}");
        let message = &compiled.error()["sql_compilation"]["messages"][0];
        assert_eq!((&message["start_line_number"], &message["start_column"]), (&json!(2), &json!(25)));
        assert!(message["snippet"].as_str().unwrap().contains("SELECT b"));
    }

    #[test]
    fn what_is_not_known_is_told_as_such() {
        let compiled = Compiled::unknown("it took too long");
        assert!(!compiled.is_known() && compiled.relations().is_empty() && compiled.info().is_null());
        assert_eq!((compiled.status(), compiled.first_error().as_deref()), ("SystemError", Some("it took too long")));
        assert_eq!(compiled.validated(), json!({ "SystemError": { "error": "it took too long" } }));
    }
}
