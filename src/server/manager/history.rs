//! What a pipeline did lately, as the manager saw it: a sample a second, and the events of its life (starts, crashes, replays, checkpoints).
//! The manager keeps it, so that a crash of the pipeline's process is in it.
//!
//! Invariants:
//! 1. Bounded: the last [`SAMPLES`] and [`EVENTS`].
//! 2. Times rise strictly, over samples and events together, so that a reader that asks for what is after the last one it has misses and
//!    repeats nothing.
//!
//! Known limits: in memory, so that it begins anew with the manager; what lasts less than the manager's glance (100 ms), such as the
//! checkpoint of a graceful stop, may not be seen.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Value, json};

use crate::server::runtime::{Figures, Liveness};

/// Samples that are kept: a quarter of an hour.
pub const SAMPLES: usize = 900;
/// Events that are kept.
pub const EVENTS: usize = 200;
/// Time between samples. A little less than a second, since glances do not come at whole tenths.
const SAMPLE_MS: i64 = 950;

/// Samples and events of one pipeline.
#[derive(Debug, Default)]
pub struct History(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    samples: VecDeque<Sample>,
    events: VecDeque<Event>,
    /// The time of the newest of them.
    last_at: i64,
    /// The process of now, as it was seen last.
    seen: Option<Liveness>,
    /// What it was when it was sampled last, and when.
    sampled: Option<(i64, Figures)>,
    /// Rows a second of its last sample; none in the first second.
    rate: Option<u64>,
    told_replay: bool,
}

/// What was seen of a pipeline in about a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// When, in ms since 1970.
    pub at_msecs: i64,
    /// Rows newly taken by steps, a second: not those that are replayed.
    pub records_per_second: u64,
    /// Rows that wait for a step.
    pub buffered_records: u64,
    /// The last step.
    pub step: u64,
    /// Steps made, replayed ones too.
    pub steps: u64,
    /// Steps that not all outputs have delivered.
    pub undelivered_steps: u64,
    /// How long a step took, in microseconds: the mean, and what 99 of 100 did not exceed. None, if there was no step.
    pub step_mean_usecs: Option<u64>,
    /// See above.
    pub step_p99_usecs: Option<u64>,
    /// How long a step then waited for its record to be durable.
    pub commit_mean_usecs: Option<u64>,
    /// See above.
    pub commit_p99_usecs: Option<u64>,
    /// Bytes of operators' state. None while it replays.
    pub state_bytes: Option<u64>,
    /// Bytes of log on disk.
    pub log_bytes: u64,
    /// Bytes that outputs' sinks do not hold durably yet.
    pub pending_output_bytes: u64,
}

/// Something that happened to a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When it was seen, in ms since 1970.
    pub at_msecs: i64,
    /// What.
    #[serde(flatten)]
    pub what: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Happened {
    /// A process was started.
    Start,
    /// A process was found that an earlier manager had started.
    Found {
        /// It.
        pid: u32,
    },
    /// Steps are made from here on.
    Running {
        /// The last step before.
        step: u64,
    },
    /// No steps are made from here on.
    Paused {
        /// The last step.
        step: u64,
    },
    /// Logged steps were run again.
    Replay {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
        /// Their rows.
        records: u64,
    },
    /// A checkpoint was committed.
    Checkpoint {
        /// Its step.
        step: u64,
        /// How long it took.
        usecs: u64,
    },
    /// The process ended, as was wanted.
    Stop {
        /// How.
        exit: String,
    },
    /// The process ended although it was wanted; it is started again.
    Crash {
        /// The last step that was seen.
        step: u64,
        /// How it ended.
        exit: String,
        /// What it said last.
        message: String,
    },
    /// The process ended, or could not be started, and it is not tried again.
    GiveUp {
        /// How it ended.
        exit: String,
        /// Why.
        message: String,
    },
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event.
    pub fn note(&self, now_ms: i64, what: Happened) {
        self.lock().note(now_ms, what);
    }

    /// Notes what a process says of itself: a sample, if it is time for one, and the events that show in it.
    pub fn see(&self, now_ms: i64, now: &Liveness) {
        let mut inner = self.lock();
        let before = inner.seen.replace(now.clone()).filter(|seen| seen.process == now.process);
        inner.see_events(now_ms, before.as_ref(), now);
        inner.sample(now_ms, now);
    }

    /// Notes that the process is gone. Its last step, if it was seen.
    pub fn gone(&self) -> Option<u64> {
        let mut inner = self.lock();
        inner.sampled = None;
        inner.rate = None;
        inner.told_replay = false;
        inner.seen.take().map(|seen| seen.step)
    }

    /// The newest figures, for lists; null while there is no process.
    pub fn now(&self) -> Value {
        let inner = self.lock();
        let Some(seen) = &inner.seen else { return Value::Null };
        let figures = &seen.figures;
        json!({
            "pid": seen.pid,
            "step": seen.step,
            "records": figures.records,
            "records_per_second": inner.rate,
            "buffered_records": figures.buffered_records,
            "undelivered_steps": seen.step.saturating_sub(figures.delivered_step),
        })
    }

    /// What is later than `after`, oldest first.
    pub fn since(&self, after: i64) -> Value {
        let inner = self.lock();
        let samples: Vec<&Sample> = inner.samples.iter().filter(|s| s.at_msecs > after).collect();
        let events: Vec<&Event> = inner.events.iter().filter(|e| e.at_msecs > after).collect();
        json!({ "samples": samples, "events": events })
    }
}

