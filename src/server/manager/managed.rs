//! A pipeline in the manager's memory: its record, what it is seen to do, and how its task is woken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

use super::child::Place;
use super::history::History;
use super::program::Compiled;
use super::record::{DeploymentError, Desired, Record};
use super::shown::Shown;
use super::{config, timestamp};
use crate::pipeline::Clock;

/// One pipeline.
#[derive(Debug)]
pub struct Managed {
    /// Where its files are.
    pub place: Place,
    /// What it did lately.
    pub history: History,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    /// What the record's program compiled to; `None` until that is known. Changed under the lock of `inner`.
    compiled: watch::Sender<Option<Compiled>>,
    wake: Notify,
}

#[derive(Debug)]
struct Inner {
    record: Record,
    status: &'static str,
    status_ms: i64,
    resources: &'static str,
    resources_ms: i64,
    clearing: bool,
    force: bool,
    /// Whether the record is durable.
    kept: bool,
    deleted: bool,
    process: Option<u32>,
    /// Whether a process of an earlier manager has been looked for.
    settled: bool,
}

/// What is wanted now.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The state.
    pub desired: Desired,
    /// Whether to get there without a checkpoint.
    pub force: bool,
}

/// Every deployment status that is shown.
const STATUSES: [&str; 9] = [
    "Stopped",
    "Provisioning",
    "Unavailable",
    "Initializing",
    "Replaying",
    "Paused",
    "Running",
    "Stopping",
    "Provisioned",
];

impl Inner {
    fn show(&mut self, status: &str, resources: &str, now: i64) {
        let known = |word: &str| STATUSES.into_iter().find(|s| *s == word);
        if let Some(status) = known(status).filter(|s| *s != self.status) {
            (self.status, self.status_ms) = (status, now);
        }
        if let Some(resources) = known(resources).filter(|r| *r != self.resources) {
            (self.resources, self.resources_ms) = (resources, now);
        }
    }
}

impl Managed {
    /// A pipeline that is not seen yet.
    pub fn new(record: Record, compiled: Option<Compiled>, place: Place, clock: Arc<dyn Clock>) -> Self {
        let now = clock.wall_ms();
        let inner = Inner {
            record,
            status: "Stopped",
            status_ms: now,
            resources: "Stopped",
            resources_ms: now,
            clearing: false,
            force: false,
            kept: true,
            deleted: false,
            process: None,
            settled: false,
        };
        let (compiled, _) = watch::channel(compiled);
        Self { place, history: History::default(), clock, inner: Mutex::new(inner), compiled, wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of now.
    pub fn record(&self) -> Record {
        self.lock().record.clone()
    }

    /// Takes over a record that has been kept; with what its program compiled to, if that was set.
    pub fn replace(&self, record: Record, compiled: Option<Compiled>) {
        let mut inner = self.lock();
        inner.kept = true;
        if let Some(compiled) = compiled {
            self.note(compiled, inner.record.program_code == record.program_code);
        }
        if record.desired != Desired::Stopped {
            inner.force = false;
        }
        inner.record = record;
        drop(inner);
        self.wake.notify_one();
    }

    /// Takes over a record that could not be kept.
    pub fn replace_unkept(&self, record: Record) {
        let mut inner = self.lock();
        (inner.record, inner.kept) = (record, false);
        drop(inner);
        self.wake.notify_one();
    }

    /// Whether the record is durable.
    pub fn is_kept(&self) -> bool {
        self.lock().kept
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.lock().record.name.clone()
    }

    /// What its program compiled to, once that is known.
    pub async fn compiled(&self) -> Compiled {
        let mut known = self.compiled.subscribe();
        let known = known.wait_for(Option::is_some).await.ok().and_then(|known| known.clone());
        // Not so: the sender is here.
        known.unwrap_or_else(|| Compiled::unknown("the program is not compiled"))
    }

    /// Notes what a text compiled to, unless the program is another one by now.
    pub fn compiled_to(&self, text: &str, compiled: Compiled) {
        let inner = self.lock();
        if inner.record.program_code == text {
            self.note(compiled, true);
        }
    }

    /// Notes what the program compiled to. A compiler that was lost over a text takes nothing away that is known of the `same` one.
    fn note(&self, compiled: Compiled, same: bool) {
        self.compiled.send_if_modified(|known| {
            let stays = same && !compiled.is_known() && known.as_ref().is_some_and(Compiled::is_known);
            if !stays {
                *known = Some(compiled);
            }
            !stays
        });
    }

    /// What is wanted.
    pub fn wish(&self) -> Wish {
        let inner = self.lock();
        Wish { desired: inner.record.desired, force: inner.force }
    }

    /// What a process is to be started for, if one is wanted still; from now on it is seen to begin.
    pub fn begin(&self) -> Option<Record> {
        let now = self.clock.wall_ms();
        let mut inner = self.lock();
        if inner.record.desired == Desired::Stopped || inner.clearing || inner.deleted {
            return None;
        }
        inner.show("Provisioning", "Provisioning", now);
        Some(inner.record.clone())
    }

    /// A stop is to be at once.
    pub fn force(&self) {
        self.lock().force = true;
        self.wake.notify_one();
    }

    /// Its task may end once its process has.
    pub fn delete(&self) {
        self.lock().deleted = true;
        self.wake.notify_one();
    }

    /// Whether it is deleted.
    pub fn is_deleted(&self) -> bool {
        self.lock().deleted
    }

    /// Notes what it is seen to do: deployment and resources status.
    pub fn show(&self, status: &str, resources: &str) {
        let now = self.clock.wall_ms();
        self.lock().show(status, resources, now);
    }

    /// The deployment status.
    pub fn status(&self) -> &'static str {
        self.lock().status
    }

    /// Whether neither a process is there nor one wanted.
    pub fn is_stopped(&self) -> bool {
        let inner = self.lock();
        let is_alone = inner.settled && inner.process.is_none();
        is_alone && inner.status == "Stopped" && inner.record.desired == Desired::Stopped
    }

    /// Whether its storage is being removed.
    pub fn is_clearing(&self) -> bool {
        self.lock().clearing
    }

    /// Notes its process, or that it has none.
    pub fn set_process(&self, pid: Option<u32>) {
        self.lock().process = pid;
    }

    /// Notes that a process of an earlier manager has been looked for.
    pub fn settle(&self) {
        self.lock().settled = true;
    }

    /// The id of its process, if it has one.
    pub fn process(&self) -> Option<u32> {
        self.lock().process
    }

    /// Notes that its storage is being removed, or no longer is. False: it was already so.
    pub fn set_clearing(&self, clearing: bool) -> bool {
        std::mem::replace(&mut self.lock().clearing, clearing) != clearing
    }

    /// Returns when there is something to do.
    pub fn woken(&self) -> Notified<'_> {
        self.wake.notified()
    }

