//! The table that a view goes into: what it must be, and the statements that change it.
//!
//! Rows come by COPY into a temporary table of the session's, the *stage*, which has the columns of the view, in the types of the table's,
//! behind one for the operation (and one for the step, in a log). Temporary tables write no log at the server.

use arrow::datatypes::Schema;
use tokio_postgres::{Client, Row};

use super::batch::Op;
use super::settings::{Mode, Settings};
use super::types::{ColumnType, Form, declaration, fit};
use crate::connector::postgres::session::{Failure, Session};
use crate::sql::quoted_name;

/// The stage's columns that are not the view's.
const OP: &str = "__backstay_op";
const STEP: &str = "__backstay_step";

/// The table as it was found.
#[derive(Debug)]
pub(super) struct Table {
    /// With its schema, quoted.
    pub(super) name: String,
    /// Its schema, quoted.
    pub(super) schema: String,
    /// How each column of the view is written.
    pub(super) forms: Vec<Form>,
    /// The key's columns, by their place in the view; empty: there is none.
    pub(super) key: Vec<usize>,
    /// The names of unique indexes over the key's columns.
    key_indexes: Vec<String>,
    /// Whether rows are only ever added.
    is_log: bool,
    create_stage: String,
    copy: String,
    delete: String,
    update: String,
    /// Of rows that come, and may be there.
    upsert: String,
    insert: String,
}

/// Why a table cannot be used.
#[derive(Debug)]
pub(super) enum Unfit {
    /// It could not be looked at.
    Failure(Failure),
    /// What is wrong with it.
    Table(String),
}

impl From<Failure> for Unfit {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// A column as the catalogue has it.
struct Column {
    name: String,
    kind: ColumnType,
    not_null: bool,
    has_default: bool,
    is_generated: bool,
}

/// A unique index: its name, whether it is the primary key's, its columns.
struct Index {
    name: String,
    is_primary: bool,
    columns: Vec<String>,
}

impl Table {
    /// Looks at the table that the settings name, and checks that it can take the view.
    pub(super) fn find(session: &Session, settings: &Settings, view: &Schema) -> Result<Self, Unfit> {
        let found = session.run(async |client| look_up(client, &settings.table).await)?;
        let Some((table, columns, indexes)) = found else {
            return Err(Unfit::Table(format!(
                "there is no table {} in {}; {} would make it",
                settings.table,
                settings.server.place,
                declare(settings, view)
            )));
        };
        let name: String = table.get(0);
        kind_fits(&name, table.get(2), table.get(3)).map_err(Unfit::Table)?;
        let (forms, mut wrong) = fit_columns(&columns, settings, view);
        let key = match key(&name, settings, view, &indexes) {
            Ok(key) => key,
            Err(why) => {
                wrong.push(why);
                Vec::new()
            }
        };
        if !wrong.is_empty() {
            return Err(Unfit::Table(format!("table {name} does not fit the view: {}", wrong.join("; "))));
        }
        Ok(Self::new(name, table.get(1), settings, view, &columns, &indexes, forms, key))
    }

