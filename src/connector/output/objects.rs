//! `s3_output`: a view's changes as objects of a bucket, one a step, exactly once.
//!
//! Settings: the [store's](super::super::objects), and `prefix`, which keys begin with. The object of step 7 is `<prefix>00000000000000000007.ndjson` (`.csv`, `.raw`,
//! `.parquet`): the step's lines in the [format](super::super::format::render), or its [Parquet file](super::super::format::parquet). A step that changes nothing has none.
//!
//! How it is exactly-once: an object is a function of its step. It is created, never replaced: where it is there already, its bytes are compared (the rows, of Parquet),
//! so that a retry or a replay writes it once, and a process that runs from a copy of the data directory is noticed at the first step that differs.
//!
//! Invariants:
//! 1. The objects of the steps up to the position's are in the bucket, or somebody took them away who had read them.
//! 2. No object is there of a step after the last record's, and none of a step that changes nothing.
//!
//! Limits: a store must know how to create an object only if it is not there (S3, Google's, Azure and folders do). Objects are as small as
//! steps are: `min_batch_size_records` and `max_buffering_delay_usecs` make these larger. A step's object is in memory whole.

use std::collections::BTreeMap;

use object_store::{Error, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use super::super::config::{ConnectorConfig, FormatConfig};
use super::super::format::parquet;
use super::super::format::render::{Carrier, Renderer};
use super::super::objects::{KEYS, Objects};
use super::super::options::Options;
use super::super::{ConnectorError, Context, Level, Output, Result, Resume, SinkPosition};
use crate::circuit::Delta;

/// Objects are written when they have so many bytes together.
const WRITE: usize = 8 << 20;
/// Or when they are so many: a call writes them all.
const OBJECTS: usize = 64;
/// How many are written at once.
const AT_ONCE: usize = 8;
/// Digits of a step's number in a key: all of a u64's.
const DIGITS: usize = 20;

/// A bucket that a view's changes are put into.
#[derive(Debug)]
pub(crate) struct ObjectsOutput {
    objects: Objects,
    prefix: String,
    extension: &'static str,
    format: Format,
    /// Steps and their objects, to be written.
    pending: Vec<(u64, Vec<u8>)>,
    pending_bytes: usize,
    /// Steps after the checkpoint's whose objects an earlier process left.
    left: BTreeMap<u64, String>,
    step: u64,
}

/// How a step is an object.
#[derive(Debug)]
enum Format {
    Lines(Renderer),
    Parquet(Box<parquet::Encoder>),
}

impl Format {
    fn new(config: Option<&FormatConfig>, ctx: &Context) -> Result<Self> {
        match config.filter(|c| c.name == "parquet") {
            Some(config) => Ok(Self::Parquet(Box::new(parquet::Encoder::new(&config.config, ctx)?))),
            None => Ok(Self::Lines(Renderer::new(config, ctx, &Carrier::File)?)),
        }
    }

    fn encode(&self, step: u64, delta: &Delta) -> Result<Vec<u8>> {
        match self {
            Self::Parquet(encoder) => encoder.encode(step, delta),
            Self::Lines(renderer) => {
                let mut bytes = Vec::new();
                renderer.header(&mut bytes);
                renderer.render(step, delta, &mut bytes)?;
                Ok(bytes)
            }
        }
    }

    /// Whether two objects say the same.
    fn same(&self, a: &[u8], b: &[u8]) -> bool {
        a == b || matches!(self, Self::Parquet(_)) && parquet::same(a, b)
    }
}

impl ObjectsOutput {
    pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let known = [&["prefix"][..], &KEYS].concat();
        let options = Options::new(&ctx.name, "transport.config of s3_output", &config.transport.config, &known, &[])?;
        let prefix = options.string("prefix")?.unwrap_or_default().to_owned();
        if prefix.starts_with('/') || prefix.contains("//") {
            return Err(options.error("\"prefix\" must not begin with a slash, nor have two in a row"));
        }
        let format = Format::new(config.format.as_ref(), ctx)?;
        let extension = match config.format.as_ref().map(|f| f.name.as_str()) {
            Some("json") => "ndjson",
            Some("csv") => "csv",
            Some("parquet") => "parquet",
            _ => "raw",
        };
        let objects = Objects::new(&options, ctx)?;
        let (pending, left) = (Vec::new(), BTreeMap::new());
        Ok(Self { objects, prefix, extension, format, pending, pending_bytes: 0, left, step: 0 })
    }

    fn key(&self, step: u64) -> String {
        format!("{}{step:0DIGITS$}.{}", self.prefix, self.extension)
    }

    /// The step of a key, if it is that of one.
    fn step_of(&self, key: &str) -> Option<u64> {
        let digits = key.strip_prefix(&self.prefix)?.strip_suffix(self.extension)?.strip_suffix('.')?;
        digits.parse().ok().filter(|_| digits.len() == DIGITS)
    }

    /// The objects of the steps after one, or of all.
    fn found(&self, after: Option<u64>) -> Result<BTreeMap<u64, String>> {
        let all = self.objects.list(&self.prefix, after.map(|step| self.key(step)).as_deref())?;
        Ok(all.into_iter().filter_map(|(key, _)| Some((self.step_of(&key)?, key))).collect())
    }

    /// Writes what is pending.
    fn put(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (this, pending) = (&*self, &self.pending);
        let calls = pending.iter().map(|(step, bytes)| {
            let key = this.key(*step);
            let call = async move {
                let key = this.key(*step);
                let fail = |e: Error| this.objects.failed(&key, &e);
                let path = this.objects.path(&key)?;
                let payload = PutPayload::from(bytes.clone());
                let options = PutOptions::from(PutMode::Create);
                match this.objects.store().put_opts(&path, payload, options).await {
                    Ok(_) => return Ok(()),
                    Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
                    Err(e) => return Err(fail(e)),
                }
                let there = this.objects.store().get(&path).await.map_err(fail)?.bytes().await.map_err(fail)?;
                if this.format.same(&there, bytes) { Ok(()) } else { Err(this.differs(&key, bytes, &there)) }
            };
            (key, call)
        });
        self.objects.all(calls, AT_ONCE)?;
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }

    fn differs(&self, key: &str, expected: &[u8], there: &[u8]) -> ConnectorError {
        let at = expected.iter().zip(there).position(|(a, b)| a != b).unwrap_or(expected.len().min(there.len()));
        self.objects.error(
            key,
            format!(
                "there is another object already: expected {} bytes, got {}, which differ from byte {at} on. Another pipeline, or a copy of this one, writes \
                 there: give it another \"prefix\", or move the objects away",
                expected.len(),
                there.len()
            ),
        )
    }
}

