//! The keys that clients gave with their pushes, so that a request that is repeated is one push.
//!
//! Invariants:
//! 1. What a checkpoint keeps of the keys is as of its freeze, like all other state; later ones stand in the push records of the log.
//! 2. A table's keys are forgotten in the order in which they came: at the configured age, or when there are more than is configured.
//!    One that is too old is not known any more, though it takes its memory until the table's next key.
//!
//! A key is known by a 128-bit hash of table and text. In memory a key takes some 60 bytes.

use std::collections::{BTreeMap, VecDeque};

use backstay_storage::spine::{Discipline, RowBatch, Snapshot, Spine};
use backstay_storage::{Result as StorageResult, Store};
use xxhash_rust::xxh3::xxh3_128;

use super::super::config::HttpConfig;
use super::record::PushKey;

/// The spine's name in the store.
const SPINE: &str = "ingress.keys";
/// The format of its rows: key (16 bytes) → table (u32), hash of the request, number, time (8 bytes each), all big-endian.
const FORMAT: u32 = 1;

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
    config: HttpConfig,
}

/// The hash by which a key is known.
pub fn hash(table: &str, key: &str) -> u128 {
    xxh3_128(format!("{}:{table}{key}", table.len()).as_bytes())
}

impl Keys {
    /// The keys that the store's checkpoint has.
    /// Keys of pushes that `is_there` denies are left out: a savepoint's copy does not have what stood in the log only.
    pub(super) fn open(
        tables: usize,
        store: Option<&Store>,
        config: HttpConfig,
        is_there: &dyn Fn(&Known) -> bool,
    ) -> StorageResult<Self> {
        let is_kept = store.is_some();
        let mut this = Self { order: vec![VecDeque::new(); tables], is_kept, config, ..Self::default() };
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
        // The spine has those that are known already, and not yet that the others are not.
        this.changed.retain(|_, known| known.is_none());
        this.changed.extend(denied.into_iter().map(|key| (key, None)));
        this.spine = Some(spine);
        Ok(this)
    }

    /// What is known of a key, at the time when it was given.
    pub(super) fn get(&self, key: &PushKey) -> Option<Known> {
        self.known.get(&key.hash).copied().filter(|known| !self.is_old(known.at_ms, key.at_ms))
    }

    /// Whether what came at one time is forgotten at another.
    fn is_old(&self, at_ms: i64, now_ms: i64) -> bool {
        u128::try_from(now_ms.saturating_sub(at_ms)).is_ok_and(|age| age > self.config.idempotency_max_age.as_millis())
    }

    /// Adds a key of a push, and forgets what is too old by then.
    pub(super) fn add(&mut self, table: u32, number: u64, key: &PushKey) {
        self.remember(key.hash, Known { table, body: key.body, number, at_ms: key.at_ms });
    }

    fn remember(&mut self, key: u128, known: Known) {
        let Some(table) = usize::try_from(known.table).ok().filter(|t| *t < self.order.len()) else { return };
        // First: it may be one that was known so long ago that it is another one now.
        self.forget(table, known.at_ms);
        // An entry of another time is not this one's any more.
        if self.known.insert(key, known).is_none_or(|before| before.at_ms != known.at_ms)
            && let Some(order) = self.order.get_mut(table)
        {
            order.push_back((known.at_ms, key));
        }
        if self.is_kept {
            self.changed.insert(key, Some(known));
        }
        self.forget(table, known.at_ms);
    }

    /// Forgets a table's keys that are too old, or too many.
    fn forget(&mut self, table: usize, now_ms: i64) {
        while let Some((order, &(at_ms, old))) = self.order.get(table).and_then(|order| Some((order, order.front()?))) {
            if !self.is_old(at_ms, now_ms) && order.len() as u64 <= self.config.idempotency_max_keys {
                break;
            }
            self.order.get_mut(table).map(VecDeque::pop_front);
            if self.known.get(&old).is_some_and(|known| known.at_ms != at_ms) {
                // It was given again since.
                continue;
            }
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
    fn what_is_too_old_or_too_much_is_forgotten_of_its_table_only() {
        const LIFE_MS: i64 = 24 * 3_600_000;
        let config = HttpConfig { idempotency_max_keys: 3, ..HttpConfig::default() };
        let mut keys = Keys::open(2, None, config, &|_| true).unwrap();
        keys.is_kept = true;
        keys.add(0, 0, &key(1, 0));
        keys.add(1, 0, &key(2, 0));
        keys.add(0, 1, &key(3, LIFE_MS));
        assert!(keys.get(&key(1, 0)).is_some());
        keys.add(0, 2, &key(4, LIFE_MS + 1));
        assert_eq!(keys.get(&key(1, 0)), None);
        assert!(keys.get(&key(2, 0)).is_some() && keys.get(&key(3, 0)).is_some());
        assert_eq!(keys.changed.get(&1), Some(&None));
        keys.add(0, 3, &key(5, LIFE_MS + 1));
        assert!(keys.get(&key(3, 0)).is_some());
        keys.add(0, 4, &key(6, LIFE_MS + 1));
        assert_eq!(keys.get(&key(3, 0)), None, "a fourth key of the table");
        assert!(keys.get(&key(4, 0)).is_some() && keys.get(&key(2, 0)).is_some());
        // The same key after its time is another one, whose time begins anew.
        assert_eq!(keys.get(&key(2, LIFE_MS + 1)), None);
        keys.add(1, 7, &key(2, LIFE_MS + 1));
        assert_eq!(keys.get(&key(2, 2 * LIFE_MS)).map(|known| known.number), Some(7));
    }

    #[test]
    fn what_a_lower_bound_forgets_is_gone_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let disk = || backstay_storage::disk::system();
        let config = |idempotency_max_keys| HttpConfig { idempotency_max_keys, ..HttpConfig::default() };
        let open = |most| {
            let store = Store::open(disk(), dir.path(), backstay_storage::StoreOptions::default()).unwrap();
            let keys = Keys::open(1, Some(&store), config(most), &|_| true).unwrap();
            (store, keys)
        };
        let close = |store: Store, mut keys: Keys| {
            let frozen = keys.freeze(&store).unwrap().into_iter().collect();
            store.checkpoint(backstay_storage::Checkpoint { frozen, ..Default::default() }).unwrap();
        };
        let (store, mut keys) = open(100);
        (0..10).for_each(|n| keys.add(0, n as u64, &key(n, 0)));
        close(store, keys);
        let (store, keys) = open(2);
        assert_eq!((keys.known.len(), keys.changed.len()), (2, 8));
        close(store, keys);
        let (_, keys) = open(100);
        assert_eq!(keys.known.keys().copied().collect::<Vec<_>>(), [8, 9]);
    }
}
