//! The rows: keys of 16 bytes in no order, values of 100 bytes of which half compresses.

use std::ops::Range;

/// Bytes of a key, a value, and both.
pub const KEY: usize = 16;
pub const VALUE: usize = 100;
pub const ROW: u64 = (KEY + VALUE) as u64;
/// Bytes of a value that do not compress. A counter of 8 bytes is before them, letters behind.
const NOISE: Range<usize> = 8..58;
/// Where numbers of keys begin that are never inserted.
pub const ABSENT: u64 = 1 << 40;

/// A key.
pub type Key = [u8; KEY];

/// The `n`th key. Different numbers have different keys, spread over all of them.
pub fn key(n: u64) -> Key {
    let mut key = [0; KEY];
    key[..8].copy_from_slice(&mix(n).to_be_bytes());
    key[8..].copy_from_slice(&mix(n ^ 0x5bd1_e995).to_be_bytes());
    key
}

/// The `n`th key in ascending order.
pub fn ordered_key(n: u64) -> Key {
    let mut key = [0; KEY];
    key[..8].copy_from_slice(&n.to_be_bytes());
    key[8..].copy_from_slice(&mix(n).to_be_bytes());
    key
}

/// splitmix64's finish: a permutation of all 64-bit numbers.
pub fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// The counter of a value.
pub fn counter(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// Adds to the counter of a value.
pub fn add(value: &mut [u8], delta: u64) {
    let sum = counter(value).wrapping_add(delta);
    value[..8].copy_from_slice(&sum.to_le_bytes());
}

/// Rows as a workload hands them out; each engine makes its own kind of batch of them, in the time that is measured.
#[derive(Default)]
pub struct Batch {
    pub keys: Vec<Key>,
    /// Which of its key's rows a row is: what engines of one value a key add to the key.
    pub seqs: Vec<u32>,
    values: Vec<u8>,
}

impl Batch {
    pub fn value(&self, i: usize) -> &[u8] {
        &self.values[i * VALUE..(i + 1) * VALUE]
    }

    /// Rows of these numbers, with the keys that `key` gives and the `seq`s.
    pub fn fill(&mut self, numbers: Range<u64>, key: impl Fn(u64) -> (Key, u32)) {
        self.keys.clear();
        self.seqs.clear();
        self.values.clear();
        for n in numbers {
            let (key, seq) = key(n);
            self.keys.push(key);
            self.seqs.push(seq);
            let start = self.values.len();
            self.values.resize(start + VALUE, b'x');
            let value = &mut self.values[start..];
            value[..8].fill(0);
            let mut noise = n ^ 0xA5A5;
            for piece in value[NOISE].chunks_mut(8) {
                noise = mix(noise);
                piece.copy_from_slice(&noise.to_le_bytes()[..piece.len()]);
            }
        }
    }
}

/// Ranks by Zipf's law, as YCSB draws them (Gray et al., SIGMOD 1994), each rank given to a random key.
pub struct Zipf {
    n: u64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    pub fn new(n: u64, theta: f64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-theta)).sum::<f64>();
        let all = zeta(n);
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - theta)) / (1.0 - zeta(2) / all);
        Self { n, theta, alpha: 1.0 / (1.0 - theta), zeta: all, eta }
    }

    /// The number of a key.
    pub fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        let u = random.f64();
        let uz = u * self.zeta;
        let rank = if uz < 1.0 {
            0
        } else if uz < 1.0 + 0.5_f64.powf(self.theta) {
            1
        } else {
            (self.n as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64
        };
        // Keys are in no order of their numbers already: neighbours in rank are no neighbours in a block.
        rank.min(self.n - 1)
    }
}
