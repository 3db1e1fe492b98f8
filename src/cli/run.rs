//! `backstay run`: one pipeline in this process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backstay_storage::disk::DirLock;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::out::counted;
use super::progress::Progress;
use super::{Failure, read_text};
use crate::circuit::growing_state;
use crate::connector::confined::resolved;
use crate::connector::variables::SECRETS_DIR;
use crate::connector::{Connectors, Level};
use crate::logging::{self, LogFormat};
use crate::pipeline::{self, Control, Environment, Options, PipelineConfig, Summary, SystemClock, Threads};
use crate::server::runtime;
use crate::sql;

/// A graceful stop that takes longer than this ends the process: a restart replays what is missing.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// So long a pipeline that has failed waits for its connectors' ends; a client of a server that is away may have none.
const FAILURE_PATIENCE: Duration = Duration::from_secs(10);

/// Where `${secret:…}` is looked for; the environment's BACKSTAY_SECRETS_DIR goes before it.
const DEFAULT_SECRETS_DIR: &str = "/etc/backstay-secrets";

/// What `run` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The configuration is JSON under Feldera's names, for example
  {\"storage\": true, \"fault_tolerance\": {\"checkpoint_interval_secs\": 10}, \"workers\": 2}
Without --config, FILE.config.json beside FILE.sql is read if it is there. Without either, a
run with --data-dir is exactly once, and one without keeps nothing.

Ctrl-C or SIGTERM stops gracefully, behind a checkpoint; a second one at once. Run the same
command again to go on.")]
pub struct Args {
    /// The SQL program.
    sql: PathBuf,
    /// Where state, log and checkpoints live. Also ${DATA_DIR} in connectors' configs.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The pipeline's configuration (JSON).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The pipeline's name; default: the SQL file's. Fixed at the first run in a data directory.
    #[arg(long)]
    name: Option<String>,
    /// Worker threads, over the configuration's.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Stop once all finite inputs are at their end and all outputs hold everything.
    #[arg(long)]
    until_end: bool,
    /// Serve this pipeline's API on a Unix socket. Whoever can open it may stop and ask the pipeline.
    #[arg(long, value_name = "PATH")]
    api_socket: Option<PathBuf>,
    /// Make no steps until the API is told to resume.
    #[arg(long, requires = "api_socket")]
    paused: bool,
    /// Keep connectors to files below this folder. May be repeated; without it, files may be anywhere.
    #[arg(long, value_name = "DIR")]
    allow_root: Vec<PathBuf>,
    /// How lines on stderr are written.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    logging::begin(args.log_format);
    let source = args.sql.display().to_string();
    let text = read_text(&args.sql, "SQL file")?;
    let program = Arc::new(sql::compile(&text, &source).map_err(Failure::usage)?);
    let options = options(&args)?;
    let env = environment(&args)?;
    let (stop, _guards) = watch_signals()?;

    let control = Arc::new(Control::default());
    if args.paused {
        control.pause();
    }
    let _api = match &args.api_socket {
        Some(path) => Some(serve(path, &program, &control, &env, &options)?),
        None => None,
    };
    let mut progress = Progress::new(Arc::clone(&env.clock), args.log_format);
    progress.line(&headline(&program, &options, &args));
    let growing = match growing_state(&program.plan).len() {
        0 => None,
        1 => Some("1 operator keeps state that grows with the input: `backstay check` names it".to_owned()),
        n => Some(format!("{n} operators keep state that grows with the input: `backstay check` lists them")),
    };
    growing.iter().for_each(|line| progress.line(line));
    let worker = {
        let (control, env) = (Arc::clone(&control), env.clone());
        std::thread::Builder::new()
            .name("controller".into())
            .spawn(move || pipeline::run(&program, &options, &env, &control))
            .map_err(|e| Failure::new(1, format!("cannot start the controller's thread: {e}")))?
    };
    let (mut stop_asked, mut failed_at): (Option<Duration>, Option<Duration>) = (None, None);
    while !worker.is_finished() {
        if stop.load(Ordering::Acquire) && stop_asked.is_none() {
            stop_asked = Some(env.clock.elapsed());
            control.request_stop();
            progress.line("stopping: finishing the step and writing a checkpoint; once more to stop at once");
        }
        if stop_asked.is_some_and(|asked| env.clock.elapsed().saturating_sub(asked) > STOP_PATIENCE) {
            progress.clear();
            return Err(Failure::new(
                1,
                "the graceful stop took over 30 s; ended without a last checkpoint, nothing durable is lost",
            ));
        }
        if let Some((code, message)) = control.failure() {
            let now = env.clock.elapsed();
            if now.saturating_sub(*failed_at.get_or_insert(now)) > FAILURE_PATIENCE {
                progress.clear();
                return Err(Failure::new(code, message));
            }
        }
        progress.show(&control);
        env.clock.sleep(Duration::from_millis(20));
    }
    progress.show(&control);
    progress.clear();
    let result = worker.join().map_err(|_| Failure::new(1, "the controller's thread panicked"))?;
    for notice in control.take_notices() {
        progress.line(&notice);
    }
    let summary = result?;
    progress.line(&closing(&summary, env.clock.elapsed()));
    Ok(())
}

/// Serves the pipeline's API beside it, for as long as what it returns lives.
fn serve(
    path: &Path,
    program: &Arc<sql::Program>,
    control: &Arc<Control>,
    env: &Environment,
    options: &Options,
) -> Result<(tokio::runtime::Runtime, DirLock), Failure> {
    let failed = |e: std::io::Error| Failure::new(1, format!("--api-socket {}: {e}", path.display()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("api")
        .enable_all()
        .build()
        .map_err(failed)?;
    let lock = runtime::lock_of(path);
    let locked = env.disk.create_dir_all(&lock).and_then(|()| env.disk.lock_dir(&lock));
    let locked = locked.map_err(|e| Failure::from(crate::pipeline::PipelineError::from(e)))?;
    control.keep_changes();
    let listener = runtime.block_on(runtime::bind(path)).map_err(failed)?;
    let served = Arc::new(runtime::Served {
        name: options.name.clone().unwrap_or_else(|| options.default_name.clone()),
        program: Arc::clone(program),
        control: Arc::clone(control),
        clock: Arc::clone(&env.clock),
        process: uuid::Uuid::new_v4(),
        begun_ms: env.clock.wall_ms(),
        stored: options.config.storage.is_some(),
    });
    runtime.spawn(runtime::serve(listener, served));
    Ok((runtime, locked))
}

fn options(args: &Args) -> Result<Options, Failure> {
    let default_name = args.sql.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let sibling = args.sql.with_extension("config.json");
    let path = args.config.clone().or_else(|| exists(&sibling).then_some(sibling));
    let mut config = match &path {
        Some(path) => {
            let text = read_text(path, "configuration")?;
            let json: Value = serde_json::from_str(&text)
                .map_err(|e| Failure::usage(format!("{}: not JSON: {e}", path.display())))?;
            PipelineConfig::from_json(&json).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?
        }
        None if args.data_dir.is_some() => PipelineConfig::exactly_once(),
        None => PipelineConfig::default(),
    };
    if let Some(workers) = args.workers {
        if !(1..=256).contains(&workers) {
            return Err(Failure::usage(format!("--workers must be from 1 to 256, got {workers}")));
        }
        config.workers = Some(workers);
    }
    Ok(Options { config, name: args.name.clone(), default_name, until_end: args.until_end })
}

fn exists(path: &Path) -> bool {
    backstay_storage::disk::system().metadata(path).is_ok_and(|m| m.is_some())
}

fn environment(args: &Args) -> Result<Environment, Failure> {
    // Not for a program that came over the service's API: whoever may send one may not read the manager's environment by it.
    let variables = variables(args.data_dir.as_deref(), args.api_socket.is_none())?;
    let mut connectors = Connectors::default();
    if !args.allow_root.is_empty() {
        let roots = args
            .allow_root
            .iter()
            .map(|root| resolved(root).map_err(|e| Failure::usage(format!("--allow-root {}: {e}", root.display()))));
        connectors = connectors.within(roots.collect::<Result<_, _>>()?);
    }
    Ok(Environment { connectors, data_dir: args.data_dir.clone(), ..of_program(&args.sql, variables) })
}

/// What a program of a file runs in, without a store.
pub(super) fn of_program(sql: &Path, variables: BTreeMap<String, String>) -> Environment {
    Environment {
        disk: backstay_storage::disk::system(),
        clock: Arc::new(SystemClock::new()),
        scheduler: Arc::new(Threads),
        connectors: Connectors::default(),
        data_dir: None,
        base_dir: match sql.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        },
        variables,
        new_id: uuid::Uuid::new_v4(),
    }
}

/// The variables of connectors' settings.
pub(super) fn variables(data_dir: Option<&Path>, with_environment: bool) -> Result<BTreeMap<String, String>, Failure> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    if let Some(dir) = data_dir {
        let dir = std::path::absolute(dir).map_err(|e| Failure::usage(format!("--data-dir {}: {e}", dir.display())))?;
        variables.insert("DATA_DIR".into(), dir.to_string_lossy().into_owned());
    }
    let secrets = std::env::var("BACKSTAY_SECRETS_DIR").unwrap_or_else(|_| DEFAULT_SECRETS_DIR.to_owned());
    variables.insert(SECRETS_DIR.into(), secrets);
    if with_environment {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((format!("env:{}", name.into_string().ok()?), value.into_string().ok()?))
        };
        variables.extend(std::env::vars_os().filter_map(text));
    }
    Ok(variables)
}

