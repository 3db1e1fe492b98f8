//! Nodes that look at the rows of a partition in an order.
//!
//! Invariant: rows of equal order keys stand in the order of their other columns, so that nothing depends on how they came in.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_physical_expr::PhysicalExpr;

use super::{AggregateFunction, SortColumn};

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

/// Window functions over one order. Output columns are the input's, with one for each function behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Columns of the partition key; without any, all rows are one partition.
    pub partition: Vec<usize>,
    /// The order, each column once. Without any, all rows of a partition are peers.
    pub order: Vec<SortColumn>,
    /// The functions.
    pub functions: Vec<WindowFunction>,
}

/// One window function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowFunction {
    /// Which one.
    pub kind: WindowKind,
    /// The argument's column.
    pub argument: Option<usize>,
    /// Whether [`WindowKind::Shift`] and [`WindowKind::Nth`] pass over rows whose argument is NULL.
    pub ignore_nulls: bool,
    /// Whether an aggregate counts equal arguments of a frame once.
    pub distinct: bool,
    /// The rows that [`WindowKind::Nth`] and [`WindowKind::Aggregate`] look at.
    pub frame: Frame,
    /// The result's type (as DataFusion's planner says).
    pub result: DataType,
}

/// What a window function computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// A row's number in its partition, from 1.
    RowNumber,
    /// One more than the rows of smaller order keys.
    Rank,
    /// One more than the smaller order keys.
    DenseRank,
    /// The rows of smaller order keys, by the number of other rows.
    PercentRank,
    /// The rows of order keys up to this row's, by the number of rows.
    CumeDist,
    /// The number of the row's bucket, of so many (at least 1) as equal as can be, the longer ones first.
    Ntile(u64),
    /// The argument of the row so many places on (LEAD) or, negative, back (LAG).
    Shift {
        /// Places.
        offset: i64,
        /// The column to take where there is no such row; NULL without one.
        default: Option<usize>,
    },
    /// The argument of the frame's row of this number from 1, or, negative, from the last row: FIRST_VALUE is 1, LAST_VALUE −1.
    Nth(i64),
    /// An aggregate of the frame.
    Aggregate(AggregateFunction),
}

/// The rows around a row that a function looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What offsets count.
    pub units: FrameUnits,
    /// The first row.
    pub start: FrameBound,
    /// The last row.
    pub end: FrameBound,
}

/// What a frame's offsets count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameUnits {
    /// Rows.
    Rows,
    /// Groups of peers; also RANGE, whose ends are peers' or [`FrameBound::Distance`].
    Groups,
}

/// An end of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameBound {
    /// The partition's end on that side.
    Unbounded,
    /// So many units on or, negative, back; 0 is CURRENT ROW.
    Offset(i64),
    /// As far as an order key; the window has one order column.
    Distance(Distance),
}

/// An end of a frame at a distance from a row's order key. Both expressions read column 0.
#[derive(Clone, Debug)]
pub struct Distance {
    /// The order key at the frame's end, from the row's. It grows with the row's, in the window's order.
    pub bound: Arc<dyn PhysicalExpr>,
    /// Whether that would be beyond all keys of the type, where the frame cannot begin, or end. [`Self::bound`] then is the last
    /// one on that side.
    pub beyond: Option<Arc<dyn PhysicalExpr>>,
    /// The inverse, if it is exact: the row's order key, from the one at the frame's end.
    pub inverse: Option<Arc<dyn PhysicalExpr>>,
}

impl PartialEq for Distance {
    fn eq(&self, other: &Self) -> bool {
        *self.bound == *other.bound
            && self.beyond.as_deref() == other.beyond.as_deref()
            && self.inverse.as_deref() == other.inverse.as_deref()
    }
}

impl Eq for Distance {}

impl WindowFunction {
    /// Whether a row's result depends on nothing but rows whose order keys are at known distances from its own, so that
    /// a changed row changes the results of such rows only.
    pub fn is_local(&self) -> bool {
        let is_near = |bound: &FrameBound| match bound {
            FrameBound::Unbounded => false,
            FrameBound::Offset(places) => *places == 0 && self.frame.units == FrameUnits::Groups,
            FrameBound::Distance(distance) => distance.inverse.is_some(),
        };
        matches!(self.kind, WindowKind::Nth(_) | WindowKind::Aggregate(_))
            && is_near(&self.frame.start)
            && is_near(&self.frame.end)
    }
}

/// Sessions: rows of a partition whose times follow each other within a gap. Output columns are the input's, with start and end of
/// the row's session behind them, both of type [`Session::TIME`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Columns of the partition key; without any, all rows are one partition.
    pub partition: Vec<usize>,
    /// The column of type [`Session::TIME`]. Rows in which it is NULL are left out.
    pub time: usize,
    /// How far two rows of a session are from each other at most, in microseconds; positive.
    pub gap_us: i64,
}

impl Session {
    /// The type of its times.
    pub const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
}
