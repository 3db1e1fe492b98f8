//! What the state must be after each step: plain maps, and the rows of a step as a function of seed and step.

use std::collections::BTreeMap;

use backstay_storage::spine::RowBatch;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The contents of both spines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub weighted: BTreeMap<(Vec<u8>, Vec<u8>), i64>,
    pub latest: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What step `step` does: rows for the weighted and for the latest spine.
pub fn rows_of(seed: u64, step: u64) -> (RowBatch, RowBatch) {
    let mut rng = Rng(seed ^ step.wrapping_mul(0xD134_2543_DE82_EF95));
    let (mut weighted, mut latest) = (RowBatch::new(), RowBatch::new());
    for _ in 0..5 {
        let (key, value) = (format!("k{}", rng.below(7)), format!("v{}", rng.below(3)));
        let weight = [-2, -1, 1, 1, 2][rng.below(5) as usize];
        weighted.push(key.as_bytes(), value.as_bytes(), weight);
        let put = if rng.below(4) == 0 { -1 } else { 1 };
        let value = format!("step {step}, {}", rng.below(100));
        latest.push(format!("k{}", rng.below(7)).as_bytes(), value.as_bytes(), put);
    }
    (weighted, latest)
}

/// The log record of a step: its number, then bytes that make it cross block and segment ends now and then.
pub fn record_of(seed: u64, step: u64) -> Vec<u8> {
    let mut rng = Rng(seed ^ step.wrapping_mul(0xA076_1D64_78BD_642F));
    let len = [40, 300, 3000, 9000][rng.below(4) as usize];
    let mut bytes = step.to_le_bytes().to_vec();
    bytes.extend((0..len).map(|_| rng.next() as u8));
    bytes
}

/// The extra file of the checkpoint after a step.
pub fn extra_of(seed: u64, step: u64) -> Vec<u8> {
    let mut rng = Rng(seed ^ step.wrapping_mul(0x8EBC_6AF0_9C88_C6E3));
    (0..700).map(|_| rng.next() as u8).collect()
}

impl Model {
    /// The state after steps 1 to `step`.
    pub fn after(seed: u64, step: u64) -> Self {
        let mut model = Self::default();
        for step in 1..=step {
            model.apply(seed, step);
        }
        model
    }

    fn apply(&mut self, seed: u64, step: u64) {
        let (weighted, latest) = rows_of(seed, step);
        for (key, value, weight) in weighted.iter() {
            let row = (key.to_vec(), value.to_vec());
            let sum = self.weighted.get(&row).copied().unwrap_or(0) + weight;
            if sum == 0 {
                self.weighted.remove(&row);
            } else {
                self.weighted.insert(row, sum);
            }
        }
        for (key, value, weight) in latest.iter() {
            if weight > 0 {
                self.latest.insert(key.to_vec(), value.to_vec());
            } else {
                self.latest.remove(key);
            }
        }
    }
}
