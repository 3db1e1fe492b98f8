//! A pipeline's program as clients see it: whether it compiles, with its errors in place, and which tables, views and connectors it has.
//!
//! Compiling takes milliseconds, of a program made for it seconds: it is done where a program is set, and at the manager's start, on a thread
//! that may block ([`Compiled::of`]), under no lock. Its outcome is not kept.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, IntervalUnit, SchemaRef};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::mask::mask;
use crate::connector::config::ConnectorConfig;
use crate::server::error::{ApiError, Result as ApiResult};
use crate::sql::{self, Program, SqlErrors};

/// What a program's text compiled to.
#[derive(Clone, Debug)]
pub struct Compiled(Result<Arc<Program>, SqlErrors>);

impl Compiled {
    /// Compiles a text.
    pub fn new(text: &str) -> Self {
        Self(sql::compile(text, "program.sql").map(Arc::new))
    }

    /// Compiles a text where that may take long.
    ///
    /// # Errors
    /// The thread failed.
    pub async fn of(text: String) -> ApiResult<Self> {
        // Not more at a time than there are processors: others use these threads, too.
        static PLACES: LazyLock<Semaphore> =
            LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));
        let _place = PLACES.acquire().await;
        let compiling = tokio::task::spawn_blocking(move || Self::new(&text));
        compiling.await.map_err(|e| ApiError::internal(format!("the compiler's thread failed: {e}")))
    }

    /// Whether it can be run.
    pub fn is_runnable(&self) -> bool {
        self.0.is_ok()
    }

    /// The program, if it compiles.
    pub fn program(&self) -> Option<&Program> {
        self.0.as_deref().ok()
    }

    /// `Success` or `SqlError`.
    pub fn status(&self) -> &'static str {
        if self.is_runnable() { "Success" } else { "SqlError" }
    }

    /// Its first error, if it does not compile.
    pub fn first_error(&self) -> Option<String> {
        let first = self.0.as_ref().err()?.0.first()?;
        Some(format!("line {}, column {}: {}", first.line, first.column, first.message))
    }

    /// Its errors, in the shape of Feldera's; `{}` if there are none.
    pub fn error(&self) -> Value {
        let Err(SqlErrors(errors)) = &self.0 else { return json!({}) };
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

    /// Its relations and connectors; null if it does not compile.
    pub fn info(&self) -> Value {
        let Ok(program) = &self.0 else { return Value::Null };
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

    /// Whether a table, or a view, of this name has a connector of that.
    pub fn has_connector(&self, is_table: bool, relation: &str, connector: &str) -> bool {
        let Ok(program) = &self.0 else { return false };
        let connectors = match is_table {
            true => program.table(relation).map(|t| &t.connectors),
            false => program.view(relation).map(|v| &v.connectors),
        };
        connectors.is_some_and(|all| all.iter().any(|c| c.name == connector))
    }
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
        let compiled = Compiled::new(
            "CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, \"N\" VARCHAR, a ARRAY<INT>) WITH ('connectors' = '[{\"name\": \"c\", \
             \"transport\": {\"name\": \"file_input\", \"config\": {\"path\": \"x\"}}, \"format\": {\"name\": \"csv\"}}]');
             CREATE MATERIALIZED VIEW v AS SELECT id FROM t;",
        );
        assert!(compiled.is_runnable());
        let info = compiled.info();
        let table = &info["schema"]["inputs"][0];
        assert_eq!(table["primary_key"], json!(["id"]));
        assert_eq!(table["fields"][0]["columntype"], json!({"type": "BIGINT", "nullable": false}));
        assert_eq!(table["fields"][1]["case_sensitive"], true);
        assert_eq!(table["fields"][2]["columntype"]["component"]["type"], "INTEGER");
        assert_eq!(info["schema"]["outputs"][0]["materialized"], true);
        assert_eq!(info["input_connectors"]["t.c"]["stream"], "t");
        assert!(compiled.has_connector(true, "t", "c") && !compiled.has_connector(false, "v", "c"));
    }

    #[test]
    fn an_error_has_its_place() {
        let error = Compiled::new("CREATE TABLE t (a INT);\nCREATE VIEW v AS SELECT b FROM t;").error();
        let message = &error["sql_compilation"]["messages"][0];
        assert_eq!((&message["start_line_number"], &message["start_column"]), (&json!(2), &json!(25)));
        assert!(message["snippet"].as_str().unwrap().contains("SELECT b"));
    }
}
