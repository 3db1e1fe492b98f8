//! Whose log is read: a cluster by its system identifier, and the timeline that its log is on.
//!
//! Positions of the log are bytes of one history. Another cluster has another one; so has a server that was restored from a backup, or promoted without the
//! last changes: its log leaves the old timeline at some place, and what stands behind that place is something else. So each range of the log carries whose it is, as
//! `<system identifier>/<timeline>`, and it is looked at on the connection that reads the log, before it begins.
//!
//! Limits: a position of an earlier version carries nothing, and is believed. A replica that is asked before it is promoted tells its system only: it may change over to a
//! timeline of its own while it is read. A copy of a server's files that is started without recovery stays on its timeline: of that one only an end before
//! the position is noticed.

use std::fmt;

use pgwire_replication::{PgWireError, ReplicationClient};

use super::Shared;
use super::stream::failed;
use crate::connector::{Identity, Result};

/// A cluster, and the timeline of its log; 0: not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    system: String,
    timeline: u32,
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.system, self.timeline)
    }
}

/// A range of the log.
impl Identity for Cluster {
    fn at(&self, _end: u64) -> String {
        self.to_string()
    }
}

/// Where a server's history stands to a position.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// It goes through it.
    Through,
    /// It left the position's timeline before it, there.
    LeftAt(u64),
    /// It has nothing of the position's timeline.
    Apart,
}

impl Cluster {
    /// Of what a position or a range carries; `None`: nothing, by an earlier version.
    pub(super) fn parse(identity: &str) -> Option<Self> {
        let (system, timeline) = identity.split_once('/')?;
        Some(Self { system: system.to_owned(), timeline: timeline.parse().ok()? })
    }

    /// Whose log a connection that has not begun to stream reads. One that does not go through `at`, as `known` had it, is refused.
    pub(super) async fn verify(
        client: &mut ReplicationClient,
        shared: &Shared,
        at: u64,
        known: Option<&Self>,
    ) -> Result<Self> {
        let now = Self::of(client).await.map_err(|e| failed(shared, &e))?;
        let Some(known) = known else { return Ok(now) };
        let place = &shared.server.place;
        if now.system != known.system {
            return Err(shared.error(format!(
                "{place} is the cluster with the system identifier {}, and the log up to {at:X} is that of {}: name the server that was read, or start in another data directory \
                 with another \"slot\"",
                now.system, known.system
            )));
        }
        if now.timeline == 0 || known.timeline == 0 || now.timeline == known.timeline {
            return Ok(now);
        }
        let standing = match now.timeline > known.timeline {
            true => {
                let history = client.timeline_history(now.timeline).await.map_err(|e| failed(shared, &e))?;
                standing(&String::from_utf8_lossy(&history.content), known.timeline, at)
            }
            false => Standing::Apart,
        };
        let what = match standing {
            Standing::Through => return Ok(now),
            Standing::LeftAt(left) => format!("which left timeline {} at {left:X}, before that", known.timeline),
            Standing::Apart => format!("which does not come of timeline {}", known.timeline),
        };
        Err(shared.error(format!(
            "{place} has been read up to {at:X} on timeline {}, and is on timeline {}, {what}: it was restored from a backup, or is a replica that was promoted without the \
             last changes. Name the server that was read, or start in another data directory with another \"slot\"",
            known.timeline, now.timeline
        )))
    }

    async fn of(client: &mut ReplicationClient) -> Result<Self, PgWireError> {
        let system = client.identify_system().await?;
        let rows = client.simple_query("SELECT pg_is_in_recovery()").await?;
        let is_primary = rows.first().and_then(|row| row.first()?.as_deref()) == Some(b"f".as_slice());
        Ok(Self { system: system.system_id, timeline: if is_primary { system.timeline } else { 0 } })
    }
}

/// Reads the history of a timeline: a line for each that it comes of, with where that was left and why.
fn standing(history: &str, timeline: u32, at: u64) -> Standing {
    for line in history.lines() {
        let mut fields = line.split_whitespace();
        let (Some(number), Some(left)) = (fields.next(), fields.next()) else { continue };
        if number.parse() != Ok(timeline) {
            continue;
        }
        return match pgwire_replication::Lsn::parse(left).map(|lsn| lsn.as_u64()) {
            Ok(left) if left >= at => Standing::Through,
            Ok(left) => Standing::LeftAt(left),
            Err(_) => Standing::Apart,
        };
    }
    Standing::Apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_goes_through_a_position_or_not() {
        // As PostgreSQL writes it.
        let history = "1\t0/3000148\tno recovery target specified\n\n2\t0/40000A0\tbefore 2026-11-30 10:00:00+00\n";
        assert_eq!(standing(history, 1, 0x300_0148), Standing::Through);
        assert_eq!(standing(history, 1, 0x300_0149), Standing::LeftAt(0x300_0148));
        assert_eq!(standing(history, 2, 0x400_0000), Standing::Through);
        assert_eq!(standing(history, 3, 1), Standing::Apart);
        assert_eq!(standing("1\tnonsense\n", 1, 1), Standing::Apart);
        assert_eq!(standing("# a comment\n", 1, 1), Standing::Apart);
    }

    #[test]
    fn golden_identity() {
        let cluster = Cluster { system: "7412345678901234567".to_owned(), timeline: 2 };
        assert_eq!(cluster.at(7), "7412345678901234567/2");
        assert_eq!(Cluster::parse("7412345678901234567/2"), Some(cluster));
        // Of earlier versions, and of no one's.
        assert_eq!((Cluster::parse(""), Cluster::parse("x"), Cluster::parse("7/x")), (None, None, None));
    }
}
