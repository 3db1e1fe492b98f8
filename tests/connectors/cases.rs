//! The product's connectors, each with a source or sink to be checked over.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use backstay::connector::config::ConnectorConfig;
use backstay::connector::{Context, Input, Output, registry};
use backstay_storage::disk::{Create, Disk, OpenOptions, SimDisk};

use super::{inputs, outputs};
use crate::kafka::broker::{Broker, ids};
use crate::postgres::server::Server as Postgres;
use crate::rng::Rng;
use crate::url::{Resource, Server};

pub(super) const ROWS: u64 = 500;

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)]))
}

pub(super) fn context(disk: &SimDisk, pipeline: &str, schema: SchemaRef) -> Context {
    Context {
        append_only: false,
        rereads: true,
        name: "r.c".to_owned(),
        pipeline: pipeline.to_owned(),
        schema,
        declared: Vec::new(),
        primary_key: Vec::new(),
        disk: Arc::new(disk.clone()),
        base_dir: "/data".into(),
        variables: Default::default(),
    }
}

pub(super) fn config(json: &str) -> ConnectorConfig {
    ConnectorConfig::parse_list("r", &format!("[{json}]")).unwrap().remove(0)
}

pub(super) fn disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk
}

pub(super) fn put(disk: &SimDisk, path: &str, content: impl AsRef<[u8]>) {
    let options = OpenOptions { write: true, create: Create::IfAbsent, direct: false };
    let file = disk.open(Path::new(path), options).unwrap();
    file.set_len(0).unwrap();
    file.write_at(content.as_ref(), 0).unwrap();
}

pub(super) fn csv(ids: std::ops::Range<u64>) -> String {
    let mut text = "id,name\n".to_owned();
    ids.for_each(|id| writeln!(text, "{id},\"name, {id}\"").unwrap());
    text
}

