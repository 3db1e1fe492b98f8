//! The slot: made once, together with the snapshot that it begins behind, and looked at before anything is read of it.

use std::time::Duration;

use pgwire_replication::ReplicationClient;
use tokio_postgres::SimpleQueryMessage;

use super::change::{Column, write};
use super::{Shared, stream};
use crate::connector::postgres::session::{self, Failure, Session};
use crate::connector::{ConnectorError, Result};
use crate::sql::quoted_text;

/// The most rows that are fetched of a snapshot at once.
const ROWS: usize = 4 << 10;
/// How long making a slot may take: it waits for the transactions that are under way.
const MAKE: Duration = Duration::from_secs(60);

/// The code of what is there already.
const EXISTS: &str = "42710";

fn failed(shared: &Shared, what: &str, failure: &Failure) -> ConnectorError {
    let place = &shared.server.place;
    ConnectorError {
        retry: failure.passes(),
        ..shared.error(format!("cannot {what} at {place}: {failure}; {}", failure.fix()))
    }
}

/// The first column of the first row.
fn first(session: &Session, sql: &str) -> Result<Option<String>, Failure> {
    let messages = session.run(async |client| client.simple_query(sql).await)?;
    let row = messages.iter().find_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(row) } else { None });
    Ok(row.and_then(|row| row.get(0)).map(str::to_owned))
}

/// Connects, for an error in words that help.
pub(super) fn reach(shared: &Shared) -> Result<Session> {
    Session::connect(&shared.server).map_err(|f| failed(shared, "connect", &f))
}

/// Connects, and looks for the slot: the place before which it keeps nothing. An error says what the server must have set.
pub(super) fn find(shared: &Shared) -> Result<(Session, Option<u64>)> {
    let session = reach(shared)?;
    let ask = |what: &str, sql: &str| first(&session, sql).map_err(|f| failed(shared, what, &f));
    if ask("look at wal_level", "SHOW wal_level")?.as_deref() != Some("logical") {
        return Err(shared.error(format!(
            "{} has wal_level other than logical: set it in postgresql.conf, and start the server anew",
            shared.server.place
        )));
    }
    let publication = quoted_text(&shared.publication);
    let (schema, table) = (quoted_text(&shared.relation.0), quoted_text(&shared.relation.1));
    // Servers before 15 know no lists of columns and conditions.
    let columns = shared.schema.fields().iter().map(|f| quoted_text(&f.name().to_lowercase()));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let changes = if shared.append_only {
        ""
    } else {
        "CASE WHEN NOT pubupdate THEN 'updates' END, CASE WHEN NOT pubdelete THEN 'deletes' END,"
    };
    let sql = format!(
        "SELECT concat_ws(', ', CASE WHEN NOT pubinsert THEN 'inserts' END, {changes}
           CASE WHEN to_jsonb(t) ->> 'rowfilter' IS NOT NULL THEN 'rows' END,
           (SELECT string_agg('column ' || attname, ', ') FROM pg_attribute
            WHERE attrelid = to_regclass(quote_ident(schemaname) || '.' || quote_ident(tablename)) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
              AND lower(attname) IN ({columns}) AND NOT coalesce(to_jsonb(t) -> 'attnames' ? attname::text, true)))
         FROM pg_publication_tables t JOIN pg_publication USING (pubname)
         WHERE pubname = {publication} AND schemaname = {schema} AND tablename = {table}"
    );
    match ask("look for the publication", &sql)?.as_deref() {
        Some("") => {}
        Some(left_out) => {
            return Err(shared.error(format!(
                "publication {} at {} leaves {left_out} of table {} out: publish all of it (ALTER PUBLICATION {0} SET …), or name another publication",
                shared.publication, shared.server.place, shared.table
            )));
        }
        None => {
            return Err(shared.error(format!(
                "publication {} at {} does not have table {}: CREATE PUBLICATION {0} FOR TABLE {2}",
                shared.publication, shared.server.place, shared.table
            )));
        }
    }
    let slot = quoted_text(&shared.slot);
    let sql = format!(
        "SELECT CASE WHEN wal_status = 'lost' THEN 'lost' WHEN plugin <> 'pgoutput' THEN 'other' ELSE coalesce((confirmed_flush_lsn - '0/0')::text, 'new') END \
         FROM pg_replication_slots WHERE slot_name = {slot}"
    );
    let (name, place) = (&shared.slot, &shared.server.place);
    let confirmed = match ask("look for the slot", &sql)?.as_deref() {
        None => None,
        Some("lost") => {
            return Err(shared.error(format!(
                "the slot {name} at {place} lost what it kept: what was not read is not to be had any more. Drop it (pg_drop_replication_slot), and start in another data directory"
            )));
        }
        Some("other") => {
            return Err(shared.error(format!(
                "the slot {name} at {place} is of another plugin than pgoutput: name another one by \"slot\""
            )));
        }
        Some("new") => {
            let error = shared.error(format!("the slot {name} at {place} is being made by somebody else"));
            return Err(ConnectorError { retry: true, ..error });
        }
        Some(lsn) => lsn.parse().ok(),
    };
    Ok((session, confirmed))
}

