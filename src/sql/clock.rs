//! The functions of the clock: `NOW()`, `CURRENT_TIMESTAMP`, `LOCALTIMESTAMP`, `CURRENT_DATE`.
//!
//! Invariants:
//! 1. The planner never evaluates them: it has no clock. `lower` turns them into temporal filters, or into a column of the
//!    clock's relation.
//! 2. All of them are `now()` when the plan is optimized: TIMESTAMP without a time zone, UTC by convention as any other.

use std::any::Any;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{Result, internal_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};

use crate::circuit::plan::TimeBound;

/// `now()`, or what stands for it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ClockFunction {
    is_date: bool,
    aliases: Vec<String>,
    signature: Signature,
}

impl ClockFunction {
    fn function(is_date: bool, aliases: &[&str]) -> ScalarUDF {
        ScalarUDF::from(Self {
            is_date,
            aliases: aliases.iter().map(ToString::to_string).collect(),
            signature: Signature::nullary(Volatility::Stable),
        })
    }
}

/// The functions, in the place of DataFusion's.
pub(super) fn functions() -> [ScalarUDF; 2] {
    [
        ClockFunction::function(false, &["current_timestamp", "localtimestamp"]),
        ClockFunction::function(true, &["today"]),
    ]
}

/// All names of theirs.
pub(super) fn names() -> Vec<String> {
    let names = |f: &ScalarUDF| std::iter::once(f.name().to_owned()).chain(f.aliases().to_vec()).collect::<Vec<_>>();
    functions().iter().flat_map(names).collect()
}

/// Whether a function is one of the clock's that a view may call.
pub(super) fn is_clock(function: &ScalarUDF) -> bool {
    let inner: &dyn Any = function.inner().as_ref();
    inner.is::<ClockFunction>()
}

/// Whether this is a call of `now()`.
pub(super) fn is_now(e: &Expr) -> bool {
    matches!(e, Expr::ScalarFunction(ScalarFunction { func, .. }) if is_clock(func))
}

/// Whether an expression depends on the clock.
pub(super) fn uses_now(e: &Expr) -> bool {
    e.exists(|e| Ok(is_now(e))).unwrap_or(false)
}

/// Whether any expression of a plan depends on the clock.
pub(super) fn plan_uses_now(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(node.expressions().iter().any(uses_now))).unwrap_or(false)
}

/// The expression with `column` in the place of `now()`.
pub(super) fn replace_now(e: Expr, column: &Expr) -> Result<Expr> {
    e.transform(|e| Ok(if is_now(&e) { Transformed::yes(column.clone()) } else { Transformed::no(e) })).data()
}

impl ScalarUDFImpl for ClockFunction {
    fn name(&self) -> &str {
        if self.is_date { "current_date" } else { "now" }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.is_date { DataType::Date32 } else { TimeBound::TYPE })
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if !self.is_date {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let [now, _] = functions();
        Ok(ExprSimplifyResult::Simplified(cast(now.call(Vec::new()), DataType::Date32)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{} was evaluated without a step's clock", self.name())
    }
}
