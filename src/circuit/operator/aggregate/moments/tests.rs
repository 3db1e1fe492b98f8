use super::*;

/// The statistic over these rows of (y, x), through its saved state, and with others that came and went.
fn statistic(function: AggregateFunction, rows: &[(f64, f64)], others: &[(f64, f64)]) -> Option<f64> {
    let width = if Moments::new(function, 1, &DataType::Float64).is_some() { 1 } else { 2 };
    let fresh = Moments::new(function, width, &DataType::Float64).unwrap();
    let columns = |rows: &[(f64, f64)]| -> Vec<ArrayRef> {
        let y: ArrayRef = Arc::new(rows.iter().map(|r| Some(r.0)).collect::<Float64Array>());
        let x: ArrayRef = Arc::new(rows.iter().map(|r| Some(r.1)).collect::<Float64Array>());
        if width == 1 { vec![x] } else { vec![y, x] }
    };
    let add = |moments: &mut dyn Accumulate, rows: &[(f64, f64)], weight: i64| {
        moments.update(&columns(rows), &vec![weight; rows.len()], &vec![0; rows.len()]).unwrap();
    };
    let mut moments = fresh.fresh();
    moments.push_empty();
    add(moments.as_mut(), others, 1);
    add(moments.as_mut(), rows, 1);
    add(moments.as_mut(), others, -1);
    let mut state = Vec::new();
    moments.save(0, &mut state);
    let mut loaded = fresh.fresh();
    let mut rest = state.as_slice();
    loaded.push_saved(&mut rest).unwrap();
    assert!(rest.is_empty());
    let result = loaded.finish().unwrap().column;
    add(loaded.as_mut(), rows, -1);
    assert!(loaded.is_zero(0), "{function:?} keeps something");
    let result = result.as_primitive::<Float64Type>();
    (!result.is_null(0)).then(|| result.value(0))
}

#[test]
fn near_values_far_from_zero_keep_their_variance() {
    use AggregateFunction as F;
    let rows: Vec<(f64, f64)> = [4.0, 7.0, 13.0, 16.0].map(|x| (2.0 * x, 1e9 + x)).to_vec();
    let others = [(1e300, -1e100), (f64::NAN, 3.0), (f64::INFINITY, f64::INFINITY), (0.1, 0.2)];
    assert_eq!(statistic(F::VarSamp, &rows, &others), Some(30.0));
    assert_eq!(statistic(F::VarPop, &rows, &others), Some(22.5));
    assert_eq!(statistic(F::StddevPop, &rows, &others), Some(22.5f64.sqrt()));
    assert_eq!(statistic(F::CovarSamp, &rows, &others), Some(60.0));
    assert_eq!(statistic(F::Corr, &rows, &others), Some(1.0));
    assert_eq!(statistic(F::RegrSlope, &rows, &others), Some(2.0));
    assert_eq!(statistic(F::RegrIntercept, &rows, &others), Some(-2e9));
    assert_eq!(statistic(F::RegrR2, &rows, &others), Some(1.0));
    assert_eq!(statistic(F::RegrSxx, &rows, &others), Some(90.0));
}

#[test]
fn equal_values_have_no_variance_at_all() {
    use AggregateFunction as F;
    let rows = [(0.3, 0.1); 3];
    assert_eq!(statistic(F::VarSamp, &rows, &[]), Some(0.0));
    for function in [F::Corr, F::RegrSlope, F::RegrR2] {
        assert_eq!(statistic(function, &rows, &[]), None, "{function:?}");
    }
}

#[test]
fn few_values() {
    use AggregateFunction as F;
    assert_eq!(statistic(F::VarSamp, &[(1.0, 2.0)], &[]), None);
    assert_eq!(statistic(F::VarPop, &[(1.0, 2.0)], &[]), Some(0.0));
    assert_eq!(statistic(F::VarPop, &[], &[(1.0, 2.0)]), None);
    assert_eq!(statistic(F::CovarPop, &[(1.0, 2.0)], &[]), Some(0.0));
    assert_eq!(statistic(F::RegrAvgx, &[(1.0, 2.0)], &[]), Some(2.0));
    assert!(statistic(F::VarPop, &[(1.0, f64::NAN), (1.0, 1.0)], &[]).unwrap().is_nan());
}
