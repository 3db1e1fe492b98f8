//! The rows of a step by their groups.

use backstay_storage::spine::KeyBatch;
use hashbrown::HashMap;

use super::super::StateKeys;
use crate::circuit::vnode::vnode;

/// The rows of a step, by group.
#[derive(Default)]
pub(super) struct Grouped {
    /// The groups' keys, ascending.
    pub(super) keys: KeyBatch,
    /// For each row its group.
    pub(super) of_row: Vec<u32>,
    /// For each group one of its rows.
    pub(super) sample: Vec<u32>,
}

/// Groups `rows` rows by their state keys.
pub(super) fn group_rows(keys: &mut StateKeys, rows: usize) -> Grouped {
    let mut sample: Vec<u32> = Vec::new();
    let mut of_row = Vec::with_capacity(rows);
    {
        let mut known: HashMap<&[u8], u32> = HashMap::new();
        for row in 0..rows {
            let next = sample.len() as u32;
            let group = *known.entry(keys.distribution(row)).or_insert(next);
            if group == next {
                sample.push(row as u32);
            }
            of_row.push(group);
        }
    }
    let vnodes: Vec<u8> = sample.iter().map(|&row| vnode(keys.distribution(row as usize))).collect();
    let state_key = |group: u32| (vnodes[group as usize], keys.distribution(sample[group as usize] as usize));
    let mut order: Vec<u32> = (0..sample.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| state_key(a).cmp(&state_key(b)));
    let mut rank = vec![0; order.len()];
    let mut sorted = KeyBatch::new();
    for (new, &old) in (0u32..).zip(&order) {
        rank[old as usize] = new;
        sorted.push(keys.state(sample[old as usize] as usize));
    }
    Grouped {
        keys: sorted,
        of_row: of_row.into_iter().map(|g| rank[g as usize]).collect(),
        sample: order.iter().map(|&g| sample[g as usize]).collect(),
    }
}
