//! `kafka_output`: a view's changes to a topic, exactly once.
//!
//! Settings: `topic`, `headers` of every message, `initialization_timeout_secs` (20), and librdkafka's (`partitioner`, …). The format is
//! [`message`](super::super::format::message)'s.
//!
//! Whole steps are gathered and sent as one transaction, which carries the last of them as the committed offset of a consumer group of the output's own,
//! `backstay.<pipeline>.<view>.<connector>`, on partition 0 of the topic: the [`marker`]. So keys and values are the user's alone, and a
//! recovery reads one value. The transactional id is that name too, the same in all epochs.
//!
//! Invariants:
//! 1. A step is in one transaction, whole; a reader with `read_committed` never sees a part.
//! 2. At start `init_transactions` comes first (it ends what a former process left under way, and fences it), then the marker is read,
//!    then the epoch is written into it, then steps are delivered.
//! 3. The marker is between the checkpoint's and the last record's step, of this incarnation and not of a later epoch; else the topic
//!    is refused. A marker that is missing although the checkpoint knows of one is refused too.
//! 4. A transaction that failed is sent again as it was, after the marker was read: if that says that it was committed after all, it is not.
//!
//! Bounds: a transaction holds the steps that came until [`BYTES`] or [`MESSAGES`] are there or there is nothing more to deliver; a step larger than that is held whole.
//! Limits: messages without a key of one step are spread over partitions, in no order between these.

mod link;
mod marker;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode as Code;
use serde_json::Value;

use super::super::config::ConnectorConfig;
use super::super::format::message::{Encoder, Messages};
use super::super::options::Options;
use super::super::{ConnectorError, Context, Level, Output, Result, Resume, SinkPosition};
use crate::circuit::Delta;
use crate::connector::kafka::{self, failed};
use crate::connector::patience::{insist, now};
use link::{Failure, Link, Reader, Target};
use marker::Marker;

/// Bytes of messages after which a transaction is committed.
const BYTES: usize = 8 << 20;
/// Messages after which it is.
const MESSAGES: usize = 100_000;
/// How often the marker of an idle output is written again: the brokers forget groups without members after days.
const REFRESH: Duration = Duration::from_secs(12 * 3600);
/// In the position: the step of the marker, if there is one.
const MARKER: &str = "marker";
/// librdkafka's own.
const TRANSACTION_MS: u64 = 60_000;

/// A configured output.
#[derive(Debug)]
pub(crate) struct KafkaOutput {
    target: Target,
    encoder: Encoder,
    patience: Duration,
    /// How long the brokers let a transaction be; longer ones are aborted.
    transaction_ms: u64,
    link: Option<Link>,
    /// What this process writes into the marker.
    me: Marker,
    /// Whether a marker of this epoch may be this process's.
    is_claiming: bool,
    /// The step of the topic's marker, if it has one.
    marker: Option<u64>,
    /// Steps up to here are in the topic, and come again in a replay.
    has: u64,
    /// The last step that was delivered.
    step: u64,
    /// The steps that are not committed: first and last with messages, and these.
    first: u64,
    last: u64,
    messages: Messages,
    committed_at: Option<Instant>,
}

