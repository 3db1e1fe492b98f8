//! SQL views kept up to date over streams and files, in the making.

pub mod circuit;
pub mod connector;
pub mod sql;
mod suggest;
