//! `stdout_output`: a view's changes on standard output, to look at a pipeline while it runs. It has no settings; the
//! [format](super::super::format::render) is JSON, CSV (whose header comes first) or raw bytes.
//!
//! It is at-least-once: nobody knows what a terminal or a pipe has kept, so that a restart writes again what came after the checkpoint. Lines
//! of several outputs may alternate, but each is whole. Where `backstay serve` runs the pipeline, it is that process's output.

use std::io::Write;

use super::super::config::ConnectorConfig;
use super::super::format::render::{Carrier, Renderer};
use super::super::options::Options;
use super::super::{ConnectorError, Context, Level, Output, Result, Resume, SinkPosition};
use crate::circuit::Delta;

/// Lines are written when this many bytes have come together.
const WRITE: usize = 64 << 10;

/// Standard output, or what a test has in its place.
pub(crate) struct StdoutOutput<W> {
    connector: String,
    renderer: Renderer,
    out: W,
    pending: Vec<u8>,
    has_header: bool,
    step: u64,
}

impl<W> std::fmt::Debug for StdoutOutput<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdoutOutput").field("connector", &self.connector).field("step", &self.step).finish()
    }
}

impl<W: Write> StdoutOutput<W> {
    pub(crate) fn new(config: &ConnectorConfig, ctx: &Context, out: W) -> Result<Self> {
        Options::new(&ctx.name, "transport.config of stdout_output", &config.transport.config, &[], &[])?;
        let renderer = Renderer::new(config.format.as_ref(), ctx, &Carrier::File)?;
        Ok(Self { connector: ctx.name.clone(), renderer, out, pending: Vec::new(), has_header: false, step: 0 })
    }

    fn write(&mut self) -> Result<()> {
        let written = self.out.write_all(&self.pending).and_then(|()| self.out.flush());
        // What was written in part is not tried again: whoever reads it is gone.
        self.pending.clear();
        written.map_err(|e| {
            ConnectorError::new(
                &self.connector,
                format!("cannot write to standard output: {e}; is its reader still there?"),
            )
        })
    }
}

impl<W: Write + Send> Output for StdoutOutput<W> {
    fn level(&self) -> Level {
        Level::AtLeastOnce
    }

    fn open(&mut self, resume: &Resume) -> Result<()> {
        self.step = resume.checkpoint.as_ref().map_or(resume.step, |c| c.step);
        Ok(())
    }

    fn deliver(&mut self, step: u64, delta: &Delta) -> Result<()> {
        if !self.has_header {
            self.has_header = true;
            self.renderer.header(&mut self.pending);
        }
        self.renderer.render(step, delta, &mut self.pending)?;
        self.step = step;
        if self.pending.len() >= WRITE { self.write() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.write()
    }

    fn replay_done(&mut self) -> Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> Result<SinkPosition> {
        self.write()?;
        Ok(SinkPosition { step: self.step, ..SinkPosition::default() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use backstay_storage::disk::SimDisk;

    use super::*;
    use crate::connector::testing::{config, context, schema};

    /// A reader that goes away after so many bytes.
    #[derive(Debug, Default)]
    struct Pipe {
        got: Vec<u8>,
        most: usize,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.got.len() >= self.most {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            self.got.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_when_they_are_asked_for() {
        let json =
            r#"{"transport": {"name": "stdout_output"}, "format": {"name": "csv", "config": {"include_step": true}}}"#;
        let ctx = context(Arc::new(SimDisk::new(1)), Arc::new(schema().project(&[0]).unwrap()));
        let mut output = StdoutOutput::new(&config(json), &ctx, Pipe { most: 20, ..Pipe::default() }).unwrap();
        let delta = |id: i64| {
            let rows = RecordBatch::try_new(ctx.schema.clone(), vec![Arc::new(Int64Array::from(vec![id]))]).unwrap();
            Delta { rows, weights: vec![1] }
        };
        output.deliver(7, &delta(1)).unwrap();
        assert!(output.out.got.is_empty());
        output.flush().unwrap();
        assert_eq!(output.out.got, b"step,id,op\n7,1,insert\n");
        assert_eq!(output.sync().unwrap().step, 7);
        output.deliver(8, &delta(2)).unwrap();
        let e = output.sync().unwrap_err();
        assert!(!e.retry && e.to_string().contains("is its reader still there?"), "{e}");
    }
}
