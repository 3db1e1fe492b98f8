//! A connection to the server, and what its errors mean.
//!
//! Each call is bounded by [`CALL`], and the server gives up a little earlier: no call blocks for ever. After any error the session
//! is thrown away, and with it the transaction; whether a COMMIT that was not answered has happened is read from the marker.
//!
//! The server ends the transaction of a process that does not answer any more, so that a stopped or lost process holds no lock for long.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::server::Server;

/// The longest that one call waits for the server.
const CALL: Duration = Duration::from_secs(15);
/// What a session begins with. Dates are read whatever the server's settings; a commit is durable.
const BEGIN: &str = "SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'; SET statement_timeout = '12s'; SET lock_timeout = '8s'; \
    SET idle_in_transaction_session_timeout = '20s'; SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; \
    SET tcp_keepalives_count = 3; \
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
/// How much is handed over at once while rows are copied.
const COPY: usize = 64 << 10;

/// What went wrong at the server, or on the way to it.
#[derive(Debug)]
pub(in crate::connector) enum Failure {
    /// The server or the connection.
    Server(tokio_postgres::Error),
    /// No answer in time.
    Slow,
    /// The operating system.
    Io(std::io::Error),
    /// A certificate or key that cannot be used.
    Certificate(String),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

/// A connection, and the loop that drives it while a call waits.
#[derive(Debug)]
pub(in crate::connector) struct Session {
    /// `None` only while it is dropped.
    client: Option<Client>,
    connection: Option<JoinHandle<()>>,
    runtime: Runtime,
}

impl Session {
    pub(in crate::connector) fn connect(server: &Server) -> Result<Self, Failure> {
        let tls = server.tls.connector().map_err(Failure::Certificate)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Io)?;
        let (client, connection) = wait(&runtime, server.config.connect(tls))?;
        let connection = runtime.spawn(async move {
            // What ends a connection is told to the call that waits for an answer on it.
            let _ = connection.await;
        });
        let session = Self { client: Some(client), connection: Some(connection), runtime };
        session.run(async |client| client.batch_execute(BEGIN).await)?;
        Ok(session)
    }

    /// Waits for what `call` does with the client.
    pub(in crate::connector) fn run<T>(
        &self,
        call: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Failure> {
        let Some(client) = &self.client else { return Err(Failure::Slow) };
        wait(&self.runtime, call(client))
    }

    /// Runs statements; gives how many rows each of them changed.
    pub(in crate::connector) fn statements(&self, sql: &str) -> Result<Vec<u64>, Failure> {
        let messages = self.run(async |client| client.simple_query(sql).await)?;
        let count = |message| match message {
            SimpleQueryMessage::CommandComplete(rows) => Some(rows),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(count).collect())
    }

    /// Copies lines of PostgreSQL's text format.
    pub(in crate::connector) fn copy(&self, sql: &str, lines: String) -> Result<(), Failure> {
        let sink = self.run(async |client| client.copy_in(sql).await)?;
        let mut sink = Box::pin(sink);
        let mut lines = Bytes::from(lines);
        while !lines.is_empty() {
            let piece = lines.split_to(lines.len().min(COPY));
            match self.run(async |_| sink.send(piece).await) {
                Ok(()) => {}
                // What the server has against it is told at the end.
                Err(Failure::Server(_)) => break,
                Err(other) => return Err(other),
            }
        }
        self.run(async |_| sink.as_mut().finish().await)?;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The last message says goodbye; a server that does not take it is left.
        drop(self.client.take());
        if let Some(connection) = self.connection.take() {
            let _ = self.runtime.block_on(async { tokio::time::timeout(Duration::from_millis(200), connection).await });
        }
    }
}

fn wait<T>(runtime: &Runtime, call: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
    runtime
        .block_on(async { tokio::time::timeout(CALL, call).await })
        .map_err(|_| Failure::Slow)?
        .map_err(Failure::Server)
}

/// Whether what the server says by this SQLSTATE may pass by itself.
pub(in crate::connector) fn passes(code: &str) -> bool {
    // Connection, rollback (serialization, deadlock), resources (room, memory, connections), the system's own errors.
    let class = ["08", "40", "53", "58"].iter().any(|class| code.starts_with(class));
    // Shut down, crashed, starting, cancelled by a time limit; a lock not had in time, or something in use; a standby that does not write yet.
    let one = ["57014", "57P01", "57P02", "57P03", "57P05", "25P03", "55P03", "55006", "25006"].contains(&code);
    class || one
}

impl Failure {
    /// What the server said, if it said anything.
    pub(in crate::connector) fn database(&self) -> Option<&DbError> {
        match self {
            Self::Server(error) => error.as_db_error(),
            Self::Slow | Self::Io(_) | Self::Certificate(_) => None,
        }
    }

