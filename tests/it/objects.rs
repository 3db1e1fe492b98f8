//! `s3_input` and `s3_output` over a folder as a store, under SIGKILL, and `stdout_output`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Running, Victim, backstay, files, output, stderr, succeed};
use crate::rng::{Rng, number_from};

const PATIENCE: Duration = Duration::from_secs(60);

/// A program that copies the objects of one folder to objects of another.
struct Copier {
    temp: tempfile::TempDir,
}

impl Copier {
    fn new(config: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let bucket = temp.path().join("bucket");
        std::fs::create_dir_all(bucket.join("in")).unwrap();
        let url = format!("file://{}", bucket.display());
        let sql = format!(
            r#"CREATE TABLE t (id BIGINT NOT NULL, text VARCHAR) WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "s3_input",
            "config": {{"url": "{url}", "prefix": "in/part-"}}}}, "format": {{"name": "csv"}}}}]');
            CREATE VIEW v WITH ('connectors' = '[{{"name": "out", "transport": {{"name": "s3_output", "config": {{"url": "{url}", "prefix": "out/v-"}}}},
            "format": {{"name": "json", "config": {{"include_step": true}}}}}}]') AS SELECT id, text FROM t WHERE id % 1000 < 500;"#
        );
        std::fs::write(temp.path().join("p.sql"), sql).unwrap();
        std::fs::write(temp.path().join("p.config.json"), config).unwrap();
        Self { temp }
    }

    fn put(&self, name: &str, ids: std::ops::Range<u64>) {
        let lines: String = ids.map(|id| format!("{id},text of {id}\n")).collect();
        std::fs::write(self.temp.path().join("bucket/in").join(name), format!("id,text\n{lines}")).unwrap();
    }

    fn sql(&self) -> PathBuf {
        self.temp.path().join("p.sql")
    }

    fn data(&self) -> PathBuf {
        self.temp.path().join("data")
    }

    fn out(&self) -> PathBuf {
        self.temp.path().join("bucket/out")
    }

    fn args(&self, data: &Path) -> Vec<String> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec!["run".into(), text(&self.sql()), "--data-dir".into(), text(data), "--until-end".into()]
    }

    /// How often each id came out. Each object has lines of its own step only.
    fn ids(&self) -> BTreeMap<u64, usize> {
        let mut ids = BTreeMap::new();
        let Ok(entries) = std::fs::read_dir(self.out()) else { return ids };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // What the store has not given its name yet.
            if name.contains('#') {
                continue;
            }
            let content = std::fs::read(path).unwrap();
            let step: u64 = name.strip_prefix("v-").unwrap().strip_suffix(".ndjson").unwrap().parse().unwrap();
            for line in std::str::from_utf8(&content).unwrap().lines() {
                let row: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(row["step"], step, "{name}: {line}");
                *ids.entry(row["insert"]["id"].as_u64().unwrap()).or_default() += 1;
            }
        }
        ids
    }
}

const EXACT: &str =
    r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}, "max_rows_per_step": 100}"#;
const NO_CHECKPOINTS: &str =
    r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": null}, "max_rows_per_step": 100}"#;

#[test]
fn each_step_is_an_object_once_under_kills() {
    let (mut random, seed) = Rng::from_env(99);
    let kills = number_from("BACKSTAY_KILLS", 6);
    let copier = Copier::new(EXACT);
    for (i, name) in ["part-1.csv", "part-2.csv", "part-3.csv"].iter().enumerate() {
        copier.put(name, i as u64 * 10_000..(i as u64 + 1) * 10_000);
    }
    let args = copier.args(&copier.data());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut moments: Vec<u64> = (0..kills).map(|_| random.below(500_000)).collect();
    moments.sort_unstable();
    let mut killed = 0;
    for moment in moments {
        let later = Duration::from_millis(random.below(30));
        std::fs::create_dir_all(copier.out()).unwrap();
        killed += u64::from(Victim::start(&args, &copier.out()).kill_at(moment, later));
    }
    assert!(killed * 2 >= kills, "seed {seed}: only {killed} kills hit");
    succeed(&args);
    let expected: BTreeMap<u64, usize> = (0..30_000).filter(|id| id % 1000 < 500).map(|id| (id, 1)).collect();
    assert!(copier.ids() == expected, "seed {seed}: rows are missing or doubled");
    eprintln!("{killed} kills, {} objects", files(&copier.out()).len());

    // Once done, it changes nothing; another object is read on from there.
    let before = files(&copier.out());
    succeed(&args);
    assert_eq!(before, files(&copier.out()));
    copier.put("part-4.csv", 40_000..40_010);
    succeed(&args);
    assert_eq!(copier.ids().range(40_000..).count(), 10);
}

