//! Nexmark's queries, as they stand in `examples/nexmark/`: each is DataFusion's batch answer over the same events, in process with 1 and 2
//! workers, and as one program of a process that is killed on its way.
//!
//! `BACKSTAY_NEXMARK_EVENTS` is how many events there are.

use std::collections::{BTreeSet, HashMap};
use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use backstay::circuit::Delta;
use backstay::circuit::row::{RowCodec, normalise};
use backstay::connector::{Context, Next, Position, registry};
use backstay::sql::{Program, Table, compile};

use super::circuit::Circuit;
use super::oracle::{self, Oracle, Rows};
use crate::process::{Victim, integrate, repository, succeed};
use crate::rng::Rng;

const QUERIES: usize = 23;
const STEPS: usize = 12;
const KILLS: u64 = 4;

fn events() -> u64 {
    crate::rng::number_from("BACKSTAY_NEXMARK_EVENTS", 30_000)
}

/// The text of query `n`, over as many events as there are to be.
fn text(n: usize, events: u64) -> String {
    let file = repository().join(format!("examples/nexmark/q{n}.sql"));
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("\"events\": 1000000}"));
    text.replace("\"events\": 1000000}", &format!("\"events\": {events}}}"))
}

/// What the batch engine is asked instead, since it has no windows of time.
fn reference(sql: &str) -> String {
    let (ten, two) = ("INTERVAL '10' SECOND", "INTERVAL '2' SECOND");
    let window = |table: &str, start: &str| {
        format!("SELECT *, {start} AS window_start, {start} + {ten} AS window_end FROM {table}")
    };
    let mut sql = sql.to_owned();
    for table in ["person", "auction", "bid"] {
        let tumble = format!("TUMBLE({table}, DESCRIPTOR(datetime), {ten})");
        sql = sql.replace(&tumble, &format!("({})", window(table, &format!("date_bin({ten}, datetime)"))));
    }
    let starts = (0..5).map(|back| format!("date_bin({two}, datetime) - INTERVAL '{}' SECOND", 2 * back));
    let hops: Vec<String> = starts.map(|start| window("bid", &start)).collect();
    sql = sql
        .replace(&format!("HOP(bid, DESCRIPTOR(datetime), {two}, {ten})"), &format!("({})", hops.join(" UNION ALL ")));
    sql = super::time::standard(&sql, 0);
    assert!(!sql.contains("DESCRIPTOR"), "{sql}");
    sql
}

/// The rows that a table's connector gives.
fn rows(table: &Table) -> RecordBatch {
    let [config] = &table.connectors[..] else { panic!("{} has one connector", table.name) };
    let context = Context {
        append_only: table.is_append_only(),
        rereads: false,
        pipeline: "nexmark".into(),
        name: format!("{}.{}", table.name, config.name),
        schema: table.schema.clone(),
        declared: Vec::new(),
        primary_key: table.primary_key.clone(),
        disk: backstay_storage::disk::system(),
        base_dir: ".".into(),
        variables: std::collections::BTreeMap::new(),
    };
    let mut reader = registry::input(config, context).unwrap().open(&Position::default()).unwrap();
    let mut chunks = Vec::new();
    loop {
        match reader.next().unwrap() {
            Next::Chunk(chunk) => chunks.push(chunk.rows),
            Next::Idle => {}
            Next::End => return concat_batches(&table.schema, &chunks).unwrap(),
        }
    }
}

/// The rows of tables that several queries have alike.
#[derive(Default)]
struct Contents(HashMap<String, RecordBatch>);

impl Contents {
    fn of(&mut self, program: &Program) -> Vec<RecordBatch> {
        let one = |table: &Table| self.0.entry(table.name.clone()).or_insert_with(|| rows(table)).clone();
        program.tables.iter().map(one).collect()
    }
}

/// The batch answers of a program's views.
fn answers(oracle: &Oracle, program: &Program, contents: &[RecordBatch]) -> Vec<RecordBatch> {
    let references: Vec<(String, String)> =
        program.views.iter().map(|view| (view.name.clone(), reference(&view.sql))).collect();
    let references: Vec<(&str, &str)> = references.iter().map(|(n, sql)| (n.as_str(), sql.as_str())).collect();
    oracle.answers(program, &references, &|table| contents[table].clone(), 0).unwrap()
}

