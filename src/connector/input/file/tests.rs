use std::io::Write as _;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::super::testing::*;
use super::super::super::{Chunk, Descriptor, Input, Next, PartitionPosition, Position, Range};
use super::*;

const CSV: &str = r#"{"name": "csv"}"#;

fn one(path: &str, more: &str, format: &str) -> String {
    format!(r#"{{"transport": {{"name": "file_input", "config": {{"path": "{path}"{more}}}}}, "format": {format}}}"#)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    // Two members, as `cat a.gz b.gz` makes them.
    let (a, b) = bytes.split_at(bytes.len() / 3);
    let mut out = Vec::new();
    for part in [a, b] {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(part).unwrap();
        out.extend(encoder.finish().unwrap());
    }
    out
}

fn read(disk: &backstay_storage::disk::SimDisk, json: &str) -> Vec<Chunk> {
    let input = input(disk, json);
    drain(&mut *input.open(&Position::default()).unwrap())
}

fn error(disk: &backstay_storage::disk::SimDisk, json: &str) -> String {
    match input(disk, json).open(&Position::default()) {
        Err(e) => e.to_string(),
        Ok(mut reader) => loop {
            match reader.next() {
                Err(e) => return e.to_string(),
                Ok(Next::Chunk(_)) => {}
                Ok(end) => panic!("{end:?}"),
            }
        },
    }
}

/// Id and name of a row.
type Good = (i64, Option<String>);

/// Random CSV: its bytes, and the (id, name) of each good row; some rows are bad.
fn random_csv(rng: &mut Rng, n: usize, last_newline: bool) -> (Vec<u8>, Vec<Good>, usize) {
    const PIECES: [&str; 12] =
        ["a", "ä", "\"", "\"\"", ",", "\n", "\r\n", " ", "x,y", "'", "long text without end ", ""];
    let mut out = b"PRICE,id,other,name\r\n".to_vec();
    let (mut good, mut bad) = (Vec::new(), 0);
    for i in 0..n {
        let end = if i + 1 == n && !last_newline { "" } else { ["\n", "\r\n", "\n\n"][rng.below(3)] };
        let line = match rng.below(12) {
            0 => format!("1.5,not a number,,{i}"),
            1 => format!("1.5,{i}"),
            2 => format!("1.5,{i},,x,too many"),
            3 => format!("1.5,,,{i}"),
            4 => format!("zero,{i},,x"),
            5 => format!("1,{i},,\"x\"y"),
            kind => {
                let name: String = (0..rng.below(5)).map(|_| PIECES[rng.below(PIECES.len())]).collect();
                let special = name.contains(['"', ',', '\n', '\r']);
                // A quote inside a field that does not begin with one is text.
                let text = if special || rng.below(2) == 0 {
                    format!("\"{}\"", name.replace('"', "\"\""))
                } else {
                    name.clone()
                };
                good.push((i as i64, Some(name)));
                let line = format!("{},{i},ignored,{text}", ["", "1", "-2.5e3", " 7 "][kind % 4]);
                out.extend_from_slice(line.as_bytes());
                out.extend_from_slice(end.as_bytes());
                continue;
            }
        };
        bad += 1;
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(end.as_bytes());
    }
    (out, good, bad)
}

#[test]
fn random_csv_is_read_and_replayed() {
    for seed in 0..40 {
        let mut rng = Rng(seed * 1000);
        let n = [0, 1, 3, 50, 400][rng.below(5)];
        let (bytes, good, bad) = random_csv(&mut rng, n, seed % 2 == 0);
        let disk = disk();
        put(&disk, "/data/a.csv", &bytes);
        put(&disk, "/data/a.csv.gz", &gzip(&bytes));
        for path in ["a.csv", "a.csv.gz"] {
            let json = one(path, "", CSV);
            let chunks = read(&disk, &json);
            let found: Vec<Good> = chunks
                .iter()
                .flat_map(|c| {
                    let ids = c.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
                    let names =
                        c.rows.column(1).as_string::<i32>().iter().map(|s| s.map(str::to_owned)).collect::<Vec<_>>();
                    ids.into_iter().zip(names)
                })
                .collect();
            assert_eq!(found, good, "seed {seed}");
            let errors: Vec<&super::super::super::RowError> = chunks.iter().flat_map(|c| &c.errors).collect();
            assert_eq!(errors.len(), bad, "seed {seed}: {errors:?}");
            if !chunks.is_empty() {
                check_replay(&*input(&disk, &json), &chunks, seed);
            }
        }
    }
}

#[test]
fn blocks_do_not_matter() {
    // Rows of several blocks and chunks, with a record that is longer than a block.
    let disk = disk();
    let mut bytes = b"id,name\n".to_vec();
    for i in 0..60_000 {
        bytes.extend_from_slice(format!("{i},\"name\n{i}\"\n").as_bytes());
        if i == 30_000 {
            bytes.extend_from_slice(format!("x,\"{}\"\n", "long \"\" ".repeat(200_000)).as_bytes());
            bytes.extend_from_slice(format!("1000000,\"{}\"\n", "long \"\" ".repeat(200_000)).as_bytes());
        }
    }
    put(&disk, "/data/a.csv", &bytes);
    put(&disk, "/data/b.csv", b"id,name\n-1,after");
    let json = format!(
        r#"{{"transport": {{"name": "file_input", "config": {{"paths": ["a.csv", "b.csv"]}}}}, "format": {CSV}}}"#
    );
    let chunks = read(&disk, &json);
    assert!(chunks.len() > 5);
    assert_eq!(all_rows(&chunks).num_rows(), 60_002);
    let errors: Vec<_> = chunks.iter().flat_map(|c| &c.errors).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].message.contains("column id expected a BIGINT, got \"x\"; in: x,"), "{}", errors[0].message);
    let at = bytes.windows(4).position(|w| w == b"\nx,\"").unwrap() as u64 + 1;
    assert_eq!(errors[0].offset, at);
    let steps = cut(&chunks, &mut Rng(3));
    let whole = Descriptor {
        ranges: vec![Range {
            partition: "a.csv".to_owned(),
            start: 0,
            end: bytes.len() as u64,
            identity: chunks[chunks.len() - 2].identity.at(bytes.len() as u64),
        }],
    };
    let input = input(&disk, &json);
    let again = input.replay(&whole).unwrap();
    assert_eq!(rows(&again), rows(&chunks[..chunks.len() - 1]));
    for step in steps.iter().step_by(997) {
        assert!(!input.replay(step).unwrap().is_empty());
    }
}

