//! `postgres_output`: a view in a table of PostgreSQL's, or the log of its changes there, each step once and whole.
//!
//! Settings are Feldera's (`uri`, `table`, `mode` `materialized` or `cdc`, …) and `key`, the columns by which rows are found (else the table's primary
//! key). There is no format: columns are columns.
//!
//! How it is exactly-once: a transaction takes one or more whole steps, and the [marker](marker) that names the last of them. What the
//! marker names is there, what comes after it is not, whatever became of the process, the connection or the server. So a step that is replayed
//! is dropped if the marker has it, and a COMMIT that was never answered is looked up there. The marker's epoch keeps out a process
//! that was given up but still runs.
//!
//! A server that is away is waited for: changes are kept here, in at most one transaction's size, and by the pipeline as pending.
//!
//! Invariants:
//! 1. The table and the marker change in the same transactions only. `batch` holds the steps behind the marker, up to `step`, and nothing else.
//! 2. Before the first transaction of a session the marker was locked and read, and refused if it was not this pipeline's, of this
//!    incarnation and epoch, or stood outside of what checkpoint and log allow.
//! 3. A sink that no checkpoint names has no marker: it is made by the first transaction that delivers.
//!
//! Known limits: a session of its own is needed (a pooler that changes sessions between transactions will not do), with the right to
//! make temporary tables. Without a log (no fault tolerance, or at-least-once) the rows of a `cdc` table may stand there twice, and two rows of
//! one key are only found within one transaction: across two the later one overwrites.

mod batch;
mod marker;
mod rows;
mod settings;
mod table;
mod types;

use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;

use self::batch::Batch;
use self::marker::{Marker, Markers, Owner};
use self::rows::Rows;
use self::settings::{Mode, Settings};
use self::table::{Table, Unfit};
use super::super::config::ConnectorConfig;
use super::super::{ConnectorError, Context, Level, Output, Result, Resume, SinkPosition};
use crate::circuit::Delta;
use crate::connector::patience::now;
use crate::connector::postgres::session::{Failure, Session};

/// The keys of a position's detail: a step that the marker has reached for certain (absent: there may be no marker yet), and whether the sink is
/// a savepoint copy's, which begins with an empty table.
const MARKER: &str = "marker";
const COPY: &str = "copy";
/// Steps that change nothing move the marker this often.
const IDLE_MOVE: Duration = Duration::from_secs(1);

/// A view's table at a server.
#[derive(Debug)]
pub(crate) struct PostgresOutput {
    connector: String,
    pipeline: String,
    view: SchemaRef,
    settings: Settings,
    resume: Option<Resume>,
    /// `None`: not connected, or not any more.
    link: Option<Link>,
    /// Whether the marker was checked against the checkpoint.
    is_claimed: bool,
    /// Whether this process may have written its epoch into the marker, though nobody told it so.
    is_claiming: bool,
    /// Whether the table must be empty for a marker to be made.
    is_copy: bool,
    /// The marker's step as last known; `None`: there is no marker.
    marked: Option<u64>,
    /// A step that the marker has reached for certain, for positions.
    certain: Option<u64>,
    /// The last step in the table and `batch`.
    step: u64,
    batch: Batch,
    moved: Option<Instant>,
}

/// A session with what was found out at its beginning.
#[derive(Debug)]
struct Link {
    session: Session,
    table: Table,
    markers: Markers,
}

