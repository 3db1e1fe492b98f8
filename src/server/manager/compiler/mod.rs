//! Work of which nobody knows what it takes: compiling a program, and answering a query of PostgreSQL's catalog. Constants are computed there, and a
//! short text can ask for any amount of them.
//!
//! Each is done in a process of its own, `backstay compiler` ([`child`]), which is asked on its standard input and answers on its standard output,
//! both JSON.
//!
//! Invariants:
//! 1. Such a process has bounded memory and time ([`Bounds`]), and so many run at once as there are processors, for programs and for queries each: more
//!    wait.
//! 2. However it ends, the manager goes on, and says which bound was met and what to do.
//! 3. It ends with who waits for it; without the manager, at its own bound of time.
//!
//! Known limits: a process is started for every program and query. Programs that take all their time hold up others, for as long as that is.

pub mod child;

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::program::{Compiled, Outcome, Relation};
use child::{Asked, Refusal, Rows};

/// The longest answer. An error has its line in it, and a text may be one line.
const ANSWER_BYTES: u64 = 64 << 20;
/// What a process may say beside its answer, of which the end is told.
const SAID_BYTES: u64 = 64 << 10;

/// What one process may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// MiB of memory, 256 of which are set aside for the compiler's stack.
    pub memory_mib: u32,
    /// Seconds from its start on.
    pub secs: u32,
}

/// Starts the processes.
#[derive(Debug)]
pub struct Compiler {
    executable: PathBuf,
    bounds: Bounds,
    programs: Semaphore,
    queries: Semaphore,
}

impl Compiler {
    /// With the program to start: this one.
    pub fn new(executable: PathBuf, bounds: Bounds) -> Self {
        let places = std::thread::available_parallelism().map_or(1, usize::from);
        Self { executable, bounds, programs: Semaphore::new(places), queries: Semaphore::new(places) }
    }

    /// Compiles a program's text.
    pub async fn compile(&self, text: String) -> Compiled {
        match self.ask::<Outcome>(&self.programs, "the program", &Asked::Program { text }).await {
            Ok(outcome) => outcome.into(),
            Err(why) => {
                tracing::warn!("a program could not be compiled: {why}");
                Compiled::unknown(&why)
            }
        }
    }

    /// The rows of a query of PostgreSQL's catalog, as Arrow's stream.
    ///
    /// # Errors
    /// It is wrong, or takes too much.
    pub async fn catalog(&self, database: String, sql: String, relations: Vec<Relation>) -> Result<Vec<u8>, Refusal> {
        let asked = Asked::Catalog { database, sql, relations };
        let answer = self.ask::<Result<Rows, Refusal>>(&self.queries, "the query", &asked).await;
        answer.unwrap_or_else(|message| Err(Refusal { state: "54000".to_owned(), message })).map(|rows| rows.0)
    }

