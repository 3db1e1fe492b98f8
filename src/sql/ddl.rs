//! `CREATE TABLE` and `CREATE VIEW`, read from the syntax tree; every other statement is refused.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion_sql::sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use datafusion_sql::sqlparser::ast::{
    ColumnDef, ColumnOption, CreateTable, CreateTableOptions, CreateView, Expr, HiveDistributionStyle, Ident,
    ObjectName, ObjectNamePart, Query, Spanned, Statement, TableConstraint,
};
use datafusion_sql::sqlparser::tokenizer::{Span, TokenWithSpan};

use super::error::{Mistake, Source, suggestion};
use super::lateness::Clause;
use super::options::{self, LATE_ROWS, Options};
use super::parse::Parsed;
use super::program::{Place, Table};
use super::types::{Semantics, arrow_type};
use crate::circuit::Lateness;

/// What one statement defines.
#[derive(Debug)]
pub(super) enum Definition {
    Table(Box<Table>),
    View(Box<ViewDefinition>),
}

/// A view before it is planned.
#[derive(Debug)]
pub(super) struct ViewDefinition {
    pub name: String,
    /// Where the name stands.
    pub span: Span,
    /// The whole statement's tokens.
    pub tokens: Vec<TokenWithSpan>,
    pub materialized: bool,
    pub options: Options,
    /// Names for the columns, in place of the query's.
    pub columns: Vec<Ident>,
    pub query: Query,
}

/// Name and place, also of a statement that could not be read in full.
#[derive(Debug)]
pub(super) struct Named {
    pub name: String,
    pub span: Span,
    /// `None` if something was wrong with it.
    pub definition: Option<Definition>,
}

/// Reads one statement. `None` if it defines nothing; then a mistake says why.
pub(super) fn read(source: Source<'_>, parsed: Parsed, mistakes: &mut Vec<Mistake>) -> Option<Named> {
    match parsed.statement {
        Statement::CreateTable(create) => {
            table(source, create, parsed.span, (&parsed.tokens, &parsed.lateness), mistakes)
        }
        Statement::CreateView(create) => view(source, create, parsed.span, parsed.tokens, mistakes),
        other => {
            let text = other.to_string();
            let verb: Vec<&str> = text.split_whitespace().take(2).collect();
            let verb = match verb.as_slice() {
                ["CREATE" | "DROP" | "ALTER", ..] => verb.join(" "),
                _ => verb.first().unwrap_or(&"this").to_string(),
            };
            let mistake = Mistake::new(parsed.span, format!("{verb} is not supported"));
            mistakes.push(mistake.help("a program has CREATE TABLE and CREATE VIEW statements only"));
            None
        }
    }
}

/// The name of an identifier: lower case unless it was quoted.
pub(super) fn normalized(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn simple_name(name: &ObjectName, place: Span, mistakes: &mut Vec<Mistake>) -> Option<(String, Span)> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Some((normalized(ident), ident.span)),
        _ => {
            let mistake = Mistake::new(name.span(), format!("`{name}`: names have one part, there are no schemas"));
            mistakes.push(mistake.or_at(place));
            None
        }
    }
}

pub(super) fn place(span: Span) -> Place {
    Place { line: span.start.line, column: span.start.column }
}

/// What `WITH` may say of a table, besides its connectors.
const TABLE_OPTIONS: [&str; 4] = ["materialized", "append_only", "skip_unused_columns", LATE_ROWS];