#[test]
fn an_open_quote_costs_one_line() {
    let disk = disk();
    put(&disk, "/data/a.csv", b"id,name\n1,a\n2,\"never closed\n3,c\n4,d");
    let chunks = read(&disk, &one("a.csv", "", CSV));
    assert_eq!(all_rows(&chunks).column(0).as_primitive::<Int64Type>().values(), &[1, 3, 4]);
    assert_eq!(chunks[0].errors[0].offset, 12);
    assert!(chunks[0].errors[0].message.contains("never closed; in: 2,\"never closed"));
    check_replay(&*input(&disk, &one("a.csv", "", CSV)), &chunks, 1);
}

#[test]
fn nulls() {
    let disk = disk();
    put(&disk, "/data/a.csv", b"id,name,price\n1,,\n2,\"\",\"\"\n3,NA,NA\n4,\"NA\",1\n");
    let read_text = |format: &str| text(&all_rows(&read(&disk, &one("a.csv", "", format))));
    let with = r#"{"name": "csv", "config": {"null_values": ["NA", ""]}}"#;
    assert_eq!(read_text(with), "1;2;3;4,NULL;;NULL;NA,NULL;NULL;NULL;NULL,NULL;NULL;NULL;1.0");
    let chunks = read(&disk, &one("a.csv", "", CSV));
    assert_eq!(text(&all_rows(&chunks)), "1;2;4,;;NA,NULL;NULL;NULL,NULL;NULL;1.0");
    assert!(chunks[0].errors[0].message.starts_with("column price expected a number, got \"NA\""));
}

#[test]
fn headers() {
    let disk = disk();
    put(&disk, "/data/a.csv", b"1|x|2013-01-01T10:00:00Z|2\n");
    let plain = r#"{"name": "csv", "config": {"headers": false, "delimiter": "|"}}"#;
    assert_eq!(text(&all_rows(&read(&disk, &one("a.csv", "", plain)))), "1,x,2013-01-01T10:00:00,2.0");
    put(&disk, "/data/b.csv", b"idd,name\n1,x\n");
    let e = error(&disk, &one("b.csv", "", CSV));
    assert!(e.contains("/data/b.csv") && e.contains("no column id") && e.contains("did you mean \"idd\"?"), "{e}");
    put(&disk, "/data/c.csv", b"");
    assert!(read(&disk, &one("c.csv", "", CSV)).is_empty());
    let e = error(&disk, &one("d.csv", "", CSV));
    assert!(e.contains("/data/d.csv does not exist"), "{e}");
    let e = error(&disk, &one("*.json", "", CSV));
    assert!(e.contains("*.json"), "{e}");
}

