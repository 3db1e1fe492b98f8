//! Programs that others wrote, unmodified, against the service (`tests/clients/run`).

use std::process::Command;

use crate::process::repository;

/// Runs one.
fn drive(client: &str) {
    let script = repository().join("tests/clients/run");
    crate::process::drive(Command::new(script).arg(env!("CARGO_BIN_EXE_backstay")).arg(client));
}

#[test]
fn felderas_python_client() {
    drive("feldera");
}

#[test]
fn felderas_command_line() {
    drive("fda");
}

#[test]
fn psycopg() {
    drive("psycopg");
}

/// Requests that are made of the OpenAPI document, good and bad ones.
#[test]
fn schemathesis_finds_no_fault() {
    drive("schemathesis");
}