impl Inner {
    /// A time behind all others, near `now_ms`.
    fn at(&mut self, now_ms: i64) -> i64 {
        self.last_at = now_ms.max(self.last_at.saturating_add(1));
        self.last_at
    }

    fn note(&mut self, now_ms: i64, what: Happened) {
        let at_msecs = self.at(now_ms);
        push(&mut self.events, Event { at_msecs, what }, EVENTS);
    }

    /// The events that show in what a process says, and said `before`.
    fn see_events(&mut self, now_ms: i64, before: Option<&Liveness>, now: &Liveness) {
        let is_up = |status: &str| matches!(status, "Running" | "Paused");
        if let (Some((from, to)), false, true) = (now.figures.replay, self.told_replay, is_up(&now.status)) {
            self.told_replay = true;
            self.note(now_ms, Happened::Replay { from, to, records: now.figures.replayed_records });
        }
        if is_up(&now.status) && before.is_none_or(|b| b.status != now.status) {
            let step = now.step;
            let what = if now.status == "Paused" { Happened::Paused { step } } else { Happened::Running { step } };
            self.note(now_ms, what);
        }
        let before = before.map(|b| b.figures).unwrap_or_default();
        if now.figures.checkpoints > before.checkpoints {
            let usecs = now.figures.checkpoint_time.since(&before.checkpoint_time).mean_us().unwrap_or(0);
            self.note(now_ms, Happened::Checkpoint { step: now.figures.checkpoint_step, usecs });
        }
    }

    fn sample(&mut self, now_ms: i64, now: &Liveness) {
        let figures = now.figures;
        let Some((then_ms, then)) = self.sampled.replace((now_ms, figures)) else { return };
        let passed = now_ms.saturating_sub(then_ms);
        // A wall clock that was set back begins anew.
        if (0..SAMPLE_MS).contains(&passed) {
            self.sampled = Some((then_ms, then));
            return;
        }
        let Ok(passed @ 1..) = u64::try_from(passed) else { return };
        let (step_time, commit_time) =
            (figures.step_time.since(&then.step_time), figures.commit_time.since(&then.commit_time));
        let sample = Sample {
            at_msecs: self.at(now_ms),
            records_per_second: figures.new_records.saturating_sub(then.new_records).saturating_mul(1000) / passed,
            buffered_records: figures.buffered_records,
            step: now.step,
            steps: step_time.count(),
            undelivered_steps: now.step.saturating_sub(figures.delivered_step),
            step_mean_usecs: step_time.mean_us(),
            step_p99_usecs: step_time.quantile_us(0.99),
            commit_mean_usecs: commit_time.mean_us(),
            commit_p99_usecs: commit_time.quantile_us(0.99),
            state_bytes: figures.state_bytes,
            log_bytes: figures.log_bytes,
            pending_output_bytes: figures.pending_output_bytes,
        };
        self.rate = Some(sample.records_per_second);
        push(&mut self.samples, sample, SAMPLES);
    }
}

