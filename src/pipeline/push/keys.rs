//! The keys that clients gave with their pushes, so that a request that is repeated is one push.
//!
//! Invariants:
//! 1. What a checkpoint keeps of the keys is as of its freeze, like all other state; later ones stand in the push records of the log.
//! 2. A table's keys are forgotten in the order in which they came: after [`LIFE_MS`], or when there are more than [`MOST`].
//!
//! A key is known by a 128-bit hash of table and text. In memory a key takes some 60 bytes.

use std::collections::{BTreeMap, VecDeque};

use backstay_storage::spine::{Discipline, RowBatch, Snapshot, Spine};
use backstay_storage::{Result as StorageResult, Store};
use xxhash_rust::xxh3::xxh3_128;

use super::record::PushKey;

/// The spine's name in the store.
const SPINE: &str = "ingress.keys";
/// The format of its rows: key (16 bytes) → table (u32), hash of the request, number, time (8 bytes each), all big-endian.
const FORMAT: u32 = 1;
/// How long a key is known, in ms.
pub const LIFE_MS: i64 = 24 * 3_600_000;
/// The most keys that are known of a table.
pub const MOST: usize = 1_000_000;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) table: u32,
    pub(super) body: u64,
    pub(super) number: u64,
    at_ms: i64,
}

/// All tables' keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    known: BTreeMap<u128, Known>,
    /// By table, oldest first.
    order: Vec<VecDeque<(i64, u128)>>,
    /// Since the last freeze: known, or forgotten.
    changed: BTreeMap<u128, Option<Known>>,
    spine: Option<Spine>,
    /// Whether there are checkpoints.
    is_kept: bool,
}

/// The hash by which a key is known.
pub fn hash(table: &str, key: &str) -> u128 {
    xxh3_128(format!("{}:{table}{key}", table.len()).as_bytes())
}

impl Keys {
    /// The keys that the store's checkpoint has.
    /// Keys of pushes that `is_there` denies are left out: a savepoint's copy does not have what stood in the log only.
    pub(super) fn open(tables: usize, store: Option<&Store>, is_there: &dyn Fn(&Known) -> bool) -> StorageResult<Self> {
        let is_kept = store.is_some();
        let mut this = Self { order: vec![VecDeque::new(); tables], is_kept, ..Self::default() };
        let Some(store) = store.filter(|s| s.spine_names().iter().any(|name| name == SPINE)) else { return Ok(this) };
        let spine = store.spine(SPINE, Discipline::Latest, FORMAT)?;
        let mut cursor = spine.cursor()?;
        let (mut found, mut denied) = (Vec::new(), Vec::new());
        while cursor.valid() {
            if let (Ok(key), Some(known)) = (cursor.key().try_into(), Known::decode(cursor.value())) {
                let key = u128::from_be_bytes(key);
                if is_there(&known) { found.push((key, known)) } else { denied.push(key) }
            }
            cursor.next()?;
        }
        found.sort_unstable_by_key(|(_, known)| (known.at_ms, known.number));
        for (key, known) in found {
            this.remember(key, known);
        }
        this.changed = denied.into_iter().map(|key| (key, None)).collect();
        this.spine = Some(spine);
        Ok(this)
    }

    pub(super) fn get(&self, key: &PushKey) -> Option<Known> {
        self.known.get(&key.hash).copied()
    }

    /// Adds a key of a push, and forgets what is too old by then.
    pub(super) fn add(&mut self, table: u32, number: u64, key: &PushKey) {
        self.remember(key.hash, Known { table, body: key.body, number, at_ms: key.at_ms });
    }

    fn remember(&mut self, key: u128, known: Known) {
        let Some(order) = usize::try_from(known.table).ok().and_then(|t| self.order.get_mut(t)) else { return };
        if self.known.insert(key, known).is_none() {
            order.push_back((known.at_ms, key));
        }
        if self.is_kept {
            self.changed.insert(key, Some(known));
        }
        while let Some(&(at_ms, old)) = order.front() {
            if order.len() <= MOST && known.at_ms.saturating_sub(at_ms) <= LIFE_MS {
                break;
            }
            order.pop_front();
            self.known.remove(&old);
            if self.is_kept {
                self.changed.insert(old, None);
            }
        }
    }

    /// The keys of now, for a checkpoint; nothing if there never was one.
    pub(super) fn freeze(&mut self, store: &Store) -> StorageResult<Option<Snapshot>> {
        if self.spine.is_none() && self.changed.is_empty() {
            return Ok(None);
        }
        let spine = match &mut self.spine {
            Some(spine) => spine,
            none => none.insert(store.spine(SPINE, Discipline::Latest, FORMAT)?),
        };
        let mut rows = RowBatch::new();
        for (key, known) in std::mem::take(&mut self.changed) {
            match known {
                Some(known) => rows.push(&key.to_be_bytes(), &known.encode(), 1),
                None => rows.push(&key.to_be_bytes(), &[], -1),
            }
        }
        spine.insert_batch(&rows)?;
        Ok(Some(spine.snapshot()))
    }
}

impl Known {
    fn encode(&self) -> [u8; 28] {
        let mut out = [0; 28];
        let (table, rest) = out.split_at_mut(4);
        table.copy_from_slice(&self.table.to_be_bytes());
        for (place, n) in rest.chunks_exact_mut(8).zip([self.body, self.number, self.at_ms.cast_unsigned()]) {
            place.copy_from_slice(&n.to_be_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (table, rest) = bytes.split_first_chunk::<4>()?;
        let mut numbers = rest.chunks_exact(8).filter_map(|n| n.try_into().ok()).map(u64::from_be_bytes);
        let (body, number, at) = (numbers.next()?, numbers.next()?, numbers.next()?);
        Some(Self { table: u32::from_be_bytes(*table), body, number, at_ms: at.cast_signed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u128, at_ms: i64) -> PushKey {
        PushKey { hash: n, body: 5, at_ms }
    }

    #[test]
    fn golden_bytes() {
        let known = Known { table: 1, body: 2, number: 3, at_ms: -4 };
        let bytes = known.encode();
        assert_eq!(bytes[..12], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(Known::decode(&bytes), Some(known));
        assert_eq!(Known::decode(&bytes[..20]), None);
        assert_eq!(hash("t", "a"), hash("t", "a"));
        assert_ne!(hash("t", "1a"), hash("t1", "a"));
    }

    #[test]
    fn a_day_later_a_key_is_forgotten_of_its_table_only() {
        let mut keys = Keys::open(2, None, &|_| true).unwrap();
        keys.is_kept = true;
        keys.add(0, 0, &key(1, 0));
        keys.add(1, 0, &key(2, 0));
        keys.add(0, 1, &key(3, LIFE_MS));
        assert!(keys.get(&key(1, 0)).is_some());
        keys.add(0, 2, &key(4, LIFE_MS + 1));
        assert_eq!(keys.get(&key(1, 0)), None);
        assert!(keys.get(&key(2, 0)).is_some() && keys.get(&key(3, 0)).is_some());
        assert_eq!(keys.changed.get(&1), Some(&None));
    }
}
