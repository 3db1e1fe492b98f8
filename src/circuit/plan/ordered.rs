//! Nodes that look at the rows of a partition in an order.
//!
//! Invariant: rows of equal order keys stand in the order of their other columns, so that nothing depends on how they came in.

use super::SortColumn;

/// The first rows of each partition, or those behind them. Output columns are the input's, with the rank behind them if it is
/// [`numbered`](Self::numbered).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopK {
    /// Columns of the partition key; without any, all rows are one partition.
    pub partition: Vec<usize>,
    /// The order, each column once.
    pub order: Vec<SortColumn>,
    /// How rows are counted.
    pub ranking: Ranking,
    /// Rows left out at the front; with [`Ranking::RowNumber`] that is not numbered only.
    pub skip: u64,
    /// Largest rank that is kept, counted behind `skip`; `None` for all.
    pub fetch: Option<u64>,
    /// Whether the rank (UInt64, from 1) is an output column.
    pub numbered: bool,
}

/// The rank of a row in its partition, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranking {
    /// Its number; of a row that stands there several times each copy has its own.
    RowNumber,
    /// One more than the rows of smaller order keys.
    Rank,
    /// One more than the smaller order keys.
    DenseRank,
}