fn push<T>(kept: &mut VecDeque<T>, new: T, most: usize) {
    if kept.len() >= most {
        kept.pop_front();
    }
    kept.push_back(new);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn liveness(process: u128, status: &str, step: u64, figures: Figures) -> Liveness {
        Liveness { pid: 1, process: uuid::Uuid::from_u128(process), status: status.into(), step, figures }
    }

    fn kinds(history: &History) -> Vec<Value> {
        let all = history.since(0);
        all["events"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect()
    }

    #[test]
    fn a_life_is_told_once() {
        let history = History::default();
        history.note(10, Happened::Start);
        let mut figures = Figures::default();
        history.see(10, &liveness(1, "Initializing", 0, figures));
        history.see(11, &liveness(1, "Running", 1, figures));
        figures.checkpoints = 1;
        figures.checkpoint_step = 3;
        figures.checkpoint_time.add(Duration::from_micros(70));
        history.see(12, &liveness(1, "Running", 4, figures));
        history.see(13, &liveness(1, "Running", 4, figures));
        assert_eq!(history.gone(), Some(4));
        assert_eq!(history.now(), Value::Null);
        let figures = Figures { replay: Some((4, 5)), replayed_records: 9, ..Figures::default() };
        history.see(20, &liveness(2, "Replaying", 4, figures));
        history.see(21, &liveness(2, "Paused", 5, figures));
        history.see(22, &liveness(2, "Running", 5, figures));
        assert_eq!(kinds(&history), ["start", "running", "checkpoint", "replay", "paused", "running"]);
        let all = history.since(0);
        assert_eq!(all["events"][2], json!({ "at_msecs": 12, "kind": "checkpoint", "step": 3, "usecs": 70 }));
        assert_eq!(all["events"][3], json!({ "at_msecs": 21, "kind": "replay", "from": 4, "to": 5, "records": 9 }));
        // Strictly later, though three came in two glances.
        assert_eq!(history.since(21)["events"].as_array().unwrap().len(), 2);
        assert_eq!(history.since(23)["events"], json!([]));
    }

    #[test]
    fn a_sample_is_what_came_since_the_last() {
        let history = History::default();
        let mut figures = Figures { records: 700, new_records: 500, ..Figures::default() };
        history.see(1000, &liveness(1, "Running", 7, figures));
        // What a checkpoint and a replay bring is not new.
        figures.records = 90_000;
        figures.new_records = 2500;
        (0..4).for_each(|_| figures.step_time.add(Duration::from_micros(100)));
        history.see(1500, &liveness(1, "Running", 9, figures));
        history.see(2000, &liveness(1, "Running", 11, figures));
        let samples = history.since(0)["samples"].clone();
        assert_eq!(samples.as_array().unwrap().len(), 1);
        assert_eq!((&samples[0]["records_per_second"], &samples[0]["steps"]), (&json!(2000), &json!(4)));
        assert_eq!((&samples[0]["step_mean_usecs"], &samples[0]["commit_mean_usecs"]), (&json!(100), &Value::Null));
        assert_eq!(history.now()["records_per_second"], 2000);
        // Another process is not compared with the one before.
        history.gone();
        history.see(4000, &liveness(2, "Running", 11, Figures::default()));
        assert_eq!(history.since(2000)["samples"], json!([]));
        assert_eq!(history.now()["records_per_second"], Value::Null);
    }

    #[test]
    fn it_is_bounded() {
        let history = History::default();
        for n in 0..2000 {
            history.note(0, Happened::Start);
            history.see(n * 1000, &liveness(1, "Stopping", 0, Figures::default()));
        }
        let all = history.since(0);
        assert_eq!(all["events"].as_array().unwrap().len(), EVENTS);
        assert_eq!(all["samples"].as_array().unwrap().len(), SAMPLES);
    }
}
