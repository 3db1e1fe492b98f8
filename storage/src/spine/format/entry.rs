//! One row in a block: its entry.
//!
//! ```text
//! entry = shared · rest · value length (varints) · weight (zigzag varint) · rest bytes of key · value
//! ```

use super::scan::{Scan, put_varint, unzigzag, zigzag};

/// Where the parts of an entry are. The offsets are inside of the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// How many leading bytes the key has in common with the one before.
    pub(crate) shared: usize,
    pub(crate) weight: i64,
    /// Where the rest of the key starts.
    rest: usize,
    /// Where the value starts.
    value: usize,
    /// Where the next entry starts.
    pub(crate) end: usize,
}

impl Entry {
    /// Reads the entry at `at`; `None` if there is no whole one.
    #[inline(always)]
    pub(super) fn read(entries: &[u8], at: usize) -> Option<Self> {
        let bytes = entries.get(at..)?;
        let (shared, rest, value, weight, head) = match bytes.first_chunk::<4>() {
            // Nearly all of them: every number in one byte.
            Some(&[shared, rest, value, weight]) if (shared | rest | value | weight) < 0x80 => {
                (shared.into(), rest.into(), value.into(), u64::from(weight), 4)
            }
            _ => Self::long_head(bytes)?,
        };
        let start = at + head;
        let middle = start.checked_add(rest)?;
        let end = middle.checked_add(value).filter(|&end| end <= entries.len())?;
        Some(Self { shared, weight: unzigzag(weight), rest: start, value: middle, end })
    }

    /// The numbers of an entry's head, and its bytes.
    #[cold]
    fn long_head(bytes: &[u8]) -> Option<(usize, usize, usize, u64, usize)> {
        let mut scan = Scan(bytes);
        let (shared, rest, value) = (scan.length()?, scan.length()?, scan.length()?);
        let weight = scan.varint()?;
        Some((shared, rest, value, weight, bytes.len() - scan.0.len()))
    }

    /// What stands for the entry before the one at `end`.
    pub(super) fn ending_at(end: usize) -> Self {
        Self { end, ..Self::default() }
    }

    /// What the key adds to the shared bytes.
    #[inline]
    pub(crate) fn rest<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        block.get(self.rest..self.value).unwrap_or(&[])
    }

    #[inline]
    pub(crate) fn value<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        block.get(self.value..self.end).unwrap_or(&[])
    }
}

/// Appends an entry.
pub(super) fn put(out: &mut Vec<u8>, shared: usize, rest: &[u8], value: &[u8], weight: i64) {
    for number in [shared as u64, rest.len() as u64, value.len() as u64, zigzag(weight)] {
        put_varint(out, number);
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back() {
        for (shared, rest, value, weight) in [
            (0, 0, 0, 0),
            (3, 5, 7, -64),
            (3, 5, 7, 64),
            (127, 127, 127, 1),
            (128, 0, 3, 1),
            (1, 300, 70_000, i64::MIN),
        ] {
            let (rest, value) = (vec![1; rest], vec![2; value]);
            let mut out = vec![9; 3];
            put(&mut out, shared, &rest, &value, weight);
            let entry = Entry::read(&out, 3).unwrap();
            assert_eq!((entry.shared, entry.weight, entry.end), (shared, weight, out.len()));
            assert_eq!((entry.rest(&out), entry.value(&out)), (&rest[..], &value[..]));
            assert_eq!(Entry::read(&out[..out.len() - 1], 3), None);
        }
        assert_eq!(Entry::read(&[], 1), None);
    }
}