    #[expect(clippy::too_many_arguments, reason = "its one caller has found them out one by one")]
    fn new(
        name: String,
        schema: String,
        settings: &Settings,
        view: &Schema,
        columns: &[Column],
        indexes: &[Index],
        forms: Vec<Form>,
        key: Vec<usize>,
    ) -> Self {
        let names: Vec<&str> = view.fields().iter().map(|f| f.name().as_str()).collect();
        let quoted: Vec<String> = names.iter().map(|n| quoted_name(n)).collect();
        let list = quoted.join(", ");
        let key_names: Vec<&str> = key.iter().filter_map(|&i| names.get(i).copied()).collect();
        let key_list = key_names.iter().map(|k| quoted_name(k)).collect::<Vec<_>>().join(", ");
        let type_of = |n: &&str| columns.iter().find(|c| c.name == **n).map_or("text", |c| c.kind.sql.as_str());
        let mut stage: Vec<String> = vec![format!("{OP} text NOT NULL")];
        let is_log = matches!(settings.mode, Mode::Cdc { .. });
        if is_log {
            stage.push(format!("{STEP} bigint NOT NULL"));
        }
        stage.extend(names.iter().map(|n| format!("{} {}", quoted_name(n), type_of(n))));
        let from = |op: Op| format!("FROM pg_temp.backstay_stage WHERE {OP} = '{}'", op.letter());
        let insert = match &settings.mode {
            Mode::Materialized => format!("INSERT INTO {name} ({list}) SELECT {list} {}", from(Op::Insert)),
            Mode::Cdc { op, ts, step } => {
                let step = step.as_ref().map(|s| format!(", {}", quoted_name(s)));
                let (into, of) =
                    (step.as_deref().unwrap_or(""), step.as_ref().map_or(String::new(), |_| format!(", {STEP}")));
                let (op, ts) = (quoted_name(op), quoted_name(ts));
                format!(
                    "INSERT INTO {name} ({op}, {ts}{into}, {list}) SELECT {OP}, now(){of}, {list} FROM pg_temp.backstay_stage"
                )
            }
        };
        let others =
            names.iter().filter(|n| !key_names.contains(n)).map(|n| format!("{0} = EXCLUDED.{0}", quoted_name(n)));
        let set = others.collect::<Vec<_>>().join(", ");
        let resolve = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {set}") };
        let upsert = |op: Op| {
            format!("INSERT INTO {name} ({list}) SELECT {list} {} ON CONFLICT ({key_list}) DO {resolve}", from(op))
        };
        let same = key_names.iter().map(|k| format!("t.{0} = s.{0}", quoted_name(k))).collect::<Vec<_>>().join(" AND ");
        let is_keys = |index: &&Index| same_columns(&index.columns, &key_names);
        Self {
            create_stage: format!("CREATE TEMPORARY TABLE backstay_stage ({}) ON COMMIT DELETE ROWS", stage.join(", ")),
            copy: "COPY pg_temp.backstay_stage FROM STDIN".to_owned(),
            delete: format!(
                "DELETE FROM {name} t USING pg_temp.backstay_stage s WHERE s.{OP} = '{}' AND {same}",
                Op::Delete.letter()
            ),
            update: upsert(Op::Update),
            upsert: upsert(Op::Insert),
            insert,
            is_log,
            key_indexes: indexes.iter().filter(is_keys).map(|i| i.name.clone()).collect(),
            name,
            schema,
            forms,
            key,
        }
    }

    /// Makes the stage, once a session.
    pub(super) fn create_stage(&self, session: &Session) -> Result<(), Failure> {
        session.statements(&self.create_stage).map(|_| ())
    }

    /// Brings changes into the table, within a transaction. `strict`: a row that comes must not be there.
    pub(super) fn apply(&self, session: &Session, pieces: Vec<(String, Vec<Op>)>, strict: bool) -> Result<(), Failure> {
        for (i, (lines, ops)) in pieces.into_iter().enumerate() {
            if i > 0 {
                session.statements("TRUNCATE pg_temp.backstay_stage")?;
            }
            session.copy(&self.copy, lines)?;
            for op in ops {
                match op {
                    Op::Delete => session.statements(&self.delete)?,
                    Op::Update => session.statements(&self.update)?,
                    Op::Insert if strict || self.is_log => session.statements(&self.insert)?,
                    Op::Insert => session.statements(&self.upsert)?,
                };
            }
        }
        Ok(())
    }

    /// Whether an index is one over the key.
    pub(super) fn is_key_index(&self, name: &str) -> bool {
        self.key_indexes.iter().any(|index| index == name)
    }

