//! The circuit as data: what [`crate::sql`] compiles to and the runtime builds operators from.
//!
//! Invariants:
//! 1. Nodes stand in topological order: a node's inputs have smaller ids. `NodeId` is the index in `nodes`.
//! 2. Join keys, group keys and aggregate arguments are plain columns: expressions are computed by a [`NodeKind::Linear`] node
//!    below. Linear chains are fused into one node.
//! 3. A node's id and kind name its state, so the same program always gives the same plan (the compiler is deterministic).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion_common::ScalarValue;
use datafusion_physical_expr::PhysicalExpr;

use super::watermark::Lateness;

mod arrange;
mod as_of;
mod ordered;

pub use arrange::{Arrange, Arranged, JoinSide};
pub use as_of::{AsOf, TimeSide};
pub use ordered::{
    Distance, Frame, FrameBound, FrameUnits, Ranking, Session, TopK, Window, WindowFunction, WindowKind,
};

/// Index of a node in [`CircuitPlan::nodes`].
pub type NodeId = usize;

/// All relations of a program.
#[derive(Clone, Debug, Default)]
pub struct CircuitPlan {
    /// The operators, inputs before users.
    pub nodes: Vec<Node>,
    /// The tables, in the order of the program.
    pub tables: Vec<TableNode>,
    /// The views, in the order of the program.
    pub views: Vec<ViewNode>,
}

/// Where the rows of a relation are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The node whose spines `rows` have them, one a worker.
    pub node: NodeId,
    /// Whether a spine has the row as the value of its primary key. Otherwise it has it as the key, behind the vnode.
    pub by_key: bool,
}

impl CircuitPlan {
    /// Where the rows that `node` has put out are kept: by a table with a primary key itself, by a [`NodeKind::Materialize`] node behind it.
    pub fn kept(&self, node: NodeId) -> Option<Kept> {
        let is_keyed = |kind: &NodeKind| matches!(kind, NodeKind::Table { primary_key, .. } if !primary_key.is_empty());
        if self.nodes.get(node).is_some_and(|n| is_keyed(&n.kind)) {
            return Some(Kept { node, by_key: true });
        }
        let keeps = |n: &Node| matches!(n.kind, NodeKind::Materialize) && n.inputs == [node];
        self.nodes.iter().position(keeps).map(|node| Kept { node, by_key: false })
    }
}

/// A table's place in the circuit.
#[derive(Clone, Debug)]
pub struct TableNode {
    /// The table's name.
    pub name: String,
    /// Its [`NodeKind::Table`] node.
    pub node: NodeId,
    /// Columns with LATENESS.
    pub lateness: Vec<Lateness>,
    /// The table that its late rows go to, by its place in [`CircuitPlan::tables`]; otherwise they are left out.
    pub late: Option<usize>,
    /// Whether its rows are never taken back.
    pub append_only: bool,
}

impl TableNode {
    /// A table that keeps to nothing.
    pub fn new(name: &str, node: NodeId) -> Self {
        Self { name: name.to_owned(), node, lateness: Vec::new(), late: None, append_only: false }
    }
}

/// A view's place in the circuit.
#[derive(Clone, Debug)]
pub struct ViewNode {
    /// The view's name.
    pub name: String,
    /// The node whose output is the view's delta.
    pub node: NodeId,
}

/// One operator.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub kind: NodeKind,
    /// Where its rows come from.
    pub inputs: Vec<NodeId>,
    /// The rows that it puts out. Field names may repeat after a join.
    pub schema: SchemaRef,
    /// For people: the view it was made for and the SQL construct, e.g. `late_by_carrier: join`.
    pub label: String,
}