    fn code(&self) -> &str {
        self.database().map_or("", |e| e.code().code())
    }

    /// Whether a certificate was not good enough.
    fn is_certificate(&self) -> bool {
        let Self::Server(error) = self else { return false };
        let mut cause = error.source();
        while let Some(error) = cause {
            let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            if inner.is_some_and(|e| matches!(e.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Whether it may pass by itself: the server is away, restarts, has no room, or another transaction was in the way.
    pub(in crate::connector) fn passes(&self) -> bool {
        let error = match self {
            Self::Slow | Self::Io(_) => return true,
            Self::Certificate(_) => return false,
            Self::Server(error) => error,
        };
        if error.as_db_error().is_some() {
            return passes(self.code());
        }
        if error.is_closed() {
            return true;
        }
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                use std::io::ErrorKind::{InvalidData, InvalidInput};
                return !matches!(io.kind(), InvalidData | InvalidInput);
            }
            cause = error.source();
        }
        // A connection that took too long has no cause.
        error.to_string().starts_with("timeout")
    }

    /// What to do about it.
    pub(in crate::connector) fn fix(&self) -> &'static str {
        match self.code() {
            _ if self.passes() => "it is tried again, and nothing is lost by waiting",
            _ if self.is_certificate() => {
                "name the authority that signed the server's certificate by sslrootcert in \"uri\", and the host as the certificate does"
            }
            code if code.starts_with("28") => "correct user and password in \"uri\", or the server's pg_hba.conf",
            "3D000" => "create the database, or correct \"uri\"",
            "42501" => "grant the user of \"uri\" what it needs, or name another one",
            "42P01" | "42703" | "3F000" => {
                "was the table changed while the pipeline ran? Put it back, then start again"
            }
            "23502" => {
                "a column is NOT NULL, and the view has NULL there: drop the constraint, or filter the rows out in the view"
            }
            code if code.starts_with("23") => {
                "the table has a constraint that the view's rows break: drop it, or change the view"
            }
            code if code.starts_with("22") => {
                "a value of the view does not fit its column: widen the column, or cast in the view"
            }
            "" => "correct \"uri\"",
            _ => "mend that, then start again: nothing of this transaction was written",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Slow => write!(f, "no answer for {} s", CALL.as_secs()),
            Self::Io(error) => error.fmt(f),
            Self::Certificate(what) => f.write_str(what),
            Self::Server(error) => match error.as_db_error() {
                None => {
                    error.fmt(f)?;
                    error.source().map_or(Ok(()), |cause| write!(f, ": {cause}"))
                }
                Some(said) => {
                    write!(f, "{}: {} (SQLSTATE {}", said.severity(), said.message(), said.code().code())?;
                    for (what, name) in [("column", said.column()), ("constraint", said.constraint())] {
                        name.map_or(Ok(()), |name| write!(f, ", {what} {name}"))?;
                    }
                    write!(f, ")")?;
                    for more in [said.detail(), said.hint(), said.where_()].into_iter().flatten() {
                        write!(f, "; {}", more.lines().next().unwrap_or_default())?;
                    }
                    Ok(())
                }
            },
        }
    }
}