/// The slot, which must have all that comes behind `at`.
pub(super) fn check(shared: &Shared, at: u64) -> Result<()> {
    let (session, confirmed) = find(shared)?;
    let (name, place) = (&shared.slot, &shared.server.place);
    // A server that was restored or replaced has a log of its own.
    let sql = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::text";
    let end = first(&session, sql).map_err(|f| failed(shared, "look at the log's end", &f))?;
    if let Some(end) = end.and_then(|end| end.parse::<u64>().ok()).filter(|end| *end < at) {
        return Err(shared.error(format!(
            "the log of {place} ends at {end:X}, and is to be read from {at:X} on: it is another server than the one that was read, or was restored. Start in another data directory"
        )));
    }
    match confirmed {
        None => Err(shared.error(format!(
            "the slot {name} at {place} is gone: what was not read is not to be had any more. Start in another data directory"
        ))),
        Some(confirmed) if confirmed > at => Err(shared.error(format!(
            "the slot {name} stands at {confirmed:X}, and is to be read from {at:X} on: somebody else read from it, or this is an old copy of the data directory. Start in another one \
             with another \"slot\""
        ))),
        Some(_) => Ok(()),
    }
}

/// A snapshot of the table that is being read.
#[derive(Debug)]
pub(super) struct Snapshot {
    session: Session,
    columns: Vec<Column>,
    // Keeps the snapshot until it is taken.
    _exporter: Option<Exporter>,
}

/// The connection that made the slot, and shows others what it began behind.
struct Exporter {
    _client: ReplicationClient,
    _runtime: tokio::runtime::Runtime,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exporter")
    }
}

/// Makes the slot if there is none; gives where it begins, and, if it is wanted, the table as it was then (or later, if the slot was there).
pub(super) fn make(shared: &Shared, wants_snapshot: bool) -> Result<(u64, Option<Snapshot>)> {
    let (session, confirmed) = find(shared)?;
    let (confirmed, exporter, name) = match confirmed {
        Some(confirmed) => (confirmed, None, None),
        None => {
            let (confirmed, name, exporter) = create(shared)?;
            (confirmed, Some(exporter), Some(name))
        }
    };
    if !wants_snapshot {
        return Ok((confirmed, None));
    }
    let run = |sql: &str| session.statements(sql).map_err(|f| failed(shared, "take a snapshot", &f));
    run(
        "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    )?;
    if let Some(name) = name {
        run(&format!("SET TRANSACTION SNAPSHOT {}", quoted_text(&name)))?;
    }
    let (schema, table) = (quoted_text(&shared.relation.0), quoted_text(&shared.relation.1));
    let sql = format!(
        "SELECT a.attname, a.atttypid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {schema} AND c.relname = {table} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    );
    let messages = session.run(async |client| client.simple_query(&sql).await);
    let messages = messages.map_err(|f| failed(shared, "look at the table", &f))?;
    let column = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            let type_id = row.get(1)?.parse().ok()?;
            Some(Column { name: row.get(0)?.to_owned(), type_id })
        }
        _ => None,
    };
    let columns = messages.iter().filter_map(column).collect();
    run(&format!("DECLARE backstay_snapshot NO SCROLL CURSOR FOR SELECT * FROM {}", shared.quoted()))?;
    Ok((confirmed, Some(Snapshot { session, columns, _exporter: exporter })))
}

/// Makes the slot by the replication protocol, which alone shows the snapshot that it begins behind.
fn create(shared: &Shared) -> Result<(u64, String, Exporter)> {
    let runtime = shared.runtime()?;
    let sql = format!("CREATE_REPLICATION_SLOT \"{}\" LOGICAL pgoutput (SNAPSHOT 'export')", shared.slot);
    let made = async {
        let mut client = ReplicationClient::connect_gated(shared.replication.clone()).await?;
        let rows = client.simple_query(&sql).await?;
        Ok::<_, pgwire_replication::PgWireError>((client, rows))
    };
    let made = runtime.block_on(async { tokio::time::timeout(MAKE, made).await }).map_err(|_| {
        let message = "the slot is not made within a minute: a transaction that began before it is still under way";
        ConnectorError { retry: true, ..shared.error(message) }
    })?;
    let (client, rows) = made.map_err(|e| {
        let error = shared.error(format!("cannot make the slot {} at {}: {e}", shared.slot, shared.server.place));
        // One that a process which was killed is still making is in the way, and goes with its connection.
        let code = stream::code(&e);
        ConnectorError { retry: e.is_transient() || session::passes(code) || code == EXISTS, ..error }
    })?;
    let text = |place: usize| {
        let value = rows.first().and_then(|row| row.get(place)).and_then(Option::as_ref);
        value.and_then(|bytes| std::str::from_utf8(bytes).ok())
    };
    let lsn = text(1).and_then(|lsn| pgwire_replication::Lsn::parse(lsn).ok());
    match (lsn, text(2)) {
        (Some(lsn), Some(name)) => Ok((lsn.as_u64(), name.to_owned(), Exporter { _client: client, _runtime: runtime })),
        _ => Err(shared.error("the server made a slot, and did not say where it begins")),
    }
}

impl Snapshot {
    /// The next rows, as change events; none: that was all.
    pub(super) fn next(&mut self, shared: &Shared) -> Result<Vec<String>> {
        let sql = format!("FETCH FORWARD {ROWS} FROM backstay_snapshot");
        let messages = self.session.run(async |client| client.simple_query(&sql).await);
        let messages = messages.map_err(|f| failed(shared, "read the snapshot", &f))?;
        let event = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                let mut text = "{\"op\":\"r\",\"after\":".to_owned();
                write(&mut text, self.columns.iter().enumerate().map(|(i, column)| (column, row.get(i))));
                text.push('}');
                Some(text)
            }
            _ => None,
        };
        Ok(messages.iter().filter_map(event).collect())
    }
}