    /// Whether it has a row.
    pub(super) fn has_rows(&self, session: &Session) -> Result<bool, Failure> {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", self.name);
        session.run(async |client| client.query_one(&sql, &[]).await?.try_get(0))
    }
}

async fn look_up(client: &Client, name: &str) -> Result<Option<(Row, Vec<Column>, Vec<Index>)>, tokio_postgres::Error> {
    let Some(table) = client
        .query_opt(
            "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(n.nspname), c.relkind::text, c.relpersistence::text, \
             c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1::text)",
            &[&name],
        )
        .await?
    else {
        return Ok(None);
    };
    let oid: u32 = table.try_get(4)?;
    let columns = client
        .query(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), COALESCE(b.typname, t.typname)::text, t.typtype = 'e', \
             e.typname::text, CASE WHEN b.oid IS NULL THEN a.atttypmod ELSE t.typtypmod END, a.attnotnull, \
             a.atthasdef OR a.attidentity <> '', a.attgenerated <> '' OR a.attidentity = 'a' \
             FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
             LEFT JOIN pg_catalog.pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype \
             LEFT JOIN pg_catalog.pg_type e ON t.typcategory = 'A' AND e.oid = t.typelem \
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            &[&oid],
        )
        .await?;
    let column = |row: &Row| {
        let kind = ColumnType {
            sql: row.try_get(1)?,
            name: row.try_get(2)?,
            is_enum: row.try_get(3)?,
            item: row.try_get(4)?,
            modifier: row.try_get(5)?,
        };
        Ok::<_, tokio_postgres::Error>(Column {
            name: row.try_get(0)?,
            kind,
            not_null: row.try_get(6)?,
            has_default: row.try_get(7)?,
            is_generated: row.try_get(8)?,
        })
    };
    let columns = columns.iter().map(column).collect::<Result<_, _>>()?;
    // Indexes that ON CONFLICT can use: of plain columns, over all rows, checked at once.
    let indexes = client
        .query(
            "SELECT c.relname::text, i.indisprimary, \
             (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(column_number, place) \
              JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.column_number WHERE k.place <= i.indnkeyatts) \
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
             WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL",
            &[&oid],
        )
        .await?;
    let index = |row: &Row| {
        Ok::<_, tokio_postgres::Error>(Index {
            name: row.try_get(0)?,
            is_primary: row.try_get(1)?,
            columns: row.try_get(2)?,
        })
    };
    let indexes = indexes.iter().map(index).collect::<Result<_, _>>()?;
    Ok(Some((table, columns, indexes)))
}

/// Only what is durable together with the marker will do.
fn kind_fits(name: &str, kind: &str, persistence: &str) -> Result<(), String> {
    match (kind, persistence) {
        ("r" | "p", "p") => Ok(()),
        ("r" | "p", "u") => Err(format!(
            "table {name} is UNLOGGED: after a crash of the server it would be empty, and rows would be lost; ALTER TABLE {name} SET LOGGED"
        )),
        ("r" | "p", _) => Err(format!("table {name} is a temporary one; name a permanent one")),
        _ => Err(format!("{name} is not a table; \"table\" must name one")),
    }
}

