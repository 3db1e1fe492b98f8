//! A compiled program: its tables and views, and the circuit that maintains them.

use std::collections::BTreeMap;

use arrow::datatypes::{FieldRef, SchemaRef};
use xxhash_rust::xxh3::xxh3_64;

use super::options::LATE_ROWS;
use crate::circuit::{CircuitPlan, Lateness};
use crate::connector::config::ConnectorConfig;

/// What a SQL text compiles to.
#[derive(Clone, Debug)]
pub struct Program {
    /// The tables, in the order of the text; the same order as in [`CircuitPlan::tables`].
    pub tables: Vec<Table>,
    /// The views, in the order of the text; the same order as in [`CircuitPlan::views`].
    pub views: Vec<View>,
    /// The circuit over them.
    pub plan: CircuitPlan,
}

/// A place in the SQL text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

/// A table: rows that input connectors deliver.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name; lower case unless it was quoted.
    pub name: String,
    /// Its columns. `NOT NULL` and primary key columns are not nullable. Those that are [skipped](Declared::is_skipped) are not among them.
    pub schema: SchemaRef,
    /// The columns as they were declared, if some are skipped; empty if none is.
    pub declared: Vec<Declared>,
    /// Columns of the primary key in the order in which the key was declared; empty if there is none.
    pub primary_key: Vec<usize>,
    /// Columns with LATENESS.
    pub lateness: Vec<Lateness>,
    /// Where its rows come from.
    pub connectors: Vec<ConnectorConfig>,
    /// Other keys of `WITH`.
    pub properties: BTreeMap<String, String>,
    /// Where its name stands.
    pub place: Place,
}

/// A column as a table's definition has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Name and type.
    pub field: FieldRef,
    /// Whether nothing reads it, so that it is neither parsed nor kept: `WITH ('skip_unused_columns' = 'true')`.
    pub is_skipped: bool,
}

/// A view: a query kept up to date.
#[derive(Clone, Debug)]
pub struct View {
    /// Its name; lower case unless it was quoted.
    pub name: String,
    /// Its columns, with unique names: the schema of the view's node.
    pub schema: SchemaRef,
    /// Whether it was created `MATERIALIZED`.
    pub materialized: bool,
    /// Where its changes go.
    pub connectors: Vec<ConnectorConfig>,
    /// Other keys of `WITH`.
    pub properties: BTreeMap<String, String>,
    /// The query as normalised text: one line, no comments.
    pub sql: String,
    /// Where its name stands.
    pub place: Place,
}

impl Table {
    /// Whether its rows are to be kept for ad-hoc queries: `WITH ('materialized' = 'true')`. Those of one with a primary key are anyway.
    pub fn is_kept(&self) -> bool {
        self.properties.get("materialized").is_some_and(|value| value == "true")
    }

    /// Whether its rows are never taken back: `WITH ('append_only' = 'true')`.
    pub fn is_append_only(&self) -> bool {
        self.properties.get("append_only").is_some_and(|value| value == "true")
    }

    /// Whether columns that nothing reads are left out: `WITH ('skip_unused_columns' = 'true')`. One whose rows are kept by its own wish keeps all.
    pub fn skips_unused(&self) -> bool {
        !self.is_kept() && self.properties.get("skip_unused_columns").is_some_and(|value| value == "true")
    }

    /// The table that its late rows go to: `WITH ('late_rows' = '…')`.
    pub fn late_rows(&self) -> Option<&str> {
        self.properties.get(LATE_ROWS).map(String::as_str)
    }

    /// The definition as normalised text, without connectors: `table (a Int32 NOT NULL, b Utf8, PRIMARY KEY (a))`.
    pub fn definition(&self) -> String {
        let mut parts: Vec<String> = self
            .schema
            .fields()
            .iter()
            .enumerate()
            .map(|(i, f)| {
                let null = if f.is_nullable() { "" } else { " NOT NULL" };
                let late = self.lateness.iter().find(|l| l.column == i);
                let late = late.map(|l| format!(" LATENESS {}", l.bound)).unwrap_or_default();
                format!("{:?} {}{null}{late}", f.name(), f.data_type())
            })
            .collect();
        if !self.primary_key.is_empty() {
            let names: Vec<String> =
                self.primary_key.iter().map(|&i| format!("{:?}", self.schema.field(i).name())).collect();
            parts.push(format!("PRIMARY KEY ({})", names.join(", ")));
        }
        let kept = if self.is_kept() { "materialized " } else { "" };
        let append_only = if self.is_append_only() { "append-only " } else { "" };
        let late = self.late_rows().map_or_else(String::new, |name| format!(", late rows to {name:?}"));
        let skipped = self.declared.iter().enumerate().filter(|(_, column)| column.is_skipped);
        let skipped: Vec<String> = skipped
            .map(|(i, column)| format!("{} {:?} {}", i + 1, column.field.name(), column.field.data_type()))
            .collect();
        let skipped = if skipped.is_empty() { String::new() } else { format!(", skipped ({})", skipped.join(", ")) };
        format!("{kept}{append_only}table ({}){late}{skipped}", parts.join(", "))
    }
}

impl View {
    /// The definition as normalised text, without connectors: columns and query.
    pub fn definition(&self) -> String {
        let columns: Vec<String> =
            self.schema.fields().iter().map(|f| format!("{:?} {}", f.name(), f.data_type())).collect();
        let kept = if self.materialized { "materialized " } else { "" };
        format!("{kept}view ({}) as {}", columns.join(", "), self.sql)
    }
}

impl Program {
    /// What the program's state depends on, by relation: each table's and view's definition without connectors, which may
    /// change between runs. Two programs whose identities differ cannot share state; the keys that differ name what changed.
    pub fn state_identity(&self) -> BTreeMap<String, String> {
        let tables = self.tables.iter().map(|t| (t.name.clone(), t.definition()));
        let views = self.views.iter().map(|v| (v.name.clone(), v.definition()));
        tables.chain(views).collect()
    }

    /// A hash over [`Program::state_identity`] and the plan. If it differs while the identities are equal, then another
    /// version of the compiler laid out the same program differently, and the state cannot be taken over either.
    pub fn fingerprint(&self) -> u64 {
        xxh3_64(format!("{:?}\n{}", self.state_identity(), self.plan).as_bytes())
    }

    /// The input connectors, `<table>.<name>`, in the order of the text.
    pub fn inputs(&self) -> Vec<(String, &ConnectorConfig)> {
        let of = |t: &'_ Table, c: &ConnectorConfig| format!("{}.{}", t.name, c.name);
        self.tables.iter().flat_map(|t| t.connectors.iter().map(move |c| (of(t, c), c))).collect()
    }

    /// The table that has this input connector, `<table>.<name>`.
    pub fn table_of(&self, connector: &str) -> Option<&Table> {
        self.tables.iter().find(|t| t.connectors.iter().any(|c| connector == format!("{}.{}", t.name, c.name)))
    }

    /// The table of this name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|t| t.name == name)
    }

    /// The view of this name.
    pub fn view(&self, name: &str) -> Option<&View> {
        self.views.iter().find(|v| v.name == name)
    }
}
