//! Exact sums of floats: the result depends neither on the order of the additions nor on what was added and taken away
//! again (invariant 8 of the design).
//!
//! A sum is a fixed-point number wide enough for every finite `f64` times every weight: two's complement, its lowest bit
//! worth 2^-1074. Infinities and NaNs are counted apart, so that they can be taken away. Equal multisets of values give
//! equal sums, limb by limb, and so equal saved bytes.
//!
//! Known limit: a sum in memory is 312 bytes; saved, only the limbs that carry digits.

/// 2098 bits for the doubles themselves, 64 for a weight, and 142 for the number of additions.
const LIMBS: usize = 36;
/// Stored bits of a double's mantissa.
const MANTISSA_BITS: u32 = 52;
const HAS_SPECIAL: u8 = 1;
const NEGATIVE: u8 = 2;

/// An exact weighted sum of `f64`s.
///
/// ```
/// use backstay::circuit::exact::ExactSum;
/// let mut sum = ExactSum::default();
/// for value in [1e300, 0.1, 0.2, 0.3, -1e300] {
///     sum.add(value, 1);
/// }
/// assert_eq!(sum.value(), 0.6);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactSum {
    limbs: [u64; LIMBS],
    nans: i64,
    positive_infinities: i64,
    negative_infinities: i64,
}

impl Default for ExactSum {
    fn default() -> Self {
        Self { limbs: [0; LIMBS], nans: 0, positive_infinities: 0, negative_infinities: 0 }
    }
}

impl ExactSum {
    /// Adds `value` `weight` times; a negative weight takes it away.
    pub fn add(&mut self, value: f64, weight: i64) {
        if !value.is_finite() {
            let count = match value {
                v if v.is_nan() => &mut self.nans,
                v if v > 0.0 => &mut self.positive_infinities,
                _ => &mut self.negative_infinities,
            };
            *count = count.wrapping_add(weight);
            return;
        }
        let bits = value.to_bits();
        let exponent = (bits >> MANTISSA_BITS & 0x7ff) as usize;
        let fraction = bits & ((1 << MANTISSA_BITS) - 1);
        // Subnormals have the exponent of the smallest normals, without the hidden bit.
        let (mantissa, shift) =
            if exponent == 0 { (fraction, 0) } else { (fraction | 1 << MANTISSA_BITS, exponent - 1) };
        let negative = value.is_sign_negative() != (weight < 0);
        // 53 + 64 bits, so that shifted by up to 63 more they stand in three limbs.
        let product = u128::from(mantissa) * u128::from(weight.unsigned_abs());
        let bit = shift % 64;
        let low = product << bit;
        let high = if bit == 0 { 0 } else { (product >> (128 - bit)) as u64 };
        self.add_limbs(shift / 64, [low as u64, (low >> 64) as u64, high], negative);
    }

    /// Adds `a * b` `weight` times: the product and the error of its rounding, both floats. The error is lost where it is
    /// below 2^-1074, and a product over the largest float is infinite.
    pub fn add_product(&mut self, a: f64, b: f64, weight: i64) {
        let product = a * b;
        self.add(product, weight);
        if product.is_finite() {
            self.add(a.mul_add(b, -product), weight);
        }
    }

    /// Calls `each` with floats that add up to the sum exactly, the largest first. The sum must be finite.
    pub fn parts(&self, mut each: impl FnMut(f64)) {
        let mut rest = self.clone();
        loop {
            let part = rest.value();
            if part == 0.0 || !part.is_finite() {
                return;
            }
            each(part);
            rest.add(part, -1);
        }
    }

    fn add_limbs(&mut self, at: usize, digits: [u64; 3], negative: bool) {
        let mut carry = false;
        for (i, limb) in self.limbs.iter_mut().skip(at).enumerate() {
            let digit = digits.get(i).copied().unwrap_or(0);
            if i >= digits.len() && !carry {
                break;
            }
            let (value, over) = if negative { limb.overflowing_sub(digit) } else { limb.overflowing_add(digit) };
            let (value, again) =
                if negative { value.overflowing_sub(carry.into()) } else { value.overflowing_add(carry.into()) };
            *limb = value;
            carry = over | again;
        }
    }

