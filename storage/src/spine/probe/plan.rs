//! Which blocks may hold which targets: what the indexes and filters of all runs say.
//!
//! The index says which block a key would be in, and so which filter page to ask; a key outside of a run's range is in
//! none, and asks no filter.

use std::ops::Range;
use std::sync::Arc;

use super::{Sources, Target};
use crate::Result;
use crate::spine::filter::{key_hash, may_contain, row_hash, touch};
use crate::spine::format::frame::Kind;
use crate::spine::run::{Run, load_pages};

/// Filter pages that are held together at most, but for those of one target: 4 to 6 MiB.
const PAGES: usize = 256;

/// A target that may be in some blocks of a run.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) target: usize,
    pub(super) run: usize,
    pub(super) blocks: Range<usize>,
    hash: u64,
    /// The filter pages to be asked: numbers of those that are held.
    pages: Range<usize>,
}

/// How far the targets so far have come in a run.
#[derive(Clone, Debug, Default)]
struct Reached {
    block: usize,
    page: usize,
    /// The last page that was planned to be asked, and its number among those held.
    planned: Option<(usize, Kind, usize)>,
}

/// Plans from the front of the targets to their end.
pub(super) struct Planner {
    reached: Vec<Reached>,
}

impl Planner {
    pub(super) fn new(sources: &Sources<'_>) -> Self {
        Self { reached: vec![Reached::default(); sources.runs.len()] }
    }

    /// Plans targets from `from` on, as many as [`PAGES`] allow, and returns where it stopped. What `closed` is true for is in no
    /// run that matters. The steps, by target and newest run first, are appended.
    pub(super) fn plan(
        &mut self,
        sources: &Sources<'_>,
        targets: &[Target<'_>],
        from: usize,
        closed: impl Fn(usize) -> bool,
        steps: &mut Vec<Step>,
    ) -> Result<usize> {
        let Some(context) = sources.context else { return Ok(targets.len()) };
        let mut pages: Vec<(&Run, usize, Kind)> = Vec::new();
        for reached in &mut self.reached {
            reached.planned = None;
        }
        let mut end = from;
        while let Some(target) = targets.get(end).filter(|_| pages.len() < PAGES) {
            if !closed(end) {
                self.ask(sources.runs, target, end, &mut pages, steps);
            }
            end += 1;
        }
        let pages = load_pages(context, &pages)?;
        let asked = |step: &Step| pages.get(step.pages.clone()).unwrap_or(&[]).iter();
        let lines = steps.iter().flat_map(|step| asked(step).map(|page| touch(page, step.hash)));
        std::hint::black_box(lines.fold(0, |sum, byte| sum ^ byte));
        steps.retain(|step| asked(step).any(|page| may_contain(page, step.hash)));
        Ok(end)
    }

    /// Appends a step for each run that may hold the target.
    fn ask<'a>(
        &mut self,
        runs: &'a [Arc<Run>],
        target: &Target<'_>,
        number: usize,
        pages: &mut Vec<(&'a Run, usize, Kind)>,
        steps: &mut Vec<Step>,
    ) {
        let of_key = key_hash(target.key);
        for (at, (run, reached)) in runs.iter().zip(&mut self.reached).enumerate() {
            let index = &run.index;
            let mut blocks = index.blocks_of(target.key, reached.block);
            reached.block = blocks.start;
            if blocks.is_empty() {
                continue;
            }
            reached.page = index.page_of(blocks.start, reached.page);
            // In the keys' filter a key is where its first row is.
            let (mut first, mut last, mut kind, mut hash) = (reached.page, reached.page, Kind::Keys, of_key);
            if let Some(value) = target.value {
                if blocks.len() > 1 {
                    let start = index.first_reaching_row(target.key, value);
                    let mut end = start + 1;
                    while index.may_begin_below(end, target.key, value) {
                        end += 1;
                    }
                    blocks = start..end.min(blocks.end).max(start + 1);
                }
                let group = index.page_of(blocks.start, reached.page);
                if run.row_filter(group) == Kind::Rows {
                    let end = index.page_of(blocks.end.saturating_sub(1), group);
                    // A neighbour may have no filter of rows; then the key's, which says less, is asked alone.
                    if (group..=end).all(|page| run.row_filter(page) == Kind::Rows) {
                        (first, last, kind, hash) = (group, end, Kind::Rows, row_hash(of_key, value));
                    }
                }
            }
            let asked = match reached.planned {
                Some((page, its, held)) if (page, its) == (last, kind) && first == last => held..held + 1,
                _ => {
                    let held = pages.len();
                    pages.extend((first..=last).map(|page| (run.as_ref(), page, kind)));
                    held..pages.len()
                }
            };
            reached.planned = Some((last, kind, asked.end.saturating_sub(1)));
            steps.push(Step { target: number, run: at, blocks, hash, pages: asked });
        }
    }
}