impl KafkaOutput {
    pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let place = "transport.config of kafka_output";
        let own = [
            "topic",
            "initialization_timeout_secs",
            "headers",
            "fault_tolerance",
            "kafka_service",
            "log_level",
            "region",
        ];
        let (ours, settings) = kafka::settings(&ctx.name, place, &config.transport.config, &own)?;
        let options = Options::new(&ctx.name, place, &ours, &own[..3], &own[3..])?;
        let transaction_ms = match settings.get("transaction.timeout.ms").map(str::parse) {
            Some(Ok(ms)) => ms,
            _ => TRANSACTION_MS,
        };
        let id = format!("backstay.{}.{}", ctx.pipeline, ctx.name);
        let topic = options.require_string("topic")?.to_owned();
        Ok(Self {
            encoder: Encoder::new(config.format.as_ref(), ctx, &topic)?,
            target: Target { connector: ctx.name.clone(), id, topic, settings, headers: headers(&options)? },
            patience: Duration::from_secs(options.u64("initialization_timeout_secs")?.unwrap_or(20)),
            transaction_ms,
            link: None,
            me: Marker::default(),
            is_claiming: false,
            marker: None,
            has: 0,
            step: 0,
            first: 0,
            last: 0,
            messages: Messages::default(),
            committed_at: None,
        })
    }

    fn error(&self, message: impl Into<String>) -> ConnectorError {
        ConnectorError::new(&self.target.connector, message)
    }

    fn fix(&self) -> String {
        let id = &self.target.id;
        format!("give it another topic, or, if its content may go, delete the topic and the consumer group {id}")
    }

    /// Refuses a topic that is somebody else's.
    fn check_owner(&self, found: Option<Marker>, resume: &Resume) -> Result<()> {
        let (topic, fix) = (&self.target.topic, self.fix());
        let Some(m) = found else { return Ok(()) };
        if resume.checkpoint.is_none() {
            return Err(self.error(format!(
                "topic {topic} holds what {m} delivered up to step {}, and this pipeline begins anew: {fix}",
                m.step
            )));
        }
        if m.incarnation != self.me.incarnation {
            let me = self.me.incarnation;
            return Err(self.error(format!("topic {topic} belongs to {m}, not to incarnation {me}: {fix}")));
        }
        // Each opening of a store has an epoch of its own; ours is there only if an answer to an earlier try of this process was lost.
        if m.epoch > self.me.epoch || (m.epoch == self.me.epoch && !self.is_claiming) {
            return Err(self.error(format!(
                "topic {topic} was taken over by {m}, and this is epoch {}: another process runs this pipeline from a copy of its data directory",
                self.me.epoch
            )));
        }
        Ok(())
    }

    /// The marker's step, checked against what the checkpoint and the log say; 0 if nothing of it comes again.
    fn check_step(&self, found: Option<Marker>, resume: &Resume) -> Result<u64> {
        let (topic, fix) = (&self.target.topic, self.fix());
        let known = resume.checkpoint.as_ref().and_then(|c| c.detail.get(MARKER)).and_then(Value::as_u64);
        match (found, known) {
            (None, None) => Ok(0),
            (None, Some(step)) => Err(self.error(format!(
                "topic {topic} was delivered step {step}, but it has no marker (the offset of the consumer group {}) any more: the topic was \
                 deleted and made anew, or the group was deleted. Put them back, or start this pipeline in a new data directory with a new topic",
                self.target.id
            ))),
            (Some(_), _) if !resume.replayed => Ok(0),
            (Some(m), Some(step)) if m.step < step => Err(self.error(format!(
                "topic {topic} stands at step {}, but the checkpoint says that step {step} was delivered: its marker was set back; {fix}",
                m.step
            ))),
            (Some(m), _) if m.step > resume.last_step => Err(self.error(format!(
                "topic {topic} was delivered step {}, but the last step that the checkpoint and the log hold is {}: part of the log is missing; \
                 put the data directory's files back, or start in another one with another topic",
                m.step, resume.last_step
            ))),
            (Some(m), _) => Ok(m.step),
        }
    }

    /// Connects anew, and takes what was committed after all out of what waits.
    fn connect(&mut self) -> Result<()> {
        let link = match Link::new(&self.target, self.transaction_ms) {
            Err(Failure { code: Some(Code::InvalidTransactionTimeout), .. }) => return Err(self.too_long()),
            other => other.map_err(|f| f.error)?,
        };
        match link.reader.marker(&self.target)? {
            // An earlier epoch's is ours to replace: its writer was fenced when this producer began.
            Some(m) if m.incarnation != self.me.incarnation || m.epoch > self.me.epoch => {
                return Err(self.fenced(&format!("by {m}")));
            }
            // Nobody else writes markers since: the transaction whose end is not known was committed.
            Some(m) if !self.messages.is_empty() && m.step == self.last && self.marker != Some(m.step) => {
                self.marker = Some(m.step);
                self.messages.clear();
            }
            Some(_) => {}
            None if self.marker.is_some() => {
                return Err(self.error(format!(
                    "topic {} has lost its marker (the offset of the consumer group {}) while the pipeline was running: was it deleted?",
                    self.target.topic, self.target.id
                )));
            }
            None => {}
        }
        self.link = Some(link);
        Ok(())
    }

    fn fenced(&self, by: &str) -> ConnectorError {
        self.error(format!(
            "fenced {by}: another process delivers as {} to topic {}; two processes run this pipeline, or two pipelines have one name",
            self.target.id, self.target.topic
        ))
    }

    fn too_long(&self) -> ConnectorError {
        self.error(format!(
            "steps {} to {}, {} messages of {} bytes, take longer to send than the brokers let a transaction be: raise their transaction.max.timeout.ms, \
             or make steps smaller (max_batch_size of the inputs)",
            self.first,
            self.last,
            self.messages.len(),
            self.messages.bytes()
        ))
    }

    /// Where the topic stands, with all that was delivered in committed transactions.
    fn position(&self) -> SinkPosition {
        let detail = self.marker.map(|step| (MARKER.to_owned(), step.into()));
        SinkPosition { step: self.step, detail: detail.into_iter().collect::<BTreeMap<_, _>>() }
    }

    /// Sends what waits as one transaction.
    fn commit(&mut self) -> Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        self.transact(self.last)
    }

    /// A transaction of what waits, and of the marker.
    fn transact(&mut self, step: u64) -> Result<()> {
        if self.link.is_none() {
            let waited = !self.messages.is_empty();
            self.connect()?;
            if waited && self.messages.is_empty() {
                return Ok(());
            }
        }
        let Some(link) = &self.link else { return Ok(()) };
        let begun = now();
        let marker = Marker { step, ..self.me };
        if let Err(failure) = link.transaction(&self.target, &self.messages, &marker) {
            // Whatever it was: a new producer ends the transaction, and the marker tells whether it was committed.
            self.link = None;
            if !failure.is_fence {
                return Err(failure.error);
            }
            // The brokers treat one who is too slow as one who was replaced.
            if begun.elapsed() < Duration::from_millis(self.transaction_ms / 10 * 9) {
                return Err(self.fenced("while it was delivering"));
            }
            self.transaction_ms = self.transaction_ms.saturating_mul(2).min(i32::MAX as u64);
            let message =
                format!("{}; trying again with {} ms for a transaction", failure.error.message, self.transaction_ms);
            return Err(ConnectorError { retry: true, ..self.error(message) });
        }
        self.messages.clear();
        self.marker = Some(step);
        self.committed_at = Some(now());
        Ok(())
    }
}