    /// Whether nothing is left of what was added.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The sum, correctly rounded (to nearest, ties to even). NaN if a NaN or infinities of both signs are in it.
    pub fn value(&self) -> f64 {
        match (self.nans != 0, self.positive_infinities != 0, self.negative_infinities != 0) {
            (true, _, _) | (_, true, true) => f64::NAN,
            (_, true, _) => f64::INFINITY,
            (_, _, true) => f64::NEG_INFINITY,
            _ => self.round(),
        }
    }

    fn round(&self) -> f64 {
        let negative = self.is_negative();
        let mut magnitude = self.limbs;
        if negative {
            let mut carry = true;
            for limb in &mut magnitude {
                (*limb, carry) = (!*limb).overflowing_add(carry.into());
            }
        }
        let Some(top) = magnitude.iter().rposition(|&l| l != 0) else { return 0.0 };
        let highest = top * 64 + 63 - magnitude[top].leading_zeros() as usize;
        // The result's mantissa is bits `lowest ..= lowest + 52`; a subnormal's ends at bit 0.
        let lowest = highest.saturating_sub(MANTISSA_BITS as usize);
        let bit = |i: usize| magnitude[i / 64] >> (i % 64) & 1;
        let mut mantissa = (lowest..=highest).rev().fold(0u64, |m, i| m << 1 | bit(i));
        if lowest > 0 && bit(lowest - 1) == 1 {
            let (limb, rest) = ((lowest - 1) / 64, (lowest - 1) % 64);
            let below = magnitude[limb] & ((1 << rest) - 1) != 0 || magnitude[..limb].iter().any(|&l| l != 0);
            mantissa += u64::from(below || mantissa & 1 == 1);
        }
        // Adding the mantissa with its hidden bit to the biased exponent carries as rounding must: up to infinity.
        let bits = (((lowest as u64) << MANTISSA_BITS) + mantissa).min(f64::INFINITY.to_bits());
        if negative { -f64::from_bits(bits) } else { f64::from_bits(bits) }
    }

    fn is_negative(&self) -> bool {
        self.limbs[LIMBS - 1] >> 63 == 1
    }

    /// Appends the sum to `out`, 3 bytes for zero, usually 11 to 27.
    pub fn save(&self, out: &mut Vec<u8>) {
        let special = [self.nans, self.positive_infinities, self.negative_infinities];
        let has_special = special.iter().any(|&c| c != 0);
        let fill = if self.is_negative() { u64::MAX } else { 0 };
        let end = self.limbs.iter().rposition(|&l| l != fill).map_or(0, |i| i + 1);
        let start = self.limbs[..end].iter().position(|&l| l != 0).unwrap_or(end);
        let flags = if has_special { HAS_SPECIAL } else { 0 } | if fill != 0 { NEGATIVE } else { 0 };
        out.extend_from_slice(&[flags, start as u8, (end - start) as u8]);
        self.limbs[start..end].iter().for_each(|l| out.extend_from_slice(&l.to_le_bytes()));
        if has_special {
            special.iter().for_each(|c| out.extend_from_slice(&c.to_le_bytes()));
        }
    }

    /// Takes a saved sum off the front of `bytes`; `None` if there is none.
    pub fn load(bytes: &mut &[u8]) -> Option<Self> {
        let ([flags, start, count], mut rest) = bytes.split_first_chunk::<3>()?;
        let (start, end) = (usize::from(*start), usize::from(*start) + usize::from(*count));
        if end > LIMBS || flags & !(HAS_SPECIAL | NEGATIVE) != 0 {
            return None;
        }
        let mut sum = Self::default();
        for limb in &mut sum.limbs[start..end] {
            let (digits, tail) = rest.split_first_chunk()?;
            (*limb, rest) = (u64::from_le_bytes(*digits), tail);
        }
        if flags & NEGATIVE != 0 {
            sum.limbs[end..].fill(u64::MAX);
        }
        if flags & HAS_SPECIAL != 0 {
            for count in [&mut sum.nans, &mut sum.positive_infinities, &mut sum.negative_infinities] {
                let (digits, tail) = rest.split_first_chunk()?;
                (*count, rest) = (i64::from_le_bytes(*digits), tail);
            }
        }
        *bytes = rest;
        Some(sum)
    }
}

#[cfg(test)]
mod tests;