fn table(
    source: Source<'_>,
    create: CreateTable,
    statement: Span,
    (tokens, lateness): (&[TokenWithSpan], &[Clause]),
    mistakes: &mut Vec<Mistake>,
) -> Option<Named> {
    let (name, span) = simple_name(&create.name, statement, mistakes)?;
    let before = mistakes.len();
    refuse_other_clauses(&create, span, mistakes);
    let options = options::read(source, &name, (span, tokens), &create.table_options, &TABLE_OPTIONS, mistakes);
    let (fields, mut key) = columns(&name, &create.columns, mistakes);
    for constraint in &create.constraints {
        let TableConstraint::PrimaryKey(primary) = constraint else {
            let mistake = Mistake::new(constraint.span(), format!("the constraint `{constraint}` is not supported"));
            mistakes.push(mistake.help("only PRIMARY KEY (columns) is").or_at(span));
            continue;
        };
        if !key.is_empty() {
            mistakes.push(Mistake::new(constraint.span(), format!("{name} has two primary keys")).or_at(span));
            continue;
        }
        for column in &primary.columns {
            let Expr::Identifier(ident) = &column.column.expr else {
                mistakes
                    .push(Mistake::new(column.span(), "a primary key has columns only, no expressions").or_at(span));
                continue;
            };
            match index(&fields, ident, &name) {
                Ok(i) if key.contains(&i) => {
                    mistakes.push(Mistake::new(ident.span, format!("`{ident}` stands twice in the primary key")));
                }
                Ok(i) => key.push(i),
                Err(mistake) => mistakes.push(mistake),
            }
        }
    }
    let fields: Vec<Field> = fields
        .into_iter()
        .enumerate()
        .map(|(i, field)| if key.contains(&i) { field.with_nullable(false) } else { field })
        .collect();
    let lateness = late_columns(&name, lateness, &fields, !key.is_empty(), mistakes);
    let asks = |option: &str| options.properties.get(option).is_some_and(|value| value != "false");
    if asks("append_only") && !key.is_empty() {
        let message = format!("{name} has a primary key, and so cannot be append-only");
        mistakes.push(
            Mistake::new(span, message).help("an insert may take the row of its key away; leave out one of the two"),
        );
    }
    if asks(LATE_ROWS) && lateness.is_empty() {
        let message = format!("{name} has `{LATE_ROWS}`, but no column with LATENESS: no row is ever late");
        mistakes.push(Mistake::new(span, message).help("write LATENESS behind a column, or leave the option out"));
    }
    if mistakes.len() > before {
        return Some(Named { name, span, definition: None });
    }
    let table = Table {
        name: name.clone(),
        schema: Arc::new(Schema::new(fields)),
        declared: Vec::new(),
        primary_key: key,
        lateness,
        connectors: options.connectors,
        properties: options.properties,
        place: place(span),
    };
    Some(Named { name, span, definition: Some(Definition::Table(Box::new(table))) })
}