/// What an operator does.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// The rows of a table as connectors delivered them. With a primary key they are upserts and deletes by key, which
    /// this node resolves to a delta; without one they already are a delta.
    Table {
        /// Columns of the primary key; empty if there is none.
        primary_key: Vec<usize>,
    },
    /// A fused chain of filters and projections: no state, no exchange.
    Linear(Vec<Stage>),
    /// Inner equi-join; output columns are the left's followed by the right's.
    Join {
        /// Key columns of the left input.
        left_keys: Vec<usize>,
        /// Key columns of the right input, same number and types.
        right_keys: Vec<usize>,
        /// Whether NULL keys match each other (`IS NOT DISTINCT FROM`); with plain `=` they match nothing.
        null_equals_null: bool,
        /// A condition over the joined row.
        filter: Option<Arc<dyn PhysicalExpr>>,
    },
    /// The left rows by whether the right side has a row of their key; see [`SemiOutput`].
    Semi {
        /// Key columns of the left input.
        left_keys: Vec<usize>,
        /// Key columns of the right input, same number and types.
        right_keys: Vec<usize>,
        /// Whether NULL keys match each other; otherwise a left row with a NULL in its key has no match.
        null_equals_null: bool,
        /// Which rows are put out, with which columns.
        output: SemiOutput,
    },
    /// The one row of the input, or a row of NULLs if it has none: the value of a scalar sub-query. Several rows are an
    /// evaluation error.
    SingleRow,
    /// Grouping; output columns are the group columns followed by one for each aggregate. Without aggregates it is DISTINCT.
    /// Without group columns there is exactly one output row from step 1 on, also over no input.
    Aggregate {
        /// Columns of the group key.
        group: Vec<usize>,
        /// What is computed for each group.
        aggregates: Vec<Aggregate>,
    },
    /// Keeps the rows of which all bounds hold at the step's clock. They change without input, when time passes.
    Temporal {
        /// At least one.
        bounds: Vec<TimeBound>,
    },
    /// The step's clock: one row of one TIMESTAMP, from step 1 on. No inputs.
    Clock,
    /// Keeps the rows of its input, for ad-hoc queries. Nobody reads what it puts out.
    Materialize,
    /// Rows that are there once from step 1 on, whatever the tables hold. It has no inputs.
    Constant(RecordBatch),
    /// UNION ALL of any number of inputs with the same column types.
    Union,
    /// ORDER BY with LIMIT and OFFSET, and ranks with an upper bound.
    TopK(TopK),
    /// Functions with OVER.
    Window(Window),
    /// Start and end of the session that each row is in.
    Session(Session),
    /// Each left row with the nearest right row.
    AsOf(AsOf),
    /// Rows by a key, once for all joins that look them up by it.
    Arrange(Arrange),
}

/// A comparison of the clock with a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeBound {
    /// A column of type [`TimeBound::TYPE`].
    pub column: usize,
    /// What is added to it, in microseconds.
    pub offset_us: i64,
    /// Which side of it the clock must be on.
    pub edge: Edge,
    /// Whether the comparison also holds for equal times.
    pub is_inclusive: bool,
    /// What the clock is rounded down to before it is compared.
    pub grain: Grain,
}

/// Whether a row comes or goes at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The clock is after the column: the row comes.
    Enter,
    /// The clock is before the column: the row goes.
    Leave,
}

/// The steps that a clock goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// `NOW()`.
    Millisecond,
    /// `CURRENT_DATE`.
    Day,
}

impl TimeBound {
    /// The type of the columns that the clock is compared with.
    pub const TYPE: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    /// The columns of these bounds, each once.
    pub fn columns(bounds: &[Self]) -> Vec<usize> {
        let mut columns: Vec<usize> = bounds.iter().map(|b| b.column).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The first clock, in ms, at which a row with this time has come or gone.
    pub fn clock(&self, time_us: i64) -> i64 {
        let time = time_us.saturating_add(self.offset_us);
        let (grain_us, grain_ms) = match self.grain {
            Grain::Millisecond => (1_000, 1),
            Grain::Day => (86_400_000_000, 86_400_000),
        };
        let whole = time.div_euclid(grain_us);
        let is_on = time.rem_euclid(grain_us) == 0;
        let comes_after = (self.edge == Edge::Enter) != self.is_inclusive;
        (if is_on && !comes_after { whole } else { whole + 1 }) * grain_ms
    }
}

/// What a [`NodeKind::Semi`] puts out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SemiOutput {
    /// The left rows that have a match (a semi join).
    Matched,
    /// The left rows that have none (an anti join).
    Unmatched,
    /// All left rows, with a BOOLEAN column behind them that says whether they have a match (a mark join).
    Marked,
}

/// One stage of a linear chain.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Keeps the rows for which the expression is true (not false, not NULL).
    Filter(Arc<dyn PhysicalExpr>),
    /// Computes new columns.
    Project {
        /// One expression a column.
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        /// The rows after the projection.
        schema: SchemaRef,
    },
    /// Multiplies each row's weight by its last column, a BIGINT, and drops that column. Rows for which it is not positive are dropped.
    Repeat {
        /// The rows without the last column.
        schema: SchemaRef,
    },
    /// Gives a row for each place in the longest of its lists, with their elements in the place of the lists.
    Unnest {
        /// The columns that are lists.
        lists: Vec<usize>,
        /// Whether a row without any element stays once, with NULLs.
        keeps_empty: bool,
        /// The rows with elements in the place of lists.
        schema: SchemaRef,
    },
}

