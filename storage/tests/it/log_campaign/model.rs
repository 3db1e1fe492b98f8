//! What was asked of the log, and what it must have.

use std::collections::BTreeSet;

use backstay_storage::Error;
use backstay_storage::log::{Log, Seq};

/// What may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Nothing that was acknowledged.
    Nothing,
    /// After damage: what no later block vouches for; anything else only with an error.
    Unproved,
}

/// How the log is after a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Whole(Seq),
    /// An error that names the damage.
    Reported,
}

/// In the text of each failure that no failing operation explains.
pub(super) const BROKEN: &str = "a broken promise";

#[derive(Clone, Default)]
pub(super) struct Model {
    /// Payload of record i + 1, and what was acknowledged when it was appended.
    pub(super) appended: Vec<(Vec<u8>, Seq)>,
    /// Records that end an append: a crash cuts only behind these.
    ends: BTreeSet<Seq>,
    pub(super) acknowledged: Seq,
    /// Up to here a later commit, durable too, says that it was durable.
    pub(super) proved: Seq,
    /// Everything before may have been trimmed.
    pub(super) trimmed: Seq,
}

/// Bytes that no other record has: zstd makes some of them smaller, others not.
pub(super) fn payload(salt: u64, seq: Seq, len: usize) -> Vec<u8> {
    let mut state = salt ^ seq.rotate_left(20);
    let mask = if salt & 3 == 0 { 0x0303_0303_0303_0303 } else { u64::MAX };
    let mut bytes = Vec::with_capacity(len + 24);
    bytes.extend_from_slice(&salt.to_le_bytes());
    bytes.extend_from_slice(&seq.to_le_bytes());
    while bytes.len() < len {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        bytes.extend_from_slice(&((state ^ state >> 29) & mask).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

impl Model {
    pub(super) fn next(&self) -> Seq {
        self.appended.len() as u64 + 1
    }

    pub(super) fn append(&mut self, payloads: Vec<Vec<u8>>) {
        let before = self.acknowledged;
        self.appended.extend(payloads.into_iter().map(|payload| (payload, before)));
        self.ends.insert(self.appended.len() as u64);
    }

    pub(super) fn acknowledge(&mut self, seq: Seq) {
        if seq > self.acknowledged {
            self.acknowledged = seq;
            self.proved = self.proved.max(self.appended[seq as usize - 1].1);
        }
    }

    /// Whether a record is what was appended.
    pub(super) fn is(&self, seq: Seq, payload: &[u8]) -> bool {
        self.appended.get(seq.wrapping_sub(1) as usize).is_some_and(|(own, _)| own == payload)
    }

    /// Compares with an opened log, and forgets what it has lost.
    pub(super) fn check(&mut self, log: &Log, allowed: Allowed) -> Result<Found, String> {
        let durable = log.durable();
        let state = format!(
            "{durable} of {} records, {} acknowledged, {} proved",
            self.appended.len(),
            self.acknowledged,
            self.proved
        );
        let floor = if allowed == Allowed::Nothing { self.acknowledged } else { self.proved };
        // A loss below what was proved may still be reported by the scan.
        if durable > self.appended.len() as u64 || durable < floor {
            return Err(format!("{BROKEN}: {state}: lost or made up"));
        }
        if durable > 0 && !self.ends.contains(&durable) {
            return Err(format!("{BROKEN}: {state}: an append was cut in two"));
        }
        let first = log.first_seq();
        if first > self.trimmed.max(1) {
            return Err(format!("{BROKEN}: {state}: starts at {first}, trimmed before {}", self.trimmed));
        }
        let mut next = first;
        let scan = match log.scan(first) {
            Err(Error::Damaged(_)) if allowed == Allowed::Unproved => return Ok(Found::Reported),
            scan => scan.map_err(|e| format!("{state}: {e}"))?,
        };
        for record in scan {
            let record = match (record, allowed) {
                (Ok(record), _) => record,
                (Err(Error::Damaged(_)), Allowed::Unproved) => return Ok(Found::Reported),
                (Err(e), _) => return Err(format!("{state}: {e}")),
            };
            if record.seq != next || !self.is(next, &record.payload) {
                return Err(format!("{BROKEN}: {state}: record {} is not what was appended", record.seq));
            }
            next += 1;
        }
        if next != durable + 1 {
            return Err(format!("{BROKEN}: {state}: the scan ended before record {next}"));
        }
        self.appended.truncate(durable as usize);
        self.ends.retain(|end| *end <= durable);
        (self.acknowledged, self.proved) = (durable, durable);
        Ok(Found::Whole(durable))
    }
}
