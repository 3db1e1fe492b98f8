//! Reads contents in order, block by block.

use std::sync::Arc;

use super::super::super::format::csv::Layout;
use super::super::super::format::split::{Framing, split};
use super::super::super::patience::insist;
use super::super::super::{Chunk, ConnectorError, InputReader, Next, Position, Result};
use super::super::content::{BlockIdentity, Content, PROBE};
use super::{ROWS, Shared};

/// How much is read at once.
const BLOCK: usize = 1 << 20;

/// Reads the contents of one connector.
#[derive(Debug)]
pub(super) struct ContentReader {
    shared: Arc<Shared>,
    files: Vec<Tracked>,
    /// The file that is being read; behind the last one: a pass is over.
    current: usize,
    open: Option<Open>,
    /// Whether this pass over the files found anything.
    progress: bool,
}

/// How far a file has been read.
#[derive(Debug)]
struct Tracked {
    partition: Arc<str>,
    offset: u64,
    identity: String,
    layout: Option<(Layout, u64)>,
    /// The length at which there was nothing to read.
    idle_at: Option<u64>,
    /// Whether it has been read to its end for good.
    done: bool,
}

/// The file that is being read.
#[derive(Debug)]
struct Open {
    content: Content,
    layout: Layout,
    /// The content's first bytes, up to [`PROBE`].
    head: Vec<u8>,
    /// Content from `start` on; up to [`PROBE`] bytes before `at` are kept for identities.
    buf: Vec<u8>,
    start: u64,
    at: usize,
    /// Whether the content has been read to its end.
    eof: bool,
}

impl ContentReader {
    pub(super) fn open(shared: Arc<Shared>, position: &Position) -> Result<Self> {
        let mut this = Self { shared, files: Vec::new(), current: 0, open: None, progress: false };
        insist(this.shared.source.patience(), || this.list())?;
        for p in &position.partitions {
            let found = this.files.iter_mut().find(|f| *f.partition == *p.partition);
            match found {
                Some(file) => {
                    file.offset = p.offset;
                    file.identity.clone_from(&p.identity);
                }
                None if this.shared.source.selects(&p.partition) => {
                    return Err(this.shared.source.missing(&p.partition, p.offset));
                }
                // The configuration does not name it any more.
                None => {}
            }
        }
        for file in &this.files {
            let verified = this.shared.verify(&file.partition, file.offset, &file.identity);
            // What may pass is met again when it is read, which can wait.
            verified.or_else(|e| if e.retry { Ok(()) } else { Err(e) })?;
        }
        Ok(this)
    }

    /// Adds the files that are new.
    fn list(&mut self) -> Result<()> {
        for partition in self.shared.source.list()? {
            if !self.files.iter().any(|f| *f.partition == *partition) {
                self.files.push(Tracked {
                    partition: Arc::from(partition),
                    offset: 0,
                    identity: String::new(),
                    layout: None,
                    idle_at: None,
                    done: false,
                });
            }
        }
        Ok(())
    }

    /// The current file's next chunk; `None` if it has none now.
    fn read(&mut self) -> Result<Option<Chunk>> {
        let Some(file) = self.files.get_mut(self.current) else { return Ok(None) };
        let shared = &self.shared;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => match file.open(shared)? {
                Some(open) => open,
                None => return Ok(None),
            },
        };
        let last = |open: &Open| open.eof && !shared.follow;
        let mut records = Vec::new();
        loop {
            let from = open.at;
            open.at = split(&open.buf, from, shared.format.framing(), last(&open), ROWS, &mut records)
                .map_err(|e| shared.too_long(&file.partition, open.start + e.0 as u64))?;
            if !records.is_empty() {
                break;
            }
            if open.eof {
                file.done = !shared.follow;
                file.idle_at = Some(open.start + open.buf.len() as u64);
                return Ok(None);
            }
            open.fill()?;
            file.check_growth(shared, &open)?;
        }
        let end = open.start + open.at as u64;
        let mut chunk =
            shared.chunk(&file.partition, &open.layout, (file.offset, end), (&open.buf, open.start), &mut records)?;
        let probe = file.offset.saturating_sub(PROBE as u64).max(open.start);
        let skip = usize::try_from(probe - open.start).unwrap_or(usize::MAX);
        let bytes = open.buf.get(skip..open.at).unwrap_or_default().to_vec();
        let version = open.content.version().to_owned();
        chunk.identity = Arc::new(BlockIdentity { version, head: open.head.clone(), start: probe, bytes });
        file.offset = end;
        file.identity = chunk.identity.at(end);
        self.open = Some(open);
        Ok(Some(chunk))
    }
}

