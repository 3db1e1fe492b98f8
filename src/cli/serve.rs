//! `backstay serve`: many pipelines behind a REST API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use backstay_storage::disk;

use super::{Failure, read_text};
use crate::logging::{self, LogFormat};
use crate::pipeline::SystemClock;
use crate::server::manager::compiler::Bounds;
use crate::server::manager::keys::Keys;
use crate::server::manager::{Options, Tls, serve};

/// What `serve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Feldera's Python package and its command `fda` work with it; see docs/service.md for the routes, and
docs/security.md for what is promised.

Each pipeline is a process of its own, which is started again after a crash and resumes. SIGTERM or
Ctrl-C stops them behind a checkpoint, and the next start brings back those that were running.")]
pub struct Args {
    /// Where the catalog of pipelines and their data live.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where to listen. Another address than a loopback one needs a key.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    bind: SocketAddr,
    /// Where to listen for clients of PostgreSQL's protocol, which read the views. Another address than a loopback one needs a key.
    #[arg(long, value_name = "ADDRESS:PORT")]
    bind_postgres: Option<SocketAddr>,
    /// A file of hashes of keys, one of which requests must bear; `backstay api-key` makes them.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// A certificate (PEM, with those that vouch for it): speak TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A folder below which pipelines may read and write files, beside their own and DIR/files. May be repeated.
    #[arg(long, value_name = "DIR")]
    allow_root: Vec<PathBuf>,
    /// Requests a second that one address may make.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    max_request_rate: u32,
    /// Wrong keys a minute that one address may try before it is answered 429.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    max_wrong_keys: u32,
    /// MiB of memory that compiling one program may take; a program that needs more does not compile.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(512..))]
    max_compile_memory_mib: u32,
    /// Seconds that compiling one program may take; a program that needs more does not compile.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    max_compile_secs: u32,
    /// How this process and the pipelines' write what they say.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// Leave the pipelines running when this process is asked to end.
    #[arg(long)]
    leave_running: bool,
}

/// Lets the process have as many files and connections open as the system allows it at all: each request that is passed on takes two.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!("the number of open files stays limited to {:?}: {e}", limit.current);
    }
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    logging::begin(args.log_format);
    let keys = args.api_key_file.as_ref().map(|path| {
        let text = read_text(path, "API key file")?;
        Keys::parse(&text).map_err(|e| Failure::usage(format!("--api-key-file {}: {e}", path.display())))
    });
    let keys = keys.transpose()?;
    let all = [("--bind", Some(args.bind)), ("--bind-postgres", args.bind_postgres)];
    if let (None, Some((flag, Some(address)))) =
        (&keys, all.iter().find(|(_, address)| address.is_some_and(|a| !a.ip().is_loopback())))
    {
        return Err(Failure::usage(format!(
            "{flag} {address}: other machines could do everything there; give --api-key-file, or bind to 127.0.0.1"
        )));
    }
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls {
            certificate: read_text(certificate, "certificate")?.into_bytes(),
            key: read_text(key, "private key")?.into_bytes(),
        }),
        _ => None,
    };
    let failed = |e: std::io::Error| Failure::new(1, e);
    let options = Options {
        root: args.data_dir,
        bind: args.bind,
        bind_postgres: args.bind_postgres,
        tls,
        keys,
        request_rate: args.max_request_rate,
        wrong_keys: args.max_wrong_keys,
        allow: args.allow_root,
        compiling: Bounds { memory_mib: args.max_compile_memory_mib, secs: args.max_compile_secs },
        log_format: args.log_format,
        leave_running: args.leave_running,
        executable: std::env::current_exe().map_err(failed)?,
        disk: disk::system(),
        clock: Arc::new(SystemClock::new()),
    };
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    runtime
        .block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let end = async move {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                tracing::info!(
                    "stopping the pipelines behind a checkpoint each; they are brought back by the next start"
                );
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