/// The first SIGINT or SIGTERM sets the flag, the second ends the process.
fn watch_signals() -> Result<(Arc<AtomicBool>, Vec<signal_hook::SigId>), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut guards = Vec::new();
    for signal in [SIGINT, SIGTERM] {
        let both = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|first| signal_hook::flag::register(signal, Arc::clone(&stop)).map(|second| [first, second]));
        guards.extend(both.map_err(|e| Failure::new(1, format!("cannot watch for signals: {e}")))?);
    }
    Ok((stop, guards))
}

fn headline(program: &sql::Program, options: &Options, args: &Args) -> String {
    let config = &options.config;
    let level = match config.fault_tolerance.model {
        Level::None => "no fault tolerance",
        Level::AtLeastOnce => "at least once",
        Level::ExactlyOnce => "exactly once",
    };
    let place = match (&config.storage, &args.data_dir) {
        (Some(_), Some(dir)) => format!(", data in {}", dir.display()),
        _ => ", nothing is kept".into(),
    };
    format!(
        "pipeline {}: {}, {}, {level}{place}",
        options.name.as_ref().unwrap_or(&options.default_name),
        counted(program.tables.len() as u64, "table"),
        counted(program.views.len() as u64, "view"),
    )
}

fn closing(summary: &Summary, took: Duration) -> String {
    let how = if summary.finished { "all inputs are at their end" } else { "stopped" };
    let bad = match summary.parse_errors {
        0 => String::new(),
        n => format!(", {} did not parse", counted(n, "row")),
    };
    let late = match summary.late_rows {
        0 => String::new(),
        1 => ", 1 row was late".into(),
        n => format!(", {n} rows were late"),
    };
    format!(
        "{how}: step {}, {} in all, {} new{bad}{late}, {:.1} s",
        summary.step,
        counted(summary.input_rows, "row"),
        summary.new_rows,
        took.as_secs_f64()
    )
}
