//! Inputs that make their rows: what [`nexmark`](super::nexmark) and [`datagen`](super::datagen) share.
//!
//! There is one partition, `"0"`; an offset is an event's ordinal. The identity names the generator's version, seed and options, so
//! that a replay with others is refused.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::super::{
    Chunk, ConnectorError, Descriptor, Identity, Input, InputReader, Level, Next, Position, Range, Result,
};

/// The name of a generator's only partition.
const PARTITION: &str = "0";
/// Rows in a chunk.
const ROWS: usize = 8192;

/// Makes rows from ordinals.
pub(crate) trait Generator: Debug + Send + Sync + 'static {
    /// `<relation>.<connector>`.
    fn connector(&self) -> &str;
    /// All that the rows depend on but the ordinal.
    fn identity(&self) -> &str;
    /// The ordinal after the last one; `None`: there is no last one.
    fn end(&self) -> Option<u64>;
    /// The ordinals in `from..to` that have rows here, the first ones, at most `most`; none only if there is none.
    fn select(&self, from: u64, to: u64, most: usize) -> Vec<u64>;
    /// The rows of ordinals that [`Generator::select`] gave: a function of each ordinal alone.
    fn rows(&self, ordinals: &[u64]) -> Result<RecordBatch>;
}

/// A configured generator.
#[derive(Debug)]
pub(crate) struct GeneratorInput<G>(Arc<G>);

impl<G: Generator> GeneratorInput<G> {
    pub(crate) fn new(generator: G) -> Self {
        Self(Arc::new(generator))
    }
}

/// The same for all ranges.
#[derive(Debug)]
struct OptionsIdentity(String);

impl Identity for OptionsIdentity {
    fn at(&self, _end: u64) -> String {
        self.0.clone()
    }
}

#[derive(Debug)]
struct Reader<G> {
    generator: Arc<G>,
    at: u64,
}

fn check(generator: &impl Generator, partition: &str, identity: &str) -> Result<()> {
    if partition == PARTITION && (identity.is_empty() || identity == generator.identity()) {
        return Ok(());
    }
    let message = format!(
        "rows were generated as \"{identity}\" (partition {partition}), and now would be as \"{}\"; set the old options again, or start anew with an empty \
         data directory",
        generator.identity()
    );
    Err(ConnectorError::new(generator.connector(), message))
}

fn chunk(generator: &impl Generator, start: u64, end: u64, ordinals: &[u64]) -> Result<Chunk> {
    Ok(Chunk {
        partition: Arc::from(PARTITION),
        start,
        end,
        rows: generator.rows(ordinals)?,
        weights: None,
        ends: ordinals.iter().map(|o| o + 1).collect(),
        errors: Vec::new(),
        identity: Arc::new(OptionsIdentity(generator.identity().to_owned())),
    })
}

impl<G: Generator> Input for GeneratorInput<G> {
    fn level(&self) -> Level {
        Level::ExactlyOnce
    }

    fn is_finite(&self) -> bool {
        self.0.end().is_some()
    }

    fn open(&self, position: &Position) -> Result<Box<dyn InputReader>> {
        let mut at = 0;
        for p in &position.partitions {
            check(&*self.0, &p.partition, &p.identity)?;
            at = p.offset;
        }
        Ok(Box::new(Reader { generator: Arc::clone(&self.0), at }))
    }

    fn replay(&self, descriptor: &Descriptor) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        for Range { partition, start, end, identity } in &descriptor.ranges {
            check(&*self.0, partition, identity)?;
            let mut at = *start;
            loop {
                let ordinals = self.0.select(at, *end, ROWS);
                let next = ordinals.last().map_or(*end, |o| o + 1);
                let is_last = next >= *end || self.0.select(next, *end, 1).is_empty();
                let next = if is_last { *end } else { next };
                chunks.push(chunk(&*self.0, at, next, &ordinals)?);
                at = next;
                if is_last {
                    break;
                }
            }
        }
        Ok(chunks)
    }
}

impl<G: Generator> InputReader for Reader<G> {
    fn next(&mut self) -> Result<Next> {
        let ordinals = self.generator.select(self.at, self.generator.end().unwrap_or(u64::MAX), ROWS);
        let Some(last) = ordinals.last() else { return Ok(Next::End) };
        let end = last + 1;
        let chunk = chunk(&*self.generator, self.at, end, &ordinals)?;
        self.at = end;
        Ok(Next::Chunk(chunk))
    }
}
