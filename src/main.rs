//! The `backstay` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A thread that panicked has left something half done that others wait for: the process ends, and a restart recovers what is durable.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
    backstay::cli::main()
}
