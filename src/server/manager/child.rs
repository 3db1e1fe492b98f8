//! A pipeline's process: how it is started, found again, asked and ended.
//!
//! Its directory, `pipelines/<id>/` below the manager's:
//!
//! | file | what |
//! |---|---|
//! | `program.sql`, `config.json` | what it runs; written anew at each start, from the catalog |
//! | `data/` | its store |
//! | `api.sock` | its API, while it runs |
//! | `log.txt`, `log.1.txt` | what it says; the second is what the first was when it had grown large |
//!
//! A process is not killed with its manager. The next one finds it by its socket, and takes the process that listens there for it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::record::{Desired, Record};
use crate::logging::{LogFormat, last_failure};
use crate::server::runtime::Liveness;

/// A log file that is larger is put aside at the next start.
const LOG_BYTES: u64 = 10 << 20;
/// Bytes at the end of a log in which a failure's reason is looked for.
const REASON_BYTES: u64 = 16 << 10;
/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What all processes are started with.
#[derive(Clone, Debug)]
pub struct Starter {
    /// The program.
    pub executable: PathBuf,
    /// Folders that their files may be in, beside their own.
    pub allow: Vec<PathBuf>,
    /// How they write what they say.
    pub log_format: LogFormat,
}

/// Where a pipeline's files are.
#[derive(Clone, Debug)]
pub struct Place {
    dir: PathBuf,
}

impl Place {
    /// The directory of the pipeline `id`.
    pub fn new(root: &Path, id: uuid::Uuid) -> Self {
        Self { dir: root.join("pipelines").join(id.to_string()) }
    }

    /// Its store.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log.txt")
    }

    /// Its API's socket. A socket's path is at most some 100 bytes long.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    /// The directory that its process holds locked as long as it lives.
    pub fn lock(&self) -> PathBuf {
        crate::server::runtime::lock_of(&self.socket())
    }

    /// The id of the process that is there, whether or not it answers or listens.
    pub async fn holder(&self) -> Option<u32> {
        let dir = self.lock();
        let locked = tokio::task::spawn_blocking(move || backstay_storage::disk::system().lock_dir(&dir).map(drop));
        match locked.await {
            Ok(Err(backstay_storage::Error::Locked { holder: Some(pid), .. })) => Some(pid),
            // Not every file system says who: then who listens at the socket, answering or not.
            Ok(Err(backstay_storage::Error::Locked { .. })) => {
                let peer = UnixStream::connect(self.socket()).await.ok()?.peer_cred().ok()?;
                u32::try_from(peer.pid()?).ok()
            }
            _ => None,
        }
    }

    /// Whether it has a store.
    pub async fn is_in_use(&self) -> bool {
        tokio::fs::try_exists(self.data()).await.unwrap_or(true)
    }

    /// Removes the store. Renamed first, so that a removal that is cut off leaves no part of a store under its name.
    pub async fn clear(&self) -> io::Result<()> {
        let gone = self.dir.join("data.cleared");
        remove_all(&gone).await?;
        match tokio::fs::rename(self.data(), &gone).await {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result?,
        }
        remove_all(&gone).await
    }

    /// Removes everything.
    pub async fn remove(&self) -> io::Result<()> {
        remove_all(&self.dir).await
    }

    /// Starts a process over the record's program.
    pub async fn start(&self, with: &Starter, record: &Record, config: &serde_json::Value) -> io::Result<Child> {
        tokio::fs::create_dir_all(&self.dir).await?;
        let (sql, json, socket) = (self.dir.join("program.sql"), self.dir.join("config.json"), self.socket());
        tokio::fs::write(&sql, &record.program_code).await?;
        tokio::fs::write(&json, config.to_string()).await?;
        let log = self.log();
        if tokio::fs::metadata(&log).await.is_ok_and(|m| m.len() > LOG_BYTES) {
            tokio::fs::rename(&log, self.dir.join("log.1.txt")).await?;
        }
        let out = tokio::fs::OpenOptions::new().create(true).append(true).open(&log).await?.into_std().await;
        let mut command = Command::new(&with.executable);
        command.arg("run").arg(&sql).arg("--config").arg(&json).arg("--data-dir").arg(self.data());
        command.arg("--name").arg(record.id.to_string()).arg("--api-socket").arg(&socket);
        command.arg("--log-format").arg(with.log_format.name());
        for folder in std::iter::once(&self.dir).chain(&with.allow) {
            command.arg("--allow-root").arg(folder);
        }
        if record.desired == Desired::Paused {
            command.arg("--paused");
        }
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // Signals from the manager's terminal are not for the pipelines.
        command.process_group(0).spawn()
    }

    /// What the process that listens says of itself; `None` if there is none.
    pub async fn liveness(&self) -> Option<Liveness> {
        let answer = tokio::time::timeout(PATIENCE, self.call(Method::GET, "/status")).await.ok()?.ok()?;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    }

    /// Asks the process something without a body.
    pub async fn call(&self, method: Method, path: &str) -> io::Result<Response<Incoming>> {
        let request =
            Request::builder().method(method).uri(path).header("host", "pipeline").body(Empty::<Bytes>::new());
        self.send(request.map_err(io::Error::other)?).await
    }

    /// Passes a request to the process.
    pub async fn send<B>(&self, request: Request<B>) -> io::Result<Response<Incoming>>
    where
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = UnixStream::connect(self.socket()).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(io::Error::other)
    }

    /// The last thing that a process said before it failed.
    pub async fn reason(&self) -> Option<String> {
        last_failure(&tail(&self.log(), REASON_BYTES).await.ok()?)
    }
}

