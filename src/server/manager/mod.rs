//! The manager: many pipelines, each a process of its own, behind one REST API.
//!
//! - [`catalog`] keeps what is wanted, durably; [`managed`] is a pipeline in memory;
//! - `supervisor` brings a pipeline's process ([`child`]) into line with it;
//! - `routes` is the API: it changes what is wanted, shows what is, and passes the rest on to the pipelines' processes.
//!
//! Invariants:
//! 1. A change is durable before it is answered, and before anything is done about it.
//! 2. One manager a directory (the catalog's lock), one process a pipeline (its store's lock).
//! 3. Names reach no path: a pipeline's directory is named by its id.

pub mod catalog;
pub mod child;
pub mod config;
pub mod managed;
pub mod program;
pub mod record;
mod routes;
pub mod shown;
mod supervisor;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstay_storage::disk::Disk;
use uuid::Uuid;

use catalog::Catalog;
use child::Place;
use managed::Managed;
use record::Record;

use crate::pipeline::Clock;
use crate::server::error::{ApiError, Result};

/// The version that clients are told: that of Feldera whose API this is.
pub const PLATFORM_VERSION: &str = "0.349.0";

/// What the kernel allows a Unix socket's path, without the byte that ends it.
const SOCKET_PATH_BYTES: usize = 107;

/// How the service is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the catalog and the pipelines' directories are.
    pub root: PathBuf,
    /// Where it listens.
    pub bind: SocketAddr,
    /// The key that every request must bear; `None`: anybody who reaches it may do everything.
    pub api_key: Option<String>,
    /// Whether pipelines run on when it is asked to end.
    pub leave_running: bool,
    /// The program that runs a pipeline: this one.
    pub executable: PathBuf,
    /// The door to the file system.
    pub disk: Arc<dyn Disk>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
}

/// The manager's state.
#[derive(Debug)]
pub struct Manager {
    root: PathBuf,
    executable: PathBuf,
    api_key: Option<String>,
    clock: Arc<dyn Clock>,
    catalog: Mutex<Catalog>,
    pipelines: Mutex<BTreeMap<Uuid, Arc<Managed>>>,
    ending: AtomicBool,
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
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
    }
    tokio::fs::create_dir_all(&root).await?;
    let catalog = Catalog::open(Arc::clone(&options.disk), &root.join("catalog"), Uuid::new_v4());
    let manager = Arc::new(Manager {
        catalog: Mutex::new(catalog.map_err(std::io::Error::other)?),
        root,
        executable: options.executable,
        api_key: options.api_key,
        clock: options.clock,
        pipelines: Mutex::default(),
        ending: AtomicBool::new(false),
    });
    let records: Vec<Record> = manager.catalog().records().cloned().collect();
    for record in records {
        manager.manage(record);
    }
    let listener = tokio::net::TcpListener::bind(options.bind).await?;
    eprintln!("serving at http://{}, data in {}", listener.local_addr()?, manager.root.display());
    let router = routes::router(Arc::clone(&manager));
    let served = tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::select! {
        () = end => {}
        ended = served => return ended.map_err(std::io::Error::other)?,
    }
    if !options.leave_running {
        manager.stop_all().await;
    }
    Ok(())
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

    /// Whether pipelines are being brought to a stop because the manager ends.
    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Takes a pipeline under management.
    fn manage(self: &Arc<Self>, record: Record) -> Arc<Managed> {
        let place = Place::new(&self.root, record.id);
        let id = record.id;
        let managed = Arc::new(Managed::new(record, place, Arc::clone(&self.clock)));
        lock(&self.pipelines).insert(id, Arc::clone(&managed));
        tokio::spawn(supervisor::supervise(Arc::clone(self), Arc::clone(&managed)));
        managed
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

    /// Creates a pipeline.
    fn create(self: &Arc<Self>, record: Record) -> Result<Arc<Managed>> {
        let mut catalog = self.catalog();
        if catalog.named(&record.name).is_some() {
            return Err(taken(&record.name));
        }
        durably(|| catalog.put(&record))?;
        Ok(self.manage(record))
    }

    /// Changes what is wanted of a pipeline.
    fn change(&self, managed: &Managed, change: impl FnOnce(&mut Record)) -> Result<Record> {
        self.try_change(managed, |record| {
            change(record);
            Ok(())
        })
    }

    /// As [`Self::change`], unless `change` refuses.
    fn try_change(&self, managed: &Managed, change: impl FnOnce(&mut Record) -> Result<()>) -> Result<Record> {
        // Under the catalog's lock: changes of one pipeline come one after another.
        let mut catalog = self.catalog();
        let old = managed.record();
        let mut record = old.clone();
        change(&mut record)?;
        if record.name != old.name && catalog.named(&record.name).is_some() {
            return Err(taken(&record.name));
        }
        if record != old {
            durably(|| catalog.put(&record))?;
            managed.replace(record.clone());
        }
        Ok(record)
    }

    /// Forgets a pipeline that has no process.
    fn forget(&self, managed: &Managed) -> Result<()> {
        let id = managed.record().id;
        let mut catalog = self.catalog();
        durably(|| catalog.remove(id))?;
        lock(&self.pipelines).remove(&id);
        managed.delete();
        Ok(())
    }

    /// Stops every process behind a checkpoint, and waits for it. What is wanted stays as it is.
    async fn stop_all(&self) {
        self.ending.store(true, Ordering::Release);
        let mut ending = Vec::new();
        for managed in self.all() {
            if let Some(liveness) = managed.place.liveness().await {
                let process = child::Process::Found(liveness);
                process.ask_to_stop();
                ending.push(process);
            }
        }
        // Processes of ours are reaped by their supervisors, which go on meanwhile.
        while ending.iter_mut().any(|process| process.ended(false).is_none()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Runs a durable write where it may block.
fn durably(write: impl FnOnce() -> backstay_storage::Result<()>) -> Result<()> {
    tokio::task::block_in_place(write).map_err(|e| ApiError::internal(format!("the catalog cannot be written: {e}")))
}

fn taken(name: &str) -> ApiError {
    let message = format!("there is a pipeline \"{name}\" already");
    ApiError::new(axum::http::StatusCode::CONFLICT, "DuplicateName", message)
}
