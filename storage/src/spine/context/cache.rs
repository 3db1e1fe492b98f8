//! The block cache: unpacked blocks and filter pages of all open runs, in one budget.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use super::RunHandle;
use crate::spine::format::block::{self, Block};

/// Where a frame is: epoch and number of the file, offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At(u64, u64, u64);

impl Hash for At {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.rotate_left(32) ^ self.1.rotate_left(48) ^ self.2);
    }
}

/// What the cache holds: bytes that were unpacked and found sound.
#[derive(Clone, Debug)]
enum Cached {
    Block(Arc<Block>),
    Page(Arc<[u8]>),
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<At, Cached> for ByBytes {
    fn weight(&self, _key: &At, cached: &Cached) -> u64 {
        let bytes = match cached {
            Cached::Block(block) => block.memory(),
            Cached::Page(page) => page.len(),
        };
        bytes as u64 + 100
    }
}

/// Mixes one number: places need no more, and the same ones meet in the same order whenever a simulation is repeated.
#[derive(Clone, Copy, Debug, Default)]
struct Mix(u64);

impl BuildHasher for Mix {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u64(b.into()));
    }

    fn write_u64(&mut self, n: u64) {
        let product = u128::from(self.0 ^ n ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

/// See the module's head.
pub(in crate::spine) struct FrameCache(Cache<At, Cached, ByBytes, Mix>);

impl FrameCache {
    /// A cache of up to about so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let blocks = usize::try_from(bytes / block::TARGET as u64).unwrap_or(usize::MAX).max(16);
        Self(Cache::with(blocks, bytes, ByBytes, Mix::default(), DefaultLifecycle::default()))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.weight()
    }

    fn at(handle: &RunHandle, offset: u64) -> At {
        At(handle.header.epoch, handle.header.number, offset)
    }

    /// The block whose frame is at `offset` of the file.
    pub(in crate::spine) fn block(&self, handle: &RunHandle, offset: u64) -> Option<Arc<Block>> {
        match self.0.get(&Self::at(handle, offset)) {
            Some(Cached::Block(block)) => Some(block),
            _ => None,
        }
    }

    pub(in crate::spine) fn put_block(&self, handle: &RunHandle, offset: u64, block: &Arc<Block>) {
        self.0.insert(Self::at(handle, offset), Cached::Block(Arc::clone(block)));
    }

    /// Whether the block whose frame is at `offset` of the file is there. Does not count as a use.
    pub(in crate::spine) fn has_block(&self, handle: &RunHandle, offset: u64) -> bool {
        self.0.peek(&Self::at(handle, offset)).is_some()
    }

    /// Removes what is at `offset` of the file.
    pub(in crate::spine) fn remove(&self, handle: &RunHandle, offset: u64) {
        self.0.remove(&Self::at(handle, offset));
    }

    /// The filter page whose frame is at `offset` of the file.
    pub(in crate::spine) fn page(&self, handle: &RunHandle, offset: u64) -> Option<Arc<[u8]>> {
        match self.0.get(&Self::at(handle, offset)) {
            Some(Cached::Page(page)) => Some(page),
            _ => None,
        }
    }

    pub(in crate::spine) fn put_page(&self, handle: &RunHandle, offset: u64, page: &Arc<[u8]>) {
        self.0.insert(Self::at(handle, offset), Cached::Page(Arc::clone(page)));
    }
}

impl fmt::Debug for FrameCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameCache").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}
