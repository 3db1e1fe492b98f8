//! Input transports, one file each.

pub(crate) mod content;
pub(crate) mod datagen;
pub(crate) mod file;
pub(crate) mod generator;
pub(crate) mod glob;
pub(crate) mod gzip;
pub(crate) mod kafka;
pub(crate) mod nexmark;
pub(crate) mod objects;
mod parquet;
pub(crate) mod postgres;
pub(crate) mod random;
pub(crate) mod records;
pub(crate) mod url;
