//! Parquet files through the real process: under SIGKILL, and what is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

use crate::cli::Place;
use crate::process::{Victim, files, succeed};
use crate::rng::{Rng, number_from};

/// A file with `more`, `ID` and `name`, in row groups of so many rows.
pub fn file(ids: std::ops::Range<u64>, group: usize) -> Vec<u8> {
    let names = ids.clone().map(|id| (id % 7 != 0).then(|| format!("name of {id}")));
    let ids: Int64Array = ids.map(|id| Some(id as i64)).collect();
    let fields = vec![
        Field::new("more", DataType::Int64, true),
        Field::new("ID", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
    ];
    let schema = Arc::new(Schema::new(fields));
    let columns: Vec<Arc<dyn Array>> =
        vec![Arc::new(ids.clone()), Arc::new(ids), Arc::new(names.collect::<StringArray>())];
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties)).unwrap();
    writer.write(&RecordBatch::try_new(schema, columns).unwrap()).unwrap();
    writer.into_inner().unwrap()
}

/// The rows of a file, as text.
pub fn rows_of(content: Vec<u8>) -> Vec<String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(content)).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader.map(Result::unwrap) {
        let options = arrow::util::display::FormatOptions::default().with_null("NULL");
        let columns = batch.columns().iter();
        let texts: Vec<_> =
            columns.map(|c| arrow::util::display::ArrayFormatter::try_new(c, &options).unwrap()).collect();
        let row = |i: usize| texts.iter().map(|t| t.value(i).to_string()).collect::<Vec<_>>().join(",");
        rows.extend((0..batch.num_rows()).map(row));
    }
    rows
}

fn sql(place: &Place) -> String {
    format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL, name VARCHAR) WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "file_input",
        "config": {{"path": "in/*.parquet"}}}}, "format": {{"name": "parquet"}}}}]');
        CREATE VIEW v WITH ('connectors' = '[{{"name": "out", "transport": {{"name": "s3_output", "config": {{"url": "file://{}", "prefix": "v-"}}}},
        "format": {{"name": "parquet", "config": {{"include_step": true}}}}}}]') AS SELECT id, name FROM t WHERE id % 2 = 0;"#,
        place.path("out").display()
    )
}

#[test]
fn files_become_files_once_under_kills() {
    let (mut random, seed) = Rng::from_env(17);
    let kills = number_from("BACKSTAY_KILLS", 6);
    let place = Place::new();
    for dir in ["in", "out"] {
        std::fs::create_dir(place.path(dir)).unwrap();
    }
    place.write("p.sql", &sql(&place));
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}, "max_rows_per_step": 200}"#;
    place.write("p.config.json", config);
    for part in 0..3 {
        let content = file(part * 10_000..(part + 1) * 10_000, 3_000 + part as usize);
        std::fs::write(place.path(&format!("in/{part}.parquet")), content).unwrap();
    }
    let (sql, data) = (place.path("p.sql"), place.path("data"));
    let args = ["run", sql.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--until-end"];
    let mut moments: Vec<u64> = (0..kills).map(|_| random.below(200_000)).collect();
    moments.sort_unstable();
    let mut killed = 0;
    for moment in moments {
        let later = Duration::from_millis(random.below(30));
        killed += u64::from(Victim::start(&args, &place.path("out")).kill_at(moment, later));
    }
    assert!(killed * 2 >= kills, "seed {seed}: only {killed} kills hit");
    succeed(args);
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for (name, content) in files(&place.path("out")).into_iter().filter(|(name, _)| !name.contains('#')) {
        let step: u64 = name.strip_prefix("v-").unwrap().strip_suffix(".parquet").unwrap().parse().unwrap();
        for row in rows_of(content) {
            let row = row.strip_prefix(&format!("{step},")).unwrap_or_else(|| panic!("{name}: {row}"));
            *found.entry(row.to_owned()).or_default() += 1;
        }
    }
    let name = |id: u64| if id.is_multiple_of(7) { "NULL".to_owned() } else { format!("name of {id}") };
    let expected = (0..30_000).step_by(2).map(|id| (format!("{id},{},insert", name(id)), 1)).collect();
    assert!(found == expected, "seed {seed}: rows are missing or doubled");
    eprintln!("{killed} kills");
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let place = Place::new();
    for dir in ["in", "out"] {
        std::fs::create_dir(place.path(dir)).unwrap();
    }
    let refused = |sql: &str, code: i32, words: &[&str]| {
        place.write("p.sql", sql);
        let _ = std::fs::remove_dir_all(place.path("data"));
        let said = place.fail(code);
        for word in words {
            assert!(said.contains(word), "no \"{word}\" in: {said}");
        }
    };
    let put = |content: Vec<u8>| std::fs::write(place.path("in/a.parquet"), content).unwrap();
    let whole = file(0..10, 5);
    put(whole[..whole.len() - 3].to_vec());
    refused(&sql(&place), 1, &["t.in", "in/a.parquet", "does not end with PAR1"]);
    let mut spoilt = whole.clone();
    let at = whole.len() - 40;
    spoilt[at..at + 20].fill(0xff);
    put(spoilt);
    refused(&sql(&place), 1, &["t.in", "in/a.parquet", "cannot be read as Parquet"]);
    put(whole);
    refused(&sql(&place).replace("id BIGINT", "id DOUBLE"), 1, &["column id is Int64", "a number"]);
    refused(
        &sql(&place).replace("name VARCHAR", "nam VARCHAR NOT NULL").replace("id, name", "id"),
        1,
        &["no column nam", "NOT NULL", "more, ID, name"],
    );
    let to_file = sql(&place);
    let from = to_file.find(r#""s3_output""#).unwrap();
    let end = from + to_file[from..].find("}}").unwrap();
    let to_file = format!(r#"{}"file_output", "config": {{"path": "x""#, &to_file[..from]) + &to_file[end..];
    refused(&to_file, 2, &["v.out", "ends with its footer", "use s3_output"]);
    let follow = sql(&place).replace(r#""path": "in"#, r#""follow": true, "path": "in"#);
    refused(&follow, 2, &["t.in", "leave it out with parquet"]);
}
