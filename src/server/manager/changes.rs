//! Changes of what is wanted: durable before they are answered, and before anything is done about them.
//!
//! But for one: a process that is to end at once ends, also where that cannot be kept. It is kept as soon as it can be ([`Manager::keep`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;

use super::managed::Managed;
use super::program::Compiled;
use super::record::Record;
use super::{Manager, lock};
use crate::server::error::{ApiError, Result};

impl Manager {
    /// Runs a durable write where it may block.
    fn durably(&self, write: impl FnOnce() -> backstay_storage::Result<()>) -> Result<()> {
        let written = tokio::task::block_in_place(write);
        self.note_write(&written);
        written.map_err(|e| ApiError::storage(&e, format!("the catalog cannot be written: {e}")))
    }

    /// Notes whether the catalog took what it was given.
    pub(super) fn note_write(&self, written: &backstay_storage::Result<()>) {
        self.writes.store(written.is_ok(), Ordering::Release);
    }

    /// Whether the catalog took the last change.
    pub(super) fn has_written(&self) -> bool {
        self.writes.load(Ordering::Acquire)
    }

    /// Creates a pipeline.
    pub(super) fn create(self: &Arc<Self>, record: Record, compiled: Compiled) -> Result<Arc<Managed>> {
        let mut catalog = self.catalog();
        if catalog.named(&record.name).is_some() {
            return Err(taken(&record.name));
        }
        self.durably(|| catalog.put(&record))?;
        Ok(self.manage(record, Some(compiled)))
    }

    /// Changes what is wanted of a pipeline.
    pub(super) fn change(&self, managed: &Managed, change: impl FnOnce(&mut Record)) -> Result<Record> {
        self.try_change(managed, None, |record| {
            change(record);
            Ok(())
        })
    }

    /// As [`Self::change`], unless `change` refuses. `compiled` is of the program that it sets.
    pub(super) fn try_change(
        &self,
        managed: &Managed,
        compiled: Option<Compiled>,
        change: impl FnOnce(&mut Record) -> Result<()>,
    ) -> Result<Record> {
        // Under the catalog's lock: changes of one pipeline come one after another.
        let mut catalog = self.catalog();
        if managed.is_deleted() {
            return Err(ApiError::unknown_pipeline(&managed.name()));
        }
        let old = managed.record();
        let mut record = old.clone();
        change(&mut record)?;
        if record.name != old.name && catalog.named(&record.name).is_some() {
            return Err(taken(&record.name));
        }
        if record != old {
            self.durably(|| catalog.put(&record))?;
            managed.replace(record.clone(), compiled);
        } else if let Some(compiled) = compiled {
            // The same text may compile now that did not for want of something.
            managed.compiled_to(&record.program_code, compiled);
        }
        Ok(record)
    }

    /// Changes what is wanted of a pipeline although that is not kept, until it can be.
    pub(super) fn change_unkept(&self, managed: &Managed, change: impl FnOnce(&mut Record)) {
        let _order = self.catalog();
        let mut record = managed.record();
        change(&mut record);
        managed.replace_unkept(record);
    }

    /// Keeps what could not be kept when it was changed.
    pub(super) fn keep(&self, managed: &Managed) -> Result<()> {
        let mut catalog = self.catalog();
        if managed.is_kept() || managed.is_deleted() {
            return Ok(());
        }
        let record = managed.record();
        self.durably(|| catalog.put(&record))?;
        managed.replace(record, None);
        Ok(())
    }

    /// Forgets a pipeline that has no process, unless `check` refuses: asked when nothing can change what is wanted of it.
    pub(super) fn forget(&self, managed: &Managed, check: impl FnOnce() -> Result<()>) -> Result<()> {
        let id = managed.record().id;
        let mut catalog = self.catalog();
        if managed.is_deleted() {
            return Err(ApiError::unknown_pipeline(&managed.name()));
        }
        check()?;
        self.durably(|| catalog.remove(id))?;
        lock(&self.pipelines).remove(&id);
        managed.delete();
        Ok(())
    }
}

fn taken(name: &str) -> ApiError {
    let message = format!("there is a pipeline \"{name}\" already");
    ApiError::new(StatusCode::CONFLICT, "DuplicateName", message)
}
