//! The blocks of a run one after another, read ahead of whoever goes through them.
//!
//! After a jump as many blocks are read at once as one of the two walks before took (one, if there were none): who looks at a few rows
//! pays for one block, which is read together with those of other runs (`merge`); who reads range after range waits once for each. Whoever goes on beyond that has
//! pieces read ahead, which double up to [`LARGEST`] bytes; in the end one piece is being used and [`AHEAD`] − 1 others are
//! read or on their way, so that the device works while rows are unpacked and merged. Blocks that are in the cache are
//! taken from there.
//!
//! Invariants:
//! 1. A queue is used on the thread that made it: after a move to another thread, what was on its way is let go and read again.
//! 2. A queue goes back to the context with nothing in flight.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use crate::Result;
use crate::disk::IoQueue;
use crate::spine::context::{Piece, SpineContext, Want, lost};
use crate::spine::format::block::Block;
use crate::spine::run::{Keep, Run, load};

/// Bytes of the first piece that is read ahead, and of the largest.
const SMALLEST: u64 = 32 << 10;
const LARGEST: u64 = 256 << 10;
/// Pieces that are held or on their way.
const AHEAD: usize = 3;
/// Blocks that a walk is expected to take at most.
const EXPECTED: u32 = 16;

/// Some blocks that are held or on their way.
enum Group {
    Cached(Arc<Block>),
    /// Of the file's bytes from `offset`, `len` of them.
    Read {
        blocks: Range<usize>,
        offset: u64,
        len: u64,
        token: u64,
        piece: Option<Piece>,
    },
}

/// See the module's head.
pub(super) struct Blocks {
    context: Arc<SpineContext>,
    run: Arc<Run>,
    keep: Keep,
    /// Which way the last block was asked for, and which is the next one that way.
    forward: bool,
    next: Option<usize>,
    /// How many were asked for in order.
    streak: u32,
    /// How many the last two walks took.
    walks: [u32; 2],
    groups: VecDeque<Group>,
    /// The next block to be read ahead.
    planned: Option<usize>,
    queue: Option<(ThreadId, Box<dyn IoQueue>)>,
    token: u64,
}

impl Blocks {
    pub(super) fn new(context: Arc<SpineContext>, run: Arc<Run>, keep: Keep) -> Self {
        Self {
            context,
            run,
            keep,
            forward: true,
            next: None,
            streak: 0,
            walks: [0; 2],
            groups: VecDeque::new(),
            planned: None,
            queue: None,
            token: 0,
        }
    }

    pub(super) fn run(&self) -> &Run {
        &self.run
    }

    /// The next block asked for is not one in order, wherever it is.
    pub(super) fn jump(&mut self) {
        if self.streak > 0 {
            self.walks = [self.streak, self.walks[0]];
        }
        self.next = None;
        self.streak = 0;
        self.groups.clear();
    }

    /// How many blocks a walk is likely to take.
    fn expected(&self) -> u32 {
        self.walks[0].max(self.walks[1]).clamp(1, EXPECTED)
    }

    /// A walk begins at block `i`: asks for what it is likely to take, and does not wait for it. True if that is this one block, which has to be
    /// read: then nothing is asked for, and somebody may [take](Blocks::took) it along.
    pub(super) fn ask(&mut self, i: usize, forward: bool) -> Result<bool> {
        self.jump();
        if i >= self.run.index.len() || self.context.cache().has_block(&self.run.handle, self.run.place(i).0) {
            return Ok(false);
        }
        if self.expected() == 1 {
            return Ok(true);
        }
        self.forward = forward;
        self.planned = Some(i);
        let me = self.here();
        let asked = self.fill(me, 1, self.expected(), LARGEST);
        match asked {
            Ok(()) => self.next = Some(i),
            Err(_) => self.jump(),
        }
        asked.map(|()| false)
    }

    /// A walk begins at block `i`, which somebody has already.
    pub(super) fn took(&mut self, i: usize, forward: bool) {
        self.jump();
        self.forward = forward;
        self.next = self.after(i);
        self.planned = self.next;
        self.streak = 1;
    }

    /// Where blocks come from, and whether they are kept.
    pub(super) fn origin(&self) -> (&SpineContext, Keep) {
        (&self.context, self.keep)
    }

    fn after(&self, i: usize) -> Option<usize> {
        if self.forward { Some(i + 1).filter(|&next| next < self.run.index.len()) } else { i.checked_sub(1) }
    }

    /// Block `i`, asked for on the way forward or back.
    pub(super) fn block(&mut self, i: usize, forward: bool) -> Result<Arc<Block>> {
        let in_order = self.next == Some(i) && self.forward == forward;
        if !in_order {
            self.jump();
            self.forward = forward;
        }
        let found = if in_order { self.read_ahead(i) } else { self.alone(i) };
        if found.is_err() {
            self.jump();
            return found;
        }
        self.next = self.after(i);
        self.streak = self.streak.saturating_add(1);
        // A queue for each run, held for long, would be many.
        let at_rest = |(_, queue): &(ThreadId, Box<dyn IoQueue>)| queue.in_flight() == 0;
        if self.groups.is_empty() && (self.planned.is_none() || self.queue.as_ref().is_some_and(at_rest)) {
            self.give_back();
        }
        found
    }

