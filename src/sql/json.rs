//! JSON as text: the operators `->` and `->>`, and functions with PostgreSQL's names and meaning.
//!
//! A document is scanned, not built: what is looked for is a span of its text, with every digit and space as it stood. Text that is no
//! JSON is an evaluation error, as PostgreSQL has it; NULL gives NULL. Where an object has a key twice, the last one counts.
//!
//! Known limits: each call scans the whole document, so a chain of `->` scans what is left each time; no paths (`#>`), no
//! changes to documents. `json_array_elements` and `json_object_keys` give lists: put them into `UNNEST`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion_common::{DFSchema, Result, exec_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::connector::{Document, Element, JsonKind as Kind};

/// The functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Function {
    /// `->`: an element as JSON.
    Get,
    /// `->>`: an element as text.
    GetText,
    ExtractPath,
    ExtractPathText,
    TypeOf,
    ArrayLength,
    ArrayElements,
    ArrayElementsText,
    ObjectKeys,
    IsValid,
    Parse,
}

impl Function {
    const ALL: [Self; 11] = [
        Self::Get,
        Self::GetText,
        Self::ExtractPath,
        Self::ExtractPathText,
        Self::TypeOf,
        Self::ArrayLength,
        Self::ArrayElements,
        Self::ArrayElementsText,
        Self::ObjectKeys,
        Self::IsValid,
        Self::Parse,
    ];

    /// Its name, and others.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Get => &["json_get"],
            Self::GetText => &["json_get_text", "json_as_text"],
            Self::ExtractPath => &["json_extract_path", "jsonb_extract_path"],
            Self::ExtractPathText => &["json_extract_path_text", "jsonb_extract_path_text"],
            Self::TypeOf => &["json_typeof", "jsonb_typeof"],
            Self::ArrayLength => &["json_array_length", "jsonb_array_length"],
            Self::ArrayElements => &["json_array_elements", "jsonb_array_elements"],
            Self::ArrayElementsText => &["json_array_elements_text", "jsonb_array_elements_text"],
            Self::ObjectKeys => &["json_object_keys", "jsonb_object_keys"],
            Self::IsValid => &["json_valid"],
            Self::Parse => &["parse_json"],
        }
    }

    fn result(self) -> DataType {
        match self {
            Self::ArrayLength => DataType::Int64,
            Self::IsValid => DataType::Boolean,
            Self::ArrayElements | Self::ArrayElementsText | Self::ObjectKeys => {
                DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
            }
            _ => DataType::Utf8,
        }
    }

    fn signature(self) -> Signature {
        let text = || TypeSignature::Exact(vec![DataType::Utf8]);
        let of = match self {
            Self::Get | Self::GetText => TypeSignature::OneOf(vec![
                TypeSignature::Exact(vec![DataType::Utf8, DataType::Utf8]),
                TypeSignature::Exact(vec![DataType::Utf8, DataType::Int64]),
            ]),
            Self::ExtractPath | Self::ExtractPathText => TypeSignature::Variadic(vec![DataType::Utf8]),
            _ => text(),
        };
        Signature::new(of, Volatility::Immutable)
    }
}

/// A function as the planner has it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    function: Function,
    aliases: Vec<String>,
    signature: Signature,
}

/// All of them.
pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    Function::ALL.into_iter().map(udf)
}

fn udf(function: Function) -> ScalarUDF {
    let aliases = function.names().iter().skip(1).map(ToString::to_string).collect();
    ScalarUDF::from(JsonFunction { function, aliases, signature: function.signature() })
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.function.names().first().copied().unwrap_or_default()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.function.result())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let all_scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let columns =
            args.args.iter().map(|a| a.to_array(if all_scalar { 1 } else { rows })).collect::<Result<Vec<_>>>()?;
        let Some((documents, steps)) = columns.split_first() else { return exec_err!("{} of nothing", self.name()) };
        let column = evaluate(self.function, documents, steps)?;
        if all_scalar {
            return Ok(ColumnarValue::Scalar(datafusion_common::ScalarValue::try_from_array(&column, 0)?));
        }
        Ok(ColumnarValue::Array(column))
    }
}

/// The document of a row.
fn parse(text: &str) -> Result<Document<'_>> {
    Document::parse(text).or_else(|e| not_json(text, &e))
}

fn whole(text: &str) -> Result<Element<'_>> {
    Element::whole(text).or_else(|e| not_json(text, &e))
}

fn not_json<T>(text: &str, error: &dyn std::error::Error) -> Result<T> {
    let excerpt: String = text.chars().take(60).collect();
    exec_err!("\"{excerpt}\" is not JSON: {error}")
}

