//! A [`CircuitPlan`] for people: one line a node, `id = kind(inputs) details → columns  -- label`.

use std::fmt;

use super::floors::Floors;
use super::plan::{
    Aggregate, AggregateFunction, Arrange, CircuitPlan, Edge, Frame, FrameBound, FrameUnits, Grain, Node, NodeKind,
    Ranking, SemiOutput, Session, SortColumn, Stage, TimeBound, TopK, Window, WindowFunction, WindowKind,
};

impl fmt::Display for CircuitPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in self.nodes.iter().enumerate() {
            writeln!(f, "{id} = {node}")?;
        }
        for table in &self.tables {
            write!(f, "table {} = {}", table.name, table.node)?;
            if let Some(late) = table.late.and_then(|i| self.tables.get(i)) {
                write!(f, ", late rows to {}", late.name)?;
            }
            writeln!(f, "{}", if table.append_only { ", append-only" } else { "" })?;
        }
        for view in &self.views {
            writeln!(f, "view {} = {}", view.name, view.node)?;
        }
        for table in &self.tables {
            let mut readers: Vec<String> = self.readers(table.node).iter().map(|(node, _)| node.to_string()).collect();
            readers.dedup();
            if !readers.is_empty() {
                writeln!(f, "the rows that table {} keeps are read by {}", table.name, readers.join(", "))?;
            }
        }
        let freed: Vec<String> = Floors::of(self).nodes().iter().map(ToString::to_string).collect();
        if !freed.is_empty() {
            writeln!(f, "behind watermarks the state is freed of {}", freed.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inputs: Vec<String> = self.inputs.iter().map(ToString::to_string).collect();
        write!(f, "{}({})", self.kind.name(), inputs.join(", "))?;
        match &self.kind {
            NodeKind::Table { primary_key } if primary_key.is_empty() => {}
            NodeKind::Table { primary_key } => write!(f, " key {primary_key:?}")?,
            NodeKind::Linear(stages) => {
                for stage in stages {
                    write!(f, " {stage}")?;
                }
            }
            NodeKind::Join { left_keys, right_keys, null_equals_null, filter } => {
                write!(f, " on {left_keys:?} = {right_keys:?}")?;
                if *null_equals_null {
                    f.write_str(" nulls equal")?;
                }
                if let Some(filter) = filter {
                    write!(f, " filter {filter}")?;
                }
            }
            NodeKind::Semi { left_keys, right_keys, null_equals_null, output: _ } => {
                write!(f, " on {left_keys:?} = {right_keys:?}")?;
                if *null_equals_null {
                    f.write_str(" nulls equal")?;
                }
            }
            NodeKind::Aggregate { group, aggregates } => {
                let aggregates: Vec<String> = aggregates.iter().map(ToString::to_string).collect();
                write!(f, " by {group:?} [{}]", aggregates.join(", "))?;
            }
            NodeKind::Temporal { bounds } => {
                for bound in bounds {
                    write!(f, " while {bound}")?;
                }
            }
            NodeKind::Constant(rows) => write!(f, " {} rows", rows.num_rows())?,
            NodeKind::Materialize | NodeKind::Union | NodeKind::Clock | NodeKind::SingleRow => {}
            NodeKind::TopK(top) => write!(f, " {top}")?,
            NodeKind::Window(window) => write!(f, " {window}")?,
            NodeKind::AsOf(plan) => {
                write!(f, " on {:?} = {:?}", plan.left_keys, plan.right_keys)?;
                write!(f, " match {} {} {}", plan.left_time, plan.comparison(), plan.right_time)?;
                if plan.keeps_unmatched {
                    f.write_str(" or nothing")?;
                }
            }
            NodeKind::Arrange(Arrange { keys, null_equals_null }) => {
                write!(f, " by {keys:?}{}", if *null_equals_null { " nulls too" } else { "" })?;
            }
            NodeKind::Session(Session { partition, time, gap_us }) => {
                write!(f, " by {partition:?} time {time} gap {gap_us} us")?;
            }
        }
        let columns: Vec<String> =
            self.schema.fields().iter().map(|c| format!("{} {}", c.name(), c.data_type())).collect();
        write!(f, " -> ({})  -- {}", columns.join(", "), self.label)
    }
}

