//! SQL text → [`Program`]: tables, views, connectors, and the [circuit plan](crate::circuit::CircuitPlan).
//!
//! The way: `parse` cuts the text into statements, `ddl` reads tables and views from them, `unsupported` refuses with
//! its place what a circuit cannot maintain yet, `planner` runs DataFusion's planner, analyzer and optimizer over the
//! `catalog` (`subquery`, `set_operation` and `lateral` first put sub-queries in expressions, INTERSECT ALL, EXCEPT ALL and UNNEST in FROM into forms that it gets right), and `lower` turns the optimized logical plan into circuit nodes.
//!
//! Rules:
//! 1. Compiling is a function of the text: the same text gives the same plan (invariant 8 of the design).
//! 2. Identifiers are lower-cased unless they are quoted, as in PostgreSQL. A connector matches the names in its data with
//!    a column's name as it is after that.
//! 3. `TIMESTAMP` and `TIME` have microseconds, and timestamps have no time zone (they are UTC by convention). The length of
//!    `VARCHAR(n)` is not enforced.
//! 4. A view reads tables and views that were created above it.
//! 5. What expressions give is what DataFusion says: integers divide to integers, `avg` of integers is a DOUBLE.

mod as_of;
mod catalog;
mod clock;
mod compile;
mod date_trunc;
mod ddl;
mod error;
mod extension;
mod json;
mod lateness;
mod lateral;
mod locate;
mod long_texts;
mod lower;
mod options;
mod parse;
mod planner;
mod program;
mod query;
mod quote;
mod set_operation;
mod subquery;
mod table_functions;
#[cfg(test)]
mod tests;
mod tokens;
mod type_tokens;
mod types;
mod unsupported;
mod unused;

pub use compile::compile;
pub use error::{SqlError, SqlErrors};
pub use program::{Declared, Place, Program, Table, View};
pub use query::{Order, Query, compile_query};
pub(crate) use quote::{quoted_name, quoted_text};
pub use types::Semantics;