impl Tracked {
    /// Opens the file where it has been read to; `None` if there is nothing to read.
    fn open(&mut self, shared: &Shared) -> Result<Option<Open>> {
        if self.done {
            return Ok(None);
        }
        if let Some(idle_at) = self.idle_at
            && shared.source.len(&self.partition)? == Some(idle_at)
        {
            return Ok(None);
        }
        let mut content = shared.source.open(&self.partition, self.offset)?;
        let around = content.verify(self.offset, &self.identity)?;
        if self.layout.is_none() {
            self.layout = shared.layout(&self.partition)?;
        }
        let Some((layout, header_end)) = &self.layout else {
            // Not even a header: an empty file, or one whose first line is not finished.
            self.done = !shared.follow;
            return Ok(None);
        };
        let mut open = Open {
            content,
            layout: layout.clone(),
            start: self.offset - around.tail.len() as u64,
            at: around.tail.len(),
            head: around.head,
            buf: around.tail,
            eof: false,
        };
        if self.offset == 0 {
            while !open.eof && (open.buf.len() as u64) < *header_end {
                open.fill()?;
            }
            open.at = usize::try_from(*header_end).unwrap_or(usize::MAX).min(open.buf.len());
        }
        Ok(Some(open))
    }

    /// A last line without a newline was taken as a record; it must not have been continued since.
    fn check_growth(&self, shared: &Shared, open: &Open) -> Result<()> {
        let Some(at) = usize::try_from(self.offset.saturating_sub(open.start)).ok().filter(|at| *at > 0) else {
            return Ok(());
        };
        let (before, behind) = (open.buf.get(at - 1), open.buf.get(at));
        let grown = match shared.format.framing() {
            Framing::Whole => behind.is_some(),
            Framing::Ended(end) => before.is_some_and(|b| *b != end) && behind.is_some(),
            Framing::Lines | Framing::Quoted(_) => {
                before.is_some_and(|b| *b != b'\n') && behind.is_some_and(|b| !matches!(b, b'\n' | b'\r'))
            }
        };
        if grown {
            let message = format!(
                "{} has grown behind byte {}, in the middle of the record that ended there when it was read; set \"follow\": true for files that \
                 are being written, or begin new records only",
                shared.source.name(&self.partition),
                self.offset
            );
            return Err(ConnectorError::new(&shared.connector, message));
        }
        Ok(())
    }
}

impl Open {
    /// Reads another block, and forgets what is not needed any more.
    fn fill(&mut self) -> Result<()> {
        let keep = self.at.saturating_sub(PROBE);
        self.buf.drain(..keep);
        self.start += keep as u64;
        self.at -= keep;
        let end = self.buf.len();
        let n = self.content.read(&mut self.buf, BLOCK)?;
        if self.head.len() < PROBE {
            let new = self.buf.get(end..).unwrap_or_default();
            let missing = PROBE - self.head.len();
            self.head.extend_from_slice(new.get(..missing).unwrap_or(new));
        }
        self.eof = n < BLOCK;
        Ok(())
    }
}

impl InputReader for ContentReader {
    fn next(&mut self) -> Result<Next> {
        loop {
            if self.current >= self.files.len() {
                if !self.shared.follow {
                    return Ok(Next::End);
                }
                self.current = 0;
                self.list()?;
                if !std::mem::take(&mut self.progress) {
                    return Ok(Next::Idle);
                }
                continue;
            }
            match self.read()? {
                Some(chunk) => {
                    self.progress = true;
                    return Ok(Next::Chunk(chunk));
                }
                None => self.current += 1,
            }
        }
    }
}