impl PostgresOutput {
    pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let settings = Settings::new(config, ctx)?;
        Ok(Self {
            connector: ctx.name.clone(),
            pipeline: ctx.pipeline.clone(),
            view: ctx.schema.clone(),
            batch: if settings.mode == Mode::Materialized { Batch::by_key() } else { Batch::log() },
            settings,
            resume: None,
            link: None,
            is_claimed: false,
            is_claiming: false,
            is_copy: false,
            marked: None,
            certain: None,
            step: 0,
            moved: None,
        })
    }

    fn error(&self, message: impl Into<String>) -> ConnectorError {
        ConnectorError::new(&self.connector, message)
    }

    fn failure(&self, what: &str, failure: &Failure) -> ConnectorError {
        let (table, place) = (&self.settings.table, &self.settings.server.place);
        let message = format!("cannot {what} table {table} at {place}: {failure}; {}", failure.fix());
        ConnectorError { retry: failure.passes(), ..self.error(message) }
    }

    fn resume(&self) -> Result<&Resume> {
        self.resume.as_ref().ok_or_else(|| self.error("the output is not open"))
    }

    fn owner(&self) -> Result<Owner> {
        let resume = self.resume()?;
        Ok(Owner {
            pipeline: self.pipeline.clone(),
            connector: self.connector.clone(),
            incarnation: resume.incarnation,
            epoch: resume.epoch as i64,
        })
    }

    /// Whether steps come again as they were: what the table has of them is then known row for row.
    fn is_strict(&self) -> bool {
        self.resume.as_ref().is_some_and(|r| r.replayed)
    }

    /// Takes the connection, or makes one, and takes the marker over.
    fn connected(&mut self) -> Result<Link> {
        if let Some(link) = self.link.take() {
            return Ok(link);
        }
        let session = Session::connect(&self.settings.server).map_err(|f| self.failure("connect to", &f))?;
        let table = Table::find(&session, &self.settings, &self.view).map_err(|unfit| match unfit {
            Unfit::Failure(failure) => self.failure("look at", &failure),
            Unfit::Table(why) => self.error(why),
        })?;
        table.create_stage(&session).map_err(|f| self.failure("make a temporary table for", &f))?;
        let markers = Markers::of(&session, &table.schema).map_err(|f| {
            let what = format!("make {}.backstay_sinks, in which the delivered step is kept, for", table.schema);
            self.failure(&what, &f)
        })?;
        let link = Link { session, table, markers };
        self.claim(&link)?;
        Ok(link)
    }

    /// Takes the marker over, and checks it against what is known.
    fn claim(&mut self, link: &Link) -> Result<()> {
        let owner = self.owner()?;
        let failed = |this: &Self, failure: Failure| this.failure("take over the marker of", &failure);
        link.session.statements("BEGIN").map_err(|f| failed(self, f))?;
        let found = link.markers.lock(&link.session, &owner).map_err(|f| failed(self, f))?;
        let marked = match found {
            Some(marker) => {
                self.check(&link.markers, &link.table, &owner, &marker)?;
                link.markers.take_over(&link.session, &owner).map_err(|f| failed(self, f))?;
                Some(marker.step)
            }
            None => {
                self.check_absent(link, &owner)?;
                // A checkpoint names the sink, so that a predecessor may be about to make the marker: it is made here, for that one to fail.
                let known = self.resume()?.checkpoint.is_some();
                if known && !self.is_claimed {
                    let (step, target) = (self.step, link.table.name.as_str());
                    let made = link.markers.insert(&link.session, &owner, step, target);
                    if !made.map_err(|f| failed(self, f))? {
                        let message = "another process made the marker at the same moment; it is looked at again";
                        return Err(ConnectorError { retry: true, ..self.error(message) });
                    }
                }
                (known && !self.is_claimed).then_some(self.step)
            }
        };
        self.is_claiming = true;
        link.session.statements("COMMIT").map_err(|f| failed(self, f))?;
        if self.is_claimed && marked == Some(self.step) && marked != self.marked {
            // The transaction whose answer was lost has happened.
            self.batch.clear();
        }
        self.is_claimed = true;
        self.marked = marked;
        Ok(())
    }

    /// Checks a marker that is there.
    fn check(&self, markers: &Markers, table: &Table, owner: &Owner, marker: &Marker) -> Result<()> {
        let resume = self.resume()?;
        let named = format!("{} of pipeline {} in {}", self.connector, self.pipeline, markers.table);
        let (forget, target) = (markers.forget(owner), &table.name);
        let anew = format!("to begin anew, empty {target} and {forget}");
        if resume.checkpoint.is_none() && !self.is_claimed {
            let why = if resume.copy {
                format!(
                    "this pipeline is a savepoint's copy, or was told to begin anew, with tables of its own: the pipeline that it was copied from \
                     may still write there; give the connector another \"name\" and another \"table\", or, if nobody does, {anew}"
                )
            } else {
                format!("this pipeline has never delivered to it; run with another --name and \"table\", or, {anew}")
            };
            return Err(self.error(format!("the sink {named} has step {} already, but {why}", marker.step)));
        }
        if marker.incarnation != owner.incarnation.to_string() {
            return Err(self.error(format!(
                "the sink {named} belongs to incarnation {}, and this pipeline is incarnation {}: another data directory has delivered to it; \
                 go on with that one, run with another --name and \"table\", or, {anew}",
                marker.incarnation, owner.incarnation
            )));
        }
        // Each opening of a store has an epoch of its own: who has ours runs from a copy of the data directory.
        if marker.epoch > owner.epoch || (marker.epoch == owner.epoch && !self.is_claiming) {
            return Err(self.fenced(marker.epoch));
        }
        if marker.target != *target {
            return Err(self.error(format!(
                "the sink {named} was delivered to {}, and \"table\" is {target} now; name that table again, or give the connector another \"name\" \
                 to begin a new sink",
                marker.target
            )));
        }
        if self.is_claimed {
            // The steps of this process: the last commit's, or the one whose answer was lost.
            let expected = [self.marked, Some(self.step)];
            if !expected.contains(&Some(marker.step)) && self.marked.is_some() {
                return Err(self.error(format!(
                    "the sink {named} is at step {}, but this process has brought it to step {}: something else has changed it, or the server \
                     was restored from a backup; stop the pipeline, and start it again",
                    marker.step,
                    self.marked.unwrap_or_default()
                )));
            }
            return Ok(());
        }
        if let Some(certain) = self.certain.filter(|certain| marker.step < *certain) {
            return Err(self.error(format!(
                "the sink {named} is at step {}, but the checkpoint says that it had step {certain}: the database was restored from an older \
                 backup, or a replica took over without the last transactions; put it back, or, {anew}, with a new data directory",
                marker.step
            )));
        }
        if resume.replayed && marker.step > resume.last_step {
            return Err(self.error(format!(
                "the sink {named} is at step {}, but the last step that the checkpoint and the log hold is {}: part of the log is missing; \
                 put the data directory's files back, or, {anew}, with a new data directory",
                marker.step, resume.last_step
            )));
        }
        Ok(())
    }

    /// Checks that there may be no marker, and that the table is fit to begin with.
    fn check_absent(&self, link: &Link, owner: &Owner) -> Result<()> {
        let (target, markers) = (&link.table.name, &link.markers.table);
        if let Some(certain) = self.certain {
            return Err(self.error(format!(
                "{markers} has no row for {} of pipeline {}, but the checkpoint says that {target} has step {certain}: the database was restored \
                 or is another one, or the row was deleted; put it back, or begin anew with an empty table and a new data directory",
                self.connector, self.pipeline
            )));
        }
        if self.is_claimed && self.marked.is_some() {
            return Err(self.error(format!(
                "the row of {} of pipeline {} in {markers} was deleted while the pipeline ran; put it back: its step was {}",
                self.connector,
                self.pipeline,
                self.marked.unwrap_or_default()
            )));
        }
        let by_key = self.settings.mode == Mode::Materialized;
        let look = |this: &Self, failure: Failure| this.failure("look at", &failure);
        if by_key && let Some(rival) = link.markers.rival(&link.session, owner, target).map_err(|f| look(self, f))? {
            return Err(self.error(format!("table {target} is the sink of {rival} already; choose another \"table\"")));
        }
        if (by_key || self.is_copy) && link.table.has_rows(&link.session).map_err(|f| look(self, f))? {
            return Err(self.error(format!(
                "table {target} has rows already, which this pipeline did not write; choose another \"table\", or empty it (TRUNCATE {target})"
            )));
        }
        Ok(())
    }

    fn fenced(&self, epoch: i64) -> ConnectorError {
        let by = if epoch > 0 { format!(" (epoch {epoch})") } else { String::new() };
        self.error(format!(
            "fenced: the pipeline was started elsewhere{by}, and that process delivers to table {} now; this one must end",
            self.settings.table
        ))
    }

    /// Brings the batch into the table, and the marker to `step`, in one transaction.
    fn commit(&mut self) -> Result<()> {
        let link = self.connected()?;
        if self.batch.is_empty() && self.marked == Some(self.step) {
            self.link = Some(link);
            return Ok(());
        }
        // After an error the session is dropped: its transaction ends with it.
        self.transact(&link)?;
        self.batch.clear();
        self.marked = Some(self.step);
        self.moved = Some(now());
        self.link = Some(link);
        Ok(())
    }

    fn transact(&self, link: &Link) -> Result<()> {
        let (owner, session) = (self.owner()?, &link.session);
        let failed = |failure: Failure| self.failure("write to", &failure);
        if self.batch.is_empty() {
            return match link.markers.advance(session, &owner, self.step).map_err(failed)? {
                true => Ok(()),
                false => Err(self.fenced(0)),
            };
        }
        session.statements("BEGIN").map_err(failed)?;
        let is_ours = match self.marked {
            Some(_) => link.markers.advance(session, &owner, self.step),
            None => link.markers.insert(session, &owner, self.step, &link.table.name),
        };
        if !is_ours.map_err(failed)? {
            return Err(self.fenced(0));
        }
        link.table.apply(session, self.batch.pieces(), self.is_strict()).map_err(|failure| {
            let said = failure.database().filter(|e| e.code().code() == "23505");
            match said.filter(|e| e.constraint().is_some_and(|name| link.table.is_key_index(name))) {
                Some(said) => self.error(format!(
                    "table {} has a row already that the view brings as a new one: {}. Either the view has two rows of this key (choose \"key\" \
                     columns that are unique in it, or \"mode\": \"cdc\"), or something else has written to the table",
                    link.table.name,
                    said.detail().unwrap_or(said.message())
                )),
                None => failed(failure),
            }
        })?;
        session.statements("COMMIT").map_err(failed)?;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.batch.bytes() >= self.settings.max_bytes || self.batch.rows() >= self.settings.max_rows
    }
}

