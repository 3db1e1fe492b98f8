//! Output transports, one file or folder each.

pub(crate) mod file;
pub(crate) mod kafka;
pub(crate) mod null;
pub(crate) mod objects;
pub(crate) mod postgres;
pub(crate) mod stdout;
