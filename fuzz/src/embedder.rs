//! An embedder in small: each step is a log record that holds the step's rows, for a weighted and a latest spine. And the maps that say
//! what the spines must hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use backstay_storage::disk::Disk;
use backstay_storage::log::LogOptions;
use backstay_storage::spine::{Discipline, KeyBatch, RowBatch, Spine};
use backstay_storage::{Checkpoint, Result, Store, StoreOptions};

/// Where the store is.
pub const DIR: &str = "/store";

/// A row for one of the spines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub latest: bool,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub weight: i64,
}

/// What the spines hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub weighted: BTreeMap<(Vec<u8>, Vec<u8>), i64>,
    pub latest: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    /// What they hold after these steps.
    pub fn after(steps: &[Vec<Row>]) -> Self {
        let mut model = Self::default();
        for row in steps.iter().flatten() {
            model.apply(row);
        }
        model
    }

    fn apply(&mut self, row: &Row) {
        if !row.latest {
            let place = (row.key.clone(), row.value.clone());
            let sum = self.weighted.get(&place).copied().unwrap_or(0) + row.weight;
            match sum {
                0 => self.weighted.remove(&place),
                _ => self.weighted.insert(place, sum),
            };
        } else if row.weight > 0 {
            self.latest.insert(row.key.clone(), row.value.clone());
        } else {
            self.latest.remove(&row.key);
        }
    }
}

/// The log record of a step.
pub fn encode(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        out.push(u8::from(row.latest));
        out.extend((row.key.len() as u32).to_le_bytes());
        out.extend((row.value.len() as u32).to_le_bytes());
        out.extend(row.weight.to_le_bytes());
        out.extend(&row.key);
        out.extend(&row.value);
    }
    out
}

/// The rows of a record that [`encode`] made. Records that get here are what was written: anything else is a finding.
pub fn decode(mut record: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    while let Some((head, rest)) = record.split_first_chunk::<17>() {
        let key_len = u32::from_le_bytes(head[1..5].try_into().expect("4 bytes")) as usize;
        let value_len = u32::from_le_bytes(head[5..9].try_into().expect("4 bytes")) as usize;
        let weight = i64::from_le_bytes(head[9..17].try_into().expect("8 bytes"));
        let (key, rest) = rest.split_at(key_len);
        let (value, rest) = rest.split_at(value_len);
        rows.push(Row { latest: head[0] == 1, key: key.into(), value: value.into(), weight });
        record = rest;
    }
    assert!(record.is_empty(), "a record that was never written");
    rows
}

pub fn options() -> StoreOptions {
    let log = LogOptions {
        segment_bytes: 5 * 4096,
        compress_over: Some(1024),
        window: 8192,
        buffer_bytes: 1 << 16,
        spare_segments: 2,
    };
    StoreOptions { new_id: 7, log, memory_bytes: 2 << 20, ..StoreOptions::default() }
}

/// An open store with its spines.
#[derive(Debug)]
pub struct Embedder {
    weighted: Spine,
    latest: Spine,
    pub store: Store,
    /// The last step that the spines hold.
    pub step: u64,
}

