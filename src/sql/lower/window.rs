//! Window functions: partition, order, arguments and defaults become columns, and are dropped behind the node.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{self, Case, Sort};
use datafusion_expr::{Expr, ExprSchemable, WindowFrame, WindowFrameBound, WindowFrameUnits, lit, logical_plan};
use datafusion_physical_expr::expressions::cast;

use super::limit::Sorted;
use super::project::push_project;
use super::{Computed, Lowering, Refusal, Result, Stream, column, project};
use crate::circuit::plan::{
    AggregateFunction, Frame, FrameBound, FrameUnits, NodeKind, Window, WindowFunction, WindowKind,
};
use crate::sql::types::is_summable;

/// The functions of one partition and order.
struct Group<'a> {
    partition: &'a [Expr],
    order: &'a [Sort],
    /// With their places in the plan's list.
    functions: Vec<(usize, &'a expr::WindowFunction)>,
}

impl Lowering<'_> {
    pub(super) fn window(&mut self, window: &logical_plan::Window) -> Result<Stream> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (i, e) in window.window_expr.iter().enumerate() {
            let function = call(e)?;
            let (partition, order) = (&function.params.partition_by[..], &function.params.order_by[..]);
            match groups.iter_mut().find(|g| g.partition == partition && g.order == order) {
                Some(group) => group.functions.push((i, function)),
                None => groups.push(Group { partition, order, functions: vec![(i, function)] }),
            }
        }
        let mut stream = self.plan(&window.input)?;
        let width = stream.schema.fields().len();
        let mut places = vec![0; window.window_expr.len()];
        let mut next = width;
        for group in groups {
            for (i, _) in &group.functions {
                places[*i] = next;
                next += 1;
            }
            stream = self.window_group(stream, &group, window)?;
        }
        // The plan's columns: a stream of none has one all the same.
        let kept = (0..window.input.schema().fields().len()).chain(places).map(|i| column(&stream.schema, i)).collect();
        project(stream, kept)
    }

    /// Adds a column for each function of a group.
    fn window_group(&mut self, stream: Stream, group: &Group<'_>, window: &logical_plan::Window) -> Result<Stream> {
        let input = window.input.schema();
        let width = stream.schema.fields().len();
        let Sorted { stream, partition, order } = self.sorted(stream, group.partition, group.order, input)?;
        let mut columns: Vec<Computed> = (0..stream.schema.fields().len()).map(|i| column(&stream.schema, i)).collect();
        let mut functions = Vec::with_capacity(group.functions.len());
        for (i, function) in &group.functions {
            let field = window.schema.field(input.fields().len() + i);
            let made = self.window_function(function, input, &mut columns, field.data_type());
            functions.push(made.map_err(|refusal| refusal.about([function.fun.name()]))?);
        }
        let stream =
            if columns.len() == stream.schema.fields().len() { stream } else { push_project(stream, columns)? };
        let keyed_width = stream.schema.fields().len();
        let names = group.functions.iter().map(|(i, _)| window.schema.field(input.fields().len() + i));
        let fields: Vec<Field> = (stream.schema.fields().iter().map(AsRef::as_ref))
            .chain(names.map(AsRef::as_ref))
            .map(|f| Field::new(f.name(), f.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let kept = (0..width).chain(keyed_width..schema.fields().len()).map(|i| column(&schema, i)).collect();
        let kind = NodeKind::Window(Window { partition, order, functions });
        let node = self.push(kind, vec![stream], schema, "window");
        project(node, kept)
    }

    fn window_function(
        &self,
        function: &expr::WindowFunction,
        input: &DFSchema,
        columns: &mut Vec<Computed>,
        result: &DataType,
    ) -> Result<WindowFunction> {
        let name = function.fun.name();
        let params = &function.params;
        let mut need = |e: &Expr, to: Option<&DataType>| -> Result<usize> {
            let mut expr = self.physical(e, input)?;
            if let Some(to) = to {
                expr = cast(expr, input.as_arrow(), to.clone())?;
            }
            Ok(columns.iter().position(|c| c.expr.eq(&expr)).unwrap_or_else(|| {
                columns.push(Computed { expr, name: e.schema_name().to_string() });
                columns.len() - 1
            }))
        };
        let args = &params.args;
        let whole = |i: usize, default: i64| args.get(i).map_or(Ok(default), |e| integer(name, e));
        let mut argument = None;
        let kind = match name {
            "row_number" => WindowKind::RowNumber,
            "rank" => WindowKind::Rank,
            "dense_rank" => WindowKind::DenseRank,
            "percent_rank" => WindowKind::PercentRank,
            "cume_dist" => WindowKind::CumeDist,
            "ntile" => match u64::try_from(whole(0, 0)?) {
                Ok(buckets) if buckets > 0 => WindowKind::Ntile(buckets),
                _ => return Err(Refusal::new("NTILE takes a number of buckets, at least 1")),
            },
            "lag" | "lead" => {
                let offset = whole(1, 1)?;
                let default = match args.get(2) {
                    None | Some(Expr::Literal(ScalarValue::Null, _)) => None,
                    Some(default) => Some(need(default, Some(result))?),
                };
                let offset = if name == "lag" { offset.checked_neg() } else { Some(offset) };
                WindowKind::Shift { offset: offset.unwrap_or(i64::MAX), default }
            }
            "first_value" => WindowKind::Nth(1),
            "last_value" => WindowKind::Nth(-1),
            "nth_value" => WindowKind::Nth(whole(1, 1)?),
            aggregate => match AggregateFunction::from_name(aggregate) {
                Some(function) if is_framed(function) => WindowKind::Aggregate(function),
                _ => {
                    let message = format!("the window function {} is not supported yet", aggregate.to_uppercase());
                    return Err(Refusal::new(message));
                }
            },
        };
        let is_aggregate = matches!(kind, WindowKind::Aggregate(_));
        let is_framed = is_aggregate || matches!(kind, WindowKind::Nth(_));
        let ignores = params.null_treatment == Some(expr::NullTreatment::IgnoreNulls);
        if ignores && is_aggregate {
            return Err(Refusal::new(format!(
                "IGNORE NULLS has no meaning for {}: it leaves NULLs out anyway",
                name.to_uppercase()
            )));
        }
        if params.filter.is_some() && !is_aggregate {
            return Err(Refusal::new(format!(
                "FILTER stands behind aggregates only, not behind {}",
                name.to_uppercase()
            )));
        }
        // Twice the same is no larger and no smaller.
        let distinct =
            params.distinct && !matches!(kind, WindowKind::Aggregate(AggregateFunction::Min | AggregateFunction::Max));
        if distinct && kind != WindowKind::Aggregate(AggregateFunction::Count) {
            return Err(Refusal::new(format!("{}(DISTINCT …) OVER is not supported yet", name.to_uppercase())));
        }
        let counts_rows = match (kind, args.first()) {
            (WindowKind::Aggregate(AggregateFunction::Count), Some(Expr::Literal(value, _))) => {
                !value.is_null() && !distinct
            }
            _ => false,
        };
        let takes_argument = matches!(kind, WindowKind::Shift { .. } | WindowKind::Nth(_) | WindowKind::Aggregate(_));
        // Aggregates leave NULLs out; so they do the rows for which a FILTER is not true.
        let filtered = |e: Expr| match &params.filter {
            None => e,
            Some(condition) => {
                Expr::Case(Case { expr: None, when_then_expr: vec![(condition.clone(), Box::new(e))], else_expr: None })
            }
        };
        if counts_rows && params.filter.is_some() {
            argument = Some(need(&filtered(lit(true)), None)?);
        }
        if let Some(e) = args.first().filter(|_| takes_argument && !counts_rows) {
            let e = &filtered(e.clone());
            let to = matches!(kind, WindowKind::Shift { .. } | WindowKind::Nth(_)).then_some(result);
            let place = need(e, to)?;
            let data_type = e.to_field(input)?.1.data_type().clone();
            if matches!(kind, WindowKind::Aggregate(AggregateFunction::Sum | AggregateFunction::Avg))
                && !is_summable(&data_type)
            {
                return Err(Refusal::new(format!("{name} over {data_type} is not supported yet")));
            }
            argument = Some(place);
        }
        let frame = if is_framed {
            self.frame(&params.window_frame, &params.order_by, input)?
        } else {
            Frame { units: FrameUnits::Rows, start: FrameBound::Unbounded, end: FrameBound::Unbounded }
        };
        let ignore_nulls = ignores && !is_aggregate;
        Ok(WindowFunction { kind, argument, ignore_nulls, distinct, frame, result: result.clone() })
    }

    fn frame(&self, frame: &WindowFrame, order: &[Sort], input: &DFSchema) -> Result<Frame> {
        let units = match frame.units {
            WindowFrameUnits::Rows => FrameUnits::Rows,
            WindowFrameUnits::Range | WindowFrameUnits::Groups => FrameUnits::Groups,
        };
        let bound = |bound: &WindowFrameBound, is_end: bool| {
            let (value, sign) = match bound {
                WindowFrameBound::CurrentRow => return Ok(FrameBound::Offset(0)),
                WindowFrameBound::Preceding(value) => (value, -1),
                WindowFrameBound::Following(value) => (value, 1),
            };
            if value.is_null() {
                return Ok(FrameBound::Unbounded);
            }
            if frame.units == WindowFrameUnits::Range {
                let [key] = order else {
                    return Err(Refusal::new("RANGE with a distance takes one ORDER BY expression"));
                };
                let data_type = key.expr.to_field(input)?.1.data_type().clone();
                let is_back = (sign < 0) == key.asc;
                // A frame that begins behind the row, or ends before it, may be beyond all rows.
                let away = is_end == (sign < 0);
                return self.distance(&data_type, value, is_back, away).map(FrameBound::Distance);
            }
            match value.cast_to(&DataType::Int64)? {
                ScalarValue::Int64(Some(places)) => Ok(FrameBound::Offset(places.saturating_mul(sign))),
                other => Err(Refusal::new(format!("the frame {frame} has an offset that is no number: {other}"))),
            }
        };
        Ok(Frame { units, start: bound(&frame.start_bound, false)?, end: bound(&frame.end_bound, true)? })
    }
}

/// The aggregates that are computed over frames.
fn is_framed(function: AggregateFunction) -> bool {
    use AggregateFunction as A;
    matches!(function, A::Count | A::Sum | A::Avg | A::Min | A::Max)
}

fn call(e: &Expr) -> Result<&expr::WindowFunction> {
    match e {
        Expr::Alias(alias) => call(&alias.expr),
        Expr::WindowFunction(function) => Ok(function),
        other => Err(Refusal::new(format!("`{other}` is not a window function"))),
    }
}

fn integer(function: &str, e: &Expr) -> Result<i64> {
    if let Expr::Literal(value, _) = e
        && value.data_type().is_integer()
        && let Ok(ScalarValue::Int64(Some(n))) = value.cast_to(&DataType::Int64)
    {
        return Ok(n);
    }
    Err(Refusal::new(format!("{} takes a whole number, not `{e}`", function.to_uppercase())))
}