#[test]
fn each_query_is_the_batch_answer() {
    let oracle = Oracle::new();
    let mut contents = Contents::default();
    for n in 0..QUERIES {
        let program = compile(&text(n, events()), &format!("q{n}.sql")).unwrap_or_else(|e| panic!("{e}"));
        let contents = contents.of(&program);
        let answer = answers(&oracle, &program, &contents).remove(0);
        assert!(answer.num_rows() > 0, "nothing is tested by q{n}");
        for workers in [1, 2] {
            let mut circuit = Circuit::start(&program, workers, n as u64);
            for step in 0..STEPS {
                let part = |rows: &RecordBatch| {
                    let at = |step: usize| rows.num_rows() * step / STEPS;
                    let rows = rows.slice(at(step), at(step + 1) - at(step));
                    vec![Delta { weights: vec![1; rows.num_rows()], rows }]
                };
                circuit.step(0, &contents.iter().map(part).collect()).unwrap();
            }
            let view = &program.views[0];
            oracle::compare(&view.schema, circuit.view(&view.name), &answer)
                .unwrap_or_else(|e| panic!("q{n}, {workers} worker(s): {e}"));
        }
    }
}

/// All queries in one program: each table once.
fn together(events: u64) -> String {
    let mut parts = BTreeSet::new();
    let mut sql = String::new();
    for n in 0..QUERIES {
        let text = text(n, events);
        let (_, statements) = text.split_once('\n').unwrap_or_else(|| panic!("q{n} begins with a comment"));
        // Statements end with the only semicolons that end a line.
        for statement in statements.split_inclusive(";\n") {
            if parts.insert(statement.trim().to_owned()) {
                sql.push_str(statement);
            }
        }
    }
    sql
}

/// The rows that a view's file adds up to.
fn written(file: &Path, schema: &SchemaRef) -> Rows {
    let name = file.file_name().unwrap().to_str().unwrap();
    let rows = integrate(name, &std::fs::read(file).unwrap());
    let text: String = rows.keys().map(|row| format!("{row}\n")).collect();
    let reader =
        arrow::json::ReaderBuilder::new(schema.clone()).with_batch_size(8192).build(Cursor::new(text)).unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    let all = concat_batches(schema, &batches).unwrap();
    let columns: Vec<_> = all.columns().iter().map(normalise).collect();
    let encoded = RowCodec::of_schema(schema).unwrap().encode(&columns, all.num_rows()).unwrap();
    let mut total = Rows::new();
    for (i, weight) in rows.values().enumerate() {
        *total.entry(encoded.get(i).to_vec()).or_default() += weight;
    }
    total
}

#[test]
fn killed_on_their_way_they_are_the_batch_answers() {
    let (mut random, seed) = Rng::from_env(20_150_715);
    let temp = tempfile::tempdir().unwrap();
    let sql = temp.path().join("nexmark.sql");
    let text = together(events());
    std::fs::write(&sql, &text).unwrap();
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}, "max_rows_per_step": 1500}"#;
    std::fs::write(temp.path().join("nexmark.config.json"), config).unwrap();
    let program = compile(&text, "nexmark.sql").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(program.views.len(), QUERIES);

    let contents = Contents::default().of(&program);
    let answers = answers(&Oracle::new(), &program, &contents);
    let data = temp.path().join("data");
    let args = ["run", sql.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--until-end", "--workers", "2"];
    let total = 900 * events();
    let mut killed = 0;
    for kill in 0..KILLS {
        let moment = total * kill / KILLS + random.below(total / KILLS);
        killed +=
            u64::from(Victim::start(&args, &data.join("out")).kill_at(moment, Duration::from_millis(random.below(50))));
    }
    succeed(args);
    println!("seed {seed}: {killed} kills");
    assert!(killed >= KILLS / 2, "seed {seed}: only {killed} kills hit");
    for (view, answer) in program.views.iter().zip(&answers) {
        let got = written(&data.join(format!("out/{}.ndjson", view.name)), &view.schema);
        oracle::compare(&view.schema, &got, answer).unwrap_or_else(|e| panic!("seed {seed}, {}: {e}", view.name));
    }
}