#[test]
fn json_lines() {
    let disk = disk();
    let lines = concat!(
        "{\"insert\": {\"id\": 1, \"NAME\": \"a\\n\\u00e4\\ud83d\\ude00\", \"x\": [1, {\"y\": null}], \"price\": 1.5}}\n",
        "{\"delete\": {\"id\": \"2\", \"at\": \"2013-01-01 10:00:00\"}}\r\n\n",
        "{\"insert\": {\"id\": 1.5}}\n",
        "{\"insert\": {\"id\": 3}\n",
        "{\"upsert\": {\"id\": 3}}\n",
        "{\"insert\": {\"id\": 3, \"name\": 7}}\n",
        "{\"insert\": {\"name\": \"x\"}}\n",
        "not json\n",
        "{\"insert\": {\"id\": 9, \"name\": null}}",
    );
    put(&disk, "/data/a.json", lines.as_bytes());
    let json = one("a.json", "", r#"{"name": "json"}"#);
    let chunks = read(&disk, &json);
    assert_eq!(text(&all_rows(&chunks)), "1;2;9,a\nä😀;NULL;NULL,NULL;2013-01-01T10:00:00;NULL,1.5;NULL;NULL");
    assert_eq!(chunks[0].weights, Some(vec![1, -1, 1]));
    let messages: Vec<&str> = chunks[0].errors.iter().map(|e| e.message.as_str()).collect();
    assert!(messages[0].contains("column id expected a BIGINT, got \"1.5\""), "{messages:?}");
    assert!(messages[1].contains("at byte 20: expected '}': one change a line, and the line ends"), "{messages:?}");
    assert!(messages[2].contains("got \"upsert\""), "{messages:?}");
    assert!(messages[3].contains("column name expected a string, got a number"), "{messages:?}");
    assert!(messages[4].contains("column id is NOT NULL, and is missing"), "{messages:?}");
    assert!(messages[5].contains("expected {\"insert\"") && messages[5].contains("in: not json"), "{messages:?}");
    for seed in 0..20 {
        check_replay(&*input(&disk, &json), &chunks, seed);
    }
    let mut keyed = context(Arc::new(disk.clone()), schema());
    keyed.schema = Arc::new(arrow::datatypes::Schema::new(vec![
        arrow::datatypes::Field::new("id", arrow::datatypes::DataType::Int64, false),
        arrow::datatypes::Field::new("name", arrow::datatypes::DataType::Utf8, false),
    ]));
    keyed.primary_key = vec![0];
    put(&disk, "/data/b.json", b"{\"delete\": {\"id\": 4}}\n{\"insert\": {\"id\": 4}}\n");
    let input =
        super::super::super::registry::input(&config(&one("b.json", "", r#"{"name": "json"}"#)), keyed).unwrap();
    let chunks = drain(&mut *input.open(&Position::default()).unwrap());
    assert_eq!((text(&chunks[0].rows), chunks[0].errors.len()), ("4,".to_owned(), 1));
}

#[test]
fn a_followed_file_grows() {
    let disk = disk();
    put(&disk, "/data/in-1.csv", b"id,na");
    let json = one("in-*.csv", r#", "follow": true"#, CSV);
    let input = input(&disk, &json);
    assert!(!input.is_finite());
    let mut reader = input.open(&Position::default()).unwrap();
    let mut chunks = drain(&mut *reader);
    assert!(chunks.is_empty());
    append(&disk, "/data/in-1.csv", b"me\n1,a\n2,\"b");
    chunks.extend(drain(&mut *reader));
    assert_eq!(rows(&chunks).len(), 1);
    put(&disk, "/data/in-0.csv", b"id,name\n10,x\n");
    chunks.extend(drain(&mut *reader));
    append(&disk, "/data/in-1.csv", b"\nc\"\n3,d\n");
    for i in 0..500 {
        append(&disk, "/data/in-1.csv", format!("{i},more\n").as_bytes());
        if i % 100 == 0 {
            chunks.extend(drain(&mut *reader));
        }
    }
    chunks.extend(drain(&mut *reader));
    assert!(drain(&mut *reader).is_empty());
    let found = rows(&chunks);
    assert_eq!(found.len(), 504);
    assert!(found.iter().any(|r| r.2.starts_with("2,b\nc,")));
    for seed in 0..3 {
        check_replay(&*input, &chunks, seed);
    }
}

#[test]
fn changed_files_are_noticed() {
    let disk = disk();
    let content: String = (0..2000).map(|i| format!("{i},name {i}\n")).collect();
    let content = format!("id,name\n{content}");
    for follow in [false, true] {
        let json = one("a.csv", if follow { r#", "follow": true"# } else { "" }, CSV);
        put(&disk, "/data/a.csv", content.as_bytes());
        let input = input(&disk, &json);
        let mut reader = input.open(&Position::default()).unwrap();
        let chunks = drain(&mut *reader);
        let end = chunks[0].ends[1500];
        let identity = chunks[0].identity.at(end);
        let partition = "a.csv".to_owned();
        let step = Descriptor {
            ranges: vec![Range { partition: partition.clone(), start: 0, end, identity: identity.clone() }],
        };
        let position = Position { partitions: vec![PartitionPosition { partition, offset: end, identity }] };
        // Growth is fine.
        append(&disk, "/data/a.csv", b"5000,new\n");
        assert_eq!(input.replay(&step).unwrap()[0].rows.num_rows(), 1501);
        assert_eq!(rows(&drain(&mut *input.open(&position).unwrap())).len(), 500);
        let both = |what: &str| {
            let message = input.open(&position).unwrap_err().to_string();
            assert!(
                message.contains("/data/a.csv") && message.contains(what) && message.contains(&end.to_string()),
                "{message}"
            );
            assert_eq!(input.replay(&step).unwrap_err().to_string(), message);
        };
        put(&disk, "/data/a.csv", &content.as_bytes()[..end as usize - 1]);
        both("was truncated");
        if follow {
            assert!(reader.next().unwrap_err().message.contains("was truncated"));
        }
        for change in [0, 100, end as usize - 5] {
            let mut changed = content.clone().into_bytes();
            changed[change] ^= 1;
            put(&disk, "/data/a.csv", &changed);
            both("was replaced or changed");
        }
        disk.remove(std::path::Path::new("/data/a.csv")).unwrap();
        both("is gone");
    }
}

#[test]
fn a_file_that_grew_inside_its_last_line() {
    let disk = disk();
    put(&disk, "/data/a.csv", b"id,name\n1,a\n2,b");
    let input = input(&disk, &one("a.csv", "", CSV));
    let chunks = drain(&mut *input.open(&Position::default()).unwrap());
    let mut position = Position::default();
    let range = |identity| Range { partition: "a.csv".to_owned(), start: 0, end: 15, identity };
    position.apply(&Descriptor { ranges: vec![range(chunks[0].identity.at(15))] });
    append(&disk, "/data/a.csv", b"\n3,c\n");
    assert_eq!(rows(&drain(&mut *input.open(&position).unwrap())).len(), 1);
    put(&disk, "/data/a.csv", b"id,name\n1,a\n2,bbb\n");
    let e = input.open(&position).unwrap().next().unwrap_err();
    assert!(e.message.contains("in the middle of the record"), "{e}");
}

const RAW_LINES: &str = r#"{"name": "raw", "config": {"mode": "lines", "delimiter": ";"}}"#;

/// An input of one column of VARCHAR.
fn text_input(disk: &backstay_storage::disk::SimDisk, json: &str) -> Box<dyn Input> {
    let schema = std::sync::Arc::new(schema().project(&[1]).unwrap());
    super::super::super::registry::input(&config(json), context(Arc::new(disk.clone()), schema)).unwrap()
}

#[test]
fn raw_files_are_rows_or_lines() {
    let disk = disk();
    put(&disk, "/data/a.txt", b"a\n;;b\r;c");
    put(&disk, "/data/b.txt", b"whole\nfile\n");
    put(&disk, "/data/c.txt", b"");
    let lines = text_input(&disk, &one("a.txt", "", RAW_LINES));
    let chunks = drain(&mut *lines.open(&Position::default()).unwrap());
    let texts: Vec<String> = rows(&chunks).into_iter().map(|row| row.2).collect();
    assert_eq!(texts, ["a\n", "", "b\r", "c"]);
    check_replay(&*lines, &chunks, 1);
    let whole = text_input(&disk, &one("?.txt", "", r#"{"name": "raw"}"#));
    let chunks = drain(&mut *whole.open(&Position::default()).unwrap());
    let texts: Vec<String> = rows(&chunks).into_iter().map(|row| row.2).collect();
    assert_eq!(texts, ["a\n;;b\r;c", "whole\nfile\n"]);
    check_replay(&*whole, &chunks, 1);

    // What was one row must not become two.
    let mut position = Position::default();
    for chunk in &chunks {
        let (partition, identity) = (chunk.partition.to_string(), chunk.identity.at(chunk.end));
        let range = Range { partition, start: chunk.start, end: chunk.end, identity };
        position.apply(&Descriptor { ranges: vec![range] });
    }
    assert!(drain(&mut *whole.open(&position).unwrap()).is_empty());
    append(&disk, "/data/b.txt", b"more");
    let e = whole.open(&position).unwrap().next().unwrap_err();
    assert!(e.message.contains("/data/b.txt has grown behind byte 11"), "{e}");
    let e = super::super::super::registry::input(
        &config(&one("b.txt", r#", "follow": true"#, r#"{"name": "raw"}"#)),
        context(Arc::new(disk.clone()), Arc::new(schema().project(&[1]).unwrap())),
    );
    assert!(e.unwrap_err().to_string().contains("\"mode\": \"lines\""));
}

#[test]
fn random_change_events_are_read_and_replayed_whole() {
    for seed in 0..20 {
        let mut rng = Rng(seed * 77);
        let mut bytes = Vec::new();
        for i in 0..200 {
            let line = match rng.below(6) {
                0 => format!(r#"{{"op": "c", "after": {{"id": {i}, "name": "x\n"}}}}"#),
                1 => format!(r#"{{"op": "d", "before": {{"id": {i}}}}}"#),
                2 => "null".to_owned(),
                3 => format!(r#"{{"op": "u", "before": {{"id": {i}}}, "after": {{"id": "spoilt"}}}}"#),
                _ => format!(r#"{{"payload": {{"op": "u", "before": {{"id": {i}}}, "after": {{"id": {}}}}}}}"#, i + 1),
            };
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
        let disk = disk();
        put(&disk, "/data/a.json", &bytes);
        let json = one("a.json", "", r#"{"name": "json", "config": {"update_format": "debezium"}}"#);
        let chunks = read(&disk, &json);
        let spoilt = bytes.split(|b| *b == b'\n').filter(|l| l.windows(6).any(|w| w == b"spoilt")).count();
        assert_eq!(chunks.iter().map(|c| c.errors.len()).sum::<usize>(), spoilt, "seed {seed}");
        check_replay(&*input(&disk, &json), &chunks, seed);
    }
}

#[test]
fn damaged_gzip() {
    let disk = disk();
    let mut bytes = gzip(b"id,name\n1,a\n2,b\n");
    bytes.truncate(bytes.len() - 5);
    put(&disk, "/data/a.csv.gz", &bytes);
    let e = error(&disk, &one("a.csv.gz", "", CSV));
    assert!(e.contains("cannot decompress /data/a.csv.gz"), "{e}");
    put(&disk, "/data/b.csv.gz", b"id,name\n1,a\n");
    assert!(error(&disk, &one("b.csv.gz", "", CSV)).contains("cannot decompress"));
    let e = error(&disk, &one("a.csv.gz", r#", "follow": true"#, CSV));
    assert!(e.contains("not supported for gzip"), "{e}");
}

#[test]
fn settings_are_checked() {
    let ctx = || context(Arc::new(disk()), schema());
    let fail = |json: &str| super::super::super::registry::input(&config(json), ctx()).unwrap_err().to_string();
    assert!(fail(&one("a", r#", "folow": true"#, CSV)).contains("did you mean \"follow\"?"));
    assert!(fail(&one("a", r#", "buffer_size_bytes": 1"#, CSV)).contains("not supported yet"));
    assert!(fail(&one("a/**/b", "", CSV)).contains("**"));
    assert!(fail(&one("a", "", r#"{"name": "cvs"}"#)).contains("did you mean \"csv\"?"));
    assert!(fail(&one("a", "", r#"{"name": "csv", "config": {"null_valus": []}}"#)).contains("did you mean"));
    assert!(fail(r#"{"transport": {"name": "file_inptu"}}"#).contains("did you mean \"file_input\"?"));
    assert!(fail(r#"{"transport": {"name": "file_output"}}"#).contains("not one for a table"));
    assert!(fail(r#"{"transport": {"name": "delta_table_input"}}"#).contains("not supported yet"));
}