    /// As clients see it; `all`: with program and configuration.
    pub fn shown(&self, in_use: bool, all: bool) -> Shown {
        let inner = self.lock();
        let record = &inner.record;
        let compiled = self.compiled.borrow();
        Shown {
            id: record.id,
            name: record.name.clone(),
            description: record.description.clone(),
            tags: record.tags.clone(),
            created_at: timestamp(record.created_ms),
            version: record.version,
            platform_version: super::PLATFORM_VERSION,
            program_version: record.program_version,
            program_status: compiled.as_ref().map_or("CompilingSql", Compiled::status),
            program_status_since: timestamp(record.compiled_ms),
            refresh_version: record.version,
            storage_status: match (inner.clearing, in_use) {
                (true, _) => "Clearing",
                (false, true) => "InUse",
                (false, false) => "Cleared",
            },
            deployment_status: inner.status,
            deployment_status_since: timestamp(inner.status_ms),
            deployment_desired_status: record.desired.name(),
            deployment_desired_status_since: timestamp(record.desired_ms),
            deployment_resources_status: inner.resources,
            deployment_resources_status_since: timestamp(inner.resources_ms),
            deployment_resources_desired_status: match record.desired {
                Desired::Stopped => "Stopped",
                Desired::Paused | Desired::Running => "Provisioned",
            },
            deployment_resources_desired_status_since: timestamp(record.desired_ms),
            deployment_error: record.error.as_ref().map(DeploymentError::body),
            backstay: self.history.now(),
            program_code: all.then(|| record.program_code.clone()),
            udf_rust: all.then_some(""),
            udf_toml: all.then_some(""),
            program_config: all.then(|| record.program_config.clone()),
            runtime_config: all.then(|| config::shown(&record.runtime_config)),
            program_error: all.then(|| compiled.as_ref().map_or_else(|| json!({}), |c| c.error().clone())),
            program_info: all.then(|| compiled.as_ref().map_or(Value::Null, |c| c.info().clone())),
        }
    }
}