/// The columns with LATENESS, in their order.
fn late_columns(
    table: &str,
    clauses: &[Clause],
    fields: &[Field],
    is_keyed: bool,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Lateness> {
    let mut late: Vec<Lateness> = Vec::new();
    for clause in clauses {
        let found = fields.iter().enumerate().find(|(_, f)| *f.name() == clause.column);
        let Some((column, field)) = found else { continue };
        let bound = match is_keyed {
            true => Err(Mistake::new(clause.span, format!("{table} has a primary key, and so cannot have LATENESS"))
                .help("an update of an old row would be late; leave out PRIMARY KEY, or LATENESS")),
            false => clause.bound(field),
        };
        match bound {
            Ok(_) if late.iter().any(|l| l.column == column) => {
                mistakes.push(Mistake::new(clause.span, format!("`{}` has LATENESS twice", clause.column)));
            }
            Ok(bound) => late.push(Lateness { column, bound }),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    late.sort_by_key(|l| l.column);
    late
}

/// Refuses every clause that `CREATE TABLE` has in some dialect and that is not read here.
fn refuse_other_clauses(create: &CreateTable, span: Span, mistakes: &mut Vec<Mistake>) {
    let mut rest = create.clone();
    rest.columns.clear();
    rest.constraints.clear();
    rest.table_options = CreateTableOptions::None;
    rest.hive_formats = None;
    let bare = CreateTableBuilder::new(create.name.clone()).build();
    if matches!(rest.hive_distribution, HiveDistributionStyle::NONE) && rest == bare {
        if create.columns.is_empty() {
            mistakes.push(Mistake::new(span, format!("table {} has no columns", create.name)));
        }
        return;
    }
    let clause = if create.query.is_some() {
        "AS SELECT"
    } else if create.or_replace {
        "OR REPLACE"
    } else if create.if_not_exists {
        "IF NOT EXISTS"
    } else if create.temporary {
        "TEMPORARY"
    } else {
        "one of its clauses"
    };
    let mistake = Mistake::new(span, format!("CREATE TABLE {}: {clause} is not supported", create.name));
    mistakes.push(
        mistake
            .help("the form is CREATE TABLE name (column type [NOT NULL | PRIMARY KEY], …) WITH ('key' = 'value', …)"),
    );
}

fn columns(table: &str, columns: &[ColumnDef], mistakes: &mut Vec<Mistake>) -> (Vec<Field>, Vec<usize>) {
    let mut fields: Vec<Field> = Vec::with_capacity(columns.len());
    let mut key = Vec::new();
    for (i, column) in columns.iter().enumerate() {
        let name = normalized(&column.name);
        let mut nullable = true;
        for option in &column.options {
            match &option.option {
                ColumnOption::Null => {}
                ColumnOption::NotNull => nullable = false,
                ColumnOption::PrimaryKey(_) if key.is_empty() => key.push(i),
                ColumnOption::PrimaryKey(_) => {
                    let mistake = Mistake::new(column.name.span, format!("{table} has two primary keys"));
                    mistakes.push(mistake.help("a key of several columns is PRIMARY KEY (a, b) behind the columns"));
                }
                other => {
                    let mistake = Mistake::new(other.span(), format!("`{other}` is not supported for a column"));
                    mistakes.push(mistake.help("a column has NOT NULL and PRIMARY KEY only").or_at(column.name.span));
                }
            }
        }
        if fields.iter().any(|f| *f.name() == name) {
            mistakes.push(Mistake::new(column.name.span, format!("{table} has two columns `{name}`")));
        }
        // A column whose type is wrong is kept, so that a key over it gives no second error.
        let data_type = arrow_type(&column.data_type).unwrap_or_else(|help| {
            let mistake =
                Mistake::new(column.name.span, format!("the type {} is not supported for a column", column.data_type));
            mistakes.push(mistake.help(help));
            arrow::datatypes::DataType::Null
        });
        fields.push(Semantics::mark(Field::new(name, data_type, nullable), &column.data_type));
    }
    (fields, key)
}

fn index(fields: &[Field], ident: &Ident, table: &str) -> Result<usize, Mistake> {
    let name = normalized(ident);
    fields.iter().position(|f| *f.name() == name).ok_or_else(|| {
        let names: Vec<String> = fields.iter().map(|f| f.name().clone()).collect();
        let mut mistake = Mistake::new(ident.span, format!("{table} has no column `{name}`"));
        mistake.help = suggestion(&name, "only", &names);
        mistake
    })
}

fn view(
    source: Source<'_>,
    create: CreateView,
    statement: Span,
    tokens: Vec<TokenWithSpan>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Named> {
    let (name, span) = simple_name(&create.name, statement, mistakes)?;
    let before = mistakes.len();
    let clauses = [
        (create.or_alter, "OR ALTER"),
        (create.or_replace, "OR REPLACE"),
        (create.secure, "SECURE"),
        (create.if_not_exists, "IF NOT EXISTS"),
        (create.temporary, "TEMPORARY"),
        (create.with_no_schema_binding, "WITH NO SCHEMA BINDING"),
        (create.copy_grants, "COPY GRANTS"),
        (create.comment.is_some(), "COMMENT"),
        (!create.cluster_by.is_empty(), "CLUSTER BY"),
        (create.to.is_some(), "TO"),
        (create.params.is_some(), "ALGORITHM, DEFINER or SQL SECURITY"),
    ];
    for (_, clause) in clauses.iter().filter(|(given, _)| *given) {
        mistakes.push(
            Mistake::new(span, format!("CREATE VIEW {name}: {clause} is not supported")).help(
                "the form is CREATE [MATERIALIZED] VIEW name [(column, …)] [WITH ('key' = 'value', …)] AS SELECT …",
            ),
        );
    }
    let options = options::read(source, &name, (span, &tokens), &create.options, &[], mistakes);
    for column in create.columns.iter().filter(|c| c.data_type.is_some() || c.options.is_some()) {
        mistakes.push(Mistake::new(column.name.span, "a view's column has a name only; its type is the query's"));
    }
    if mistakes.len() > before {
        return Some(Named { name, span, definition: None });
    }
    let view = ViewDefinition {
        name: name.clone(),
        span,
        tokens,
        materialized: create.materialized,
        options,
        columns: create.columns.into_iter().map(|c| c.name).collect(),
        query: *create.query,
    };
    Some(Named { name, span, definition: Some(Definition::View(Box::new(view))) })
}
