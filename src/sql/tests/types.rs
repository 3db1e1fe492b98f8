//! Columns' types, in each form that they may be written in.

use super::compile;

fn types(columns: &str) -> Vec<String> {
    let program = compile(&format!("CREATE TABLE t ({columns})"), "p.sql").unwrap();
    program.tables[0].schema.fields().iter().map(|f| f.data_type().to_string()).collect()
}

#[test]
fn nested_types() {
    let list = r#"List(Int32)"#;
    assert_eq!(types("a INT ARRAY, b ARRAY<INT>, c INT[], array INT ARRAY"), [list; 4]);
    let row = r#"Struct("x": Int32, "y": List(Utf8))"#;
    assert_eq!(
        types("a ROW(x INT, y VARCHAR ARRAY), b STRUCT<x INT, y VARCHAR[]>, row ROW(X INT, y ARRAY<TEXT>)"),
        [row; 3]
    );
    let map = types("m MAP<VARCHAR, MAP<INT, ARRAY<ROW(a DECIMAL(4, 2))>>>, n MAP(VARCHAR, INT)");
    assert!(map[0].starts_with("Map(") && map[0].contains(r#"List(Struct("a": Decimal128(4, 2)))"#), "{map:?}");
    assert_eq!(
        types("a INT ARRAY ARRAY NOT NULL, b DECIMAL(5, 1) ARRAY"),
        ["List(List(Int32))", "List(Decimal128(5, 1))"]
    );
}