/// How each column of the view is written, and what does not fit.
fn fit_columns(columns: &[Column], settings: &Settings, view: &Schema) -> (Vec<Form>, Vec<String>) {
    let (mut forms, mut wrong) = (Vec::new(), Vec::new());
    let mut own: Vec<(&str, &[&str])> = Vec::new();
    if let Mode::Cdc { op, ts, step } = &settings.mode {
        own.push((op, &["text", "varchar", "bpchar", "char"]));
        own.push((ts, &["timestamptz", "timestamp", "text", "varchar"]));
        own.extend(step.iter().map(|step| (step.as_str(), &["int8", "numeric"][..])));
    }
    for field in view.fields() {
        if own.iter().any(|(name, _)| name == field.name()) {
            wrong.push(format!("column {} is the view's and the log's; give the log's another name", field.name()));
        }
        let form = match columns.iter().find(|c| c.name == *field.name()) {
            None => {
                wrong.push(format!("column {} ({}) is missing", field.name(), declaration(field.data_type())));
                None
            }
            Some(column) if column.is_generated => {
                wrong.push(format!("column {} is GENERATED, and takes no values", column.name));
                None
            }
            Some(column) => {
                let form = fit(field.data_type(), &column.kind);
                if form.is_none() {
                    let (is, fits) = (&column.kind.sql, declaration(field.data_type()));
                    wrong.push(format!(
                        "column {} is {is}, which does not hold the view's values; {fits} does",
                        column.name
                    ));
                }
                form
            }
        };
        forms.push(form.unwrap_or(Form::Plain));
    }
    for (name, types) in &own {
        match columns.iter().find(|c| c.name == *name) {
            None => wrong.push(format!("column {name} ({}) is missing", types.first().unwrap_or(&"text"))),
            Some(column) if !types.contains(&column.kind.name.as_str()) => {
                wrong.push(format!("column {name} is {}; it must be {}", column.kind.sql, types.join(" or ")));
            }
            Some(_) => {}
        }
    }
    let written =
        |c: &Column| view.fields().iter().any(|f| *f.name() == c.name) || own.iter().any(|(name, _)| *name == c.name);
    for column in columns.iter().filter(|c| c.not_null && !c.has_default && !c.is_generated && !written(c)) {
        wrong.push(format!("column {} is NOT NULL without a default, and the view has no such column", column.name));
    }
    (forms, wrong)
}

/// The key's columns by their place in the view: those of the settings, or the primary key's.
fn key(table: &str, settings: &Settings, view: &Schema, indexes: &[Index]) -> Result<Vec<usize>, String> {
    let place = |name: &String| {
        view.fields().iter().position(|f| f.name() == name).ok_or_else(|| {
            format!("column {name} of the table's primary key is none of the view's; name the view's \"key\" columns, unique in the table")
        })
    };
    let is_log = matches!(settings.mode, Mode::Cdc { .. });
    if is_log {
        return settings.key.iter().map(place).collect();
    }
    if settings.key.is_empty() {
        let Some(primary) = indexes.iter().find(|i| i.is_primary) else {
            return Err(
                "it has no primary key to find rows by; add one, or name \"key\" columns that a unique index is over"
                    .to_owned(),
            );
        };
        return primary.columns.iter().map(place).collect();
    }
    let names: Vec<&str> = settings.key.iter().map(String::as_str).collect();
    if !indexes.iter().any(|i| same_columns(&i.columns, &names)) {
        let list = settings.key.iter().map(|k| quoted_name(k)).collect::<Vec<_>>().join(", ");
        return Err(format!(
            "no unique index is over its \"key\" columns; CREATE UNIQUE INDEX ON {table} ({list}) would make one"
        ));
    }
    settings.key.iter().map(place).collect()
}

fn same_columns(index: &[String], key: &[&str]) -> bool {
    index.len() == key.len() && index.iter().all(|c| key.contains(&c.as_str()))
}

/// The statement that would make a fitting table.
fn declare(settings: &Settings, view: &Schema) -> String {
    let mut columns: Vec<String> = Vec::new();
    if let Mode::Cdc { op, ts, step } = &settings.mode {
        columns.push(format!("{} text", quoted_name(op)));
        columns.push(format!("{} timestamptz", quoted_name(ts)));
        columns.extend(step.iter().map(|step| format!("{} bigint", quoted_name(step))));
    }
    columns.extend(view.fields().iter().map(|f| format!("{} {}", quoted_name(f.name()), declaration(f.data_type()))));
    let key = settings.key.iter().map(|k| quoted_name(k)).collect::<Vec<_>>().join(", ");
    match (&settings.mode, key.as_str()) {
        (Mode::Cdc { .. }, _) => {}
        (Mode::Materialized, "") => columns.push("PRIMARY KEY (…)".to_owned()),
        (Mode::Materialized, key) => columns.push(format!("PRIMARY KEY ({key})")),
    }
    format!("CREATE TABLE {} ({})", settings.table, columns.join(", "))
}
