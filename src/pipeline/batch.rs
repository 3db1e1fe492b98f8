//! Cutting: from an input's chunks to the batch of one step, its descriptor and its hash.
//!
//! Invariants:
//! 1. A batch is ordered by (partition in the order first read, offset), so that neither the chunking nor the threads reach a delta (invariant 8).
//! 2. Rows of one record (they end at one offset) are never parted, so that a batch may be larger than was asked for by a record's rows.
//! 3. Descriptor, rows and hash belong together: reading the descriptor again and building a batch from the chunks gives the same
//!    rows and hash, however the source chunks them then.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use xxhash_rust::xxh3::Xxh3;

use super::hash::RowHasher;
use crate::circuit::{CircuitError, Delta};
use crate::connector::{Chunk, Descriptor, Range, RowError};

/// A chunk with a hash for each of its rows (weight included).
#[derive(Debug)]
pub struct HashedChunk {
    /// The chunk.
    pub chunk: Chunk,
    /// One hash a row.
    pub hashes: Vec<u64>,
    /// What rows and hashes take in memory.
    pub bytes: u64,
}

impl HashedChunk {
    /// What rows and a hash of each take in memory.
    pub fn size(rows: &RecordBatch) -> u64 {
        (rows.get_array_memory_size() + 16 * rows.num_rows()) as u64
    }

    /// A chunk with its hashes.
    pub fn new(chunk: Chunk, hashes: Vec<u64>) -> Self {
        let bytes = Self::size(&chunk.rows);
        Self { chunk, hashes, bytes }
    }
}

/// Chunks that were read and not yet cut.
#[derive(Debug, Default)]
pub struct Buffer {
    chunks: VecDeque<HashedChunk>,
    /// Rows of the first chunk that are cut already.
    taken: usize,
    /// Offset up to which the first chunk is cut; its `start` if none is.
    offset: u64,
    rows: u64,
    /// Of whole chunks.
    bytes: u64,
}

/// What one step takes from one input connector.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// How to read it again.
    pub descriptor: Descriptor,
    /// Its rows, in order; keyed tables' rows are still upserts and deletes.
    pub deltas: Vec<Delta>,
    /// Number of rows.
    pub rows: u64,
    /// Hash over the rows in order.
    pub hash: u64,
    /// The rows that did not parse, with their partitions.
    pub errors: Vec<(Arc<str>, RowError)>,
}

impl Batch {
    /// Whether nothing was read, not even a bad row.
    pub fn is_empty(&self) -> bool {
        self.descriptor.ranges.is_empty()
    }
}

/// A piece of one chunk that belongs to the batch.
struct Piece {
    partition: Arc<str>,
    start: u64,
    end: u64,
    identity: String,
    delta: Delta,
    hashes: Vec<u64>,
    errors: Vec<RowError>,
}

impl Buffer {
    /// Rows that can be cut.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What its chunks take in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is nothing to cut, not even a bad row.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds what was read next.
    pub fn push(&mut self, chunk: HashedChunk) {
        if self.chunks.is_empty() {
            self.offset = chunk.chunk.start;
        }
        self.rows += chunk.chunk.rows.num_rows() as u64;
        self.bytes += chunk.bytes;
        self.chunks.push_back(chunk);
    }

    /// Cuts off up to `max_rows` rows, and what its last record has more. `order` gives a partition's place among those read so far.
    pub fn cut(&mut self, max_rows: u64, order: &mut dyn FnMut(&str) -> usize) -> Batch {
        let mut left = max_rows;
        let mut pieces: Vec<(usize, Piece)> = Vec::new();
        while left > 0 {
            let Some(piece) = self.next_piece(left) else { break };
            left = left.saturating_sub(piece.delta.len() as u64);
            pieces.push((order(&piece.partition), piece));
        }
        // Stable: pieces of one partition stay in their order.
        pieces.sort_by_key(|(place, _)| *place);
        assemble(pieces.into_iter().map(|(_, piece)| piece))
    }

    /// Cuts off what ends at `end`, or before it.
    pub fn cut_to(&mut self, end: u64) -> Batch {
        let mut pieces = Vec::new();
        while self.offset < end {
            let Some(HashedChunk { chunk, .. }) = self.chunks.front() else { break };
            let rows = match chunk.end <= end {
                true => u64::MAX,
                false => (chunk.ends.partition_point(|&e| e <= end) - self.taken) as u64,
            };
            if rows == 0 {
                break;
            }
            pieces.extend(self.next_piece(rows));
        }
        assemble(pieces.into_iter())
    }