/// Change events, an update every third: so many rows, and one that does not parse.
fn events() -> (String, usize) {
    let mut text = "spoilt\n".to_owned();
    let mut rows = 0;
    for id in 0..ROWS {
        let (event, count) = match id % 3 {
            0 => (format!(r#"{{"op": "u", "before": {{"id": {id}}}, "after": {{"id": {}}}}}"#, id + 1), 2),
            1 => (format!(r#"{{"op": "c", "after": {{"id": {id}, "name": "é\n"}}}}"#), 1),
            _ => ("null".to_owned(), 0),
        };
        text += &(event + "\n");
        rows += count;
    }
    (text, rows)
}

pub(super) fn input(disk: &SimDisk, json: &str, schema: SchemaRef) -> Box<dyn Input> {
    registry::input(&config(json), context(disk, "p", schema)).unwrap()
}

#[test]
fn file_input_keeps_the_contract() {
    let (mut random, seed) = Rng::from_env(1);
    let disk = disk();
    put(&disk, "/data/a.csv", csv(0..ROWS));
    put(&disk, "/data/b.csv", csv(ROWS..2 * ROWS));
    let json = r#"{"transport": {"name": "file_input", "config": {"path": "?.csv"}}, "format": {"name": "csv"}}"#;
    let case = inputs::Case {
        name: &format!("file_input of csv, seed {seed}"),
        make: &|| input(&disk, json, schema()),
        rows: 2 * ROWS as usize,
        change: Some(&|| put(&disk, "/data/a.csv", csv(1..ROWS + 1))),
    };
    inputs::check(&case, &mut random);

    let (text, rows) = events();
    put(&disk, "/data/a.ndjson", &text);
    let json = r#"{"transport": {"name": "file_input", "config": {"path": "a.ndjson", "follow": true}},
        "format": {"name": "json", "config": {"update_format": "debezium"}}}"#;
    let case = inputs::Case {
        name: &format!("file_input of change events, seed {seed}"),
        make: &|| input(&disk, json, schema()),
        rows,
        change: Some(&|| put(&disk, "/data/a.ndjson", &text[7..])),
    };
    inputs::check(&case, &mut random);
}

#[test]
fn url_input_keeps_the_contract() {
    let (mut random, seed) = Rng::from_env(2);
    let server = Server::start(Resource::new(csv(0..ROWS), "v1"));
    let json = format!(
        r#"{{"transport": {{"name": "url_input", "config": {{"path": "{}"}}}}, "format": {{"name": "csv"}}}}"#,
        server.url()
    );
    let disk = disk();
    let case = inputs::Case {
        name: &format!("url_input, seed {seed}"),
        make: &|| input(&disk, &json, schema()),
        rows: ROWS as usize,
        change: Some(&|| server.change(|r| *r = Resource::new(csv(0..ROWS), "v2"))),
    };
    inputs::check(&case, &mut random);
}

#[test]
fn s3_input_keeps_the_contract() {
    let (mut random, seed) = Rng::from_env(3);
    let temp = tempfile::tempdir().unwrap();
    let object = |name: &str, content: String| std::fs::write(temp.path().join(name), content).unwrap();
    object("a-1", csv(0..ROWS));
    object("a-2", csv(ROWS..2 * ROWS));
    object("b", "id\n7\n".to_owned());
    let json = format!(
        r#"{{"transport": {{"name": "s3_input", "config": {{"url": "file://{}", "prefix": "a-"}}}}, "format": {{"name": "csv"}}}}"#,
        temp.path().display()
    );
    let disk = disk();
    let case = inputs::Case {
        name: &format!("s3_input, seed {seed}"),
        make: &|| input(&disk, &json, schema()),
        rows: 2 * ROWS as usize,
        change: Some(&|| object("a-1", csv(0..ROWS) + "7,more\n")),
    };
    inputs::check(&case, &mut random);
}

#[test]
fn generators_keep_the_contract() {
    let (mut random, seed) = Rng::from_env(4);
    let disk = disk();
    let json = r#"{"transport": {"name": "datagen", "config": {"seed": 7, "plan": [{"limit": 5000, "fields": {}}]}}}"#;
    let case = inputs::Case {
        name: &format!("datagen, seed {seed}"),
        make: &|| input(&disk, json, Arc::new(schema().project(&[0]).unwrap())),
        rows: 5000,
        change: None,
    };
    inputs::check(&case, &mut random);
    let json = r#"{"transport": {"name": "nexmark", "config": {"table": "bid", "options": {"events": 5000}}}}"#;
    let bid = Arc::new(Schema::new(vec![
        Field::new("auction", DataType::Int64, false),
        Field::new("price", DataType::Int64, false),
    ]));
    let case = inputs::Case {
        name: &format!("nexmark, seed {seed}"),
        make: &|| input(&disk, json, Arc::clone(&bid) as SchemaRef),
        rows: 4600,
        change: None,
    };
    inputs::check(&case, &mut random);
}

#[test]
fn kafka_input_keeps_the_contract() {
    let Some(broker) = Broker::start() else { return };
    let (mut random, seed) = Rng::from_env(5);
    broker.create(&[("in", 2)]);
    broker.send("in", &ids(0..ROWS));
    let json = format!(
        r#"{{"transport": {{"name": "kafka_input", "config": {{"bootstrap.servers": "{}", "topic": "in", "include_offset": "place"}}}},
        "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}"#,
        broker.address
    );
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("place", DataType::Int64, false)];
    let (disk, placed) = (disk(), Arc::new(Schema::new(fields)));
    let case = inputs::Case {
        name: &format!("kafka_input, seed {seed}"),
        make: &|| input(&disk, &json, Arc::clone(&placed) as SchemaRef),
        rows: ROWS as usize,
        change: None,
    };
    inputs::check(&case, &mut random);
}

#[test]
fn postgres_input_keeps_the_contract() {
    let Some(server) = Postgres::shared() else { return };
    let (mut random, seed) = Rng::from_env(8);
    let db = server.database();
    let slot = format!("contract_{}", db.uri.rsplit('/').next().unwrap());
    db.execute("CREATE TABLE t (id bigint PRIMARY KEY, name text); CREATE PUBLICATION p FOR TABLE t");
    db.execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    for first in (0..200).step_by(5) {
        db.execute(&format!("INSERT INTO t SELECT i, 'name ' || i FROM generate_series({first}, {first} + 4) i"));
    }
    db.execute("UPDATE t SET name = NULL WHERE id < 50; ALTER TABLE t REPLICA IDENTITY FULL");
    db.execute("UPDATE t SET id = id + 1000 WHERE id < 10");
    let json = format!(
        r#"{{"transport": {{"name": "postgres_input", "config": {{"uri": "{}", "table": "t", "publication": "p", "slot": "{slot}", "snapshot": false}}}}}}"#,
        db.uri
    );
    let disk = disk();
    let make = || {
        let keyed = Context { primary_key: vec![0], ..context(&disk, "p", schema()) };
        registry::input(&config(&json), keyed).unwrap()
    };
    // An update of the key is two rows.
    let case =
        inputs::Case { name: &format!("postgres_input, seed {seed}"), make: &make, rows: 200 + 50 + 20, change: None };
    inputs::check(&case, &mut random);
    // The slot is free a moment after its reader has gone.
    let drop = format!("SELECT pg_drop_replication_slot('{slot}')");
    while db.try_query(&drop).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

pub(super) fn output(disk: &SimDisk, sink: usize, json: &str) -> Box<dyn Output> {
    registry::output(&config(json), context(disk, &format!("p{sink}"), schema())).unwrap()
}

#[test]
fn file_output_keeps_the_contract() {
    let disk = disk();
    for format in [
        r#"{"name": "json", "config": {"include_step": true}}"#,
        r#"{"name": "json", "config": {"update_format": "debezium"}}"#,
        r#"{"name": "csv", "config": {"include_step": true}}"#,
    ] {
        let path = |sink: usize| format!("/data/{}-{sink}", format.len());
        let case = outputs::Case {
            name: &format!("file_output of {format}"),
            make: &|sink| {
                let transport = format!(r#"{{"name": "file_output", "config": {{"path": "{}"}}}}"#, path(sink));
                output(&disk, sink, &format!(r#"{{"transport": {transport}, "format": {format}}}"#))
            },
            content: &|sink| {
                let content = String::from_utf8(disk.read_file(path(sink)).unwrap()).unwrap();
                Some(content.lines().map(str::to_owned).collect())
            },
            every: 1,
        };
        outputs::check(&case, &schema());
    }
}

#[test]
fn s3_output_keeps_the_contract() {
    let (disk, temp) = (disk(), tempfile::tempdir().unwrap());
    let case = outputs::Case {
        name: "s3_output",
        make: &|sink| {
            let url = format!("file://{}", temp.path().display());
            let transport = format!(r#"{{"name": "s3_output", "config": {{"url": "{url}", "prefix": "{sink}/v-"}}}}"#);
            output(&disk, sink, &format!(r#"{{"transport": {transport}, "format": {{"name": "csv"}}}}"#))
        },
        content: &|sink| {
            let files = crate::process::files(&temp.path().join(sink.to_string()));
            Some(
                files
                    .into_iter()
                    .map(|(name, content)| format!("{name}: {}", String::from_utf8(content).unwrap()))
                    .collect(),
            )
        },
        every: 1,
    };
    outputs::check(&case, &schema());
}

#[test]
fn null_output_keeps_the_contract() {
    let disk = disk();
    let case = outputs::Case {
        name: "null_output",
        make: &|sink| output(&disk, sink, r#"{"transport": {"name": "null_output"}}"#),
        content: &|_| None,
        every: 1,
    };
    outputs::check(&case, &schema());
}

#[test]
fn kafka_output_keeps_the_contract() {
    let Some(broker) = Broker::start() else { return };
    let topics: Vec<String> = (0..6).map(|sink| format!("v{sink}")).collect();
    broker.create(&topics.iter().map(|topic| (topic.as_str(), 2)).collect::<Vec<_>>());
    let disk = disk();
    let case = outputs::Case {
        name: "kafka_output",
        make: &|sink| {
            let settings = format!(r#""bootstrap.servers": "{}", "topic": "v{sink}""#, broker.address);
            let format = r#"{"name": "json", "config": {"include_step": true}}"#;
            output(
                &disk,
                sink,
                &format!(
                    r#"{{"transport": {{"name": "kafka_output", "config": {{{settings}}}}}, "format": {format}}}"#
                ),
            )
        },
        content: &|sink| {
            let messages = broker.read(&format!("v{sink}"));
            Some(messages.into_values().flatten().filter_map(|(_, value)| value).collect())
        },
        every: 5,
    };
    outputs::check(&case, &schema());
}

#[test]
fn postgres_output_keeps_the_contract() {
    let Some(server) = Postgres::shared() else { return };
    let db = server.database();
    (0..40).for_each(|sink| db.execute(&format!("CREATE TABLE v{sink} (id bigint PRIMARY KEY, name text)")));
    let disk = disk();
    let case = outputs::Case {
        name: "postgres_output",
        make: &|sink| {
            let settings = format!(r#""uri": "{}", "table": "v{sink}""#, db.uri);
            output(&disk, sink, &format!(r#"{{"transport": {{"name": "postgres_output", "config": {{{settings}}}}}}}"#))
        },
        content: &|sink| Some(db.query(&format!("SELECT id, name FROM v{sink}"))),
        every: 2,
    };
    outputs::check(&case, &schema());
}