impl Output for PostgresOutput {
    fn level(&self) -> Level {
        Level::ExactlyOnce
    }

    fn target(&self) -> Option<String> {
        let by_key = self.settings.mode == Mode::Materialized;
        by_key.then(|| format!("table {} at {}", self.settings.table, self.settings.server.place))
    }

    fn open(&mut self, resume: &Resume) -> Result<()> {
        self.link = None;
        // A try of this process before may have raised the epoch, and its answer have been lost.
        let of = |resume: &Resume| (resume.incarnation, resume.epoch);
        self.is_claiming &= self.resume.as_ref().is_some_and(|before| of(before) == of(resume));
        self.is_claimed = false;
        self.batch.clear();
        (self.marked, self.certain) = (None, None);
        self.is_copy = resume.copy;
        self.step = resume.step;
        if let Some(position) = &resume.checkpoint {
            self.step = position.step;
            self.certain = position.detail.get(MARKER).and_then(serde_json::Value::as_u64);
            self.is_copy |= position.detail.contains_key(COPY);
            if position.detail.keys().any(|key| key != MARKER && key != COPY) {
                return Err(self.error(format!(
                    "the checkpoint's position of step {} is not one of a postgres_output; was this connector another transport before? Give it \
                     another name",
                    position.step
                )));
            }
        }
        self.resume = Some(resume.clone());
        self.link = Some(self.connected()?);
        Ok(())
    }

