//! The flights example against DataFusion's batch answer over the same files.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::datatypes::SchemaRef;
use backstay::sql::Program;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use serde_json::Value;

use crate::process::{files, integrate, repository, succeed};

fn table(path: &Path, schema: &SchemaRef) -> RecordBatch {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    if path.extension().is_some_and(|e| e == "gz") {
        flate2::read::GzDecoder::new(file).read_to_end(&mut text).unwrap();
    } else {
        std::io::BufReader::new(file).read_to_end(&mut text).unwrap();
    }
    // The files have more columns than the tables, in their own order: read all as text, then cast the ones that the table names.
    let header = std::str::from_utf8(text.split(|b| *b == b'\n').next().unwrap()).unwrap().to_string();
    let fields: Vec<_> = header
        .split(',')
        .map(|name| match schema.field_with_name(name) {
            Ok(field) => field.clone().with_nullable(true),
            Err(_) => arrow::datatypes::Field::new(name, arrow::datatypes::DataType::Utf8, true),
        })
        .collect();
    let whole = Arc::new(arrow::datatypes::Schema::new(fields));
    let reader = ReaderBuilder::new(whole)
        .with_header(true)
        .with_null_regex(regex::Regex::new("^(NA)?$").unwrap())
        .with_projection(
            schema.fields().iter().map(|f| header.split(',').position(|h| h == f.name()).unwrap()).collect(),
        )
        .build(text.as_slice())
        .unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    let read = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let columns = schema.fields().iter().map(|f| Arc::clone(read.column_by_name(f.name()).unwrap())).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

/// The batch answer of each view, as JSON rows.
fn batch_answers(program: &Program, data: &Path) -> BTreeMap<String, Vec<BTreeMap<String, Value>>> {
    let context = SessionContext::new();
    for table_def in &program.tables {
        let plain = data.join(format!("{}.csv", table_def.name));
        let path = if plain.exists() { plain } else { data.join(format!("{}.csv.gz", table_def.name)) };
        let batch = table(&path, &table_def.schema);
        let table = MemTable::try_new(Arc::clone(&table_def.schema), vec![vec![batch]]).unwrap();
        context.register_table(table_def.name.as_str(), Arc::new(table)).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut answers = BTreeMap::new();
    for view in &program.views {
        let frame = runtime.block_on(context.sql(&view.sql)).unwrap();
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let batches = runtime.block_on(frame.collect()).unwrap();
        let mut rows = Vec::new();
        let mut writer = arrow::json::WriterBuilder::new()
            .with_explicit_nulls(true)
            .build::<_, arrow::json::writer::LineDelimited>(&mut rows);
        for batch in &batches {
            writer.write(batch).unwrap();
        }
        writer.finish().unwrap();
        drop(writer);
        let rows = std::str::from_utf8(&rows).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        answers.insert(view.name.clone(), rows);
        let table = MemTable::try_new(schema, vec![batches]).unwrap();
        context.register_table(view.name.as_str(), Arc::new(table)).unwrap();
    }
    answers
}

/// Rows sorted by what is exact in them.
fn sorted(mut rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    rows.sort_by_key(|row| {
        row.iter().map(|v| if v.is_f64() { String::new() } else { v.to_string() }).collect::<Vec<_>>()
    });
    rows
}

fn close(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        // Our float sums are exact and rounded once; DataFusion's depend on the order.
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        _ => a == b,
    }
}

#[test]
fn each_view_is_the_batch_answer() {
    let temp = tempfile::tempdir().unwrap();
    let sql = repository().join("examples/flights/flights.sql");
    let data = temp.path().join("data");
    let text = std::fs::read_to_string(&sql).unwrap();
    let program = backstay::sql::compile(&text, "flights.sql").unwrap();
    let said = succeed(["run", sql.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--until-end"]);
    assert!(said.contains("367687 rows in all") && !said.contains("did not parse"), "{said}");
    let out = files(&data.join("out"));
    let answers = batch_answers(&program, &repository().join("examples/flights/data"));
    assert_eq!(answers.len(), 7);
    for view in &program.views {
        let columns: Vec<&str> = view.schema.fields().iter().map(|f| f.name().as_str()).collect();
        let expected: Vec<Vec<Value>> =
            answers[&view.name].iter().map(|row| columns.iter().map(|c| row[*c].clone()).collect()).collect();
        let (name, bytes) = out.iter().find(|(name, _)| name.split('.').next() == Some(view.name.as_str())).unwrap();
        let mut got = Vec::new();
        for (row, weight) in integrate(name, bytes) {
            assert!(weight > 0, "{name}: {row} has weight {weight}");
            let row: Vec<Value> = if name.ends_with(".csv") {
                row.split(',').map(|f| serde_json::from_str(f).unwrap_or_else(|_| Value::String(f.into()))).collect()
            } else {
                let row: BTreeMap<String, Value> = serde_json::from_str(&row).unwrap();
                columns.iter().map(|c| row[*c].clone()).collect()
            };
            got.extend(std::iter::repeat_n(row, usize::try_from(weight).unwrap()));
        }
        assert!(!expected.is_empty(), "{} has rows", view.name);
        assert_eq!(expected.len(), got.len(), "{}: number of rows", view.name);
        for (expected, got) in sorted(expected).iter().zip(&sorted(got)) {
            assert!(
                expected.iter().zip(got).all(|(e, g)| close(e, g)),
                "{}: expected {expected:?}, got {got:?}",
                view.name
            );
        }
    }
}
