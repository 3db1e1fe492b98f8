//! The `backstay` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A thread that panicked has left something half done that others wait for: the process ends, and a restart recovers what is durable.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        // A connection of PostgreSQL's protocol holds nothing that others wait for: what its client sent ends it alone.
        if std::thread::current().name() != Some(backstay::server::manager::PGWIRE_THREAD) {
            std::process::abort();
        }
    }));
    backstay::cli::main()
}
