//! The settings of a `postgres_output`, and how its connection is made from them.
//!
//! Invariant: no text that leaves this file holds the password. What is told of the connection is put together from its parts; a `uri`
//! that does not parse is not shown, as its parts are not known.

use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

use crate::connector::config::ConnectorConfig;
use crate::connector::options::{Options, suggestion};
use crate::connector::{Context, Result};

/// Feldera's default of `max_buffer_size_bytes`.
const BUFFER_BYTES: u64 = 1 << 20;
/// How long a connection may take to come about, unless `uri` says otherwise.
const CONNECT: Duration = Duration::from_secs(5);
/// After how long without an answer a connection is taken for dead.
const DEAD: Duration = Duration::from_secs(15);

/// How rows come into the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The table holds the view: rows are inserted, updated and deleted by key.
    Materialized,
    /// The table is a log of changes: a row for each.
    Cdc {
        /// The column that takes `i`, `u` or `d`.
        op: String,
        /// The column that takes the time of the transaction.
        ts: String,
        /// The column that takes the step's number, if it is wanted.
        step: Option<String>,
    },
}

/// The settings, checked as far as they can be without the server.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// The connection; its own `Debug` leaves the password out.
    pub(super) server: tokio_postgres::Config,
    /// `host:port/database`.
    pub(super) place: String,
    /// The table's name as the user wrote it: an SQL name, that may have a schema.
    pub(super) table: String,
    pub(super) mode: Mode,
    /// The columns of the key; empty: the table's primary key.
    pub(super) key: Vec<String>,
    pub(super) max_rows: u64,
    pub(super) max_bytes: u64,
}

const KNOWN: &[&str] = &[
    "uri",
    "table",
    "mode",
    "key",
    "cdc_op_column",
    "cdc_ts_column",
    "cdc_step_column",
    "max_records_in_buffer",
    "max_buffer_size_bytes",
];
const LATER: &[&str] = &[
    "ssl_ca_pem",
    "ssl_ca_location",
    "ssl_client_pem",
    "ssl_client_location",
    "ssl_client_key",
    "ssl_client_key_location",
    "ssl_certificate_chain_location",
    "verify_hostname",
    "on_conflict_do_nothing",
    "threads",
    "extra_columns",
];

impl Settings {
    pub(super) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let place = "transport.config of postgres_output";
        let options = Options::new(&ctx.name, place, &config.transport.config, KNOWN, LATER)?;
        if config.format.is_some() {
            return Err(options.error("postgres_output writes columns, and so has no \"format\"; leave it out"));
        }
        let server = server(&options)?;
        let table = options.require_string("table")?.to_owned();
        if table.is_empty() {
            return Err(options.error("\"table\" must name a table"));
        }
        let cdc = ["cdc_op_column", "cdc_ts_column", "cdc_step_column"];
        let mode = match options.string("mode")?.unwrap_or("materialized") {
            "materialized" => {
                if let Some(key) = cdc.iter().find(|key| options.value(key).is_some()) {
                    return Err(options.error(format!("\"{key}\" belongs to \"mode\": \"cdc\"")));
                }
                Mode::Materialized
            }
            "cdc" => Mode::Cdc {
                op: options.string("cdc_op_column")?.unwrap_or("__feldera_op").to_owned(),
                ts: options.string("cdc_ts_column")?.unwrap_or("__feldera_ts").to_owned(),
                step: options.string("cdc_step_column")?.map(str::to_owned),
            },
            other => {
                let hint = suggestion(other, &["materialized", "cdc"]);
                return Err(options.error(format!("there is no mode \"{other}\"; {hint}")));
            }
        };
        let key = options.strings("key")?.unwrap_or_default();
        let names: Vec<&str> = ctx.schema.fields().iter().map(|f| f.name().as_str()).collect();
        if let Some(wrong) = key.iter().find(|k| !names.contains(&k.as_str())) {
            return Err(
                options.error(format!("\"key\": the view has no column \"{wrong}\"; {}", suggestion(wrong, &names)))
            );
        }
        Ok(Self {
            place: place_of(&server),
            server,
            table,
            mode,
            key,
            max_rows: options.u64("max_records_in_buffer")?.unwrap_or(u64::MAX),
            max_bytes: options.u64("max_buffer_size_bytes")?.unwrap_or(BUFFER_BYTES),
        })
    }
}

/// The connection that `uri` says.
fn server(options: &Options<'_>) -> Result<tokio_postgres::Config> {
    let mut server: tokio_postgres::Config = options.require_string("uri")?.parse().map_err(|error| {
        options.error(format!(
            "\"uri\" is not one of PostgreSQL's (postgresql://user:password@host:port/database){}; in user name and password \
             special characters are written %XX",
            unknown_option(&error)
        ))
    })?;
    if server.get_hosts().is_empty() && server.get_hostaddrs().is_empty() {
        return Err(options.error("\"uri\" names no host"));
    }
    if server.get_ssl_mode() == SslMode::Require {
        return Err(options.error("\"uri\": connections by TLS are not supported yet; leave sslmode=require out"));
    }
    if server.get_connect_timeout().is_none() {
        server.connect_timeout(CONNECT);
    }
    if server.get_tcp_user_timeout().is_none() {
        server.tcp_user_timeout(DEAD);
    }
    server.keepalives_idle(server.get_keepalives_idle().min(DEAD));
    if server.get_application_name().is_none() {
        server.application_name("backstay");
    }
    Ok(server)
}

/// Options of libpq's that may be named without giving anything away.
fn unknown_option(error: &tokio_postgres::Error) -> String {
    const LIBPQ: &[&str] = &[
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "sslcrl",
        "sslpassword",
        "gssencmode",
        "krbsrvname",
        "service",
        "passfile",
        "requirepeer",
        "fallback_application_name",
        "client_encoding",
        "replication",
        "port",
        "connect_timeout",
    ];
    let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    LIBPQ
        .iter()
        .find(|option| text.contains(&format!("`{option}`")))
        .map(|option| format!(": its option {option} is not known, or has no such value"))
        .unwrap_or_default()
}

fn place_of(server: &tokio_postgres::Config) -> String {
    let ports = server.get_ports();
    let hosts: Vec<String> = server
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let hosts = if hosts.is_empty() { server.get_hostaddrs().iter().map(ToString::to_string).collect() } else { hosts };
    let with_port = hosts.iter().enumerate().map(|(i, host)| {
        let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
        format!("{host}:{port}")
    });
    let hosts = with_port.collect::<Vec<_>>().join(",");
    match server.get_dbname().or(server.get_user()) {
        Some(database) => format!("{hosts}/{database}"),
        None => hosts,
    }
}
