//! The rows of a block.
//!
//! ```text
//! entry   = shared · rest · value length (varints) · weight (zigzag varint) · rest bytes of key · value
//! block   = entry · entry · … · restart offsets (u32 each) · number of restarts (u32)
//! ```
//! `shared` is how many leading bytes the key has in common with the one before. It is 0 in each 16th
//! entry (a restart), whose offset stands in the trailer, so that a reader may search without decoding all.
//!
//! A block of a weighted run is strictly ascending by (key, value) and has no weight 0. One of a latest
//! run is strictly ascending by key; weight 1 puts the value, weight −1 (a tombstone, its value empty) deletes.

use super::Malformed;
use super::scan::{Scan, put_varint, unzigzag, zigzag};
use crate::spine::{Discipline, RowBatch};

/// Every how many entries the key stands whole.
pub const RESTART_EVERY: usize = 16;
/// A block is closed once it has this many raw bytes.
pub const TARGET: usize = 32 << 10;

/// Encodes the rows of one block.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    payload: Vec<u8>,
    restarts: Vec<u32>,
    rows: usize,
    last_key: Vec<u8>,
}

impl BlockBuilder {
    /// Appends a row, which must be greater than the last one.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8], weight: i64) {
        let shared = if self.rows.is_multiple_of(RESTART_EVERY) {
            // A block grows past TARGET by one row only, and rows are bounded (MAX_ROW_BYTES).
            self.restarts.push(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
            0
        } else {
            self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count()
        };
        let rest = key.get(shared..).unwrap_or(&[]);
        put_varint(&mut self.payload, shared as u64);
        put_varint(&mut self.payload, rest.len() as u64);
        put_varint(&mut self.payload, value.len() as u64);
        put_varint(&mut self.payload, zigzag(weight));
        self.payload.extend_from_slice(rest);
        self.payload.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(rest);
        self.rows += 1;
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn is_full(&self) -> bool {
        self.payload.len() >= TARGET
    }

    /// The key pushed last.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Adds the trailer and returns the payload.
    pub(crate) fn finish(&mut self) -> &[u8] {
        for restart in &self.restarts {
            self.payload.extend_from_slice(&restart.to_le_bytes());
        }
        let count = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        self.payload.extend_from_slice(&count.to_le_bytes());
        &self.payload
    }

    /// Empties it for the next block.
    pub(crate) fn clear(&mut self) {
        self.payload.clear();
        self.restarts.clear();
        self.rows = 0;
        self.last_key.clear();
    }
}

/// Decodes the raw bytes of a block of `rows` rows.
///
/// ```
/// use backstay_storage::spine::{Discipline, format::block::decode_block};
/// let mut bytes = vec![0, 1, 1, 2, b'k', b'v']; // shared 0, rest 1, value 1, weight +1
/// bytes.extend([0, 0, 0, 0, 1, 0, 0, 0]); // one restart, at 0
/// let rows = decode_block(&bytes, 1, Discipline::Weighted).unwrap();
/// assert_eq!(rows.iter().next(), Some((&b"k"[..], &b"v"[..], 1)));
/// assert!(decode_block(&bytes[1..], 1, Discipline::Weighted).is_err());
/// ```
pub fn decode_block(payload: &[u8], rows: u32, discipline: Discipline) -> Result<RowBatch, Malformed> {
    let rows = rows as usize;
    let (entries, restarts) = split(payload, rows)?;
    // An entry takes at least 4 bytes: a lying count allocates nothing out of proportion.
    let mut batch = RowBatch::with_capacity(rows.min(entries.len() / 4), entries.len() * 2);
    let mut scan = Scan(entries);
    let mut key = Vec::new();
    let mut restarts = restarts.iter();
    for row in 0..rows {
        let at = entries.len() - scan.0.len();
        let (shared, rest, value, weight) = entry(&mut scan).ok_or_else(|| Malformed::cut("an entry"))?;
        if row.is_multiple_of(RESTART_EVERY) {
            let named = restarts.next().map(|r| u32::from_le_bytes(*r) as usize);
            if shared != 0 || named != Some(at) {
                return Err(Malformed::new(format!("a restart at {at}"), format!("{named:?}, {shared} shared bytes")));
            }
        }
        if shared > key.len() {
            return Err(Malformed::new(format!("at most {} shared key bytes", key.len()), shared.to_string()));
        }
        key.truncate(shared);
        key.extend_from_slice(rest);
        let sound = match discipline {
            Discipline::Weighted => weight != 0,
            Discipline::Latest => weight == 1 || (weight == -1 && value.is_empty()),
        };
        if !sound {
            return Err(Malformed::new(format!("a weight of a {discipline} run"), weight.to_string()));
        }
        batch.push(&key, value, weight);
        if row > 0 && !batch.compare(row - 1, &batch, row, discipline).is_lt() {
            return Err(Malformed::new("rows in ascending order", format!("row {row} is not above the one before")));
        }
    }
    if !scan.0.is_empty() {
        return Err(Malformed::new(format!("{rows} rows"), format!("{} bytes more", scan.0.len())));
    }
    Ok(batch)
}

/// Splits a payload into its entries and its restart offsets.
fn split(payload: &[u8], rows: usize) -> Result<(&[u8], &[[u8; 4]]), Malformed> {
    let trailer = || Malformed::cut("a block trailer");
    let (body, count) = payload.split_last_chunk::<4>().ok_or_else(trailer)?;
    let count = u32::from_le_bytes(*count) as usize;
    let expected = rows.div_ceil(RESTART_EVERY);
    if rows == 0 || count != expected {
        return Err(Malformed::new(format!("{expected} restarts for {rows} rows"), count.to_string()));
    }
    let entries = body.len().checked_sub(count.saturating_mul(4)).ok_or_else(trailer)?;
    let (entries, restarts) = body.split_at_checked(entries).ok_or_else(trailer)?;
    Ok((entries, restarts.as_chunks().0))
}

fn entry<'a>(scan: &mut Scan<'a>) -> Option<(usize, &'a [u8], &'a [u8], i64)> {
    let shared = scan.length()?;
    let rest = scan.length()?;
    let value = scan.length()?;
    let weight = unzigzag(scan.varint()?);
    Some((shared, scan.bytes(rest)?, scan.bytes(value)?, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RowBatch {
        let mut rows = RowBatch::new();
        for i in 0..40u32 {
            rows.push(format!("key {:03}", i / 2).as_bytes(), &i.to_be_bytes(), i64::from(i) - 100);
        }
        rows
    }

    #[test]
    fn rows_come_back() {
        let rows = sample();
        let mut builder = BlockBuilder::default();
        for _ in 0..2 {
            rows.iter().for_each(|(k, v, w)| builder.push(k, v, w));
            assert_eq!(decode_block(builder.finish(), 40, Discipline::Weighted).unwrap(), rows);
            builder.clear();
        }
    }

    #[test]
    fn rows_out_of_order_are_refused() {
        let orders: [[(&[u8], &[u8]); 2]; 4] = [
            [(b"a", b"1"), (b"b", b"1")],
            [(b"b", b"1"), (b"a", b"1")],
            [(b"a", b"2"), (b"a", b"1")],
            [(b"a", b"1"); 2],
        ];
        for (i, rows) in orders.into_iter().enumerate() {
            let mut builder = BlockBuilder::default();
            rows.into_iter().for_each(|(key, value)| builder.push(key, value, 1));
            for discipline in [Discipline::Weighted, Discipline::Latest] {
                let decoded = decode_block(builder.finish(), 2, discipline);
                assert_eq!(decoded.is_ok(), i == 0, "{rows:?}, {discipline}: {decoded:?}");
                builder.clear();
                rows.into_iter().for_each(|(key, value)| builder.push(key, value, 1));
            }
        }
        // Ascending by value is enough for weights to add, and not for a last value.
        let mut builder = BlockBuilder::default();
        [b"1", b"2"].into_iter().for_each(|value| builder.push(b"a", value, 1));
        let payload = builder.finish();
        assert!(decode_block(payload, 2, Discipline::Weighted).is_ok());
        assert!(decode_block(payload, 2, Discipline::Latest).is_err());
    }

    #[test]
    fn any_changed_byte_is_decoded_or_refused() {
        let mut builder = BlockBuilder::default();
        sample().iter().for_each(|(k, v, w)| builder.push(k, v, w));
        let sound = builder.finish().to_vec();
        for at in 0..sound.len() {
            for bit in 0..8 {
                let mut bytes = sound.clone();
                bytes[at] ^= 1 << bit;
                for discipline in [Discipline::Weighted, Discipline::Latest] {
                    for rows in [0, 1, 39, 40, 41, u32::MAX] {
                        let _no_panic = decode_block(&bytes, rows, discipline);
                    }
                }
            }
            assert!(decode_block(&sound[..at], 40, Discipline::Weighted).is_err());
        }
        assert!(decode_block(&sound, 40, Discipline::Latest).is_err());
    }
}
