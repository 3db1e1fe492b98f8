//! `null_output`: takes everything and keeps nothing, to measure a pipeline without a sink. It has no settings and no format.

use super::super::config::ConnectorConfig;
use super::super::options::Options;
use super::super::{Context, Level, Output, Result, Resume, SinkPosition};
use crate::circuit::Delta;

/// A sink that keeps nothing; whatever it is sent twice, it holds as often as never.
#[derive(Debug, Default)]
pub(crate) struct NullOutput {
    step: u64,
}

impl NullOutput {
    pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let options = Options::new(&ctx.name, "transport.config of null_output", &config.transport.config, &[], &[])?;
        if config.format.is_some() {
            return Err(options.error("null_output writes nothing, and so has no \"format\"; leave it out"));
        }
        Ok(Self::default())
    }
}

impl Output for NullOutput {
    fn level(&self) -> Level {
        Level::ExactlyOnce
    }

    fn open(&mut self, resume: &Resume) -> Result<()> {
        self.step = resume.checkpoint.as_ref().map_or(resume.step, |c| c.step);
        Ok(())
    }

    fn deliver(&mut self, step: u64, _delta: &Delta) -> Result<()> {
        self.step = step;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn replay_done(&mut self) -> Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> Result<SinkPosition> {
        Ok(SinkPosition { step: self.step, ..SinkPosition::default() })
    }
}
