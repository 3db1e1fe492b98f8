use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int32Type;

use super::compile;
use crate::circuit::plan::{NodeKind, Stage};
use crate::sql::Program;

const TABLE: &str = "CREATE TABLE t (a INT, b VARCHAR, c DOUBLE, ts TIMESTAMP, d DATE, l ARRAY<INT>);\n";

/// One expression of each family and more, with a name for each column.
const EXPRESSIONS: &[&str] = &[
    "a + 1",
    "a / 2",
    "a % 3",
    "-a",
    "c * 2.5",
    "abs(a)",
    "round(c)",
    "round(c, 1)",
    "ceil(c)",
    "floor(c)",
    "sqrt(c)",
    "power(c, 2)",
    "ln(c)",
    "log(10, c)",
    "exp(c)",
    "signum(c)",
    "trunc(c)",
    "greatest(a, 3)",
    "least(a, 3)",
    "gcd(a, 4)",
    "nanvl(c, 0.0)",
    "upper(b)",
    "lower(b)",
    "length(b)",
    "substr(b, 2, 3)",
    "substring(b FROM 2 FOR 1)",
    "trim(b)",
    "btrim(b, 'x')",
    "replace(b, 'a', 'b')",
    "split_part(b, ',', 1)",
    "concat(b, '-', b)",
    "b || 'x'",
    "starts_with(b, 'a')",
    "strpos(b, 'a')",
    "position('a' IN b)",
    "left(b, 2)",
    "right(b, 2)",
    "lpad(b, 5, '*')",
    "repeat(b, 2)",
    "reverse(b)",
    "initcap(b)",
    "ascii(b)",
    "chr(65)",
    "translate(b, 'a', 'b')",
    "b LIKE 'a%'",
    "b ILIKE 'A%'",
    "regexp_like(b, '^a')",
    "regexp_replace(b, 'a+', 'x')",
    "regexp_count(b, 'a')",
    "overlay(b PLACING 'x' FROM 1 FOR 1)",
    "md5(b)",
    "sha256(b)",
    "encode(sha256(b), 'hex')",
    "to_hex(a)",
    "levenshtein(b, 'abc')",
    "date_trunc('hour', ts)",
    "date_part('year', ts)",
    "EXTRACT(month FROM d)",
    "date_bin(INTERVAL '15' MINUTE, ts)",
    "ts + INTERVAL '1' DAY",
    "CAST(ts AS DATE)",
    "to_char(d, '%Y-%m')",
    "to_timestamp('2020-01-01T00:00:00')",
    "make_date(2020, 1, a)",
    "d + 1",
    "to_unixtime(ts)",
    "CAST(b AS VARCHAR)",
    "coalesce(b, 'none')",
    "nullif(a, 1)",
    "nvl(b, 'x')",
    "CASE WHEN a > 1 THEN 'many' ELSE 'one' END",
    "a IS NULL",
    "a BETWEEN 1 AND 3",
    "a IN (1, 2, 3)",
    "a IS DISTINCT FROM 2",
    "TRY_CAST(b AS INT)",
    "CAST(a AS DECIMAL(10, 2)) * 1.5",
    "arrow_typeof(a)",
    "make_array(a, 2)",
    "array_length(l)",
    "l[1]",
    "array_to_string(l, ',')",
    "array_sort(l)",
    "cardinality(l)",
    "array_has(l, 1)",
    "named_struct('k', a)",
    "named_struct('k', a)['k']",
    "bit_length(b)",
    "octet_length(b)",
    "a & 1",
    "a << 2",
    "a = 1 OR c > 2",
];

/// Compiles a view with one column for each expression.
fn program() -> Program {
    let columns: Vec<String> = EXPRESSIONS.iter().enumerate().map(|(i, e)| format!("{e} AS c{i}")).collect();
    compile(&format!("{TABLE}CREATE VIEW v AS SELECT {} FROM t", columns.join(",\n")), "p.sql")
        .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_family_compiles_and_gives_the_type_that_the_plan_says() {
    let program = program();
    assert_eq!(program.views[0].schema.fields().len(), EXPRESSIONS.len());
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)]), None]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(1), None])),
        Arc::new(StringArray::from(vec![Some("abc"), None])),
        Arc::new(Float64Array::from(vec![Some(2.25), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_600_000_000_000_000), None])),
        Arc::new(Date32Array::from(vec![Some(18_000), None])),
        Arc::new(lists),
    ];
    let mut batch = RecordBatch::try_new(Arc::clone(&program.tables[0].schema), columns).unwrap();
    let node = &program.plan.nodes[program.plan.views[0].node];
    assert_eq!(node.inputs, [program.plan.tables[0].node], "one linear node:\n{}", program.plan);
    let NodeKind::Linear(stages) = &node.kind else { panic!("{}", program.plan) };
    for stage in stages {
        let Stage::Project { exprs, schema } = stage else { panic!("a filter in {}", program.plan) };
        let arrays: Vec<ArrayRef> = exprs
            .iter()
            .map(|e| e.evaluate(&batch).unwrap_or_else(|err| panic!("{e}: {err}")).into_array(2).unwrap())
            .collect();
        for ((array, field), expr) in arrays.iter().zip(schema.fields()).zip(exprs) {
            assert_eq!(array.data_type(), field.data_type(), "{expr}");
        }
        batch = RecordBatch::try_new(Arc::clone(schema), arrays).unwrap();
    }
    assert_eq!(batch.schema(), program.views[0].schema);
    assert_eq!(batch.num_rows(), 2);
}
