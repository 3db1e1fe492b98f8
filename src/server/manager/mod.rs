//! The manager: many pipelines, each a process of its own, behind one REST API.
//!
//! - [`catalog`] keeps what is wanted, durably; [`managed`] is a pipeline in memory, [`history`] what it did lately;
//! - [`compiler`] has programs compiled, by processes that may be lost over it, to what [`program`] shows;
//! - `supervisor` brings a pipeline's process ([`child`]) into line with it;
//! - `pgwire` reads the views by PostgreSQL's protocol;
//! - `readiness` tells whether the disk takes what is to be kept;
//! - `routes` is the API: it changes what is wanted, shows what is, and passes the rest on to the pipelines' processes.
//!
//! Invariants:
//! 1. A change is durable before it is answered, and before anything is done about it (`changes`, which has the one exception).
//! 2. One manager a directory (the catalog's lock), one process a pipeline (its store's lock).
//! 3. Names reach no path: a pipeline's directory is named by its id.
//!
//! Who may ask, and how often, is decided in `routes::guard`, by [`keys`] and [`limits`]; what a pipeline's files may be, in
//! [`crate::connector::confined`], by the folders that [`Options::allow`] names.

pub mod catalog;
mod changes;
pub mod child;
pub mod compiler;
pub mod config;
pub mod history;
pub mod keys;
pub mod limits;
mod listen;
pub mod managed;
pub mod mask;
mod pgwire;
pub mod program;
mod readiness;
pub mod record;
mod routes;
pub mod shown;
mod supervisor;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use backstay_storage::disk::Disk;
use uuid::Uuid;

use catalog::Catalog;
use child::{Place, Starter};
use compiler::{Bounds, Compiler};
use keys::Keys;
use limits::Limit;
use managed::Managed;
pub use pgwire::THREAD as PGWIRE_THREAD;
use program::Compiled;
use record::Record;

use crate::logging::LogFormat;
use crate::pipeline::Clock;
use crate::server::error::{ApiError, Result};

/// The version that clients are told: that of Feldera whose API this is.
pub const PLATFORM_VERSION: &str = "0.349.0";

/// The folder below the service's for files that pipelines share.
pub const SHARED: &str = "files";

/// What the kernel allows a Unix socket's path, without the byte that ends it.
const SOCKET_PATH_BYTES: usize = 107;

/// How the service is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the catalog and the pipelines' directories are.
    pub root: PathBuf,
    /// Where it listens.
    pub bind: SocketAddr,
    /// What it listens with: a certificate and its key, or nothing of the kind.
    pub tls: Option<Tls>,
    /// Of the keys one of which every request must bear; `None`: anybody who reaches it may do everything.
    pub keys: Option<Keys>,
    /// Requests a second that one address may make.
    pub request_rate: u32,
    /// Wrong keys a minute that one address may try.
    pub wrong_keys: u32,
    /// Folders below which pipelines may read and write files, beside their own and [`SHARED`].
    pub allow: Vec<PathBuf>,
    /// What compiling one program may take.
    pub compiling: Bounds,
    /// How processes write what they say.
    pub log_format: LogFormat,
    /// Where it listens for clients of PostgreSQL's protocol.
    pub bind_postgres: Option<SocketAddr>,
    /// Whether pipelines run on when it is asked to end.
    pub leave_running: bool,
    /// The program that runs a pipeline: this one.
    pub executable: PathBuf,
    /// The door to the file system.
    pub disk: Arc<dyn Disk>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
}

