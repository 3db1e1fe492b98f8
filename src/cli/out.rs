//! What commands print. A reader that has gone (`… | head`) ends the command quietly; an output that cannot be written is told, with exit code 1.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};

/// Prints text on standard output.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::out::put(format_args!($($text)*), "") };
}

/// Prints a line on standard output.
macro_rules! outln {
    ($($text:tt)*) => { $crate::cli::out::put(format_args!($($text)*), "\n") };
}

/// So many of what this noun names: `1 row`, `2 rows`.
pub(super) fn counted(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Prints both, at once.
pub(super) fn put(text: Arguments<'_>, end: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_fmt(text).and_then(|()| out.write_all(end.as_bytes())).and_then(|()| out.flush());
    let Err(error) = written else { return };
    if error.kind() != ErrorKind::BrokenPipe {
        crate::logging::fail(&format!("standard output cannot be written: {error}"));
        std::process::exit(1);
    }
    std::process::exit(0);
}
