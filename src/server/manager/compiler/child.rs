//! What `backstay compiler` does: it binds itself, reads what it is asked, answers, and ends.

use std::io::{Read as _, Write as _};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::pgwire::catalog;
use super::super::program::{Outcome, Relation};
use super::Bounds;

/// Addresses beyond its memory: the program's own code, and what is reserved only.
const ADDRESSES: u64 = 4 << 30;

/// What it is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// What a program compiles to: an [`Outcome`].
    Program {
        /// The SQL text.
        text: String,
    },
    /// A query of PostgreSQL's catalog: [`Rows`], or a [`Refusal`].
    Catalog {
        /// The pipeline's name.
        database: String,
        /// The query.
        sql: String,
        /// The pipeline's relations.
        relations: Vec<Relation>,
    },
}

/// A query's rows, as Arrow's stream.
#[derive(Debug)]
pub struct Rows(pub Vec<u8>);

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        BASE64_STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Why a query has no rows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// The SQLSTATE.
    pub state: String,
    /// What and why.
    pub message: String,
}

/// Answers what stands on standard input.
///
/// # Errors
/// It cannot be bound, read, or answered.
pub fn answer(bounds: Bounds) -> std::io::Result<()> {
    bind(bounds)?;
    let mut asked = Vec::new();
    std::io::stdin().lock().read_to_end(&mut asked)?;
    let answer = match serde_json::from_slice(&asked)? {
        Asked::Program { text } => serde_json::to_vec(&Outcome::of(&text))?,
        Asked::Catalog { database, sql, relations } => {
            serde_json::to_vec(&catalog::answer(&database, &sql, &relations).map(Rows))?
        }
    };
    let mut out = std::io::stdout().lock();
    out.write_all(&answer)?;
    out.flush()
}

/// Memory is what can be written and is nobody else's; where the system does not count that, addresses are bounded. Of time, the processor's is
/// bounded here, for a process whose manager is gone: it has no other work than to compute.
fn bind(bounds: Bounds) -> std::io::Result<()> {
    let memory = u64::from(bounds.memory_mib) << 20;
    limit(Resource::Data, memory)?;
    limit(Resource::As, memory.saturating_add(ADDRESSES))?;
    limit(Resource::Cpu, u64::from(bounds.secs) + 1)?;
    // Of what went wrong here its last words tell enough.
    limit(Resource::Core, 0)
}

fn limit(resource: Resource, most: u64) -> std::io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |allowed| allowed.min(most));
    // One second of the processor's more, in which it can still be told what ended it.
    let beyond = if matches!(resource, Resource::Cpu) { most.saturating_add(1) } else { most };
    let maximum = getrlimit(resource).maximum.map_or(beyond, |allowed| allowed.min(beyond));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(maximum) })?)
}
