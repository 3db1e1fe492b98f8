use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use backstay_storage::disk::sim::{Fault, Sabotage, SyncKind};
use backstay_storage::disk::{Disk, QuotaDisk, SimDisk};

use super::super::super::registry;
use super::super::super::testing::*;
use super::*;

const PATH: &str = "/data/out/v.json";
const STEPS: u64 = 12;

fn json(format: &str, more: &str) -> String {
    format!(
        r#"{{"transport": {{"name": "file_output", "config": {{"path": "out/v.json"{more}}}}}, "format": {format}}}"#
    )
}

fn output(disk: Arc<dyn Disk>, format: &str, more: &str) -> Box<dyn Output> {
    registry::output(&config(&json(format, more)), context(disk, schema())).unwrap()
}

fn delta(step: u64) -> Delta {
    let n = (step * 7 % 5) as i64;
    let ids: Vec<i64> = (0..n).map(|i| step as i64 * 10 + i).collect();
    let rows = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from(ids.clone())),
            Arc::new(StringArray::from_iter(ids.iter().map(|i| (i % 3 != 0).then(|| format!("n\"{i},\n\u{1}ä"))))),
            Arc::new(TimestampMicrosecondArray::from_iter(
                ids.iter().map(|i| Some(i * 86_400_000_123_000 - 1_000_000)),
            )),
            Arc::new(Float64Array::from_iter(ids.iter().map(|i| Some(*i as f64 / 3.0 * 1e300)))),
        ],
    )
    .unwrap();
    let weights = ids.iter().map(|i| [1, -1, 2, -2][(i % 4) as usize]).collect();
    Delta { rows, weights }
}

/// A step of several blocks, sometimes.
fn heavy(step: u64) -> Delta {
    let delta = delta(step);
    Delta { weights: delta.weights.iter().map(|w| w * 6).collect(), ..delta }
}

fn fresh() -> Resume {
    Resume {
        checkpoint: None,
        step: 0,
        last_step: 0,
        replayed: true,
        copy: false,
        incarnation: uuid::Uuid::nil(),
        epoch: 1,
    }
}

fn resume(checkpoint: &SinkPosition, last_step: u64) -> Resume {
    Resume { checkpoint: Some(checkpoint.clone()), last_step, ..fresh() }
}

/// The file that `steps` steps make when nothing goes wrong.
fn uninterrupted(format: &str, steps: u64) -> Vec<u8> {
    make(format, steps, delta)
}

fn make(format: &str, steps: u64, delta: fn(u64) -> Delta) -> Vec<u8> {
    let disk = disk();
    let mut output = output(Arc::new(disk.clone()), format, "");
    output.open(&fresh()).unwrap();
    for step in 1..=steps {
        output.deliver(step, &delta(step)).unwrap();
    }
    output.sync().unwrap();
    disk.read_file(PATH).unwrap()
}

const JSON: &str = r#"{"name": "json"}"#;
const STEP_JSON: &str = r#"{"name": "json", "config": {"include_step": true}}"#;
const CSV: &str = r#"{"name": "csv", "config": {"include_step": true}}"#;

#[test]
fn golden() {
    let text = |format| String::from_utf8(uninterrupted(format, 2)).unwrap();
    let json = text(STEP_JSON);
    let lines: Vec<&str> = json.lines().collect();
    assert_eq!(lines.len(), 10);
    let first = "{\"step\":1,\"insert\":{\"id\":10,\"name\":\"n\\\"10,\\n\\u0001ä\",\"at\":\"1997-05-19T00:00:00.230\",\"price\":3.3333333333333335e300}}";
    assert_eq!(lines[..2], [first, first]);
    let null = "{\"step\":2,\"delete\":{\"id\":21,\"name\":null,\"at\":\"2027-07-01T00:00:01.583\",\"price\":7e300}}";
    assert_eq!(lines[5], null);
    let csv = text(CSV);
    let start =
        "step,id,name,at,price,op\n1,10,\"n\"\"10,\n\u{1}ä\",1997-05-19T00:00:00.230,3.3333333333333335e300,insert\n";
    assert!(csv.starts_with(start), "{csv}");
    assert!(csv.contains("\n2,21,,2027-07-01T00:00:01.583,7e300,delete\n"), "{csv}");
}