fn evaluate(function: Function, documents: &ArrayRef, steps: &[ArrayRef]) -> Result<ArrayRef> {
    let documents = documents.as_string::<i32>();
    Ok(match function {
        Function::IsValid => {
            let valid = documents.iter().map(|text| text.map(|text| Document::parse(text).is_ok()));
            Arc::new(valid.collect::<BooleanArray>())
        }
        Function::ArrayLength => {
            let length = |text: &str| match parse(text)? {
                Document::List(elements) => Ok(elements.len() as i64),
                _ => exec_err!("the length of JSON that is no list"),
            };
            let lengths = documents.iter().map(|text| text.map(length).transpose());
            Arc::new(lengths.collect::<Result<Int64Array>>()?)
        }
        Function::ArrayElements | Function::ArrayElementsText | Function::ObjectKeys => {
            let mut builder = ListBuilder::new(StringBuilder::new());
            for text in documents {
                let Some(text) = text else {
                    builder.append_null();
                    continue;
                };
                match (function, parse(text)?) {
                    (Function::ObjectKeys, Document::Object(entries)) => {
                        entries.iter().for_each(|(key, _)| builder.values().append_value(key));
                    }
                    (Function::ArrayElements, Document::List(elements)) => {
                        elements.iter().for_each(|e| builder.values().append_value(e.raw));
                    }
                    (Function::ArrayElementsText, Document::List(elements)) => {
                        elements.into_iter().for_each(|e| builder.values().append_option(e.text()));
                    }
                    (Function::ObjectKeys, _) => return exec_err!("the keys of JSON that is no object"),
                    _ => return exec_err!("the elements of JSON that is no list"),
                }
                builder.append(true);
            }
            Arc::new(builder.finish())
        }
        Function::TypeOf => strings(documents.len(), |row| match text_at(documents, row) {
            Some(text) => Ok(Some(name(&parse(text)?).into())),
            None => Ok(None),
        })?,
        Function::Parse => strings(documents.len(), |row| match text_at(documents, row) {
            Some(text) => parse(text).map(|_| Some(text.trim().into())),
            None => Ok(None),
        })?,
        Function::Get | Function::GetText | Function::ExtractPath | Function::ExtractPathText => {
            let as_text = matches!(function, Function::GetText | Function::ExtractPathText);
            let numbers = steps.first().and_then(|steps| steps.as_primitive_opt::<Int64Type>());
            let is_path = matches!(function, Function::ExtractPath | Function::ExtractPathText);
            strings(documents.len(), |row| {
                let Some(text) = text_at(documents, row) else { return Ok(None) };
                let mut element = whole(text)?;
                for step in steps {
                    let document = parse(element.raw)?;
                    let next = match numbers {
                        Some(numbers) if numbers.is_valid(row) => document.at(numbers.value(row)),
                        Some(_) => None,
                        None => text_at(step.as_string::<i32>(), row).and_then(|key| match key.parse::<i64>() {
                            // A list's place is said as text in a path.
                            Ok(place) if is_path && matches!(document, Document::List(_)) => document.at(place),
                            _ => document.get(key),
                        }),
                    };
                    let Some(next) = next else { return Ok(None) };
                    element = next;
                }
                Ok(if as_text { element.text() } else { Some(element.raw.to_owned()) })
            })?
        }
    })
}

fn text_at(column: &arrow::array::StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

fn strings(rows: usize, mut at: impl FnMut(usize) -> Result<Option<String>>) -> Result<ArrayRef> {
    let mut builder = StringBuilder::with_capacity(rows, rows * 8);
    for row in 0..rows {
        builder.append_option(at(row)?);
    }
    Ok(Arc::new(builder.finish()))
}

fn name(document: &Document<'_>) -> &'static str {
    match document {
        Document::List(_) => "array",
        Document::Object(_) => "object",
        Document::Scalar(Kind::Quoted) => "string",
        Document::Scalar(Kind::Number) => "number",
        Document::Scalar(Kind::Bool) => "boolean",
        Document::Scalar(_) => "null",
    }
}

/// Plans `->` and `->>`.
#[derive(Debug)]
pub(super) struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        use datafusion_sql::sqlparser::ast::BinaryOperator;
        let function = match expr.op {
            BinaryOperator::Arrow => Function::Get,
            BinaryOperator::LongArrow => Function::GetText,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let call = ScalarFunction::new_udf(Arc::new(udf(function)), vec![expr.left, expr.right]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}
