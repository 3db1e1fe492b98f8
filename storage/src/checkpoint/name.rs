//! File names: `<epoch>-<number>.<kind>`, both numbers with at least eight decimal digits; a savepoint's bears its name.

use std::fmt;

/// The kind of a manifest file.
pub(crate) const MANIFEST: &str = "manifest";
/// The kind of a file of runs.
pub(crate) const RUN: &str = "run";
/// What a file is called while it is being written.
pub(crate) const TEMPORARY: &str = ".tmp";
/// What a damaged manifest is renamed to.
pub(crate) const DAMAGED: &str = ".damaged";

/// What follows a savepoint's name in that of its file.
pub(crate) const SAVEPOINT: &str = ".savepoint";

/// A parsed file name. Orders by epoch, then number, then kind: newest last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileName<'a> {
    pub epoch: u64,
    pub number: u64,
    pub kind: &'a str,
}

impl<'a> FileName<'a> {
    /// Parses a name exactly as [`fmt::Display`] writes it; anything else is not a name of ours.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (stem, kind) = name.split_once('.')?;
        let (epoch, number) = stem.split_once('-')?;
        let parsed = FileName { epoch: digits(epoch)?, number: digits(number)?, kind };
        (!kind.is_empty() && parsed.to_string() == name).then_some(parsed)
    }
}

/// A decimal number without sign or spaces.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for FileName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}-{:08}.{}", self.epoch, self.number, self.kind)
    }
}

/// The name of a file.
pub(crate) fn file_name(epoch: u64, number: u64, kind: &str) -> String {
    FileName { epoch, number, kind }.to_string()
}

/// Whether an embedder may call a kind of extra file so: lower-case letters, digits and `_`, and none of ours.
pub(crate) fn kind_is_valid(kind: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=32).contains(&kind.len()) && kind.bytes().all(plain) && ![MANIFEST, RUN, "tmp", "damaged"].contains(&kind)
}

/// Whether a savepoint may be called so: 1 to 64 lower-case letters, digits, `-` or `_`, the first a letter or digit. So no
/// file system takes two names for one, and none leads out of the folder.
pub(crate) fn savepoint_is_valid(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut bytes = name.bytes();
    bytes.next().is_some_and(plain) && bytes.all(|b| plain(b) || b == b'-' || b == b'_') && name.len() <= 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_sort_by_number() {
        let name = file_name(3, 12, RUN);
        assert_eq!(name, "00000003-00000012.run");
        assert_eq!(FileName::parse(&name), Some(FileName { epoch: 3, number: 12, kind: RUN }));
        let big = file_name(123_456_789, 1, RUN);
        assert!(FileName::parse(&big) > FileName::parse(&file_name(99_999_999, 7, RUN)), "numeric, not textual, order");
        let tmp = file_name(1, 2, MANIFEST) + TEMPORARY;
        assert_eq!(FileName::parse(&tmp).map(|n| n.kind), Some("manifest.tmp"));
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "",
            "x",
            "1-2.run",
            "00000001-00000002",
            "00000001-00000002.",
            "+0000001-00000002.run",
            "000000001-00000002.run",
            "lost+found",
        ] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn kinds() {
        assert!(kind_is_valid("pending_1"));
        for kind in ["", "run", "tmp", "manifest", "damaged", "a.b", "A", "../x", "x/y"] {
            assert!(!kind_is_valid(kind), "{kind}");
        }
    }

    #[test]
    fn savepoint_names() {
        for name in ["a", "7", "before-upgrade_2", "00000001-00000002", &"a".repeat(64)] {
            assert!(savepoint_is_valid(name), "{name}");
        }
        for name in ["", "-a", "_a", "A", "a.b", "..", "a/b", "a b", "ä", "a\0", &"a".repeat(65)] {
            assert!(!savepoint_is_valid(name), "{name:?}");
        }
    }
}
