//! The connectors over files with Parquet in them.

use std::sync::Arc;

use backstay_storage::disk::SimDisk;

use super::cases::{ROWS, disk, input, output, put, schema};
use super::{inputs, outputs};
use crate::parquet::{file, rows_of};
use crate::rng::Rng;
use crate::url::{Resource, Server};

fn json(transport: &str, settings: &str) -> String {
    format!(
        r#"{{"transport": {{"name": "{transport}", "config": {{{settings}}}}}, "format": {{"name": "parquet"}}, "max_batch_size": 100}}"#
    )
}

fn keeps_the_contract(name: &str, disk: &SimDisk, json: &str, rows: u64, change: &dyn Fn(), random: &mut Rng) {
    let make = || input(disk, json, Arc::clone(&schema()));
    let case = inputs::Case { name, make: &make, rows: rows as usize, change: Some(change) };
    inputs::check(&case, random);
}

#[test]
fn inputs_keep_the_contract() {
    let (mut random, seed) = Rng::from_env(6);
    let disk = disk();
    // Row groups of other lengths than chunks.
    put(&disk, "/data/a.parquet", file(0..ROWS, 130));
    put(&disk, "/data/b.parquet", file(ROWS..2 * ROWS, 500));
    let change = || put(&disk, "/data/a.parquet", file(1..ROWS + 1, 130));
    let name = format!("file_input of parquet, seed {seed}");
    keeps_the_contract(&name, &disk, &json("file_input", r#""path": "?.parquet""#), 2 * ROWS, &change, &mut random);

    let server = Server::start(Resource::new(file(0..ROWS, 100), "v1"));
    let settings = format!(r#""path": "{}""#, server.url());
    let change = || server.change(|r| *r = Resource::new(file(0..ROWS, 100), "v2"));
    let name = format!("url_input of parquet, seed {seed}");
    keeps_the_contract(&name, &disk, &json("url_input", &settings), ROWS, &change, &mut random);

    let temp = tempfile::tempdir().unwrap();
    let object = |name: &str, content: Vec<u8>| std::fs::write(temp.path().join(name), content).unwrap();
    object("a-1", file(0..ROWS, 77));
    object("a-2", file(ROWS..2 * ROWS, 200));
    let settings = format!(r#""url": "file://{}", "prefix": "a-""#, temp.path().display());
    let change = || object("a-1", file(7..ROWS + 7, 77));
    let name = format!("s3_input of parquet, seed {seed}");
    keeps_the_contract(&name, &disk, &json("s3_input", &settings), 2 * ROWS, &change, &mut random);
}

#[test]
fn s3_output_keeps_the_contract() {
    let (disk, temp) = (disk(), tempfile::tempdir().unwrap());
    let case = outputs::Case {
        name: "s3_output of parquet",
        make: &|sink| {
            let settings = format!(r#""url": "file://{}", "prefix": "{sink}/v-""#, temp.path().display());
            output(&disk, sink, &json("s3_output", &settings))
        },
        content: &|sink| {
            let files = crate::process::files(&temp.path().join(sink.to_string()));
            let rows = |(name, content): (String, Vec<u8>)| {
                rows_of(content).into_iter().map(move |row| format!("{name}: {row}")).collect::<Vec<_>>()
            };
            Some(files.into_iter().flat_map(rows).collect())
        },
        every: 1,
    };
    outputs::check(&case, &schema());
}
