//! Incompressible payloads.

/// How many bytes are kept; payloads are cut from them.
const KEPT: usize = 8 << 20;

/// Random bytes, made once.
pub struct Noise(Vec<u8>);

impl Noise {
    /// The same bytes in each run.
    pub fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut bytes = vec![0; KEPT];
        random.fill(&mut bytes);
        Self(bytes)
    }

    /// The `n`th payload of `len` bytes, at most 4 MiB.
    pub fn payload(&self, n: u64, len: usize) -> &[u8] {
        // Steps of an odd number of bytes: payloads that follow each other are never alike.
        let at = (n.wrapping_mul(65_537) % (KEPT - len) as u64) as usize;
        &self.0[at..at + len]
    }
}