    async fn ask<T: DeserializeOwned>(&self, places: &Semaphore, what: &str, asked: &Asked) -> Result<T, String> {
        let asked = serde_json::to_vec(asked).map_err(|e| format!("{what} cannot be passed on: {e}"))?;
        let Bounds { memory_mib, secs } = self.bounds;
        // It is never closed.
        let _place = places.acquire().await;
        let mut command = Command::new(&self.executable);
        command.arg("compiler").args(["--max-memory-mib", &memory_mib.to_string(), "--max-secs", &secs.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Signals from the manager's terminal are not for it; it ends with who asked.
        command.process_group(0).kill_on_drop(true);
        let failed =
            |e: std::io::Error| format!("the process that would compile {what} cannot be started: {e}; try again");
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let talk = async {
            let tell = async {
                // One that is gone says so by its end.
                if let Some(mut stdin) = stdin {
                    let _ = stdin.write_all(&asked).await;
                }
            };
            let ((), answer, said) = tokio::join!(tell, read(stdout, ANSWER_BYTES + 1), read(stderr, SAID_BYTES));
            (answer, said, child.wait().await)
        };
        let Ok((answer, said, ended)) = tokio::time::timeout(Duration::from_secs(secs.into()), talk).await else {
            // Also reaps it.
            let _ = child.kill().await;
            return Err(self.too_long(what));
        };
        if answer.len() as u64 > ANSWER_BYTES {
            return Err(format!(
                "what the compiler says of {what} is longer than {ANSWER_BYTES} bytes: make its lines shorter"
            ));
        }
        let ended =
            ended.map_err(|e| format!("the process that compiled {what} cannot be waited for: {e}; try again"))?;
        if !ended.success() {
            return Err(self.explain(what, ended, &String::from_utf8_lossy(&said)));
        }
        serde_json::from_slice(&answer).map_err(|e| {
            format!(
                "the answer about {what} is not understood ({e}): restart the service, if its program has been replaced"
            )
        })
    }

    fn too_long(&self, what: &str) -> String {
        let secs = self.bounds.secs;
        format!(
            "compiling {what} took more than {secs} s (--max-compile-secs): let it compute less in constants, part its longest statements, or \
             start the service with a larger bound"
        )
    }

    /// Why there is no answer.
    fn explain(&self, what: &str, ended: ExitStatus, said: &str) -> String {
        let said = said.trim();
        let signal = ended.signal().and_then(Signal::from_named_raw);
        if signal == Some(Signal::XCPU) {
            return self.too_long(what);
        }
        // What Rust says before it aborts.
        if said.contains("memory allocation of ") {
            let mib = self.bounds.memory_mib;
            return format!(
                "compiling {what} needs more than {mib} MiB of memory (--max-compile-memory-mib): let it compute less in constants, part its \
                 longest statements, or start the service with a larger bound"
            );
        }
        if said.contains("has overflowed its stack") {
            return format!("{what} is nested too deeply for the compiler's stack: part it into several views");
        }
        if signal == Some(Signal::KILL) {
            return format!(
                "the process that compiled {what} was killed, by hand or by a system that is short of memory: try again"
            );
        }
        let last = said.char_indices().nth_back(1999).map_or(said, |(at, _)| said.get(at..).unwrap_or(said));
        format!(
            "the compiler failed at {what} ({ended}), which is a fault of Backstay's; please report it. It said: {last}"
        )
    }
}

/// What comes, up to a bound; what comes beyond finds nobody who listens.
async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What breaks off is short, and told by the process's end.
        let _ = from.take(most).read_to_end(&mut bytes).await;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(executable: &str) -> Compiler {
        Compiler::new(executable.into(), Bounds { memory_mib: 600, secs: 7 })
    }

    #[test]
    fn each_end_is_told_with_its_bound_and_what_to_do() {
        let compiler = compiler("/none");
        let abort = ExitStatus::from_raw(Signal::ABORT.as_raw());
        let cases = [
            (abort, "memory allocation of 9 bytes failed", "more than 600 MiB of memory (--max-compile-memory-mib)"),
            (abort, "thread 'sql' has overflowed its stack", "nested too deeply"),
            (ExitStatus::from_raw(Signal::XCPU.as_raw()), "", "more than 7 s (--max-compile-secs)"),
            (ExitStatus::from_raw(Signal::KILL.as_raw()), "", "was killed"),
            (ExitStatus::from_raw(1 << 8), "panicked at x", "please report it. It said: panicked at x"),
        ];
        for (ended, said, told) in cases {
            let explained = compiler.explain("the program", ended, said);
            assert!(explained.contains(told), "{explained}");
        }
        let long = compiler.explain("the program", abort, &"ä".repeat(5000));
        assert!(long.chars().filter(|c| *c == 'ä').count() == 2000, "{}", long.len());
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_or_says_something_else_is_told_of() {
        let none = compiler("/none").compile(String::new()).await;
        assert!(!none.is_known() && none.first_error().unwrap().contains("cannot be started"), "{none:?}");
        // Ends well, and says what it was called with.
        let echo = compiler("/bin/echo").compile(String::new()).await;
        assert!(echo.first_error().unwrap().contains("is not understood"), "{echo:?}");
    }
}