async fn remove_all(path: &Path) -> io::Result<()> {
    match tokio::fs::remove_dir_all(path).await {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The end of a file, from a line's beginning.
pub async fn tail(path: &Path, bytes: u64) -> io::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let mut file = tokio::fs::File::open(path).await?;
    let length = file.metadata().await?.len();
    let from = length.saturating_sub(bytes);
    file.seek(io::SeekFrom::Start(from)).await?;
    let mut content = Vec::new();
    file.take(bytes).read_to_end(&mut content).await?;
    let text = String::from_utf8_lossy(&content).into_owned();
    match (from, text.find('\n')) {
        (1.., Some(end)) => Ok(text.get(end + 1..).unwrap_or_default().to_owned()),
        _ => Ok(text),
    }
}

/// A pipeline's process.
#[derive(Debug)]
pub enum Process {
    /// One that this manager started.
    Own(Child),
    /// One that an earlier manager started, by its id.
    Found(u32),
}

impl Process {
    /// Its id, unless it has ended.
    pub fn id(&self) -> Option<u32> {
        match self {
            Self::Own(child) => child.id(),
            Self::Found(pid) => Some(*pid),
        }
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.id()?).ok()?)
    }

    /// Asks it to stop behind a checkpoint.
    pub fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // Gone already: what was wanted.
            let _ = kill_process(pid, signal);
        }
    }

    /// How it ended, if it has. Of a process that another manager started only that is known.
    pub fn ended(&mut self, is_listening: bool) -> Option<Ending> {
        match self {
            Self::Own(child) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(Ending::of(status)),
                Err(e) => Some(Ending { code: None, words: format!("it cannot be waited for: {e}") }),
            },
            Self::Found(pid) => {
                let is_there = is_listening
                    || i32::try_from(*pid)
                        .ok()
                        .and_then(Pid::from_raw)
                        .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
                (!is_there)
                    .then(|| Ending { code: None, words: "it ended while no manager was there to see how".into() })
            }
        }
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its exit code; `None` if a signal ended it, or nobody knows.
    pub code: Option<i32>,
    /// For people.
    pub words: String,
}

impl Ending {
    fn of(status: ExitStatus) -> Self {
        Self { code: status.code(), words: status.to_string() }
    }

    /// Whether trying again cannot help: wrong program or configuration, damage, a full disk.
    pub fn is_final(&self) -> bool {
        matches!(self.code, Some(2 | 3 | 5))
    }
}
