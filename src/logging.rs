//! What processes say of themselves: lines on stderr, as text or as JSON.
//!
//! Text has no time: who keeps the lines (journald, a container's runtime) adds it. JSON has it, the level, and the fields as they are.

use std::fmt;
use std::io::Write as _;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

impl LogFormat {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What was begun with.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Says what a process ends with. Compilers' messages bring their own place and prefix.
pub fn fail(message: &str) {
    let prefix = if message.contains("error: ") { "" } else { "error: " };
    match FORMAT.get() {
        Some(LogFormat::Json) => tracing::error!("{message}"),
        // Nobody may hear it: the file is on a full disk, the reader has gone.
        _ => _ = writeln!(std::io::stderr(), "{prefix}{message}"),
    }
}

/// Says what went not quite as it was asked for.
pub fn warn(message: &str) {
    _ = writeln!(std::io::stderr(), "warning: {message}");
}

/// The last failure among lines that a process said, in either format.
pub fn last_failure(lines: &str) -> Option<String> {
    let of_json = lines.lines().rev().filter(|line| line.starts_with('{')).find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_error = line.get("level").is_some_and(|level| level == "ERROR");
        is_error.then(|| line.get("message")?.as_str().map(str::to_owned)).flatten()
    });
    if of_json.is_some() {
        return of_json;
    }
    let from = lines.rfind("error: ").map(|at| lines.get(..at).and_then(|t| t.rfind('\n')).map_or(0, |n| n + 1));
    let from = from.or_else(|| lines.rfind("panicked at"))?;
    Some(lines.get(from..)?.trim().to_owned())
}

/// Begins to write what is said from now on. Once a process; a second call changes nothing.
pub fn begin(format: LogFormat) {
    let _ = FORMAT.set(format);
    // What it would say of a line that cannot be written, it would say there, and panic.
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(Level::INFO);
    let lines = lines.log_internal_errors(false);
    // A test's process may have begun before.
    let _ = match format {
        LogFormat::Text => lines.event_format(Text).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).try_init(),
    };
}

/// `pipeline p: warning: what happened`.
struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let level = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        };
        writeln!(out, "{}{level}{}", parts.fields, parts.message)
    }
}

/// An event's fields and message as text.
#[derive(Default)]
struct Parts {
    fields: String,
    message: String,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push_str(&format!("{name} {value:?}: ")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failure_is_found() {
        let text = "starting\nerror: first\nstarting\np.sql:1:2: error: no such\n  | x\n";
        assert_eq!(last_failure(text).unwrap(), "p.sql:1:2: error: no such\n  | x");
        assert_eq!(last_failure("x\nthread 'a' panicked at b:\nc").unwrap(), "panicked at b:\nc");
        let json = "{\"level\":\"ERROR\",\"message\":\"first\"}\n{\"level\":\"ERROR\",\"message\":\"error: no such\\n | x\"}\n{\"level\":\"INFO\",\"message\":\"y\"}";
        assert_eq!(last_failure(json).unwrap(), "error: no such\n | x");
        assert_eq!(last_failure("all is well\n{\"level\":\"INFO\"}"), None);
    }
}
