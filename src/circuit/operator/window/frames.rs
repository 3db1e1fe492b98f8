//! Which rows a window function looks at.
//!
//! Invariant: within a partition both ends of frames only move forward from row to row.

use std::ops::Range;

use arrow::array::{Array, BooleanArray};
use backstay_storage::spine::RowBatch;

use crate::circuit::operator::ordered::order_key;
use crate::circuit::plan::{Frame, FrameBound, FrameUnits};
use crate::circuit::row::EncodedRows;

/// Rows of partitions, one after the other.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    /// For each row its group of peers, numbered through all partitions.
    pub(super) group_of: Vec<u32>,
    /// For each group of peers its first row.
    groups: Vec<u32>,
    /// For each partition that has ended the row behind it.
    ends: Vec<u32>,
}

impl Partitions {
    pub(super) fn len(&self) -> usize {
        self.group_of.len()
    }

    /// Whether the partition being read has a row.
    pub(super) fn in_partition(&self) -> bool {
        self.len() > self.ends.last().map_or(0, |&end| end as usize)
    }

    /// Adds a row to the partition being read.
    pub(super) fn push(&mut self, is_peer: bool) {
        if !is_peer {
            self.groups.push(self.len() as u32);
        }
        self.group_of.push(self.groups.len() as u32 - 1);
    }

    /// Ends the partition being read.
    pub(super) fn end(&mut self) {
        self.ends.push(self.len() as u32);
    }

    /// The rows of each partition.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| start as usize..end as usize)
    }

    /// The first row of a group; behind the last group the number of rows.
    fn group_start(&self, group: usize) -> usize {
        self.groups.get(group).map_or(self.len(), |&row| row as usize)
    }

    /// The peers of a row, itself included.
    pub(super) fn peers(&self, row: usize) -> Range<usize> {
        let group = self.group_of[row] as usize;
        self.group_start(group)..self.group_start(group + 1)
    }

    /// The frame of each row; empty ones have their start at their end.
    pub(super) fn frames(&self, frame: &Frame, keys: &OrderKeys<'_>) -> Vec<Range<usize>> {
        let mut frames = Vec::with_capacity(self.len());
        for partition in self.ranges() {
            let (mut start, mut end) = (partition.start, partition.start);
            for row in partition.clone() {
                start = match &keys.starts {
                    Some(starts) => {
                        keys.next(start..partition.end, |key| starts.get(row).is_none_or(|start| key < start))
                    }
                    None => self.bound(frame.units, &frame.start, row, &partition, false),
                };
                end = match &keys.ends {
                    Some(ends) => keys.next(end..partition.end, |key| ends.get(row).is_some_and(|end| key <= end)),
                    None => self.bound(frame.units, &frame.end, row, &partition, true),
                };
                frames.push(start.min(end)..end);
            }
        }
        frames
    }

    fn bound(
        &self,
        units: FrameUnits,
        bound: &FrameBound,
        row: usize,
        partition: &Range<usize>,
        is_end: bool,
    ) -> usize {
        let FrameBound::Offset(offset) = *bound else {
            return if is_end { partition.end } else { partition.start };
        };
        let moved = |from: usize| i64::try_from(from).unwrap_or(i64::MAX).saturating_add(offset);
        let clamped = |place: i64| usize::try_from(place).unwrap_or(0).clamp(partition.start, partition.end);
        match units {
            FrameUnits::Rows => clamped(moved(row).saturating_add(i64::from(is_end))),
            FrameUnits::Groups => {
                let group = moved(self.group_of[row] as usize).saturating_add(i64::from(is_end));
                match usize::try_from(group) {
                    Ok(group) => self.group_start(group).clamp(partition.start, partition.end),
                    Err(_) => partition.start,
                }
            }
        }
    }
}

/// The order keys of rows, and those at the ends of their frames, where these are at a distance.
pub(super) struct OrderKeys<'a> {
    pub(super) rows: &'a RowBatch,
    pub(super) starts: Option<FrameEnds>,
    pub(super) ends: Option<FrameEnds>,
}

/// The order keys at the ends of rows' frames.
pub(super) struct FrameEnds {
    pub(super) keys: EncodedRows,
    /// Where the end is beyond all keys.
    pub(super) beyond: Option<BooleanArray>,
}

impl FrameEnds {
    fn get(&self, row: usize) -> Option<&[u8]> {
        let is_beyond = self.beyond.as_ref().is_some_and(|beyond| beyond.is_valid(row) && beyond.value(row));
        (!is_beyond).then(|| self.keys.get(row))
    }
}

impl OrderKeys<'_> {
    /// The first of these rows whose order key is not like that.
    fn next(&self, mut rows: Range<usize>, is_passed: impl Fn(&[u8]) -> bool) -> usize {
        rows.find(|&row| !is_passed(order_key(self.rows.key(row)))).unwrap_or(rows.end)
    }
}