/// A certificate and its private key, PEM.
#[derive(Clone)]
pub struct Tls {
    /// The certificate, and those that vouch for it.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// The manager's state.
#[derive(Debug)]
pub struct Manager {
    root: PathBuf,
    starter: Starter,
    compiler: Compiler,
    keys: Option<Keys>,
    requests: Limit,
    wrong_keys: Limit,
    clock: Arc<dyn Clock>,
    catalog: Mutex<Catalog>,
    pipelines: Mutex<BTreeMap<Uuid, Arc<Managed>>>,
    ending: AtomicBool,
    /// Held for reading while a process is being started.
    starting: tokio::sync::RwLock<()>,
    /// The catalog took the last change.
    writes: AtomicBool,
    /// What was found of the disks.
    disks: readiness::Found,
}

/// Why nobody comes in.
#[derive(Clone, Copy, Debug)]
enum Refused {
    /// Too many wrong keys came from there.
    TooMany,
    /// The key is wrong, or not given.
    Wrong,
}

/// Serves until `end` is ready; then brings the pipelines to a stop that leaves what is wanted of them as it is.
///
/// # Errors
/// The catalog does not open, the address cannot be listened at.
pub async fn serve(options: Options, end: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    let root = std::path::absolute(&options.root)?;
    let socket = Place::new(&root, Uuid::nil()).socket();
    if socket.as_os_str().len() > SOCKET_PATH_BYTES {
        let message = format!(
            "--data-dir {}: too long: the pipelines' sockets below it may have {SOCKET_PATH_BYTES} bytes of path, and would have {}",
            root.display(),
            socket.as_os_str().len()
        );
        return Err(wrong(message));
    }
    let tls = listen::certified(options.tls).await?;
    // Programs, rows and logs are in it: it is the user's own.
    let made = tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(root.join(SHARED)).await;
    made.map_err(|e| std::io::Error::new(e.kind(), format!("--data-dir {}: {e}", root.display())))?;
    let mut allow = vec![root.join(SHARED)];
    for folder in &options.allow {
        let known = tokio::fs::canonicalize(folder).await;
        allow.push(known.map_err(|e| wrong(format!("--allow-root {}: {e}", folder.display())))?);
    }
    let catalog = Catalog::open(Arc::clone(&options.disk), &root.join("catalog"), Uuid::new_v4());
    let manager = Arc::new(Manager {
        catalog: Mutex::new(catalog.map_err(std::io::Error::other)?),
        root,
        compiler: Compiler::new(options.executable.clone(), options.compiling),
        starter: Starter { executable: options.executable, allow, log_format: options.log_format },
        keys: options.keys,
        requests: Limit::new(
            Arc::clone(&options.clock),
            f64::from(options.request_rate),
            f64::from(options.request_rate),
        ),
        wrong_keys: Limit::new(
            Arc::clone(&options.clock),
            f64::from(options.wrong_keys) / 60.0,
            f64::from(options.wrong_keys),
        ),
        clock: options.clock,
        pipelines: Mutex::default(),
        ending: AtomicBool::new(false),
        starting: tokio::sync::RwLock::default(),
        writes: AtomicBool::new(true),
        disks: readiness::Found::default(),
    });
    let records: Vec<Record> = manager.catalog().records().cloned().collect();
    for record in records {
        manager.manage(record, None);
    }
    let bind = |flag: &str, address: SocketAddr| {
        std::net::TcpListener::bind(address)
            .map_err(|e| std::io::Error::new(e.kind(), format!("{flag} {address}: {e}")))
    };
    let listener = bind("--bind", options.bind)?;
    let postgres = options.bind_postgres.map(|address| bind("--bind-postgres", address)).transpose()?;
    listener.set_nonblocking(true)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!("serving at {scheme}://{}, data in {}", listener.local_addr()?, manager.root.display());
    let postgres = match postgres {
        Some(listener) => {
            tracing::info!("serving PostgreSQL's protocol at {}", listener.local_addr()?);
            Some(pgwire::serve(Arc::clone(&manager), listener, tls.as_ref().map(RustlsConfig::get_inner))?)
        }
        None => None,
    };
    let mode = tokio::fs::metadata(&manager.root).await?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(
            "other users of this machine can look into {}: chmod 700 makes it yours alone",
            manager.root.display()
        );
    }
    let router = routes::router(Arc::clone(&manager));
    let served = tokio::spawn(listen::serve(listener, tls, router));
    tokio::select! {
        () = end => {}
        ended = served => return ended.map_err(std::io::Error::other)?,
    }
    if !options.leave_running {
        manager.stop_all().await;
    }
    if let Some(threads) = postgres {
        threads.shutdown_background();
    }
    Ok(())
}

