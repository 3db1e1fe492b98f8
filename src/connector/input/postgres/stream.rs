//! The stream of a slot: transactions in the order of their commits, by the crate `pgwire-replication`.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use pgwire_replication::{Lsn, PgWireError, ReplicationClient, ReplicationEvent};
use tokio::runtime::Runtime;

use super::change::{Change, Decoder};
use super::cluster::Cluster;
use super::{Shared, slot};
use crate::connector::patience::now;
use crate::connector::postgres::session;
use crate::connector::{ConnectorError, Result};

/// The longest that one look for what has come takes.
const LOOK: Duration = Duration::from_millis(5);
/// How long the server may take to begin.
const BEGIN: Duration = Duration::from_secs(15);
/// The most bytes of one transaction, which is in memory whole.
const MOST: usize = 1 << 30;

/// A transaction's change events, or why some cannot be told.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Where the one before it ended.
    pub(super) start: u64,
    /// Where it ends.
    pub(super) end: u64,
    pub(super) events: Vec<Result<String, String>>,
    pub(super) bytes: usize,
}

/// What the stream has next.
#[derive(Debug)]
pub(super) enum Item {
    Transaction(Transaction),
    /// The log has been looked through up to here, and no transaction is under way.
    Nothing(u64),
}

/// A stream that stands behind the transactions that ended at or before a place.
pub(super) struct Stream {
    // Before the runtime that drives it.
    client: ReplicationClient,
    runtime: Runtime,
    cluster: Cluster,
    decoder: Decoder,
    open: Option<Transaction>,
    /// Where the last transaction ended.
    at: u64,
    /// How far the server has looked.
    looked: u64,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Stream {
    /// Begins behind `at`; the slot must have what comes then, and the log be the one that was known up to another place.
    pub(super) fn begin(shared: &Shared, at: u64, known: (u64, Option<&Cluster>)) -> Result<Self> {
        let (runtime, mut client, cluster) = connect(shared, at, known)?;
        slot::check(shared, at)?;
        let begun = async {
            client.start().await?;
            client.wait_started().await
        };
        wait(shared, &runtime, async { begun.await.map_err(|e| failed(shared, &e)) })?;
        let decoder = Decoder::new(shared.relation.clone(), shared.is_keyed);
        Ok(Self { client, runtime, decoder, cluster, open: None, at, looked: at })
    }

    /// Whose log it is.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Where the last transaction ended.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next item; `None`: nothing has come. Waits for a moment only.
    pub(super) fn next(&mut self, shared: &Shared) -> Result<Option<Item>> {
        self.client.update_applied_lsn(Lsn::from_u64(shared.kept()));
        let end = now() + LOOK;
        while now() < end {
            let event = self.runtime.block_on(async { tokio::time::timeout(LOOK, self.client.recv()).await });
            let event = match event {
                Err(_) => break,
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return Err(passing(shared, "the server ended the stream".to_owned())),
                Ok(Err(e)) => return Err(failed(shared, &e)),
            };
            match event {
                ReplicationEvent::Begin { .. } => {
                    self.open = Some(Transaction { start: self.at, ..Transaction::default() });
                }
                ReplicationEvent::XLogData { data, .. } => {
                    let change = self.decoder.read(&data).map_err(|e| shared.error(e))?;
                    self.take(shared, change)?;
                }
                ReplicationEvent::Commit { end_lsn, .. } => {
                    let Some(mut transaction) = self.open.take() else { continue };
                    (transaction.end, self.looked) = (end_lsn.as_u64(), end_lsn.as_u64());
                    // Others' transactions are passed over.
                    if !transaction.events.is_empty() {
                        self.at = transaction.end;
                        return Ok(Some(Item::Transaction(transaction)));
                    }
                }
                ReplicationEvent::KeepAlive { wal_end, .. } => self.looked = self.looked.max(wal_end.as_u64()),
                _ => {}
            }
        }
        Ok((self.open.is_none() && self.looked > self.at).then_some(Item::Nothing(self.looked)))
    }

    /// Counts what was looked through as passed.
    pub(super) fn pass(&mut self, to: u64) {
        self.at = self.at.max(to);
    }

    fn take(&mut self, shared: &Shared, change: Change) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        match change {
            Change::None => {}
            Change::Event(event) => {
                open.bytes += event.as_ref().map_or(0, String::len);
                if open.bytes > MOST {
                    return Err(shared.error(
                        "a transaction has more than 1 GiB of changes, which are held in memory: write in smaller ones",
                    ));
                }
                open.events.push(event);
            }
            Change::Truncate => {
                return Err(shared.error(format!(
                    "table {} was truncated, which cannot be told as rows: start in another data directory with another \"slot\", or delete rows by DELETE",
                    shared.table
                )));
            }
        }
        Ok(())
    }
}

/// Whose log the server has; one that is not what was known up to a place is refused.
pub(super) fn identify(shared: &Shared, known: (u64, Option<&Cluster>)) -> Result<Cluster> {
    let (_runtime, _client, cluster) = connect(shared, 0, known)?;
    Ok(cluster)
}

/// A connection that has not begun to stream; first what drives it, so that it goes last.
fn connect(
    shared: &Shared,
    at: u64,
    (known_to, known): (u64, Option<&Cluster>),
) -> Result<(Runtime, ReplicationClient, Cluster)> {
    slot::reach(shared)?;
    let runtime = shared.runtime()?;
    let mut config = shared.replication.clone();
    config.start_lsn = Lsn::from_u64(at);
    // Only what no checkpoint needs any more may go.
    config.ack_lsn = Some(Lsn::from_u64(shared.kept()));
    let (client, cluster) = wait(shared, &runtime, async {
        let mut client = ReplicationClient::connect_gated(config).await.map_err(|e| failed(shared, &e))?;
        let cluster = Cluster::verify(&mut client, shared, known_to, known).await?;
        Ok((client, cluster))
    })?;
    Ok((runtime, client, cluster))
}

/// Waits for the server, not for ever.
fn wait<T>(shared: &Shared, runtime: &Runtime, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let answered = runtime.block_on(async { tokio::time::timeout(BEGIN, answer).await });
    answered.unwrap_or_else(|_| Err(passing(shared, "the server does not answer in time".to_owned())))
}

fn passing(shared: &Shared, message: String) -> ConnectorError {
    ConnectorError { retry: true, ..shared.error(message) }
}

/// An error of the stream's.
pub(super) fn failed(shared: &Shared, error: &PgWireError) -> ConnectorError {
    ConnectorError { retry: error.is_transient() || session::passes(code(error)), ..shared.error(error.to_string()) }
}

/// What kind of error the server says that it is; empty if it is not the server that says something. The crate has it in its text only.
pub(super) fn code(error: &PgWireError) -> &str {
    match error {
        PgWireError::Server(text) => {
            text.rsplit_once("(SQLSTATE ").and_then(|(_, code)| code.strip_suffix(')')).unwrap_or_default()
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_may_pass_or_not() {
        let says = |text: &str| session::passes(code(&PgWireError::Server(text.to_owned())));
        assert!(says("terminating connection due to unexpected postmaster exit (SQLSTATE 57P01)"));
        assert!(says("replication slot \"s\" is active for PID 7 (SQLSTATE 55006)"));
        assert!(says("the database system is starting up (SQLSTATE 57P03)"));
        assert!(!says("replication slot \"s\" does not exist (SQLSTATE 42704)"));
        assert!(!says("no code") && !says("(SQLSTATE "));
        assert_eq!(code(&PgWireError::Auth("(SQLSTATE 57P01)".to_owned())), "");
    }
}
