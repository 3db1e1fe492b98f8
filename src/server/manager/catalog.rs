//! The manager's own state: records of pipelines in a `backstay-storage` store.
//!
//! Each change is a log entry, durable before it is answered; a checkpoint whose blob has all records lets the log be trimmed. A log
//! payload is one kind byte (`R`), one format byte, then JSON: `{"id": …, "record": …}`, `record` null for a pipeline that was
//! deleted. The blob is the format byte and a JSON list of records. Both are in `docs/format.md`.
//!
//! Invariant: what a client was told is durable. Opening gives the records as they were after the last change that was answered, or one
//! that was under way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_storage::disk::Disk;
use backstay_storage::{Checkpoint, Error, Result, Store, StoreOptions};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::Record;

const KIND: u8 = b'R';
const FORMAT: u8 = 1;
/// Changes after which the log is trimmed.
const CHECKPOINT_EVERY: u64 = 100;
/// Nothing but a small log and blobs: no spines, so no room for them.
const MEMORY_BYTES: u64 = 8 << 20;
const SEGMENT_BYTES: u64 = 1 << 20;

/// The records, kept durably.
#[derive(Debug)]
pub struct Catalog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    new_id: Uuid,
    /// None once it has failed: it is opened again for the next change.
    store: Option<Store>,
    records: BTreeMap<Uuid, Record>,
    changes: u64,
}

#[derive(Serialize, Deserialize)]
struct Change {
    id: Uuid,
    record: Option<Record>,
}

impl Catalog {
    /// Opens the catalog in `dir`, or begins one. Its lock keeps a second manager out.
    ///
    /// # Errors
    /// What the store says; a record that this version cannot read.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, new_id: Uuid) -> Result<Self> {
        let mut options =
            StoreOptions { new_id: new_id.as_u128(), memory_bytes: MEMORY_BYTES, ..StoreOptions::default() };
        options.log.segment_bytes = SEGMENT_BYTES;
        options.log.buffer_bytes = SEGMENT_BYTES as usize / 4;
        let store = Store::open(Arc::clone(&disk), dir, options)?;
        let (mut records, mut log_from) = (BTreeMap::new(), 1);
        if let Some(recovered) = store.recovered() {
            log_from = recovered.log_from;
            for record in decode_blob(&recovered.blob)? {
                records.insert(record.id, record);
            }
        }
        let mut changes = 0;
        for entry in store.log().scan(log_from)? {
            let entry = entry?;
            let Change { id, record } = decode_change(entry.seq, &entry.payload)?;
            match record {
                Some(record) => records.insert(id, record),
                None => records.remove(&id),
            };
            changes += 1;
        }
        Ok(Self { disk, dir: dir.to_owned(), new_id, store: Some(store), records, changes })
    }

    /// The store; opened again if it failed before, with the records as clients were told that they are.
    fn store(&mut self) -> Result<&Store> {
        if self.store.is_none() {
            let Self { store, records: durable, changes, .. } =
                Self::open(Arc::clone(&self.disk), &self.dir, self.new_id)?;
            let store = store.ok_or_else(|| Error::Invalid("the catalog has no store".into()))?;
            // The change that failed may have come to be durable.
            for id in durable.keys().chain(self.records.keys()) {
                if durable.get(id) != self.records.get(id) {
                    append(&store, &Change { id: *id, record: self.records.get(id).cloned() })?;
                }
            }
            (self.store, self.changes) = (Some(store), changes);
        }
        self.store.as_ref().ok_or_else(|| Error::Invalid("the catalog has no store".into()))
    }

    /// Opens the store again, if it failed before.
    ///
    /// # Errors
    /// It fails still.
    pub fn reopen(&mut self) -> Result<()> {
        self.store().map(drop)
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The record of this name.
    pub fn named(&self, name: &str) -> Option<&Record> {
        self.records.values().find(|r| r.name == name)
    }

    /// Keeps a record, new or changed. Durable on return.
    ///
    /// # Errors
    /// The store failed.
    pub fn put(&mut self, record: &Record) -> Result<()> {
        self.log(&Change { id: record.id, record: Some(record.clone()) })?;
        self.records.insert(record.id, record.clone());
        self.trim();
        Ok(())
    }

    /// Forgets a pipeline. Durable on return.
    ///
    /// # Errors
    /// The store failed.
    pub fn remove(&mut self, id: Uuid) -> Result<()> {
        self.log(&Change { id, record: None })?;
        self.records.remove(&id);
        self.trim();
        Ok(())
    }

    fn log(&mut self, change: &Change) -> Result<()> {
        let logged = self.store().and_then(|store| append(store, change));
        if logged.is_err() {
            self.store = None;
        }
        logged
    }

    /// Trims the log. That this failed is told by the next change: this one is durable.
    fn trim(&mut self) {
        self.changes += 1;
        if self.changes >= CHECKPOINT_EVERY && self.checkpoint().is_err() {
            self.store = None;
        }
    }

    fn checkpoint(&mut self) -> Result<()> {
        let mut blob = vec![FORMAT];
        let records: Vec<&Record> = self.records.values().collect();
        serde_json::to_writer(&mut blob, &records).map_err(|e| Error::Invalid(format!("the records: {e}")))?;
        let store = self.store()?;
        let log_from = store.log().next_seq();
        store.checkpoint(Checkpoint { blob: Bytes::from(blob), log_from, ..Checkpoint::default() })?;
        self.changes = 0;
        Ok(())
    }
}