    fn next_piece(&mut self, max_rows: u64) -> Option<Piece> {
        let front = self.chunks.front_mut()?;
        let start = self.offset;
        let rows_left = front.chunk.rows.num_rows() - self.taken;
        let mut rows = usize::try_from(max_rows).unwrap_or(usize::MAX).min(rows_left);
        if rows < rows_left {
            let ends = front.chunk.ends.get(self.taken..)?;
            let last = ends.get(rows - 1)?;
            rows += ends.iter().skip(rows).take_while(|end| *end == last).count();
        }
        if rows == rows_left {
            let HashedChunk { mut chunk, mut hashes, bytes } = self.chunks.pop_front()?;
            self.bytes -= bytes;
            let (taken, end) = (self.taken, chunk.end);
            self.taken = 0;
            self.offset = self.chunks.front().map_or(end, |next| next.chunk.start);
            self.rows -= rows_left as u64;
            let weights = match chunk.weights.take() {
                Some(mut weights) => weights.split_off(taken),
                None => vec![1; rows_left],
            };
            return Some(Piece {
                partition: Arc::clone(&chunk.partition),
                start,
                end,
                identity: chunk.identity.at(end),
                delta: Delta { rows: chunk.rows.slice(taken, rows_left), weights },
                hashes: hashes.split_off(taken),
                errors: std::mem::take(&mut chunk.errors),
            });
        }
        let (from, to) = (self.taken, self.taken + rows);
        let chunk = &mut front.chunk;
        let end = *chunk.ends.get(to - 1)?;
        // Bad rows belong to the cut within whose bytes they stand.
        let later = chunk.errors.split_off(chunk.errors.partition_point(|e| e.offset < end));
        let errors = std::mem::replace(&mut chunk.errors, later);
        let piece = Piece {
            partition: Arc::clone(&chunk.partition),
            start,
            end,
            identity: chunk.identity.at(end),
            delta: Delta {
                rows: chunk.rows.slice(from, rows),
                weights: match &chunk.weights {
                    Some(weights) => weights.get(from..to)?.to_vec(),
                    None => vec![1; rows],
                },
            },
            hashes: front.hashes.get(from..to)?.to_vec(),
            errors,
        };
        self.taken = to;
        self.offset = end;
        self.rows -= rows as u64;
        Some(piece)
    }
}

/// The batch of chunks that were read again by a descriptor, in its order.
pub fn replayed(chunks: Vec<HashedChunk>) -> Batch {
    let mut buffer = Buffer::default();
    for chunk in chunks {
        buffer.push(chunk);
    }
    buffer.cut(u64::MAX, &mut |_| 0)
}

/// The batch of rows that the log had.
pub fn logged(deltas: Vec<Delta>, hasher: &RowHasher) -> Result<Batch, CircuitError> {
    let (mut all, mut rows) = (Xxh3::new(), 0);
    for delta in &deltas {
        rows += delta.len() as u64;
        for hash in hasher.hash(&delta.rows, Some(&delta.weights))? {
            all.update(&hash.to_le_bytes());
        }
    }
    Ok(Batch { deltas, rows, hash: all.digest(), ..Batch::default() })
}

fn assemble(pieces: impl Iterator<Item = Piece>) -> Batch {
    let mut batch = Batch::default();
    let mut hasher = Xxh3::new();
    for piece in pieces {
        for hash in &piece.hashes {
            hasher.update(&hash.to_le_bytes());
        }
        batch.rows += piece.delta.len() as u64;
        let partition = piece.partition;
        batch.errors.extend(piece.errors.into_iter().map(|e| (Arc::clone(&partition), e)));
        if !piece.delta.is_empty() {
            batch.deltas.push(piece.delta);
        }
        let ranges = &mut batch.descriptor.ranges;
        match ranges.last_mut() {
            // Neighbouring pieces are one range: the descriptor does not depend on the chunking.
            Some(last) if *last.partition == *partition && last.end == piece.start => {
                last.end = piece.end;
                last.identity = piece.identity;
            }
            _ => ranges.push(Range {
                partition: partition.to_string(),
                start: piece.start,
                end: piece.end,
                identity: piece.identity,
            }),
        }
    }
    batch.hash = hasher.digest();
    batch
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::connector::NoIdentity;

    /// Rows that end at these offsets.
    fn chunk(start: u64, ends: &[u64]) -> HashedChunk {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let values: Int64Array = (0..ends.len() as i64).map(Some).collect();
        let chunk = Chunk {
            partition: Arc::from("p"),
            start,
            end: ends.last().copied().unwrap_or(start),
            rows: RecordBatch::try_new(schema, vec![Arc::new(values)]).unwrap(),
            weights: None,
            ends: ends.to_vec(),
            errors: Vec::new(),
            identity: Arc::new(NoIdentity),
        };
        HashedChunk::new(chunk, (0..ends.len() as u64).map(|i| start * 100 + i).collect())
    }

    #[test]
    fn rows_of_one_record_are_not_parted() {
        let chunks = || [chunk(0, &[1, 3, 3, 3, 4]), chunk(4, &[9, 9])];
        for (most, expected) in
            [(1, vec![(1, 1), (3, 3), (1, 4), (2, 9)]), (2, vec![(4, 3), (3, 9)]), (3, vec![(4, 3), (3, 9)])]
        {
            let mut buffer = Buffer::default();
            chunks().into_iter().for_each(|c| buffer.push(c));
            let mut cuts = Vec::new();
            while !buffer.is_empty() {
                let batch = buffer.cut(most, &mut |_| 0);
                let [range] = batch.descriptor.ranges.as_slice() else { panic!("{:?}", batch.descriptor) };
                cuts.push((batch.rows, range.end));
            }
            assert_eq!(cuts, expected, "at most {most}");
            assert_eq!((buffer.rows(), buffer.bytes()), (0, 0));
        }
    }
}