const DEBEZIUM: &str = r#"{"name": "json", "config": {"update_format": "debezium"}}"#;
const RAW: &str = r#"{"name": "raw", "config": {"delimiter": ";"}}"#;

#[test]
fn golden_events() {
    let text = String::from_utf8(uninterrupted(DEBEZIUM, 2)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let first = "{\"before\":null,\"after\":{\"id\":10,\"name\":\"n\\\"10,\\n\\u0001ä\",\"at\":\"1997-05-19T00:00:00.230\",\"price\":3.3333333333333335e300},\"op\":\"c\"}";
    assert_eq!(lines[..2], [first, first]);
    let deleted = "{\"before\":{\"id\":21,\"name\":null,\"at\":\"2027-07-01T00:00:01.583\",\"price\":7e300},\"after\":null,\"op\":\"d\"}";
    assert_eq!(lines[5], deleted);
}

#[test]
fn raw_bytes_are_lines_of_views_that_only_grow() {
    let schema = Arc::new(schema().project(&[1]).unwrap());
    let rows = |rows: &[(Option<&str>, i64)]| {
        let names: StringArray = rows.iter().map(|r| r.0).collect();
        let rows_batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(names)]).unwrap();
        Delta { rows: rows_batch, weights: rows.iter().map(|r| r.1).collect() }
    };
    let disk = disk();
    let mut output =
        registry::output(&config(&json(RAW, "")), context(Arc::new(disk.clone()), Arc::clone(&schema))).unwrap();
    output.open(&fresh()).unwrap();
    output.deliver(1, &rows(&[(Some("a\n"), 2), (Some(""), 1)])).unwrap();
    output.sync().unwrap();
    assert_eq!(disk.read_file(PATH).unwrap(), b"a\n;a\n;;");
    let mut error = |row: (Option<&str>, i64)| output.deliver(2, &rows(&[row])).unwrap_err().to_string();
    assert!(error((Some("a"), -1)).contains("step 2 takes the row (a) back"));
    assert!(error((Some("a;b"), 1)).contains("set another \"delimiter\"; it is: a;b"));
    assert!(error((None, 1)).contains("is NULL"));
    let e = registry::output(&config(&json(RAW, "")), context(Arc::new(disk), super::super::super::testing::schema()));
    assert!(e.unwrap_err().to_string().contains("which of these columns is the bytes?"));
}

/// What a process knows when it starts: the last durable position, and the last step that it may have delivered.
struct Known {
    checkpoint: Option<SinkPosition>,
    last_step: u64,
}

/// Runs until the end or the first error, syncing every third step; what is delivered is in the log before.
fn run(disk: &SimDisk, format: &str, known: &mut Known) -> Result<()> {
    let mut output = output(Arc::new(disk.clone()), format, "");
    let resume = match &known.checkpoint {
        None => fresh(),
        Some(position) => resume(position, known.last_step),
    };
    output.open(&resume)?;
    if known.checkpoint.is_none() {
        known.checkpoint = Some(output.sync()?);
    }
    let from = known.checkpoint.as_ref().unwrap().step + 1;
    let replayed_to = known.last_step;
    if replayed_to < from {
        output.replay_done()?;
    }
    for step in from..=STEPS {
        known.last_step = known.last_step.max(step);
        output.deliver(step, &heavy(step))?;
        if step == replayed_to {
            output.replay_done()?;
        }
        if step % 3 == 0 && step >= replayed_to {
            known.checkpoint = Some(output.sync()?);
        }
    }
    known.checkpoint = Some(output.sync()?);
    Ok(())
}