fn append(store: &Store, change: &Change) -> Result<()> {
    let mut payload = vec![KIND, FORMAT];
    serde_json::to_writer(&mut payload, change).map_err(|e| Error::Invalid(format!("a record: {e}")))?;
    let seq = store.log().append(&payload)?;
    store.log().wait_durable(seq)
}

fn decode_blob(blob: &[u8]) -> Result<Vec<Record>> {
    match blob {
        [FORMAT, json @ ..] => serde_json::from_slice(json)
            .map_err(|e| Error::Invalid(format!("the manager's checkpoint is not of format {FORMAT}: {e}"))),
        [other, ..] => Err(Error::Invalid(format!(
            "the manager's checkpoint has format {other}, this version reads {FORMAT}; use the version that wrote it"
        ))),
        [] => Err(Error::Invalid("the manager's checkpoint is empty: this is not a manager's directory".into())),
    }
}

fn decode_change(seq: u64, payload: &[u8]) -> Result<Change> {
    match payload {
        [KIND, FORMAT, json @ ..] => serde_json::from_slice(json)
            .map_err(|e| Error::Invalid(format!("the manager's log record {seq} is not of format {FORMAT}: {e}"))),
        _ => Err(Error::Invalid(format!(
            "the manager's log record {seq} is of another kind or format than this version's; use the version that wrote it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use backstay_storage::disk::SimDisk;
    use backstay_storage::disk::sim::{CrashPlan, Fault};
    use serde_json::json;

    use super::super::record::{DeploymentError, Desired};
    use super::*;

    fn record(n: u128) -> Record {
        Record {
            id: Uuid::from_u128(n),
            name: format!("p{n}"),
            description: String::new(),
            tags: vec![],
            created_ms: 1,
            version: 1,
            program_version: 1,
            program_code: "CREATE TABLE t (a INT);".into(),
            compiled_ms: 2,
            program_config: serde_json::Map::new(),
            runtime_config: json!({"workers": 2}),
            desired: Desired::Running,
            desired_ms: 3,
            error: Some(DeploymentError { message: "m".into(), exit: "exit code 1".into() }),
        }
    }

    fn open(dir: &Path) -> Catalog {
        Catalog::open(backstay_storage::disk::system(), dir, Uuid::from_u128(7)).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let golden = r#"{"id":"00000000-0000-0000-0000-000000000001","record":{"id":"00000000-0000-0000-0000-000000000001","name":"p1","description":"","tags":[],"created_ms":1,"version":1,"program_version":1,"program_code":"CREATE TABLE t (a INT);","compiled_ms":2,"program_config":{},"runtime_config":{"workers":2},"desired":"Running","desired_ms":3,"error":{"message":"m","exit":"exit code 1"}}}"#;
        let change = Change { id: Uuid::from_u128(1), record: Some(record(1)) };
        assert_eq!(serde_json::to_string(&change).unwrap(), golden);
        let payload = [b"R\x01", golden.as_bytes()].concat();
        assert_eq!(decode_change(1, &payload).unwrap().record, change.record);
        assert!(decode_change(4, b"S\x01{}").err().unwrap().to_string().contains("log record 4"));
        assert!(decode_blob(b"\x02[]").unwrap_err().to_string().contains("format 2"));
        assert_eq!(decode_blob(b"\x01[]").unwrap(), vec![]);
    }

    /// Through the log alone, and through checkpoints.
    #[test]
    fn records_are_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = BTreeMap::new();
        for round in 0..3_u64 {
            let mut catalog = open(dir.path());
            assert_eq!(catalog.records().cloned().collect::<Vec<_>>(), expected.values().cloned().collect::<Vec<_>>());
            for n in 0..70 {
                let mut record = record(n % 9);
                record.version = round * 1000 + n as u64;
                catalog.put(&record).unwrap();
                expected.insert(record.id, record);
            }
            let gone = Uuid::from_u128(u128::from(round));
            catalog.remove(gone).unwrap();
            expected.remove(&gone);
        }
        assert_eq!(open(dir.path()).named("p8").unwrap().version, 2000 + 62);
    }

    fn shape(catalog: &Catalog) -> BTreeMap<Uuid, u64> {
        catalog.records().map(|r| (r.id, r.version)).collect()
    }

    /// Changes until the power goes: what was acknowledged, and what was under way.
    fn work(disk: &SimDisk) -> (BTreeMap<Uuid, u64>, BTreeMap<Uuid, u64>) {
        let mut known = BTreeMap::new();
        let open = Catalog::open(Arc::new(disk.clone()), Path::new("/catalog"), Uuid::from_u128(7));
        let Ok(mut catalog) = open else { return (known.clone(), known) };
        for n in 0..230 {
            let id = Uuid::from_u128(n % 7);
            let mut next = known.clone();
            let done = match n % 5 {
                4 => {
                    next.remove(&id);
                    catalog.remove(id)
                }
                _ => {
                    next.insert(id, n as u64);
                    catalog.put(&Record { version: n as u64, ..record(n % 7) })
                }
            };
            if done.is_err() {
                return (known, next);
            }
            known = next;
        }
        (known.clone(), known)
    }

    /// Each operation of the disk fails once: what was refused is not there, what comes after it is taken.
    #[test]
    fn a_change_that_failed_is_refused_and_the_next_one_taken() {
        let mut refused = 0;
        for op in 1.. {
            let disk = SimDisk::new(op);
            let open = || Catalog::open(Arc::new(disk.clone()), Path::new("/catalog"), Uuid::from_u128(7));
            let mut catalog = open().unwrap();
            disk.fail_at(disk.ops() + op, [Fault::NoSpace, Fault::ShortNoSpace, Fault::Io][op as usize % 3]);
            let last = disk.ops() + op;
            let mut known = BTreeMap::new();
            for n in 0..120 {
                let id = Uuid::from_u128(n % 7);
                match catalog.put(&Record { version: n as u64, ..record(n % 7) }) {
                    Ok(()) => drop(known.insert(id, n as u64)),
                    Err(_) => refused += 1,
                }
                assert_eq!(shape(&catalog), known, "op {op}");
            }
            let is_past = disk.ops() < last;
            // It may be the one that meets it.
            if catalog.put(&record(8)).is_err() {
                catalog.put(&record(8)).unwrap();
            }
            known.insert(Uuid::from_u128(8), 1);
            drop(catalog);
            assert_eq!(shape(&open().unwrap()), known, "op {op}");
            if is_past {
                break;
            }
        }
        assert!(refused > 100, "{refused}");
    }

    /// The power goes at every operation of the disk, over two checkpoints.
    #[test]
    fn what_was_acknowledged_survives_every_loss_of_power() {
        let mut crashes = 0;
        for op in 1.. {
            let disk = SimDisk::new(op);
            disk.crash_at(op);
            let (known, next) = work(&disk);
            if !disk.is_down() {
                break;
            }
            crashes += 1;
            for plan in [CrashPlan::KeepNone, CrashPlan::KeepAll, CrashPlan::Seeded(op)] {
                let disk = Arc::new(disk.power_cycle(plan));
                let catalog = Catalog::open(disk, Path::new("/catalog"), Uuid::from_u128(7)).unwrap();
                let found = shape(&catalog);
                assert!(
                    found == known || found == next,
                    "op {op}, {plan:?}: {found:?}, known {known:?}, next {next:?}"
                );
            }
        }
        assert!(crashes > 230, "only {crashes} operations");
    }
}
