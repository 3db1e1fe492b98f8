use super::*;

#[test]
fn parts_add_up_to_the_sum_and_products_are_exact() {
    let mut sum = ExactSum::default();
    for value in [1e300, 0.1, -1e-300, f64::MIN_POSITIVE / 4.0, 3.0] {
        sum.add(value, 3);
    }
    let (mut parts, mut again) = (Vec::new(), ExactSum::default());
    sum.parts(|part| parts.push(part));
    parts.iter().for_each(|&part| again.add(part, 1));
    assert_eq!(again, sum);
    assert!(parts.len() > 3 && parts.windows(2).all(|w| w[0].abs() > w[1].abs()), "{parts:?}");
    let mut product = ExactSum::default();
    product.add_product(0.1, 0.1, 1);
    product.add(0.1 * 0.1, -1);
    assert!(!product.is_zero(), "the rounding error is kept");
    product.add_product(-0.1, 0.1, 1);
    product.add(0.1 * 0.1, 1);
    assert!(product.is_zero());
}

fn sum(values: &[f64]) -> ExactSum {
    let mut sum = ExactSum::default();
    values.iter().for_each(|&v| sum.add(v, 1));
    sum
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    /// Any finite double, all exponents alike.
    fn finite(&mut self) -> f64 {
        loop {
            let value = f64::from_bits(self.next());
            if value.is_finite() {
                return value;
            }
        }
    }
}

#[test]
fn one_value_comes_back_as_it_went_in() {
    let mut random = Random(1);
    let edges = [f64::MAX, f64::MIN, f64::MIN_POSITIVE, f64::from_bits(1), -f64::from_bits(1), 1.0, -1.5, 0.1];
    for value in edges.into_iter().chain((0..20_000).map(|_| random.finite())) {
        assert_eq!(sum(&[value]).value().to_bits(), value.to_bits(), "{value:e}");
    }
    assert_eq!(sum(&[-0.0]).value().to_bits(), 0);
}

#[test]
fn sums_of_two_are_rounded_as_the_processor_rounds_them() {
    let mut random = Random(2);
    for _ in 0..50_000 {
        let a = random.finite();
        // Near exponents, so that the digits overlap and ties happen.
        let b = f64::from_bits(a.to_bits() ^ random.next() >> (random.next() % 62));
        if b.is_finite() {
            let got = sum(&[a, b]).value();
            assert_eq!(got, a + b, "{a:e} + {b:e}");
        }
    }
    let max = f64::MAX;
    assert_eq!(sum(&[max, max]).value(), f64::INFINITY);
    assert_eq!(sum(&[-max, -max]).value(), f64::NEG_INFINITY);
    assert_eq!(sum(&[max, max, -max]).value(), max, "nothing is lost beyond the largest double");
}

#[test]
fn order_and_history_do_not_matter() {
    for seed in 0..50 {
        let mut random = Random(seed);
        let special = |n: u64| [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][n as usize % 3];
        let mut next = || if random.next().is_multiple_of(20) { special(random.next()) } else { random.finite() };
        let values: Vec<f64> = (0..60).map(|_| next()).collect();
        let noise: Vec<f64> = (0..60).map(|_| next()).collect();
        let mut one = ExactSum::default();
        values.iter().for_each(|&v| one.add(v, 3));
        let mut other = ExactSum::default();
        noise.iter().for_each(|&v| other.add(v, 7));
        values.iter().rev().for_each(|&v| other.add(v, 5));
        noise.iter().for_each(|&v| other.add(v, -7));
        values.iter().for_each(|&v| other.add(v, -2));
        assert_eq!(one, other, "seed {seed}");
        let (mut saved_one, mut saved_other) = (Vec::new(), Vec::new());
        one.save(&mut saved_one);
        other.save(&mut saved_other);
        assert_eq!(saved_one, saved_other, "seed {seed}");
        values.iter().for_each(|&v| other.add(v, -3));
        assert!(other.is_zero(), "seed {seed}");
    }
}

#[test]
fn weights_multiply_exactly() {
    for (value, weight) in [(0.1, i64::MAX), (f64::from_bits(1), i64::MIN), (1e300, 3), (-7.25, -11)] {
        let mut one = ExactSum::default();
        one.add(value, weight);
        let mut many = ExactSum::default();
        // The same by doubling: value × 2^i is exact.
        for bit in 0..63u32 {
            if weight.unsigned_abs() >> bit & 1 == 1 {
                let sign = if weight < 0 { -1 } else { 1 };
                many.add(value, sign << bit);
            }
        }
        if weight == i64::MIN {
            (0..2).for_each(|_| many.add(value, i64::MIN / 2));
        }
        assert_eq!(one, many, "{value:e} × {weight}");
    }
}

#[test]
fn infinities_and_nans_can_be_taken_away() {
    let mut s = sum(&[1.5, f64::INFINITY]);
    assert_eq!(s.value(), f64::INFINITY);
    s.add(f64::NEG_INFINITY, 1);
    assert!(s.value().is_nan());
    s.add(f64::INFINITY, -1);
    assert_eq!(s.value(), f64::NEG_INFINITY);
    s.add(f64::NAN, 2);
    s.add(f64::NEG_INFINITY, -1);
    assert!(s.value().is_nan());
    s.add(f64::NAN, -2);
    assert_eq!(s.value(), 1.5);
}

#[test]
fn saved_sums_load_and_damaged_ones_do_not() {
    let mut random = Random(3);
    for seed in 0..2000 {
        let mut s = ExactSum::default();
        for _ in 0..random.next() % 4 {
            s.add(random.finite(), random.next().cast_signed() >> (random.next() % 64));
        }
        if random.next().is_multiple_of(4) {
            s.add(f64::INFINITY, -5);
        }
        let mut saved = Vec::new();
        s.save(&mut saved);
        saved.push(0xee);
        let mut bytes = saved.as_slice();
        assert_eq!(ExactSum::load(&mut bytes), Some(s), "round {seed}");
        assert_eq!(bytes, [0xee], "what follows is left");
        for cut in 0..saved.len() - 1 {
            assert_eq!(ExactSum::load(&mut &saved[..cut]), None, "round {seed}, cut at {cut}");
        }
    }
    assert_eq!(ExactSum::load(&mut &[0, 30, 7, 0, 0][..]), None, "more limbs than there are");
    assert_eq!(ExactSum::load(&mut &[4, 0, 0][..]), None, "a flag that is not known");
}