impl Output for ObjectsOutput {
    fn level(&self) -> Level {
        Level::ExactlyOnce
    }

    fn target(&self) -> Option<String> {
        Some(self.objects.name(&self.prefix))
    }

    fn open(&mut self, resume: &Resume) -> Result<()> {
        (self.pending, self.pending_bytes) = (Vec::new(), 0);
        self.left = BTreeMap::new();
        let found = self.found(resume.checkpoint.as_ref().map(|position| position.step))?;
        let Some(position) = &resume.checkpoint else {
            self.step = resume.step;
            return match found.values().next() {
                None => Ok(()),
                Some(key) => Err(self.objects.error(
                    key,
                    "it is there already, and this pipeline begins anew: move the objects of \"prefix\" away, or choose another",
                )),
            };
        };
        self.step = position.step;
        let later = found.into_iter().filter(|(step, _)| *step > position.step);
        if !resume.replayed {
            // The steps come again, with other content.
            for (_, key) in later {
                let path = self.objects.path(&key)?;
                if let Err(e) = self.objects.wait(&key, self.objects.store().delete(&path))?
                    && !matches!(e, Error::NotFound { .. })
                {
                    return Err(self.objects.failed(&key, &e));
                }
            }
            return Ok(());
        }
        self.left = later.collect();
        match self.left.range(resume.last_step.saturating_add(1)..).next() {
            None => Ok(()),
            Some((step, key)) => Err(self.objects.error(
                key,
                format!(
                    "it is of step {step}, but the last step that the checkpoint and the log hold is {}: part of the log is missing, or another pipeline writes there; \
                     put the data directory's files back, or choose another \"prefix\"",
                    resume.last_step
                ),
            )),
        }
    }

    fn deliver(&mut self, step: u64, delta: &Delta) -> Result<()> {
        if step > self.step {
            let left = self.left.remove(&step);
            if !delta.is_empty() {
                let bytes = self.format.encode(step, delta)?;
                self.pending_bytes += bytes.len();
                self.pending.push((step, bytes));
            } else if let Some(key) = left {
                let message = "it is there, but that step changes nothing: another pipeline writes there; choose another \"prefix\"";
                return Err(self.objects.error(&key, message));
            }
            self.step = step;
        }
        // Here too if it was taken in already: the writing after it failed, and this is the next try.
        if self.pending_bytes >= WRITE || self.pending.len() >= OBJECTS { self.put() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.put()
    }

    fn replay_done(&mut self) -> Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> Result<SinkPosition> {
        self.put()?;
        Ok(SinkPosition { step: self.step, ..SinkPosition::default() })
    }

    fn durable(&self) -> Option<SinkPosition> {
        self.pending.is_empty().then(|| SinkPosition { step: self.step, ..SinkPosition::default() })
    }
}
