//! Programs that others wrote, unmodified, against the service (`tests/clients/run`).

use std::process::Command;

use crate::process::repository;

/// Runs one; if it cannot be had here, that is said on standard error, unless `BACKSTAY_REQUIRE_SERVERS` is set.
fn drive(client: &str) {
    let script = repository().join("tests/clients/run");
    let done = Command::new(script).arg(env!("CARGO_BIN_EXE_backstay")).arg(client).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    match done.status.code() {
        Some(0) => println!("{said}"),
        Some(77) if std::env::var_os("BACKSTAY_REQUIRE_SERVERS").is_none() => eprintln!("SKIPPED: {said}"),
        _ => panic!("{client}: {}\n{said}", done.status),
    }
}

#[test]
fn felderas_python_client() {
    drive("feldera");
}

#[test]
fn felderas_command_line() {
    drive("fda");
}

/// Requests that are made of the OpenAPI document, good and bad ones.
#[test]
fn schemathesis_finds_no_fault() {
    drive("schemathesis");
}