#[test]
fn objects_that_are_not_what_they_were_are_refused() {
    let copier = Copier::new(NO_CHECKPOINTS);
    copier.put("part-1.csv", 0..3_000);
    let mut running = Running::start(&copier.sql(), &copier.data(), &[]);
    running.wait_until("objects", PATIENCE, || copier.ids().len() == 1_500);
    running.kill();
    let refused = |data: &Path, words: &[&str]| {
        let said = stderr(&output(copier.args(data)));
        for word in words {
            assert!(said.contains(word), "no \"{word}\" in: {said}");
        }
    };
    // The input.
    copier.put("part-1.csv", 1..3_001);
    refused(
        &copier.data(),
        &["connector t.in", "step 1", "bucket/in/part-1.csv", "was replaced or changed", "expected content"],
    );
    std::fs::remove_file(copier.temp.path().join("bucket/in/part-1.csv")).unwrap();
    copier.put("part-2.csv", 0..1);
    refused(&copier.data(), &["connector t.in", "bucket/in/part-1.csv", "it is gone"]);
}

#[test]
fn objects_of_somebody_else_are_refused() {
    let copier = Copier::new(NO_CHECKPOINTS);
    copier.put("part-1.csv", 0..3_000);
    let refused = |data: &Path, words: &[&str]| {
        let said = stderr(&output(copier.args(data)));
        for word in words {
            assert!(said.contains(word), "no \"{word}\" in: {said}");
        }
    };
    let mut running = Running::start(&copier.sql(), &copier.data(), &[]);
    running.wait_until("objects", PATIENCE, || copier.ids().len() == 1_500);
    running.kill();
    let first = files(&copier.out()).into_keys().next().unwrap();
    // A pipeline that begins anew.
    refused(&copier.temp.path().join("anew"), &["connector v.out", "out/v-", "begins anew"]);
    // An object that was changed, one of a step that never was.
    let object = copier.out().join(&first);
    let content = std::fs::read(&object).unwrap();
    std::fs::write(&object, b"{}").unwrap();
    refused(&copier.data(), &["connector v.out", &first, "there is another object already", "from byte 1 on"]);
    std::fs::write(&object, content).unwrap();
    let later = copier.out().join("v-00000000000000099999.ndjson");
    std::fs::write(&later, b"{}").unwrap();
    refused(&copier.data(), &["connector v.out", "it is of step 99999", "part of the log is missing"]);
    std::fs::remove_file(&later).unwrap();
    // What a consumer took away of steps that are replayed comes again; all else stays.
    std::fs::remove_file(&object).unwrap();
    succeed(copier.args(&copier.data()));
    assert_eq!(copier.ids().values().sum::<usize>(), 1_500);
}

#[test]
fn lines_come_on_standard_output() {
    let temp = tempfile::tempdir().unwrap();
    let sql = temp.path().join("p.sql");
    std::fs::write(temp.path().join("t.csv"), "id\n1\n2\n").unwrap();
    let text = r#"CREATE TABLE t (id BIGINT NOT NULL) WITH ('connectors' = '[{"transport": {"name": "file_input", "config": {"path": "t.csv"}}, "format": {"name": "csv"}}]');
        CREATE VIEW v WITH ('connectors' = '[{"transport": {"name": "stdout_output"}, "format": {"name": "csv"}}]') AS SELECT id FROM t;"#;
    std::fs::write(&sql, text).unwrap();
    let data = temp.path().join("data");
    let args = ["run", sql.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--until-end"];
    let ended = backstay(args).output().unwrap();
    assert!(ended.status.success(), "{}", stderr(&ended));
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), "id,op\n1,insert\n2,insert\n");
}