/// One aggregate of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// Which one.
    pub function: AggregateFunction,
    /// The arguments' columns; none for `count(*)`.
    pub arguments: Vec<usize>,
    /// Whether equal arguments count once (`DISTINCT`).
    pub distinct: bool,
    /// A boolean column: only rows in which it is true count (`FILTER`).
    pub filter: Option<usize>,
    /// In which order the rows are looked at, for functions to which it matters; ties are broken by the argument.
    pub order_by: Vec<SortColumn>,
    /// Whether rows do not count in which the argument is NULL, for functions that would count them.
    pub ignore_nulls: bool,
    /// The delimiter of `string_agg`, the number of `nth_value`, the share of `percentile_cont`.
    pub parameter: Option<ScalarValue>,
    /// The result's type (as DataFusion's planner says).
    pub result: DataType,
}

impl Aggregate {
    /// Every column of the input that is named.
    pub fn columns_mut(&mut self) -> impl Iterator<Item = &mut usize> {
        self.arguments.iter_mut().chain(&mut self.filter).chain(self.order_by.iter_mut().map(|sort| &mut sort.column))
    }
}

/// A column that rows are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortColumn {
    /// The column.
    pub column: usize,
    /// Its direction, and where NULLs go.
    pub options: SortOptions,
}

/// The aggregates that a circuit maintains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateFunction {
    /// Rows, or rows whose argument is not NULL.
    Count,
    /// Sum of the arguments that are not NULL; NULL if there are none.
    Sum,
    /// Sum divided by count.
    Avg,
    /// Smallest argument.
    Min,
    /// Largest argument.
    Max,
    /// Sample variance.
    VarSamp,
    /// Population variance.
    VarPop,
    /// Sample standard deviation.
    StddevSamp,
    /// Population standard deviation.
    StddevPop,
    /// Sample covariance.
    CovarSamp,
    /// Population covariance.
    CovarPop,
    /// Correlation coefficient.
    Corr,
    /// Slope of the regression line of (y, x).
    RegrSlope,
    /// Where the regression line meets the y axis.
    RegrIntercept,
    /// Pairs without NULL.
    RegrCount,
    /// Square of the correlation coefficient.
    RegrR2,
    /// Average of x.
    RegrAvgx,
    /// Average of y.
    RegrAvgy,
    /// Sum of squares of x's deviations.
    RegrSxx,
    /// Sum of squares of y's deviations.
    RegrSyy,
    /// Sum of products of both deviations.
    RegrSxy,
    /// Whether all are true.
    BoolAnd,
    /// Whether one is true.
    BoolOr,
    /// Bits that all have.
    BitAnd,
    /// Bits that one has.
    BitOr,
    /// Bits that an odd number has.
    BitXor,
    /// All arguments, NULLs too.
    ArrayAgg,
    /// All texts, with a delimiter between two of them.
    StringAgg,
    /// The first argument.
    FirstValue,
    /// The last argument.
    LastValue,
    /// The n-th argument.
    NthValue,
    /// The smallest argument that is not NULL.
    AnyValue,
    /// Halfway through the arguments.
    Median,
    /// A given share of the way through the arguments.
    PercentileCont,
}

impl AggregateFunction {
    /// Every function by DataFusion's name for it.
    pub const NAMES: [(&str, Self); 34] = [
        ("count", Self::Count),
        ("sum", Self::Sum),
        ("avg", Self::Avg),
        ("min", Self::Min),
        ("max", Self::Max),
        ("var", Self::VarSamp),
        ("var_pop", Self::VarPop),
        ("stddev", Self::StddevSamp),
        ("stddev_pop", Self::StddevPop),
        ("covar_samp", Self::CovarSamp),
        ("covar_pop", Self::CovarPop),
        ("corr", Self::Corr),
        ("regr_slope", Self::RegrSlope),
        ("regr_intercept", Self::RegrIntercept),
        ("regr_count", Self::RegrCount),
        ("regr_r2", Self::RegrR2),
        ("regr_avgx", Self::RegrAvgx),
        ("regr_avgy", Self::RegrAvgy),
        ("regr_sxx", Self::RegrSxx),
        ("regr_syy", Self::RegrSyy),
        ("regr_sxy", Self::RegrSxy),
        ("bool_and", Self::BoolAnd),
        ("bool_or", Self::BoolOr),
        ("bit_and", Self::BitAnd),
        ("bit_or", Self::BitOr),
        ("bit_xor", Self::BitXor),
        ("array_agg", Self::ArrayAgg),
        ("string_agg", Self::StringAgg),
        ("first_value", Self::FirstValue),
        ("last_value", Self::LastValue),
        ("nth_value", Self::NthValue),
        ("any_value", Self::AnyValue),
        ("median", Self::Median),
        ("percentile_cont", Self::PercentileCont),
    ];

    /// The function of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, function)| *function)
    }
}