    fn alone(&mut self, i: usize) -> Result<Arc<Block>> {
        self.planned = self.after(i);
        load(&self.context, &[(&self.run, i)], self.keep)?.pop().ok_or_else(lost)
    }

    /// This thread. What was on its way for another is let go.
    fn here(&mut self) -> ThreadId {
        let me = thread::current().id();
        if self.queue.as_ref().is_some_and(|(owner, _)| *owner != me) {
            self.queue = None;
            self.groups.clear();
        }
        me
    }

    fn read_ahead(&mut self, i: usize) -> Result<Arc<Block>> {
        let me = self.here();
        if self.groups.is_empty() {
            self.planned = Some(i);
        }
        let expected = self.expected();
        match self.streak.checked_sub(expected) {
            None => self.fill(me, 1, expected - self.streak, LARGEST)?,
            Some(beyond) => {
                let bytes = LARGEST.min(SMALLEST << beyond.min(u64::BITS / 2));
                self.fill(me, AHEAD.min(1 + beyond as usize), u32::MAX, bytes)?;
            }
        }
        self.arrive()?;
        let forward = self.forward;
        let Some(group) = self.groups.front_mut() else { return Err(lost()) };
        match group {
            Group::Cached(block) => {
                let block = Arc::clone(block);
                self.groups.pop_front();
                Ok(block)
            }
            Group::Read { blocks, offset, piece, .. } => {
                let (at, len) = self.run.place(i);
                let start = usize::try_from(at.saturating_sub(*offset)).unwrap_or(usize::MAX);
                let end = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
                let bytes = piece.as_ref().and_then(|piece| piece.bytes().get(start..end)).ok_or_else(lost)?;
                let block = self.run.keep_block(&self.context, i, bytes, self.keep)?;
                if forward {
                    blocks.start = i + 1;
                } else {
                    blocks.end = i;
                }
                if blocks.start >= blocks.end {
                    self.groups.pop_front();
                }
                Ok(block)
            }
        }
    }

    /// Asks for what comes next, until so many pieces are held or on their way: each of at most so many blocks, or bytes, or one block.
    fn fill(&mut self, me: ThreadId, pieces: usize, most: u32, largest: u64) -> Result<()> {
        while self.groups.len() < pieces
            && let Some(i) = self.planned
        {
            if let Some(block) = self.context.cache().block(&self.run.handle, self.run.place(i).0) {
                self.groups.push_back(Group::Cached(block));
                self.planned = self.after(i);
                continue;
            }
            let (mut offset, mut len) = self.run.place(i);
            let mut blocks = i..i + 1;
            self.planned = self.after(i);
            while let Some(i) = self.planned {
                // Between two blocks there may be filter pages, which are read along.
                let (at, bytes) = self.run.place(i);
                let (start, end) = (offset.min(at), offset.saturating_add(len).max(at.saturating_add(bytes)));
                if end - start > largest
                    || blocks.len() >= most as usize
                    || self.context.cache().has_block(&self.run.handle, at)
                {
                    break;
                }
                (offset, len) = (start, end - start);
                blocks = blocks.start.min(i)..blocks.end.max(i + 1);
                self.planned = self.after(i);
            }
            let op = Want { handle: &self.run.handle, offset, len }.op()?;
            let queue = match &mut self.queue {
                Some((_, queue)) => queue,
                none => &mut none.insert((me, self.context.take_queue()?)).1,
            };
            self.token += 1;
            queue.submit(vec![(self.token, op)])?;
            self.groups.push_back(Group::Read { blocks, offset, len, token: self.token, piece: None });
        }
        Ok(())
    }

    /// Waits until the first group is there.
    fn arrive(&mut self) -> Result<()> {
        while let Some(Group::Read { piece: None, .. }) = self.groups.front() {
            let queue = &mut self.queue.as_mut().ok_or_else(lost)?.1;
            let done = queue.wait(1)?;
            if done.is_empty() {
                return Err(lost());
            }
            for done in done {
                let answers = |group: &&mut Group| matches!(group, Group::Read { token, .. } if *token == done.token);
                // One that nobody waits for was on its way when a jump came.
                if let Some(Group::Read { offset, len, piece, .. }) = self.groups.iter_mut().find(answers) {
                    *piece = Some(Want { handle: &self.run.handle, offset: *offset, len: *len }.piece(done)?);
                }
            }
        }
        Ok(())
    }

    fn give_back(&mut self) {
        let Some((owner, mut queue)) = self.queue.take() else { return };
        if owner != thread::current().id() {
            return;
        }
        while queue.in_flight() > 0 {
            if queue.wait(1).is_err() {
                return;
            }
        }
        self.context.put_queue(queue);
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").field("next", &self.next).field("streak", &self.streak).finish_non_exhaustive()
    }
}