/// Crashes at every operation of a run, and again while it recovers; gives how often the file was other than it should be.
fn crash_everywhere(format: &str, sabotage: Option<Sabotage>) -> usize {
    let expected = make(format, STEPS, heavy);
    let (mut wrong, mut at) = (0, 0);
    loop {
        at += 1;
        let first = disk();
        first.sync_dir(std::path::Path::new("/")).unwrap();
        if let Some(rule) = &sabotage {
            first.sabotage(rule.clone());
        }
        first.crash_at(first.ops() + at);
        let mut known = Known { checkpoint: None, last_step: 0 };
        let done = run(&first, format, &mut known).is_ok();
        for seed in 0..6 {
            let mut known = Known { checkpoint: known.checkpoint.clone(), last_step: known.last_step };
            let mut now = first.power_cycle(at * 100 + seed);
            now.crash_at(now.ops() + 1 + seed * 3);
            let mut ended = run(&now, format, &mut known);
            if ended.is_err() && now.is_down() {
                now = now.power_cycle(at * 1000 + seed);
                ended = run(&now, format, &mut known);
            }
            let same = ended.is_ok() && now.power_cycle(at).read_file(PATH).is_ok_and(|found| found == expected);
            if sabotage.is_none() {
                assert!(same, "{format}, crash at {at}, seed {seed}: {ended:?}");
            }
            wrong += usize::from(!same);
        }
        if done {
            assert!(at > 10);
            return wrong;
        }
    }
}

#[test]
fn exactly_once_across_crashes() {
    for format in [JSON, STEP_JSON, CSV] {
        crash_everywhere(format, None);
    }
}

#[test]
fn a_missing_sync_is_noticed() {
    for kind in [SyncKind::File, SyncKind::Dir] {
        let rule = Sabotage { kind, path: "out".to_owned(), nth: None };
        assert!(crash_everywhere(JSON, Some(rule)) > 0, "{kind:?}");
    }
}

#[test]
fn a_sync_that_fails_loses_nothing() {
    let disk = disk();
    let mut known = Known { checkpoint: None, last_step: 0 };
    let mut failed = 0;
    // The process ends at every failure and starts again on the same disk; power goes in the end.
    for nth in 1..40 {
        disk.fail_at(disk.ops() + nth, Fault::Io);
        let result = run(&disk, JSON, &mut known);
        failed += usize::from(result.is_err());
        if result.is_ok() && nth > 20 {
            break;
        }
        known = match known.checkpoint {
            Some(c) if result.is_ok() => {
                Known { checkpoint: Some(SinkPosition { step: c.step, ..c }), last_step: known.last_step }
            }
            checkpoint => Known { checkpoint, last_step: known.last_step },
        };
    }
    assert!(failed > 3);
    let after = disk.power_cycle(backstay_storage::disk::sim::CrashPlan::KeepNone);
    assert_eq!(after.read_file(PATH).unwrap(), make(JSON, STEPS, heavy));
}

#[test]
fn a_full_disk_is_waited_for() {
    let expected = uninterrupted(CSV, STEPS);
    for limit in (0..expected.len() as u64).step_by(97) {
        let inner = disk();
        let quota = Arc::new(QuotaDisk::new(Arc::new(inner.clone()), Path::new("/data"), limit).unwrap());
        let disk: Arc<dyn Disk> = Arc::clone(&quota) as Arc<dyn Disk>;
        let mut output = output(disk, CSV, "");
        output.open(&fresh()).unwrap();
        let mut refused = 0;
        for step in 1..=STEPS {
            output.deliver(step, &delta(step)).unwrap();
            while let Err(e) = output.sync() {
                assert!(e.retry && e.message.contains("no space") && e.message.contains(PATH), "{e}");
                refused += 1;
                let written = inner.read_file(PATH).unwrap();
                assert!(expected.starts_with(&written) && written.ends_with(b"\n") || written.is_empty());
                quota.set_limit(limit + refused * 300);
            }
        }
        assert!(refused > 0);
        assert_eq!(inner.read_file(PATH).unwrap(), expected, "limit {limit}");
    }
}

