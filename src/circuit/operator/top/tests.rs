use arrow::array::{AsArray, Int64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use backstay_storage::spine::Spine;

use super::*;
use crate::circuit::plan::{NodeKind, SortColumn};
use crate::circuit::step::OnEvalError;

/// (partition, value)
type Row = (i64, i64);

fn top(ranking: Ranking, skip: u64, fetch: Option<u64>, numbered: bool) -> TopKOperator {
    made(ranking, skip, fetch, numbered, false)
}

fn made(ranking: Ranking, skip: u64, fetch: Option<u64>, numbered: bool, append_only: bool) -> TopKOperator {
    let mut fields: Vec<Field> = ["p", "x"].map(|n| Field::new(n, DataType::Int64, true)).to_vec();
    let input = Arc::new(Schema::new(fields.clone()));
    if numbered {
        fields.push(Field::new("rank", DataType::UInt64, true));
    }
    let descending = SortOptions { descending: true, nulls_first: true };
    let order = vec![SortColumn { column: 1, options: descending }];
    let top = TopK { partition: vec![0], order, ranking, skip, fetch, numbered };
    let kind = NodeKind::TopK(top.clone());
    let node = Node { kind, inputs: vec![0], schema: Arc::new(Schema::new(fields)), label: "top".to_owned() };
    TopKOperator::new(&node, &input, &top, append_only, &mut |_, discipline| Ok(Spine::ephemeral(discipline))).unwrap()
}

/// The consolidated output of a step: partition, value, rank (0 without), weight.
fn step(top: &mut TopKOperator, rows: &[(Row, i64)]) -> Vec<(i64, i64, u64, i64)> {
    let schema = Arc::new(Schema::new(["p", "x"].map(|n| Field::new(n, DataType::Int64, true)).to_vec()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0.1))),
    ];
    let delta = Delta::new(&schema, columns, rows.iter().map(|r| r.1).collect()).unwrap();
    let mut context = StepContext::new(1, 0, OnEvalError::Stop, Default::default());
    let mut out = Vec::new();
    for delta in top.step(&mut context, vec![vec![delta]]).unwrap() {
        let (p, x) =
            (delta.rows.column(0).as_primitive::<Int64Type>(), delta.rows.column(1).as_primitive::<Int64Type>());
        for (i, &weight) in delta.weights.iter().enumerate() {
            let rank = if top.numbered { delta.rows.column(2).as_primitive::<UInt64Type>().value(i) } else { 0 };
            out.push((p.value(i), x.value(i), rank, weight));
        }
    }
    out.sort_unstable();
    out
}

#[test]
fn a_better_row_drives_the_last_one_out() {
    let mut top = top(Ranking::RowNumber, 0, Some(2), false);
    assert_eq!(step(&mut top, &[((1, 5), 1), ((1, 3), 1), ((2, 9), 1)]), [(1, 3, 0, 1), (1, 5, 0, 1), (2, 9, 0, 1)]);
    assert_eq!(step(&mut top, &[((1, 4), 1)]), [(1, 3, 0, -1), (1, 4, 0, 1)]);
    assert_eq!(step(&mut top, &[((1, 1), 1)]), [], "behind the head");
    assert_eq!(step(&mut top, &[((1, 5), -1)]), [(1, 3, 0, 1), (1, 5, 0, -1)], "the next one comes back");
}

#[test]
fn copies_count_as_rows_and_missing_rows_as_none() {
    let mut top = top(Ranking::RowNumber, 1, Some(3), false);
    assert_eq!(step(&mut top, &[((1, 5), 3), ((1, 4), -1)]), [(1, 5, 0, 2)]);
    assert_eq!(step(&mut top, &[((1, 4), 3), ((1, 3), 7)]), [(1, 4, 0, 1)]);
    assert_eq!(step(&mut top, &[((1, 5), -3)]), [(1, 3, 0, 2), (1, 5, 0, -2)]);
}

#[test]
fn ranks_move_with_the_rows_before_them() {
    let rows = [((1, 5), 2), ((1, 4), 1), ((1, 3), 1)];
    let mut numbers = top(Ranking::RowNumber, 0, Some(3), true);
    assert_eq!(step(&mut numbers, &rows), [(1, 4, 3, 1), (1, 5, 1, 1), (1, 5, 2, 1)]);
    assert_eq!(step(&mut numbers, &[((1, 5), -1)]), [(1, 3, 3, 1), (1, 4, 2, 1), (1, 4, 3, -1), (1, 5, 2, -1)]);
    let mut ranks = top(Ranking::Rank, 0, Some(3), true);
    assert_eq!(step(&mut ranks, &rows), [(1, 4, 3, 1), (1, 5, 1, 2)]);
    assert_eq!(step(&mut ranks, &[((1, 5), -1)]), [(1, 3, 3, 1), (1, 4, 2, 1), (1, 4, 3, -1), (1, 5, 1, -1)]);
    let mut dense = top(Ranking::DenseRank, 0, Some(2), true);
    assert_eq!(step(&mut dense, &rows), [(1, 4, 2, 1), (1, 5, 1, 2)]);
    assert_eq!(step(&mut dense, &[((1, 5), -2)]), [(1, 3, 2, 1), (1, 4, 1, 1), (1, 4, 2, -1), (1, 5, 1, -2)]);
}

#[test]
fn the_rest_is_what_the_head_leaves() {
    let mut rest = top(Ranking::RowNumber, 2, None, false);
    assert_eq!(step(&mut rest, &[((1, 5), 1), ((1, 4), 2), ((1, 3), 1)]), {
        // Not consolidated: all rows come, and the head goes.
        [(1, 3, 0, 1), (1, 4, 0, -1), (1, 4, 0, 2), (1, 5, 0, -1), (1, 5, 0, 1)]
    });
    assert_eq!(step(&mut rest, &[((1, 6), 1)]), [(1, 4, 0, 1), (1, 6, 0, -1), (1, 6, 0, 1)]);
}

#[test]
fn over_inserts_alone_the_head_is_all_that_is_kept() {
    let kept = |top: &mut TopKOperator| {
        let mut rows = Vec::new();
        let mut cursor = top.ordered.rows.cursor().unwrap();
        cursor.seek(&[]).unwrap();
        while cursor.valid() {
            rows.push(cursor.weight());
            cursor.next().unwrap();
        }
        rows
    };
    let steps: [&[(Row, i64)]; 4] = [
        &[((1, 5), 1), ((1, 3), 2), ((2, 9), 1)],
        &[((1, 4), 3), ((1, 1), 1), ((2, 9), 4)],
        &[((1, 8), 1), ((1, 7), 1), ((1, 6), 1), ((2, 1), 1)],
        &[((1, 8), 1), ((2, 10), 1)],
    ];
    for (ranking, skip, fetch, numbered) in [
        (Ranking::RowNumber, 0, Some(2), false),
        (Ranking::RowNumber, 0, Some(3), true),
        (Ranking::RowNumber, 1, Some(2), false),
        (Ranking::RowNumber, 2, None, false),
        (Ranking::Rank, 0, Some(2), true),
        (Ranking::DenseRank, 0, Some(2), false),
    ] {
        let (mut all, mut head) =
            (made(ranking, skip, fetch, numbered, false), made(ranking, skip, fetch, numbered, true));
        for rows in steps {
            assert_eq!(step(&mut all, rows), step(&mut head, rows), "{ranking:?} {skip} {fetch:?}");
        }
        let (all, head) = (kept(&mut all), kept(&mut head));
        assert!(head.len() < all.len() && head.iter().all(|&w| w > 0), "{ranking:?}: {head:?} of {all:?}");
    }
}
