//! What a manifest stores of a spine.

use super::Discipline;

/// Bytes of a run's smallest and greatest key that a manifest holds.
pub const CUT_KEY: usize = 256;

/// A key as a manifest holds it.
///
/// ```
/// assert_eq!(backstay_storage::spine::cut_key(&[7; 300]).len(), 256);
/// ```
pub fn cut_key(key: &[u8]) -> &[u8] {
    key.get(..CUT_KEY).unwrap_or(key)
}

/// One run: where it is, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMeta {
    /// Name of the file in the store's `runs` directory.
    pub file: String,
    /// Where its extent starts in the file, in bytes; a multiple of 4096.
    pub offset: u64,
    /// Bytes of the extent: blocks, index, filter and footer.
    pub len: u64,
    /// The footer's checksum, from which every byte of the extent is proven.
    pub checksum: u64,
    /// Number of rows, tombstones included.
    pub rows: u64,
    /// Bytes of keys and values, and 8 a row: what the merge policy weighs.
    pub raw_bytes: u64,
    /// The smallest key, cut to [`CUT_KEY`] bytes: a manifest stays small however long keys are.
    pub min_key: Vec<u8>,
    /// The greatest key, cut likewise.
    pub max_key: Vec<u8>,
}

/// One spine: its name, what it holds, and its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpineMeta {
    /// The name, unique in a store.
    pub name: String,
    /// Which rows it holds.
    pub discipline: Discipline,
    /// The embedder's row format number: a spine is opened only with the number it was written with.
    pub format: u32,
    /// The runs, newest first.
    pub runs: Vec<RunMeta>,
}

impl SpineMeta {
    /// A spine without runs.
    ///
    /// ```
    /// use backstay_storage::spine::{Discipline, SpineMeta};
    /// assert!(SpineMeta::empty("sums", Discipline::Latest, 1).runs.is_empty());
    /// ```
    pub fn empty(name: &str, discipline: Discipline, format: u32) -> Self {
        Self { name: name.to_owned(), discipline, format, runs: Vec::new() }
    }
}

/// The name of a run file: `<epoch>-<number>.run`, eight digits or more each.
///
/// ```
/// assert_eq!(backstay_storage::spine::run_file_name(3, 14), "00000003-00000014.run");
/// ```
pub fn run_file_name(epoch: u64, number: u64) -> String {
    format!("{epoch:08}-{number:08}.run")
}

/// Epoch and number of a name that [`run_file_name`] made.
pub(super) fn parse_run_file_name(name: &str) -> Option<(u64, u64)> {
    let (epoch, number) = name.strip_suffix(".run")?.split_once('-')?;
    let parsed = (epoch.parse().ok()?, number.parse().ok()?);
    (run_file_name(parsed.0, parsed.1) == name).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_made_names_are_read() {
        assert_eq!(parse_run_file_name(&run_file_name(1, u64::MAX)), Some((1, u64::MAX)));
        for bad in ["", "1-1.run", "00000001-00000001", "00000001-00000001.run.tmp", "+0000001-00000001.run"] {
            assert_eq!(parse_run_file_name(bad), None, "{bad}");
        }
    }
}