impl fmt::Display for TimeBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match (self.edge, self.is_inclusive) {
            (Edge::Enter, true) => "<=",
            (Edge::Enter, false) => "<",
            (Edge::Leave, true) => ">=",
            (Edge::Leave, false) => ">",
        };
        let clock = match self.grain {
            Grain::Millisecond => "now",
            Grain::Day => "today",
        };
        match self.offset_us {
            0 => write!(f, "{} {sign} {clock}", self.column),
            offset => write!(f, "{} {offset:+} us {sign} {clock}", self.column),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(expr) => write!(f, "filter {expr}"),
            Self::Repeat { .. } => f.write_str("repeat"),
            Self::Unnest { lists, keeps_empty, .. } => {
                write!(f, "unnest {lists:?}{}", if *keeps_empty { " or nothing" } else { "" })
            }
            Self::Project { exprs, .. } => {
                let exprs: Vec<String> = exprs.iter().map(ToString::to_string).collect();
                write!(f, "project [{}]", exprs.join(", "))
            }
        }
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments: Vec<String> = self.arguments.iter().map(ToString::to_string).collect();
        let distinct = if self.distinct { "distinct " } else { "" };
        match arguments.is_empty() {
            true => write!(f, "{}(*", self.function)?,
            false => write!(f, "{}({distinct}{}", self.function, arguments.join(", "))?,
        }
        if let Some(parameter) = &self.parameter {
            write!(f, ", {parameter:?}")?;
        }
        for (i, sort) in self.order_by.iter().enumerate() {
            write!(f, "{}{sort}", if i == 0 { " order by " } else { ", " })?;
        }
        if self.ignore_nulls {
            f.write_str(" ignore nulls")?;
        }
        f.write_str(")")?;
        match self.filter {
            Some(column) => write!(f, " filter {column}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for AggregateFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, function)| function == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

impl fmt::Display for TopK {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {:?} order {}", self.partition, keys(&self.order))?;
        if self.skip > 0 {
            write!(f, " skip {}", self.skip)?;
        }
        if let Some(fetch) = self.fetch {
            write!(f, " {} <= {fetch}", self.ranking)?;
        }
        f.write_str(if self.numbered { " numbered" } else { "" })
    }
}

fn keys(order: &[SortColumn]) -> String {
    let keys: Vec<String> = order.iter().map(ToString::to_string).collect();
    format!("[{}]", keys.join(", "))
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let functions: Vec<String> = self.functions.iter().map(ToString::to_string).collect();
        write!(f, "by {:?} order {} [{}]", self.partition, keys(&self.order), functions.join(", "))
    }
}

impl fmt::Display for WindowFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.kind)?;
        if let Some(column) = self.argument {
            write!(f, "{}{column}", if self.distinct { "distinct " } else { "" })?;
        }
        f.write_str(if self.ignore_nulls { " ignore nulls)" } else { ")" })?;
        match self.kind {
            WindowKind::Nth(_) | WindowKind::Aggregate(_) => write!(f, " {}", self.frame),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RowNumber => f.write_str("row_number"),
            Self::Rank => f.write_str("rank"),
            Self::DenseRank => f.write_str("dense_rank"),
            Self::PercentRank => f.write_str("percent_rank"),
            Self::CumeDist => f.write_str("cume_dist"),
            Self::Ntile(buckets) => write!(f, "ntile {buckets} "),
            Self::Shift { offset, default: None } => write!(f, "shift {offset:+} "),
            Self::Shift { offset, default: Some(column) } => write!(f, "shift {offset:+} or {column} "),
            Self::Nth(n) => write!(f, "nth {n} "),
            Self::Aggregate(function) => write!(f, "{function}"),
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |bound: &FrameBound| match bound {
            FrameBound::Unbounded => String::new(),
            FrameBound::Offset(offset) => offset.to_string(),
            FrameBound::Distance(distance) => format!("({})", distance.bound),
        };
        let units = match self.units {
            FrameUnits::Rows => "rows",
            FrameUnits::Groups => "groups",
        };
        write!(f, "{units} {}..={}", bound(&self.start), bound(&self.end))
    }
}

impl fmt::Display for SortColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.options.descending { " desc" } else { "" };
        let nulls = if self.options.nulls_first { " nulls first" } else { "" };
        write!(f, "{}{direction}{nulls}", self.column)
    }
}

impl fmt::Display for Ranking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RowNumber => "row_number",
            Self::Rank => "rank",
            Self::DenseRank => "dense_rank",
        })
    }
}

impl NodeKind {
    /// The operator's name, e.g. `join`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Table { .. } => "table",
            Self::Linear(_) => "linear",
            Self::Join { .. } => "join",
            Self::Semi { output: SemiOutput::Matched, .. } => "semi",
            Self::Semi { output: SemiOutput::Unmatched, .. } => "anti",
            Self::Semi { output: SemiOutput::Marked, .. } => "mark",
            Self::SingleRow => "single row",
            Self::Constant(_) => "constant",
            Self::Aggregate { .. } => "aggregate",
            Self::Temporal { .. } => "temporal",
            Self::Clock => "clock",
            Self::Materialize => "materialize",
            Self::Union => "union",
            Self::TopK(_) => "top",
            Self::Window(_) => "window",
            Self::Session(_) => "session",
            Self::AsOf(_) => "asof",
            Self::Arrange(_) => "arrange",
        }
    }
}