/// The headers of every message: `[{"key": "k", "value": "text, or a list of bytes, or nothing"}]`.
fn headers(options: &Options<'_>) -> Result<Vec<(String, Option<Vec<u8>>)>> {
    let wrong = || {
        options.error(
            "\"headers\" must be a list of {\"key\": \"name\", \"value\": \"text\"}; a value may be a list of bytes, or left out",
        )
    };
    let header = |item: &Value| {
        let map = item.as_object().filter(|m| m.keys().all(|key| key == "key" || key == "value")).ok_or_else(wrong)?;
        let key = map.get("key").and_then(Value::as_str).filter(|key| !key.contains('\0')).ok_or_else(wrong)?;
        let value = match map.get("value") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone().into_bytes()),
            Some(Value::Array(bytes)) => {
                let byte = |b: &Value| b.as_u64().and_then(|b| u8::try_from(b).ok()).ok_or_else(wrong);
                Some(bytes.iter().map(byte).collect::<Result<_>>()?)
            }
            Some(_) => return Err(wrong()),
        };
        Ok((key.to_owned(), value))
    };
    match options.value("headers") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(header).collect(),
        Some(_) => Err(wrong()),
    }
}

impl Output for KafkaOutput {
    fn level(&self) -> Level {
        Level::ExactlyOnce
    }

    fn open(&mut self, resume: &Resume) -> Result<()> {
        let me = Marker { step: 0, incarnation: resume.incarnation, epoch: resume.epoch };
        self.is_claiming &= me == self.me;
        self.me = me;
        self.step = resume.checkpoint.as_ref().map_or(resume.step, |c| c.step);
        // Before anything is fenced: is this topic ours? What a killed process left under way is not waited for: only its end tells the
        // step, and it ends when this producer begins.
        let found = insist(self.patience, || {
            let reader = Reader::new(&self.target, "read_uncommitted")?;
            if resume.copy && reader.has_messages(&self.target)? {
                let message = format!(
                    "topic {} has messages, and this pipeline begins anew, as a savepoint's copy or because it was told to: give it another topic",
                    self.target.topic
                );
                return Err(self.error(message));
            }
            reader.marker(&self.target)
        })?;
        self.check_owner(found, resume)?;
        let link = insist(self.patience, || Link::new(&self.target, self.transaction_ms).map_err(|f| f.error))?;
        let found = insist(self.patience, || link.reader.marker(&self.target))?;
        self.check_owner(found, resume)?;
        self.has = self.check_step(found, resume)?;
        self.link = Some(link);
        if let Some(found) = found {
            self.marker = Some(found.step);
            // Only the epoch changes: a process that was cut off finds that it was replaced.
            self.is_claiming = true;
            insist(self.patience, || self.transact(found.step))?;
        }
        Ok(())
    }

    fn deliver(&mut self, step: u64, delta: &Delta) -> Result<()> {
        if step > self.step {
            if step > self.has && !delta.is_empty() {
                if self.messages.is_empty() {
                    self.first = step;
                }
                self.encoder.encode(step, delta, &mut self.messages)?;
                self.last = step;
            }
            self.step = step;
        }
        // Here too if it was taken in already: the commit after it failed, and this is the next try.
        if self.messages.bytes() >= BYTES || self.messages.len() >= MESSAGES {
            self.commit()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.commit()
    }

    fn replay_done(&mut self) -> Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> Result<SinkPosition> {
        self.commit()?;
        Ok(self.position())
    }

    fn durable(&self) -> Option<SinkPosition> {
        self.messages.is_empty().then(|| self.position())
    }

    fn idle(&mut self) -> Result<()> {
        match (self.marker, self.committed_at) {
            (Some(step), Some(at)) if at.elapsed() >= REFRESH => self.transact(step),
            _ => Ok(()),
        }
    }
}

/// A broker's error.
fn broker(target: &Target, what: &str, error: &rdkafka::error::KafkaError) -> ConnectorError {
    failed(&target.connector, what, error)
}
