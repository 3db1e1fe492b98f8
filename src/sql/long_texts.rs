//! `repeat`, `lpad` and `rpad`, which make texts of any length of a number: bounded, since one call could take all memory, and texts of a batch
//! that have more than 2 GiB together end the process where they are put together.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::{cast, max};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

/// The functions, whose second argument is a length.
pub(super) const NAMES: [&str; 3] = ["repeat", "lpad", "rpad"];
/// The most characters, or repetitions, of one text.
const MOST: i64 = 1 << 20;

/// The function, but for lengths beyond the bound.
pub(super) fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Bounded { inner: function }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let Some(length) = args.args.get(1) {
            let lengths = match length {
                ColumnarValue::Scalar(value) => value.to_array()?,
                ColumnarValue::Array(array) => Arc::clone(array),
            };
            let most = max(cast(&lengths, &DataType::Int64)?.as_primitive::<Int64Type>());
            if let Some(most) = most.filter(|most| *most > MOST) {
                return exec_err!("{} of {most}: a text is made of at most {MOST}", self.name());
            }
        }
        self.inner.invoke_with_args(args)
    }
}
