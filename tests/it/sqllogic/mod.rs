//! Functions and types, by files in sqllogictest's format: each query's answer stands in the file.
//!
//! The same files are put to PostgreSQL, if there is a server: what it says otherwise is marked `skipif postgres` in the file, with the reason, and
//! what only we have with `onlyif backstay`. So an answer that stands there without a mark is PostgreSQL's, too.
//!
//! Values are written as psql writes them: `t` and `f`, `2024-01-31 12:00:00`, `{1,2,NULL}`; an empty text is `(empty)`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use backstay::pipeline::query::answer_over;
use sqllogictest::{DB, DBOutput, DefaultColumnType, Runner};

use crate::postgres::server::Server;
use crate::process::repository;

/// What an engine says to a query that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

type Output = DBOutput<DefaultColumnType>;

/// Our own circuit.
struct Backstay;

impl DB for Backstay {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<Output, Refused> {
        let answer = answer_over(sql, &BTreeMap::new()).map_err(|e| Refused(e.to_string()))?.rows;
        let columns: Vec<Vec<String>> = answer.columns().iter().map(texts).collect();
        let rows = (0..answer.num_rows()).map(|row| columns.iter().map(|c| c[row].clone()).collect());
        Ok(DBOutput::Rows { types: answer.columns().iter().map(kind).collect(), rows: rows.collect() })
    }

    fn engine_name(&self) -> &str {
        "backstay"
    }
}

fn kind(column: &ArrayRef) -> DefaultColumnType {
    match column.data_type() {
        t if t.is_integer() => DefaultColumnType::Integer,
        t if t.is_floating() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

fn texts(column: &ArrayRef) -> Vec<String> {
    (0..column.len()).map(|row| shown(text(column, row))).collect()
}

fn shown(value: Option<String>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(text) if text.is_empty() => "(empty)".to_owned(),
        Some(text) => text,
    }
}

/// A value as PostgreSQL writes it.
fn text(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    let options = FormatOptions::default().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"));
    Some(match column.data_type() {
        DataType::Boolean => if column.as_boolean().value(row) { "t" } else { "f" }.to_owned(),
        DataType::Float64 => column.as_primitive::<arrow::datatypes::Float64Type>().value(row).to_string(),
        DataType::Float32 => column.as_primitive::<arrow::datatypes::Float32Type>().value(row).to_string(),
        DataType::Binary => {
            column.as_binary::<i32>().value(row).iter().fold("\\x".to_owned(), |hex, byte| hex + &format!("{byte:02x}"))
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let items = (0..items.len()).map(|i| match text(&items, i) {
                None => "NULL".to_owned(),
                Some(text) if text.is_empty() => "\"\"".to_owned(),
                Some(text) => text,
            });
            format!("{{{}}}", items.collect::<Vec<_>>().join(","))
        }
        _ => ArrayFormatter::try_new(column.as_ref(), &options).unwrap().value(row).to_string(),
    })
}

/// A real server, which says what SQL means.
struct Postgres {
    client: tokio_postgres::Client,
    runtime: tokio::runtime::Runtime,
}

impl Postgres {
    fn connect(uri: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (client, connection) = runtime.block_on(tokio_postgres::connect(uri, tokio_postgres::NoTls)).unwrap();
        runtime.spawn(connection);
        runtime.block_on(client.batch_execute("SET timezone = 'UTC'; SET intervalstyle = 'iso_8601'")).unwrap();
        Self { client, runtime }
    }
}

impl DB for Postgres {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<Output, Refused> {
        let refused = |e: tokio_postgres::Error| Refused(format!("{e}: {:?}", e.as_db_error()));
        let answer = self.runtime.block_on(self.client.simple_query(sql)).map_err(refused)?;
        let rows = answer.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| shown(row.get(i).map(str::to_owned))).collect::<Vec<_>>())
            }
            _ => None,
        });
        let rows: Vec<Vec<String>> = rows.collect();
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; rows.first().map_or(0, Vec::len)], rows })
    }

    fn engine_name(&self) -> &str {
        "postgres"
    }
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join("tests/it/sqllogic")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "slt"));
    files.sort();
    assert!(files.len() >= 8, "the files are not where they are looked for");
    files
}

/// Runs each record of a file, and tells of all that differ.
fn differences<D: DB + Send>(
    runner: &mut Runner<D, impl sqllogictest::MakeConnection<Conn = D>>,
    file: &Path,
) -> Vec<String> {
    let records = sqllogictest::parse_file::<D::ColumnType>(file).unwrap();
    records.into_iter().filter_map(|record| runner.run(record).err()).map(|e| format!("{}", e.display(false))).collect()
}

#[test]
fn our_answers() {
    let mut runner = Runner::new(|| async { Ok(Backstay) });
    // Column types are ours: integers, floats, all else.
    runner.with_column_validator(sqllogictest::strict_column_validator);
    let failed: Vec<String> = files().iter().flat_map(|file| differences(&mut runner, file)).collect();
    assert!(failed.is_empty(), "{} differ\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn what_postgres_says() {
    let Some(server) = Server::shared() else { return };
    let database = server.database();
    let uri = database.uri.clone();
    let mut runner = Runner::new(move || {
        let uri = uri.clone();
        async move { Ok(std::thread::spawn(move || Postgres::connect(&uri)).join().unwrap()) }
    });
    let failed: Vec<String> = files().iter().flat_map(|file| differences(&mut runner, file)).collect();
    assert!(failed.is_empty(), "{} differ\n{}", failed.len(), failed.join("\n"));
}