#[test]
fn a_step_larger_than_the_buffer_is_sent_again() {
    let inner = disk();
    let quota = Arc::new(QuotaDisk::new(Arc::new(inner.clone()), Path::new("/data"), 1000).unwrap());
    let mut output = output(Arc::clone(&quota) as Arc<dyn Disk>, JSON, "");
    output.open(&fresh()).unwrap();
    output.deliver(1, &delta(1)).unwrap();
    let big = Delta { weights: vec![20_000; delta(2).len()], ..delta(2) };
    let e = output.deliver(2, &big).unwrap_err();
    assert!(e.retry);
    quota.set_limit(u64::MAX);
    output.deliver(2, &big).unwrap();
    output.deliver(3, &delta(3)).unwrap();
    let position = output.sync().unwrap();
    let found = inner.read_file(PATH).unwrap();
    assert_eq!(found.len() as u64, position.detail["offset"].as_u64().unwrap());
    let lines = |d: &Delta| d.weights.iter().map(|w| w.unsigned_abs()).sum::<u64>();
    let expected = lines(&delta(1)) + lines(&big) + lines(&delta(3));
    assert_eq!(found.iter().filter(|b| **b == b'\n').count() as u64, expected);
}

#[test]
fn other_content_is_refused() {
    let disk = disk();
    disk.create_dir_all(std::path::Path::new("/data/out")).unwrap();
    put(&disk, PATH, b"precious");
    let mut out = output(Arc::new(disk.clone()), JSON, "");
    let e = out.open(&fresh()).unwrap_err();
    assert!(e.message.contains("has 8 bytes already") && e.message.contains("\"overwrite\": true"), "{e}");
    assert_eq!(disk.read_file(PATH).unwrap(), b"precious");
    let mut out = output(Arc::new(disk.clone()), JSON, r#", "overwrite": true"#);
    out.open(&fresh()).unwrap();
    out.deliver(1, &delta(1)).unwrap();
    out.deliver(2, &delta(2)).unwrap();
    let position = out.sync().unwrap();
    assert_eq!(position.step, 2);
    let offset = position.detail["offset"].as_u64().unwrap();
    assert_eq!(disk.read_file(PATH).unwrap(), uninterrupted(JSON, 2));

    // Longer than all steps of the log.
    append(&disk, PATH, &uninterrupted(JSON, 3)[offset as usize..]);
    append(&disk, PATH, b"more");
    let mut out = output(Arc::new(disk.clone()), JSON, "");
    out.open(&resume(&position, 3)).unwrap();
    out.deliver(3, &delta(3)).unwrap();
    let e = out.replay_done().unwrap_err();
    let len = uninterrupted(JSON, 3).len();
    assert!(
        e.message.contains(&format!("has {} bytes", len + 4)) && e.message.contains(&format!("are {len} bytes")),
        "{e}"
    );

    // Without a log what stands behind the checkpoint is cut.
    let mut out = output(Arc::new(disk.clone()), JSON, "");
    out.open(&Resume { replayed: false, ..resume(&position, 2) }).unwrap();
    assert_eq!(disk.read_file(PATH).unwrap().len() as u64, offset);

    // Another file.
    let mut long = output(Arc::new(disk.clone()), JSON, "");
    long.open(&resume(&position, 2)).unwrap();
    long.deliver(3, &Delta { weights: vec![100; delta(3).len()], ..delta(3) }).unwrap();
    let far = long.sync().unwrap();
    long.open(&resume(&far, 3)).unwrap();
    disk.flip_bit(PATH, far.detail["offset"].as_u64().unwrap() / 4096 * 4096 - 7, 1).unwrap();
    let e = long.open(&resume(&far, 3)).unwrap_err();
    assert!(e.message.contains("was replaced or changed"), "{e}");

    // Shorter than the checkpoint.
    put(&disk, PATH, &uninterrupted(JSON, 2)[..5]);
    let e = out.open(&resume(&position, 3)).unwrap_err();
    assert!(e.message.contains("has 5 bytes") && e.message.contains(&format!("{offset} bytes were written")), "{e}");
    disk.remove(std::path::Path::new(PATH)).unwrap();
    assert!(out.open(&resume(&position, 3)).unwrap_err().message.contains("is not there"));
    assert!(out.deliver(3, &delta(3)).unwrap_err().message.contains("not open"));
}
