//! A PostgreSQL server for the tests, by `tests/servers/postgres`, and a database of each test's own on it.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::process::repository;

/// A running server; stopped when it is dropped.
pub struct Server {
    dir: tempfile::TempDir,
    uri: String,
}

/// A database on a server.
pub struct Database {
    pub uri: String,
    /// Held for as long as the database is used.
    _server: Arc<Server>,
}

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

fn script(command: &str, dir: &Path, more: &[&str]) -> (i32, String, String) {
    let mut script = Command::new(repository().join("tests/servers/postgres"));
    let output = script.arg(command).arg(dir).args(more).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

impl Server {
    /// A server of the test's own. `None`: there is none to be had, and none is required.
    pub fn start() -> Option<Arc<Self>> {
        Self::started(&[])
    }

    /// As [`Server::start`], one with TLS, and with the roles that only come by it; `None` for one that is there already.
    pub fn start_secure() -> Option<Arc<Self>> {
        let server = Self::is_own().then(|| Self::started(&["secure"]))??;
        let all = Database { uri: server.uri.clone(), _server: Arc::clone(&server) };
        all.execute("CREATE ROLE client LOGIN SUPERUSER; CREATE ROLE secured LOGIN SUPERUSER PASSWORD 'secret/7'");
        Some(server)
    }

    /// A file of those that clients of a secure server need.
    pub fn certificate(&self, name: &str) -> String {
        self.dir.path().join("certificates").join(name).to_str().unwrap().to_owned()
    }

    fn started(more: &[&str]) -> Option<Arc<Self>> {
        let dir = tempfile::tempdir().unwrap();
        match script("start", dir.path(), more) {
            (0, uri, _) => Some(Arc::new(Self { dir, uri })),
            (3, _, why) if std::env::var_os("BACKSTAY_REQUIRE_SERVERS").is_none() => {
                eprintln!("SKIPPED: {why}");
                None
            }
            (code, out, why) => panic!("tests/servers/postgres start ended with {code}: {out}\n{why}"),
        }
    }

    /// One that tests share.
    pub fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Self::start()?;
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    /// Whether it may be killed.
    pub fn is_own() -> bool {
        std::env::var_os("BACKSTAY_TEST_POSTGRES").is_none()
    }

    pub fn kill(&self) {
        assert_eq!(script("kill", self.dir.path(), &[]).0, 0);
    }

    /// Ends it gracefully.
    pub fn stop(&self) {
        assert_eq!(script("stop", self.dir.path(), &[]).0, 0);
    }

    /// The folder of its files.
    pub fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub fn restart(&self) {
        let (code, uri, why) = script("start", self.dir.path(), &[]);
        assert_eq!((code, uri.as_str()), (0, self.uri.as_str()), "{why}");
    }

    /// A database of the test's own.
    pub fn database(self: &Arc<Self>) -> Database {
        let name = format!("t{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
        let all = Database { uri: self.uri.clone(), _server: Arc::clone(self) };
        all.execute(&format!("CREATE DATABASE {name}"));
        let (rest, _) = self.uri.rsplit_once('/').unwrap();
        Database { uri: format!("{rest}/{name}"), _server: Arc::clone(self) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = script("stop", self.dir.path(), &[]);
    }
}

impl Database {
    /// Runs statements; the rows of all, their fields joined by `|`, NULL as `∅`.
    pub fn try_query(&self, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.uri, tokio_postgres::NoTls).await?;
            let connection = tokio::spawn(connection);
            let messages = client.simple_query(sql).await?;
            drop(client);
            let _ = connection.await;
            let row = |message: &tokio_postgres::SimpleQueryMessage| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|i| row.get(i).unwrap_or("∅")).collect::<Vec<_>>().join("|"))
                }
                _ => None,
            };
            Ok(messages.iter().filter_map(row).collect())
        })
    }

    pub fn query(&self, sql: &str) -> Vec<String> {
        self.try_query(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"))
    }

    pub fn execute(&self, sql: &str) {
        self.query(sql);
    }
}
