//! `backstay serve`: many pipelines behind a REST API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use backstay_storage::disk;

use super::{Failure, read_text};
use crate::pipeline::SystemClock;
use crate::server::manager::{Options, serve};

/// What `serve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Feldera's Python package works with it; see docs/service.md for the routes.

Each pipeline is a process of its own, which is started again after a crash and resumes. SIGTERM or
Ctrl-C stops them behind a checkpoint, and the next start brings back those that were running.")]
pub struct Args {
    /// Where the catalog of pipelines and their data live.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where to listen. Another address than a loopback one needs a key.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    bind: SocketAddr,
    /// A file whose first line is the key that requests must bear.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Leave the pipelines running when this process is asked to end.
    #[arg(long)]
    leave_running: bool,
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let api_key = args.api_key_file.as_ref().map(|path| read_text(path, "API key file")).transpose()?;
    let api_key = api_key.map(|text| text.lines().next().unwrap_or_default().trim().to_owned());
    if api_key.as_ref().is_some_and(|key| key.len() < 16) {
        return Err(Failure::usage("--api-key-file: the key must have at least 16 characters"));
    }
    if api_key.is_none() && !args.bind.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "--bind {}: other machines could do everything there; give --api-key-file, or bind to 127.0.0.1",
            args.bind
        )));
    }
    let failed = |e: std::io::Error| Failure::new(1, e);
    let options = Options {
        root: args.data_dir,
        bind: args.bind,
        api_key,
        leave_running: args.leave_running,
        executable: std::env::current_exe().map_err(failed)?,
        disk: disk::system(),
        clock: Arc::new(SystemClock::new()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    runtime
        .block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let end = async move {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                eprintln!("stopping the pipelines behind a checkpoint each; they are brought back by the next start");
                // Once more: at once.
                tokio::spawn(async move {
                    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                    std::process::exit(130);
                });
            };
            serve(options, end).await
        })
        .map_err(|e| match e.get_ref().and_then(|inner| inner.downcast_ref::<backstay_storage::Error>()) {
            Some(backstay_storage::Error::Locked { .. }) => Failure::new(4, e),
            Some(backstay_storage::Error::Damaged(_)) => Failure::new(3, e),
            _ if e.kind() == std::io::ErrorKind::InvalidInput => Failure::usage(e),
            _ => Failure::new(1, e),
        })
}
