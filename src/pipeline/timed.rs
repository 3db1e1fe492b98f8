//! How long sinks take: outputs whose calls are timed. Nothing of it reaches a delta.

use std::sync::{Arc, Mutex, PoisonError};

use crate::circuit::Delta;
use crate::connector::{Level, Output, Result, Resume, SinkPosition};
use crate::pipeline::clock::Clock;
use crate::pipeline::histogram::Histogram;

/// How long one sink took, in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkTimes {
    /// For a step's changes; steps without any are not counted.
    pub delivery: Histogram,
    /// To make durable what it has.
    pub sync: Histogram,
}

/// The times of one sink, as they come.
pub(crate) type Shared = Arc<Mutex<SinkTimes>>;

/// An output that is timed.
#[derive(Debug)]
pub(crate) struct Timed {
    output: Box<dyn Output>,
    clock: Arc<dyn Clock>,
    times: Shared,
}

impl Timed {
    pub(crate) fn over(output: Box<dyn Output>, clock: Arc<dyn Clock>, times: Shared) -> Box<dyn Output> {
        Box::new(Self { output, clock, times })
    }

    /// What a call gives, and, if it succeeds, how long it took.
    fn time<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Output) -> Result<T>,
        of: impl FnOnce(&mut SinkTimes) -> &mut Histogram,
    ) -> Result<T> {
        let begun = self.clock.elapsed();
        let done = call(&mut *self.output)?;
        let took = self.clock.elapsed().saturating_sub(begun);
        of(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner)).add(took);
        Ok(done)
    }
}

impl Output for Timed {
    fn level(&self) -> Level {
        self.output.level()
    }

    fn target(&self) -> Option<String> {
        self.output.target()
    }

    fn open(&mut self, resume: &Resume) -> Result<()> {
        self.output.open(resume)
    }

    fn deliver(&mut self, step: u64, delta: &Delta) -> Result<()> {
        match delta.len() {
            0 => self.output.deliver(step, delta),
            _ => self.time(|output| output.deliver(step, delta), |times| &mut times.delivery),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.output.flush()
    }

    fn replay_done(&mut self) -> Result<()> {
        self.output.replay_done()
    }

    fn sync(&mut self) -> Result<SinkPosition> {
        self.time(|output| output.sync(), |times| &mut times.sync)
    }

    fn durable(&self) -> Option<SinkPosition> {
        self.output.durable()
    }

    fn idle(&mut self) -> Result<()> {
        self.output.idle()
    }
}
