//! `file_output`: a view's changes appended to a file, each step once and whole.
//!
//! Settings: `path` (relative ones start at the SQL file's folder; missing folders are made) and `overwrite` (default false: a pipeline that begins
//! anew refuses a file that has content; true: it empties it, but for a savepoint's copy, which refuses it always). The [format](super::super::format::render) is JSON, CSV or raw bytes.
//!
//! How it is exactly-once: a checkpoint holds the file's length, `offset`, after the last step that it stands for, all of which is
//! durable. A restart renders the later steps again: at the first byte where the file differs from that (a write that did not
//! get to the disk whole) it is cut, and goes on from there. The identical bytes before are written again, for a process may have ended
//! after a sync that failed, when they are read from memory but would never reach the disk.
//!
//! A device writes whole sectors, so that a torn append can spoil durable bytes in front of it, in the same sector. Therefore the checkpoint
//! holds the bytes of the last, unfinished block of [`BLOCK`] bytes too (`tail`), and a restart writes them again first, durably; of the whole block before
//! that one it holds a hash (`before`), which tells when the file is another one.
//!
//! Invariants:
//! 1. `written` bytes of the file, and what `pending` holds, are the rendering of all steps so far, and nothing else.
//! 2. A position is given out only after the file, and once a process its name too, are durable.
//! 3. A call that fails with `retry` has changed nothing of invariant 1.
//! 4. Nothing is written or cut in front of the block in which the checkpoint's offset lies, nor is the file made shorter than that offset.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_storage::disk::{Create, Disk, File, Metadata, OpenOptions};
use xxhash_rust::xxh3::xxh3_64;

use super::super::config::ConnectorConfig;
use super::super::format::cell::parse_hex;
use super::super::format::render::{Carrier, Renderer};
use super::super::format::text::hex;
use super::super::options::Options;
use super::super::{ConnectorError, Context, Level, Output, Result, Resume, SinkPosition};
use crate::circuit::Delta;

/// Appends are written when this many bytes have come together.
const WRITE: usize = 1 << 20;
/// What a torn write may spoil: no device has larger sectors.
const BLOCK: usize = 4096;
/// The keys of a position's detail: the file's length, the bytes of its unfinished block as hexadecimal digits, and the hash of the
/// block before (absent if there is none).
const OFFSET: &str = "offset";
const TAIL: &str = "tail";
const BEFORE: &str = "before";

/// A file that a view's changes are appended to.
#[derive(Debug)]
pub(crate) struct FileOutput {
    connector: String,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    overwrite: bool,
    renderer: Renderer,
    /// `None`: not open.
    sink: Option<Sink>,
    /// The last step in the sink and `pending`.
    step: u64,
}

/// The open file.
#[derive(Debug)]
struct Sink {
    file: Arc<dyn File>,
    /// How many of its bytes are rendered and written.
    written: u64,
    /// Rendered, and to be written behind those.
    pending: Vec<u8>,
    /// The last bytes written: those of the unfinished block, and of the one before.
    recent: Vec<u8>,
    /// The checkpoint's offset.
    durable: u64,
    /// Where the bytes end that an earlier process left, `None` once all steps of its have been rendered again.
    left: Option<u64>,
    /// The last step that the earlier process may have delivered.
    last_step: u64,
    name_is_durable: bool,
}

