use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::Int64Type;

use super::*;
use crate::circuit::plan::NodeKind;
use crate::circuit::step::OnEvalError;
use crate::sql::compile;

/// The operator of `SELECT p, x, <call> AS r FROM t`.
fn operator(call: &str) -> WindowOperator {
    let sql = format!("CREATE TABLE t (p BIGINT, x BIGINT); CREATE VIEW v AS SELECT p, x, {call} AS r FROM t");
    let program = compile(&sql, "p.sql").unwrap();
    let made = program.plan.nodes.iter().find_map(|node| match &node.kind {
        NodeKind::Window(window) => Some((node, window, &program.plan.nodes[node.inputs[0]].schema)),
        _ => None,
    });
    let (node, window, input) = made.unwrap();
    WindowOperator::new(node, input, window, &mut |_, discipline| Ok(Spine::ephemeral(discipline))).unwrap()
}

/// The output of a step: x, result, weight.
fn step(operator: &mut WindowOperator, rows: &[(i64, i64, i64)]) -> Vec<(i64, Option<i64>, i64)> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
    ];
    let delta = Delta::new(&operator.input, columns, rows.iter().map(|r| r.2).collect()).unwrap();
    let mut context = StepContext::new(1, 0, OnEvalError::Stop, Default::default());
    let mut out = Vec::new();
    for delta in operator.step(&mut context, vec![vec![delta]]).unwrap() {
        let column = |i: usize| delta.rows.column(i).as_primitive::<Int64Type>();
        let (x, r) = (column(1), column(delta.rows.num_columns() - 1));
        out.extend((0..delta.len()).map(|i| (x.value(i), r.iter().nth(i).unwrap(), delta.weights[i])));
    }
    out.sort_unstable();
    out
}

#[test]
fn what_differs_goes_and_comes() {
    let mut lag = operator("lag(x) OVER (PARTITION BY p ORDER BY x)");
    assert_eq!(step(&mut lag, &[(1, 10, 1), (1, 30, 1)]), [(10, None, 1), (30, Some(10), 1)]);
    assert_eq!(step(&mut lag, &[(1, 20, 1)]), [(20, Some(10), 1), (30, Some(10), -1), (30, Some(20), 1)]);
    assert_eq!(step(&mut lag, &[(2, 20, 1)]), [(20, None, 1)], "another partition");
    // A row that stands there twice is two rows.
    assert_eq!(step(&mut lag, &[(1, 20, 1)]), [(20, Some(20), 1)]);
}

/// Whether the second of two keys is in the frame of the first.
type IsIn = fn(i64, i64) -> bool;

/// The sum of x over rows up to 10 away, by a scan over all.
fn sums(rows: &[(i64, i64)], of: impl Fn(i64, i64) -> bool) -> Vec<(i64, Option<i64>)> {
    let sum = |x: i64| rows.iter().filter(|(other, _)| of(x, *other)).map(|(other, n)| other * n).sum();
    rows.iter().flat_map(|&(x, n)| std::iter::repeat_n((x, Some(sum(x))), n as usize)).collect()
}

#[test]
fn frames_at_distances_change_near_rows_only() {
    let calls: [(&str, IsIn); 4] = [
        ("BETWEEN 10 PRECEDING AND 5 FOLLOWING", |x, y| y >= x - 10 && y <= x + 5),
        ("BETWEEN 10 PRECEDING AND 3 PRECEDING", |x, y| y >= x - 10 && y <= x - 3),
        ("BETWEEN 2 FOLLOWING AND 10 FOLLOWING", |x, y| y >= x + 2 && y <= x + 10),
        ("BETWEEN CURRENT ROW AND 7 FOLLOWING", |x, y| y >= x && y <= x + 7),
    ];
    for (frame, is_in) in calls {
        let mut sum = operator(&format!("sum(x) OVER (PARTITION BY p ORDER BY x RANGE {frame})"));
        assert!(sum.is_local, "{frame}");
        let mut rows: Vec<(i64, i64)> = (0..1000).map(|i| (i * 3, 1)).collect();
        step(&mut sum, &rows.iter().map(|(x, n)| (1, *x, *n)).collect::<Vec<_>>());
        let mut before = sums(&rows, is_in);
        // Changes far from and near to each other; x 300 goes, 301 comes twice.
        let changes =
            [(100, -1), (101, 2), (110, 1), (400, 1)].map(|(i, n)| (1, if i == 100 { 300 } else { i * 3 - 2 }, n));
        for &(_, x, n) in &changes {
            match rows.iter_mut().find(|(y, _)| *y == x) {
                Some((_, copies)) => *copies += n,
                None => rows.push((x, n)),
            }
        }
        rows.retain(|(_, n)| *n > 0);
        let mut after = sums(&rows, is_in);
        before.sort_unstable();
        after.sort_unstable();
        let mut expected: Vec<(i64, Option<i64>, i64)> = Vec::new();
        for (rows, others, weight) in [(&before, &after, -1), (&after, &before, 1)] {
            let mut left = (*others).clone();
            for row in rows {
                match left.iter().position(|other| other == row) {
                    Some(i) => drop(left.swap_remove(i)),
                    None => expected.push((row.0, row.1, weight)),
                }
            }
        }
        expected.sort_unstable();
        assert_eq!(step(&mut sum, &changes), expected, "{frame}");
    }
}

#[test]
fn a_change_reads_its_surroundings_only() {
    let mut sum = operator("sum(x) OVER (ORDER BY x RANGE BETWEEN 10 PRECEDING AND 5 FOLLOWING)");
    step(&mut sum, &(0..1000).map(|x| (1, x, 1)).collect::<Vec<_>>());
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![1, 1, 1])), Arc::new(Int64Array::from(vec![500, 508, 900]))];
    let delta = Delta::new(&sum.input, columns, vec![1, 1, -1]).unwrap();
    let Update { delta, mut before, .. } = sum.ordered.update(&[delta], "test").unwrap().unwrap();
    let near = sum.distances.as_ref().unwrap().near(&sum.window, &delta).unwrap();
    let mut stretch = Stretch::default();
    for part in &near {
        stretch.read(&mut before, delta.key(part.row), Some(part)).unwrap();
    }
    // Rows 495 to 518 may change: their frames go from 485 to 523. And 895 to 910, of 885 to 915.
    let lengths: Vec<(usize, usize)> = stretch.partitions.ranges().map(|r| (r.len(), r.start)).collect();
    assert_eq!(lengths, [(39, 0), (31, 39)]);
    assert_eq!(stretch.shown, [10..34, 49..65]);
    assert_eq!((0..70).filter(|&row| stretch.is_shown(row)).count(), 24 + 16);
}

#[test]
fn other_frames_read_whole_partitions() {
    for frame in [
        "ORDER BY x",
        "ORDER BY x RANGE 1 PRECEDING), lag(x) OVER (ORDER BY x",
        "ORDER BY x ROWS 1 PRECEDING",
        "ORDER BY x RANGE BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING",
        "ORDER BY CAST(x AS DOUBLE) RANGE 1 PRECEDING",
    ] {
        assert!(!operator(&format!("sum(x) OVER ({frame})")).is_local, "{frame}");
    }
}