/// What the command line says cannot be.
fn wrong(message: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, message)
}

/// An RFC 3339 time.
fn timestamp(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap_or_default().to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Manager {
    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        lock(&self.catalog)
    }

    /// Whether a key is needed to ask anything.
    fn needs_key(&self) -> bool {
        self.keys.is_some()
    }

    /// Lets who gives a key come in, where one is needed; who gives none has not tried a wrong one. Takes a time that tells nothing of the keys.
    fn admit(&self, from: IpAddr, given: Option<&[u8]>) -> std::result::Result<(), Refused> {
        let Some(keys) = &self.keys else { return Ok(()) };
        // Before the key is looked at: who has tried too many must not go on trying.
        if !self.wrong_keys.has(from) {
            return Err(Refused::TooMany);
        }
        let Some(given) = given else { return Err(Refused::Wrong) };
        if keys.has(given) {
            return Ok(());
        }
        self.wrong_keys.take(from);
        tracing::warn!(address = %from, "a wrong key was given");
        Err(Refused::Wrong)
    }

    /// Whether pipelines are being brought to a stop because the manager ends.
    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Takes a pipeline under management. Without what its program compiled to, that becomes known later.
    fn manage(self: &Arc<Self>, record: Record, compiled: Option<Compiled>) -> Arc<Managed> {
        let place = Place::new(&self.root, record.id);
        let id = record.id;
        let is_compiled = compiled.is_some();
        let managed = Arc::new(Managed::new(record, compiled, place, Arc::clone(&self.clock)));
        lock(&self.pipelines).insert(id, Arc::clone(&managed));
        if !is_compiled {
            let (manager, managed) = (Arc::clone(self), Arc::clone(&managed));
            tokio::spawn(async move { manager.compile(&managed).await });
        }
        tokio::spawn(supervisor::supervise(Arc::clone(self), Arc::clone(&managed)));
        managed
    }

    /// Compiles a pipeline's program once more.
    async fn compile(&self, managed: &Managed) {
        let text = managed.record().program_code;
        let compiled = self.compiler.compile(text.clone()).await;
        managed.compiled_to(&text, compiled);
    }

    /// All pipelines, by name.
    fn all(&self) -> Vec<Arc<Managed>> {
        let mut all: Vec<Arc<Managed>> = lock(&self.pipelines).values().cloned().collect();
        all.sort_by_key(|managed| managed.name());
        all
    }

    /// The pipeline of this name.
    fn find(&self, name: &str) -> Result<Arc<Managed>> {
        let found = lock(&self.pipelines).values().find(|managed| managed.name() == name).cloned();
        found.ok_or_else(|| ApiError::unknown_pipeline(name))
    }

    /// Stops every process behind a checkpoint, and waits for it. What is wanted stays as it is.
    async fn stop_all(&self) {
        self.ending.store(true, Ordering::Release);
        // What is being started has a process then, and nothing is started after it.
        drop(self.starting.write().await);
        let mut ending = Vec::new();
        for managed in self.all() {
            // One that does not listen yet, or not any more, is known by its start.
            let pid = match managed.process() {
                Some(pid) => Some(pid),
                None => managed.place.holder().await,
            };
            if let Some(pid) = pid {
                let process = child::Process::Found(pid);
                process.ask_to_stop();
                ending.push(process);
            }
        }
        // Processes of ours are reaped by their supervisors, which go on meanwhile.
        let begun = self.clock.elapsed();
        while ending.iter_mut().any(|process| process.ended(false).is_none()) {
            if self.clock.elapsed().saturating_sub(begun) > supervisor::STOP_PATIENCE {
                ending.iter().for_each(child::Process::kill);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