impl FileOutput {
    pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let place = "transport.config of file_output";
        let options = Options::new(&ctx.name, place, &config.transport.config, &["path", "overwrite"], &[])?;
        let path = options.require_string("path")?;
        if path.is_empty() || path.ends_with('/') {
            return Err(options.error("\"path\" must name a file"));
        }
        Ok(Self {
            connector: ctx.name.clone(),
            disk: Arc::clone(&ctx.disk),
            path: ctx.base_dir.join(path),
            overwrite: options.bool("overwrite")?.unwrap_or(false),
            renderer: Renderer::new(config.format.as_ref(), ctx, &Carrier::File)?,
            sink: None,
            step: 0,
        })
    }

    fn error(&self, message: impl Into<String>) -> ConnectorError {
        ConnectorError::new(&self.connector, message)
    }

    fn file_error(&self, what: &str, error: &backstay_storage::Error) -> ConnectorError {
        ConnectorError::file(&self.connector, what, &self.path, error)
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// What stands at the path now.
    fn found(&self) -> Result<Option<Metadata>> {
        match self.disk.metadata(&self.path).map_err(|e| self.file_error("look at", &e))? {
            Some(m) if m.is_dir => Err(self.error(format!("{} is a directory", self.path.display()))),
            Some(m) if !m.is_file => Err(self.error(format!("{} is not a regular file", self.path.display()))),
            other => Ok(other),
        }
    }

    /// Opens the file, creating it and its folder if they are not there.
    fn open_file(&self) -> Result<(Arc<dyn File>, u64)> {
        self.disk.create_dir_all(self.folder()).map_err(|e| self.file_error("create the folder of", &e))?;
        let options = OpenOptions { write: true, create: Create::IfAbsent, direct: false };
        let file = self.disk.open(&self.path, options).map_err(|e| self.file_error("open", &e))?;
        let len = file.len().map_err(|e| self.file_error("measure", &e))?;
        Ok((file, len))
    }

    /// A checkpoint's position: the offset, the bytes of the unfinished block, the hash of the one before.
    fn parts(&self, position: &SinkPosition) -> Result<(u64, Vec<u8>, Option<u64>)> {
        let text = |key| position.detail.get(key).and_then(serde_json::Value::as_str);
        let offset = position.detail.get(OFFSET).and_then(serde_json::Value::as_u64);
        let tail = text(TAIL).and_then(parse_hex);
        let before = text(BEFORE).map(|t| u64::from_str_radix(t, 16).ok());
        match (offset, tail, before) {
            (Some(offset), Some(tail), before) if before != Some(None) && offset % BLOCK as u64 == tail.len() as u64 => {
                Ok((offset, tail, before.flatten()))
            }
            _ => Err(self.error(format!(
                "the checkpoint's position of step {} is not one of a file_output; was this connector another transport before? Give \
                 it another name",
                position.step
            ))),
        }
    }

    /// The whole block before `start`, which must have this hash.
    fn block_before(&self, file: &dyn File, start: u64, hash: Option<u64>) -> Result<Vec<u8>> {
        let (Some(at), Some(expected)) = (start.checked_sub(BLOCK as u64), hash) else { return Ok(Vec::new()) };
        let mut block = vec![0; BLOCK];
        let n = file.read_at(&mut block, at).map_err(|e| self.file_error("read back", &e))?;
        block.truncate(n);
        let got = xxh3_64(&block);
        if got == expected {
            return Ok(block);
        }
        Err(self.error(format!(
            "{} was replaced or changed: its bytes {at} to {start} hash to {got:016x}, the checkpoint says {expected:016x}; put its own content back, \
             or begin a new pipeline with an empty data directory",
            self.path.display()
        )))
    }

    fn sink(&mut self) -> Result<&mut Sink> {
        match &mut self.sink {
            Some(sink) => Ok(sink),
            None => Err(ConnectorError::new(&self.connector, "the output is not open")),
        }
    }

    /// Cuts the file at the first byte from `offset` on that differs from `text`, if the earlier process's bytes have one.
    fn cut_at_difference(&mut self, text: &[u8]) -> Result<()> {
        let Some(sink) = &self.sink else { return Ok(()) };
        let Some(left) = sink.left else { return Ok(()) };
        // What is pending has been compared, and is longer than what is left only if all of that was the same.
        let from = sink.written + sink.pending.len() as u64;
        let mut same = 0;
        let mut piece = vec![0; WRITE.min(text.len())];
        for expected in text.chunks(WRITE) {
            let at = from + same;
            let there = usize::try_from(left.saturating_sub(at)).unwrap_or(usize::MAX).min(expected.len());
            if there == 0 {
                return Ok(());
            }
            let buf = piece.get_mut(..there).unwrap_or_default();
            let n = sink.file.read_at(buf, at).map_err(|e| self.file_error("read back", &e))?;
            let found = buf.get(..n).unwrap_or_default();
            let equal = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
            same += equal as u64;
            if equal < there {
                let cut = from + same;
                sink.file.set_len(cut).map_err(|e| self.file_error("cut", &e))?;
                self.sink()?.left = Some(cut);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes what is pending.
    fn append(&mut self) -> Result<()> {
        let Some(sink) = &mut self.sink else { return Ok(()) };
        if sink.pending.is_empty() {
            return Ok(());
        }
        match sink.file.write_at(&sink.pending, sink.written) {
            Ok(()) => {
                sink.written += sink.pending.len() as u64;
                sink.recent.append(&mut sink.pending);
                let keep = usize::try_from(sink.written % BLOCK as u64).unwrap_or_default() + BLOCK;
                sink.recent.drain(..sink.recent.len().saturating_sub(keep));
                Ok(())
            }
            Err(e) => {
                // Part of a line may stand there now. The next try writes the same bytes at the same place, and so does a restart, so
                // that a failure to cut it off does no harm; what an earlier process left is still to be compared.
                if sink.left.is_none() {
                    let _ = sink.file.set_len(sink.written.max(sink.durable));
                }
                Err(self.file_error("write", &e))
            }
        }
    }
}

impl Output for FileOutput {
    fn level(&self) -> Level {
        Level::ExactlyOnce
    }

    fn target(&self) -> Option<String> {
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        Some(path.to_string_lossy().into_owned())
    }

    fn open(&mut self, resume: &Resume) -> Result<()> {
        self.sink = None;
        let (offset, tail, before, left) = match &resume.checkpoint {
            None => {
                let len = self.found()?.map_or(0, |m| m.len);
                if len > 0 && resume.copy {
                    return Err(self.error(format!(
                        "{} has {len} bytes already, and this pipeline is a savepoint's copy, or was told to begin anew, with a file of its own: the pipeline that \
                         it was copied from may still write there; choose another \"path\", or move the file away",
                        self.path.display()
                    )));
                }
                if len > 0 && !self.overwrite {
                    return Err(self.error(format!(
                        "{} has {len} bytes already, which this pipeline did not write; move it away, choose another \"path\", or set \"overwrite\": true",
                        self.path.display()
                    )));
                }
                self.step = resume.step;
                (0, Vec::new(), None, None)
            }
            Some(position) => {
                let (offset, tail, before) = self.parts(position)?;
                let found = self.found()?;
                let len = found.map_or(0, |m| m.len);
                if len < offset {
                    let what = if found.is_some() { format!("has {len} bytes") } else { "is not there".to_owned() };
                    return Err(self.error(format!(
                        "{} {what}, but the checkpoint of step {} says that {offset} bytes were written and synced; put the file back, \
                         or begin a new pipeline with an empty data directory",
                        self.path.display(),
                        position.step
                    )));
                }
                self.step = position.step;
                (offset, tail, before, resume.replayed.then_some(len))
            }
        };
        let (file, len) = self.open_file()?;
        if left.is_none() && len > offset {
            file.set_len(offset).map_err(|e| self.file_error("cut", &e))?;
        }
        let start = offset - tail.len() as u64;
        let mut recent = self.block_before(&*file, start, before)?;
        if !tail.is_empty() {
            // Durable at once: a pipeline that has nothing more to deliver asks for no sync.
            file.write_at(&tail, start).map_err(|e| self.file_error("write", &e))?;
            file.sync().map_err(|e| ConnectorError { retry: false, ..self.file_error("sync", &e) })?;
        }
        recent.extend_from_slice(&tail);
        self.sink = Some(Sink {
            recent,
            file,
            written: offset,
            pending: Vec::new(),
            durable: offset,
            left,
            last_step: resume.last_step,
            name_is_durable: false,
        });
        Ok(())
    }

    fn deliver(&mut self, step: u64, delta: &Delta) -> Result<()> {
        let mut text = Vec::new();
        let sink = self.sink()?;
        if sink.written == 0 && sink.pending.is_empty() {
            self.renderer.header(&mut text);
        }
        self.renderer.render(step, delta, &mut text)?;
        self.cut_at_difference(&text)?;
        let sink = self.sink()?;
        let before = sink.pending.len();
        sink.pending.append(&mut text);
        if sink.pending.len() >= WRITE
            && let Err(e) = self.append()
        {
            self.sink()?.pending.truncate(before);
            return Err(e);
        }
        self.step = step;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.append()
    }

    fn replay_done(&mut self) -> Result<()> {
        let path = self.path.clone();
        let sink = self.sink()?;
        let rendered = sink.written + sink.pending.len() as u64;
        if let Some(left) = sink.left.filter(|left| *left > rendered) {
            let last_step = sink.last_step;
            return Err(self.error(format!(
                "{} has {left} bytes, but all steps up to {last_step}, the last one in the log, are {rendered} bytes; something else has written to it, \
                 or it belongs to another pipeline: cut it to {rendered} bytes, or put its own content back",
                path.display()
            )));
        }
        sink.left = None;
        Ok(())
    }

    fn sync(&mut self) -> Result<SinkPosition> {
        self.append()?;
        let Some(sink) = &self.sink else { return Err(self.error("the output is not open")) };
        sink.file.sync().map_err(|e| ConnectorError { retry: false, ..self.file_error("sync", &e) })?;
        if !sink.name_is_durable {
            self.disk
                .sync_dir(self.folder())
                .map_err(|e| ConnectorError { retry: false, ..self.file_error("sync the folder of", &e) })?;
        }
        let step = self.step;
        let sink = self.sink()?;
        sink.name_is_durable = true;
        sink.durable = sink.written;
        let unfinished = usize::try_from(sink.written % BLOCK as u64).unwrap_or_default();
        let (before, tail) =
            sink.recent.split_at_checked(sink.recent.len().saturating_sub(unfinished)).unwrap_or_default();
        let mut digits = String::with_capacity(tail.len() * 2);
        hex(&mut digits, tail);
        let mut detail = BTreeMap::from([(OFFSET.to_owned(), sink.written.into()), (TAIL.to_owned(), digits.into())]);
        if let Some(block) = before.last_chunk::<BLOCK>() {
            detail.insert(BEFORE.to_owned(), format!("{:016x}", xxh3_64(block)).into());
        }
        Ok(SinkPosition { step, detail })
    }
}

#[cfg(test)]
mod tests;