    fn deliver(&mut self, step: u64, delta: &Delta) -> Result<()> {
        if !self.is_claimed || self.link.is_none() && self.is_full() {
            self.link = Some(self.connected()?);
        }
        if step > self.step {
            let is_there = self.is_strict() && self.marked.is_some_and(|marked| step <= marked);
            if !is_there && !delta.is_empty() {
                self.gather(step, delta)?;
            }
            self.step = step;
        }
        if self.is_full() { self.commit() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.batch.is_empty() { Ok(()) } else { self.commit() }
    }

    fn replay_done(&mut self) -> Result<()> {
        if !self.is_claimed {
            self.link = Some(self.connected()?);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<SinkPosition> {
        let is_idle = self.marked.is_some_and(|marked| marked < self.step)
            && self.moved.is_none_or(|moved| moved.elapsed() >= IDLE_MOVE);
        if !self.batch.is_empty() || is_idle {
            self.commit()?;
        }
        self.certain = self.reached();
        Ok(self.position())
    }

    fn durable(&self) -> Option<SinkPosition> {
        self.batch.is_empty().then(|| self.position())
    }
}

impl PostgresOutput {
    /// A step that the marker has reached for certain.
    fn reached(&self) -> Option<u64> {
        self.marked.map(|marked| marked.min(self.step)).or(self.certain)
    }

    /// Where the table stands, with all that was delivered in committed transactions.
    fn position(&self) -> SinkPosition {
        let detail: Option<(&str, serde_json::Value)> = match self.reached() {
            Some(reached) => Some((MARKER, reached.into())),
            None => self.is_copy.then(|| (COPY, true.into())),
        };
        let detail = detail.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        SinkPosition { step: self.step, detail }
    }

    fn gather(&mut self, step: u64, delta: &Delta) -> Result<()> {
        // What was found out of the table outlives the session: it is found out again with each.
        let Some(link) = &self.link else {
            let link = self.connected()?;
            self.link = Some(link);
            return self.gather(step, delta);
        };
        let rows = Rows::new(&self.connector, &delta.rows, &link.table.forms, &link.table.key)?;
        self.batch.add(step, &rows, &delta.weights).map_err(|why| self.error(format!("step {step}: {why}")))
    }
}
