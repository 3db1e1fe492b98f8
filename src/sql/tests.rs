//! Texts → plans and texts → errors, compared as a person reads them.

use super::compile;

mod clock;
mod errors;
mod flights;
mod functions;
mod places;
mod plans;
mod types;
mod unused;
mod windows;

/// Two tables, one of them keyed, in line 1.
const TABLES: &str = "CREATE TABLE t (a INT, b VARCHAR, c DOUBLE, d DECIMAL(12, 2), ts TIMESTAMP); \
                      CREATE TABLE u (a BIGINT PRIMARY KEY, x VARCHAR);\n";

/// The plan of a text, or its errors.
fn compiled(sql: &str) -> String {
    match compile(sql, "p.sql") {
        Ok(program) => program.plan.to_string(),
        Err(errors) => errors.to_string(),
    }
}

/// The plan of `CREATE VIEW v AS query` over [`TABLES`] without the tables' lines and those about who reads them, or its errors.
fn view(query: &str) -> String {
    let text = compiled(&format!("{TABLES}CREATE VIEW v AS {query}"));
    let of_tables = ["table ", "the rows that table "];
    let is_view = |line: &&str| !line.contains("-- table ") && !of_tables.iter().any(|start| line.starts_with(start));
    text.lines().filter(is_view).collect::<Vec<_>>().join("\n")
}