impl Embedder {
    /// Opens the store. The spines are as the checkpoint has them.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self> {
        Self::open_in(disk, Path::new(DIR))
    }

    /// The same in another directory.
    pub fn open_in(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self> {
        let store = Store::open(disk, dir, options())?;
        let step = match store.recovered() {
            Some(recovered) => {
                u64::from_le_bytes(recovered.blob[..].try_into().expect("a blob that was never written"))
            }
            None => 0,
        };
        let weighted = store.spine("by weight", Discipline::Weighted, 1)?;
        let latest = store.spine("by key", Discipline::Latest, 1)?;
        Ok(Self { weighted, latest, store, step })
    }

    /// Replays the log after the checkpoint; gives the steps' rows.
    pub fn replay(&mut self) -> Result<Vec<Vec<Row>>> {
        let mut replayed = Vec::new();
        for record in self.store.log().scan(self.step + 1)? {
            let record = record?;
            assert_eq!(record.seq, self.step + 1, "records are not contiguous");
            let rows = decode(&record.payload);
            self.apply(&rows)?;
            replayed.push(rows);
        }
        assert_eq!(self.store.log().next_seq(), self.step + 1, "the scan ends before the log does");
        Ok(replayed)
    }

    /// Appends a step's record and puts its rows into the spines.
    pub fn run_step(&mut self, rows: &[Row]) -> Result<()> {
        let seq = self.store.log().append(&encode(rows))?;
        assert_eq!(seq, self.step + 1, "the log gave a step another number");
        self.apply(rows)
    }

    fn apply(&mut self, rows: &[Row]) -> Result<()> {
        let (mut weighted, mut latest) = (RowBatch::new(), RowBatch::new());
        for row in rows {
            let batch = if row.latest { &mut latest } else { &mut weighted };
            batch.push(&row.key, &row.value, row.weight);
        }
        self.weighted.insert_batch(&weighted)?;
        self.latest.insert_batch(&latest)?;
        self.step += 1;
        Ok(())
    }

    /// Takes a checkpoint; with an extra file if there are bytes for one. Gives its number.
    pub fn checkpoint(&mut self, extra: Option<&[u8]>) -> Result<u64> {
        let extras = extra.map(|bytes| self.store.write_extra("pending", bytes)).transpose()?.into_iter().collect();
        let frozen = vec![self.weighted.snapshot(), self.latest.snapshot()];
        let blob = self.step.to_le_bytes().to_vec().into();
        let log_from = self.step + 1;
        Ok(self.store.checkpoint(Checkpoint { frozen, blob, log_from, extras, ..Checkpoint::default() })?.number)
    }

    /// All that the spines hold.
    pub fn contents(&self) -> Result<Model> {
        let mut model = Model::default();
        let mut cursor = self.weighted.cursor()?;
        while cursor.valid() {
            let row = (cursor.key().to_vec(), cursor.value().to_vec());
            assert!(model.weighted.last_key_value().is_none_or(|(last, _)| *last < row), "a cursor goes back");
            model.weighted.insert(row, cursor.weight());
            cursor.next()?;
        }
        let mut cursor = self.latest.cursor()?;
        while cursor.valid() {
            assert!(model.latest.last_key_value().is_none_or(|(last, _)| **last < *cursor.key()), "a cursor goes back");
            model.latest.insert(cursor.key().to_vec(), cursor.value().to_vec());
            cursor.next()?;
        }
        Ok(model)
    }

    /// What seeks and probes of these keys find, compared with the model.
    pub fn look_up(&mut self, keys: &[Vec<u8>], model: &Model) -> Result<()> {
        let mut batch = KeyBatch::new();
        keys.iter().for_each(|key| batch.push(key));
        let (weighted, latest) = (self.weighted.probe(&batch)?, self.latest.probe(&batch)?);
        for (i, key) in keys.iter().enumerate() {
            let range = weighted.offsets[i] as usize..weighted.offsets[i + 1] as usize;
            let got: Vec<_> = range.map(|r| (weighted.rows.value(r).to_vec(), weighted.rows.weight(r))).collect();
            let rows = model.weighted.range((key.clone(), Vec::new())..).take_while(|((k, _), _)| k == key);
            let expected: Vec<_> = rows.map(|((_, value), weight)| (value.clone(), *weight)).collect();
            assert_eq!(got, expected, "weighted rows of {key:?}");
            let range = latest.offsets[i] as usize..latest.offsets[i + 1] as usize;
            let got: Vec<_> = range.map(|r| latest.rows.value(r).to_vec()).collect();
            let expected: Vec<_> = model.latest.get(key).cloned().into_iter().collect();
            assert_eq!(got, expected, "the latest value of {key:?}");
            let mut cursor = self.latest.cursor()?;
            cursor.seek(key)?;
            let got = cursor.valid().then(|| cursor.key().to_vec());
            assert_eq!(got.as_ref(), model.latest.range(key.clone()..).next().map(|(k, _)| k), "seek of {key:?}");
        }
        Ok(())
    }
}
