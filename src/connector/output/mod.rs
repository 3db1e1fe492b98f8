//! Output transports, one file each.

pub(crate) mod file;
pub(crate) mod kafka;
pub(crate) mod null;
