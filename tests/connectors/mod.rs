//! What every connector keeps, whatever it is: each input and output of the product goes through the same checks, by the public API, and so can one
//! of an outsider's.
//!
//! *Inputs* ([`inputs`]): what is read is cut into steps at random; a new instance, as after a crash between any two calls, replays each step and
//! finds the same rows and identities; another goes on behind any step and finds the rest; after the source has changed, it is refused.
//!
//! *Outputs* ([`outputs`]): steps are delivered, and the process "ends" behind each of its calls; a new instance resumes with what the pipeline then knew, and
//! the sink holds what it holds after a life without an end: for an exactly-once output the same, for others at least that.
//!
//! What it cannot see: power loss, slow servers, and real processes. Those are the connectors' own tests.

mod cases;
mod inputs;
mod outputs;
mod parquet;
mod s3;
