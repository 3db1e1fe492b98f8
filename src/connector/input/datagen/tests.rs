use backstay_storage::disk::SimDisk;

use super::super::super::testing::*;
use super::super::super::{Input, Position, registry};
use super::*;
use crate::sql::Declared;

fn of(config: &str) -> String {
    format!(r#"{{"transport": {{"name": "datagen", "config": {config}}}}}"#)
}

fn make(text: &str) -> Box<dyn Input> {
    registry::input(&config(&of(text)), context(Arc::new(SimDisk::new(1)), schema())).unwrap()
}

const PLAN: &str = r#"{"seed": 5, "plan": [
    {"limit": 3, "fields": {"ID": {"range": [10, 12]}, "name": {"values": ["a", "b", null]}, "at": {"scale": 1000}}},
    {"limit": 20000, "fields": {"id": {"strategy": "uniform", "range": [-5, 5]},
        "name": {"strategy": "uniform", "null_percentage": 25},
        "price": {"strategy": "uniform", "range": [0.5, 1.5]}, "at": {"values": ["2020-01-01 00:00:00"]}}}]}"#;

#[test]
fn golden_and_replay() {
    let input = make(PLAN);
    let chunks = drain(&mut *input.open(&Position::default()).unwrap());
    let all = all_rows(&chunks);
    assert_eq!(all.num_rows(), 20_003);
    let counted = "10;11;10,a;b;NULL,1970-01-01T00:00:00;1970-01-01T00:00:01;1970-01-01T00:00:02,0.0;1.0;2.0";
    assert_eq!(text(&all.slice(0, 3)), counted);
    assert_eq!(text(&all.slice(3, 2)), GOLDEN);
    let nulls = all.column(1).null_count();
    assert!((4700..5300).contains(&nulls), "{nulls}");
    let steps = cut(&chunks, &mut Rng(2));
    let again: Vec<_> = steps.iter().flat_map(|s| input.replay(s).unwrap()).collect();
    assert_eq!(text(&all_rows(&again)), text(&all));
    let other = make(&PLAN.replace("-5, 5", "-5, 6"));
    assert!(other.replay(&steps[0]).unwrap_err().message.contains("set the old options again"));
    // A higher limit changes nothing of what was made.
    assert_eq!(text(&make(&PLAN.replace("20000", "30000")).replay(&steps[0]).unwrap()[0].rows), text(&again[0].rows));
}

/// What is skipped changes no other column's values.
#[test]
fn skipped_columns_change_no_others() {
    let one = |plan: &str, ctx| {
        let input = registry::input(&config(&of(plan)), ctx).unwrap();
        all_rows(&drain(&mut *input.open(&Position::default()).unwrap()))
    };
    let whole = context(Arc::new(SimDisk::new(1)), schema());
    let mut narrow = whole.clone();
    narrow.declared =
        schema().fields().iter().map(|f| Declared { field: Arc::clone(f), is_skipped: f.name() == "id" }).collect();
    let left = narrow.declared.iter().filter(|column| !column.is_skipped).map(|column| Arc::clone(&column.field));
    narrow.schema = Arc::new(Schema::new(left.collect::<Vec<_>>()));
    let (whole, plan) = (one(PLAN, whole), PLAN.replace("\"ID\": {\"range\": [10, 12]}, ", ""));
    let plan = plan.replace("\"id\": {\"strategy\": \"uniform\", \"range\": [-5, 5]},", "");
    assert_eq!(text(&one(&plan, narrow)), text(&whole.project(&[1, 2, 3]).unwrap()));
}

const GOLDEN: &str = "-3;1,4247051304100204648;7929026574804909359,2020-01-01T00:00:00;2020-01-01T00:00:00,0.7522564711267863;0.8991016816777752";

#[test]
fn without_end() {
    let input = make("{}");
    assert!(!input.is_finite());
    let mut reader = input.open(&Position::default()).unwrap();
    for _ in 0..3 {
        assert!(matches!(reader.next().unwrap(), super::super::super::Next::Chunk(c) if c.rows.num_rows() > 0));
    }
}

#[test]
fn settings_are_checked() {
    let fail = |c: &str| {
        registry::input(&config(&of(c)), context(Arc::new(SimDisk::new(1)), schema())).unwrap_err().to_string()
    };
    let field = |f: &str| fail(&format!(r#"{{"plan": [{{"limit": 1, "fields": {{"id": {f}}}}}]}}"#));
    assert!(fail(r#"{"plan": [{"rate": 5}]}"#).contains("\"rate\" is not supported yet"));
    assert!(fail(r#"{"plan": [{"fields": {"idd": {}}}]}"#).contains("did you mean \"id\"?"));
    assert!(fail(r#"{"plan": [{}, {}]}"#).contains("give it a limit"));
    assert!(field(r#"{"strategy": "zipf"}"#).contains("not supported yet"));
    assert!(field(r#"{"range": [3, 3]}"#).contains("less than below"));
    assert!(field(r#"{"null_percentage": 5}"#).contains("NOT NULL"));
    assert!(field(r#"{"values": ["x"]}"#).contains("expected a BIGINT"));
    assert!(field(r#"{"values": []}"#).contains("at least one"));
}
