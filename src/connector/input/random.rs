//! Random numbers that are functions of (seed, ordinal, field), so that any row can be made again alone.

/// A random number; every bit depends on every bit of the three (the finalizer of splitmix64, twice).
pub(crate) fn random(seed: u64, ordinal: u64, field: u64) -> u64 {
    finalize(ordinal.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ finalize(seed ^ field.wrapping_mul(0xd1b5_4a32_d192_ed03)))
}

fn finalize(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A random number below `n` (0 if `n` is 0), from a random number.
pub(crate) fn below(random: u64, n: u64) -> u64 {
    ((u128::from(random) * u128::from(n)) >> 64) as u64
}

/// A random letter text of `len` bytes, appended to `out`.
pub(crate) fn letters(out: &mut String, seed: u64, ordinal: u64, field: u64, len: u64) {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz etaoi";
    let mut left = len;
    let mut piece = 0;
    while left > 0 {
        let mut bits = random(seed ^ 0x5bd1_e995, ordinal, (field << 32) + piece);
        for _ in 0..left.min(12) {
            out.push(LETTERS.get((bits & 31) as usize).map_or(' ', |b| char::from(*b)));
            bits >>= 5;
        }
        left = left.saturating_sub(12);
        piece += 1;
    }
}
