//! `s3_input` and `s3_output` over a server that speaks S3's protocol (`tests/servers/s3`), under SIGKILL and by the connectors' suite.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use crate::process::{Running, backstay, repository, stderr, succeed};
use crate::rng::{Rng, number_from};

const PATIENCE: Duration = Duration::from_secs(60);
const BUCKET: &str = "backstay-tests";

/// A server, and a bucket on it.
pub struct Server {
    dir: tempfile::TempDir,
    pub url: String,
    store: AmazonS3,
    runtime: tokio::runtime::Runtime,
}

fn script(command: &str, dir: &Path) -> (Option<i32>, String, String) {
    let ended = Command::new(repository().join("tests/servers/s3")).arg(command).arg(dir).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

impl Server {
    /// `None`: there is none to be had, and none is required.
    pub fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let url = match script("start", dir.path()) {
            (Some(0), url, _) => url,
            (Some(3), _, why) if std::env::var_os("BACKSTAY_REQUIRE_SERVERS").is_none() => {
                eprintln!("SKIPPED: {why}");
                return None;
            }
            (code, _, why) => panic!("tests/servers/s3 start ended with {code:?}: {why}"),
        };
        // A bucket is made by the protocol itself; the crate has no call for it.
        let made = ureq::put(format!("{url}/{BUCKET}")).send_empty().unwrap();
        assert_eq!(made.status(), 200);
        let builder = AmazonS3Builder::new().with_bucket_name(BUCKET).with_endpoint(&url).with_allow_http(true);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = builder.with_region("us-east-1").with_access_key_id("me").with_secret_access_key("secret/7");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(Self { dir, url, store: store.build().unwrap(), runtime })
    }

    /// The settings of a connector.
    pub fn settings(&self) -> String {
        format!(
            r#""bucket_name": "{BUCKET}", "endpoint_url": "{}", "region": "us-east-1", "aws_access_key_id": "me", "aws_secret_access_key": "secret/7""#,
            self.url
        )
    }

    pub fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        let content: Vec<u8> = content.into();
        self.runtime.block_on(self.store.put(&key.into(), content.into())).unwrap();
    }

    /// The objects below a folder, by their keys behind it.
    pub fn objects(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        self.runtime.block_on(async {
            let found: Vec<_> = self.store.list(Some(&folder.into())).try_collect().await.unwrap();
            let mut objects = BTreeMap::new();
            for meta in found {
                let content = self.store.get(&meta.location).await.unwrap().bytes().await.unwrap();
                let name = meta.location.as_ref().strip_prefix(folder).unwrap().trim_start_matches('/');
                objects.insert(name.to_owned(), content.to_vec());
            }
            objects
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        script("stop", self.dir.path());
    }
}

fn csv(ids: std::ops::Range<u64>) -> String {
    let lines: String = ids.map(|id| format!("{id},text of {id}\n")).collect();
    format!("id,text\n{lines}")
}

#[test]
fn each_step_is_an_object_once_under_kills() {
    let Some(server) = Server::start() else { return };
    let (mut random, seed) = Rng::from_env(41);
    let kills = number_from("BACKSTAY_KILLS", 6);
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { temp.path().join(name) };
    let settings = server.settings();
    let sql = format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL, text VARCHAR) WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "s3_input",
        "config": {{{settings}, "prefix": "in/part-"}}}}, "format": {{"name": "csv"}}}}]');
        CREATE VIEW v WITH ('connectors' = '[{{"name": "out", "transport": {{"name": "s3_output", "config": {{{settings}, "prefix": "out/v-"}}}},
        "format": {{"name": "json", "config": {{"include_step": true}}}}}}]') AS SELECT id, text FROM t WHERE id % 1000 < 500;"#
    );
    std::fs::write(path("p.sql"), sql).unwrap();
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}, "max_rows_per_step": 100}"#;
    std::fs::write(path("p.config.json"), config).unwrap();
    for part in 0..3 {
        server.put(&format!("in/part-{part}.csv"), csv(part * 10_000..(part + 1) * 10_000));
    }
    for _ in 0..kills {
        let running = Running::start(&path("p.sql"), &path("data"), &["--workers", "1"]);
        std::thread::sleep(Duration::from_millis(300 + random.below(900)));
        running.kill();
    }
    let args = ["run", path("p.sql").to_str().unwrap(), "--data-dir", path("data").to_str().unwrap(), "--until-end"]
        .map(str::to_owned);
    succeed(&args);
    let ids = || {
        let mut ids: BTreeMap<u64, usize> = BTreeMap::new();
        for (name, content) in server.objects("out") {
            let step: u64 = name.strip_prefix("v-").unwrap().strip_suffix(".ndjson").unwrap().parse().unwrap();
            for line in std::str::from_utf8(&content).unwrap().lines() {
                let row: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(row["step"], step, "{name}: {line}");
                *ids.entry(row["insert"]["id"].as_u64().unwrap()).or_default() += 1;
            }
        }
        ids
    };
    let expected: BTreeMap<u64, usize> = (0..30_000).filter(|id| id % 1000 < 500).map(|id| (id, 1)).collect();
    assert!(ids() == expected, "seed {seed}: rows are missing or doubled");

    // A pipeline that begins anew where another one writes, and an object that changed.
    let refused = |data: &str, words: &[&str]| {
        let args = ["run", path("p.sql").to_str().unwrap(), "--data-dir", path(data).to_str().unwrap(), "--until-end"]
            .map(str::to_owned);
        let ended = backstay(&args).output().unwrap();
        let said = stderr(&ended);
        for word in words {
            assert!(!ended.status.success() && said.contains(word), "no \"{word}\" in: {said}");
        }
        assert!(!said.contains("secret"), "the key: {said}");
    };
    refused("anew", &["connector v.out", "out/v-", "begins anew"]);
    server.put("in/part-1.csv", csv(10_001..20_001));
    refused("data", &["connector t.in", "in/part-1.csv", "was replaced or changed"]);
    server.put("in/part-1.csv", csv(10_000..20_000));
    server.put("in/part-9.csv", csv(90_000..90_010));
    succeed(&args);
    assert_eq!(ids().range(90_000..).count(), 10);
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    let Some(server) = Server::start() else { return };
    if std::env::var_os("BACKSTAY_TEST_S3").is_some() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let settings = server.settings();
    let sql = format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL) WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "file_input", "config": {{"path": "t.csv", "follow": true}}}},
        "format": {{"name": "csv"}}}}]');
        CREATE VIEW v WITH ('connectors' = '[{{"name": "out", "transport": {{"name": "s3_output", "config": {{{settings}, "prefix": "out/v-"}}}},
        "format": {{"name": "csv"}}}}]') AS SELECT id FROM t;"#
    );
    std::fs::write(temp.path().join("p.sql"), sql).unwrap();
    std::fs::write(temp.path().join("t.csv"), "id\n1\n").unwrap();
    let mut running = Running::start(&temp.path().join("p.sql"), &temp.path().join("data"), &["--workers", "1"]);
    running.wait_until("the first object", PATIENCE, || server.objects("out").len() == 1);
    script("stop", server.dir.path());
    std::fs::write(temp.path().join("t.csv"), "id\n1\n2\n").unwrap();
    running.wait_until_said(&["connector v.out"], PATIENCE);
    running.is_alive();
}
