//! What the fuzz targets do, as plain functions of bytes, so that `cargo test` replays the corpus without a fuzzer.
//!
//! A target must return for any bytes. It panics when the engine breaks a promise; a panic of the engine itself, an
//! overflow or an allocation out of proportion is a finding too. Random bytes die at the first checksum, so most targets have a mode
//! that computes the checksums anew after the mutation.

pub mod compact;
pub mod embedder;
pub mod extra_decode;
pub mod input;
pub mod log_recovery;
pub mod log_segment;
pub mod manifest_decode;
pub mod patch;
pub mod run_decode;
pub mod seeds;
pub mod store_damage;
pub mod store_ops;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("log_segment", log_segment::run),
    ("log_recovery", log_recovery::run),
    ("manifest_decode", manifest_decode::run),
    ("run_decode", run_decode::run),
    ("extra_decode", extra_decode::run),
    ("store_damage", store_damage::run),
    ("store_ops", store_ops::run),
];
