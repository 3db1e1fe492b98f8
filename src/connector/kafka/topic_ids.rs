//! Topics' ids, as a client comes to know them.
//!
//! Kafka gives each topic an id, and a topic that is deleted and made anew another one. librdkafka fetches messages by it, goes over to the new one
//! without a word, and reads on at the old offset. No call of its interface tells the ids of the topics that it reads, but its log does: of a line of it they are taken.
//!
//! Invariant: the line comes through the queue that messages come through, and stands there before any message of the new topic: librdkafka writes it
//! before it asks for one by the new id. So what was polled when no id had changed is the old topic's.
//!
//! Limit: brokers before Kafka 2.8, and those that speak its protocol without ids, have none. Then none is ever seen to change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// What stands between a topic's name and its ids.
const CHANGED: &str = " changed id from ";

/// The ids that a client has seen.
#[derive(Debug, Default)]
pub(in crate::connector) struct TopicIds {
    seen: Mutex<BTreeMap<String, Seen>>,
    lines: AtomicU64,
}

#[derive(Debug)]
struct Seen {
    first: String,
    last: String,
}

/// A topic that was made anew while a client knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::connector) struct MadeAnew {
    pub(in crate::connector) topic: String,
    /// The old one's id.
    pub(in crate::connector) was: String,
    /// The new one's.
    pub(in crate::connector) is: String,
}

impl TopicIds {
    /// Has a client that is made with these settings say them.
    pub(in crate::connector) fn ask(settings: &mut ClientConfig) {
        settings.set("debug", "topic").set_log_level(RDKafkaLogLevel::Debug);
    }

    /// Takes a line of the log.
    pub(super) fn hear(&self, line: &str) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        let Some((topic, id)) = parse(line) else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(topic) {
            Some(seen) => id.clone_into(&mut seen.last),
            None => {
                seen.insert(topic.to_owned(), Seen { first: id.to_owned(), last: id.to_owned() });
            }
        }
    }

    /// How many lines were taken.
    pub(in crate::connector) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// A topic whose id has changed since it was seen first.
    pub(in crate::connector) fn made_anew(&self) -> Option<MadeAnew> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (topic, ids) = seen.iter().find(|(_, ids)| ids.first != ids.last)?;
        Some(MadeAnew { topic: topic.clone(), was: ids.first.clone(), is: ids.last.clone() })
    }
}

/// A topic, and the id that it has from now on: of `[thrd:main]: Topic orders changed id from AAAAAAAAAAAAAAAAAAAAAA to rbVsUnZ0S6qxUVlbxmFLVw`.
fn parse(line: &str) -> Option<(&str, &str)> {
    let (before, ids) = line.split_once(CHANGED)?;
    let (_, topic) = before.rsplit_once("Topic ")?;
    let (_, id) = ids.split_once(" to ")?;
    Some((topic, id.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_changes_is_told() {
        let ids = TopicIds::default();
        let hear = |topic: &str, from: &str, to: &str| {
            ids.hear(&format!("[thrd:main]: Topic {topic} changed id from {from} to {to}"));
        };
        // As the client learns of it: from zero, which is said again if it forgets it meanwhile.
        hear("a", "AAAAAAAAAAAAAAAAAAAAAA", "rbVsUnZ0S6qxUVlbxmFLVw");
        hear("Topic.a", "AAAAAAAAAAAAAAAAAAAAAA", "x1");
        hear("a", "AAAAAAAAAAAAAAAAAAAAAA", "rbVsUnZ0S6qxUVlbxmFLVw");
        ids.hear("[thrd:main]: Topic a partition 0 Leader 1");
        ids.hear("[thrd:main]: Topic a changed id");
        assert_eq!(ids.made_anew(), None);
        hear("a", "rbVsUnZ0S6qxUVlbxmFLVw", "qbVsUnZ0S6qxUVlbxmFLVw");
        let (was, is) = ("rbVsUnZ0S6qxUVlbxmFLVw".to_owned(), "qbVsUnZ0S6qxUVlbxmFLVw".to_owned());
        assert_eq!(ids.made_anew(), Some(MadeAnew { topic: "a".to_owned(), was, is }));
    }
}
