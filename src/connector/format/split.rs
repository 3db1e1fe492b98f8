//! Where records end in a block of bytes.
//!
//! Invariants:
//! 1. Where a record ends depends on the bytes from its start on only, and never on how they were cut into blocks: a record of
//!    [`MAX_RECORD`] bytes is given up at the same place whatever was read at once.
//! 2. Bytes that end where a record ended split into the same records again: that is what replay does.
//!
//! A quote opens a quoted field only at the field's start. Where it is never closed, within [`MAX_RECORD`] bytes or to the file's end, the
//! record is *broken*: it ends at its first newline, so that one missing quote costs one line. Blank lines are no records, but with
//! [`Framing::Ended`], which keeps what stands between two of its bytes as it is.

use memchr::{memchr, memchr2};

/// The longest record, in bytes.
pub(crate) const MAX_RECORD: usize = 16 << 20;

/// How bytes are records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Each line that is not blank.
    Lines,
    /// Likewise, but a newline in a quoted field of CSV with this delimiter is text.
    Quoted(u8),
    /// What stands before this byte, be it nothing.
    Ended(u8),
    /// All there is, as one record.
    Whole,
}

/// A record's place in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its first byte.
    pub(crate) start: usize,
    /// After its last byte of text.
    pub(crate) text_end: usize,
    /// After its newline.
    pub(crate) end: usize,
    /// Whether it has a quote that is never closed.
    pub(crate) broken: bool,
    /// Whether it is a message without a value, which is not one with an empty value.
    pub(crate) absent: bool,
}

/// The end of one record.
enum End {
    /// After its newline, or after the last byte.
    At(usize),
    /// After the first newline of a record with a quote that is never closed.
    Broken(usize),
    /// Behind the block's end.
    Behind,
    /// There is none within [`MAX_RECORD`].
    TooLong,
}

/// A record is too long; where it starts in the block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong(pub(crate) usize);

/// Splits `block` from `start` on into records, appended to `records` up to `limit` of them, and gives the place after the last
/// one. With `last` the bytes end here: what is left without a newline is a record.
pub(crate) fn split(
    block: &[u8],
    start: usize,
    framing: Framing,
    last: bool,
    limit: usize,
    records: &mut Vec<Record>,
) -> Result<usize, TooLong> {
    let mut at = start;
    while at < block.len() && records.len() < limit {
        let rest = block.get(at..).unwrap_or_default();
        let (len, broken) = match record_end(rest, framing, last) {
            End::At(len) => (len, false),
            End::Broken(len) => (len, true),
            End::Behind => break,
            End::TooLong => return Err(TooLong(at)),
        };
        let text = rest.get(..len).unwrap_or_default();
        let text = match framing {
            Framing::Lines | Framing::Quoted(_) => {
                let text = text.strip_suffix(b"\n").unwrap_or(text);
                text.strip_suffix(b"\r").unwrap_or(text)
            }
            Framing::Ended(byte) => text.strip_suffix(&[byte]).unwrap_or(text),
            Framing::Whole => text,
        };
        if !text.is_empty() || matches!(framing, Framing::Ended(_)) {
            records.push(Record { start: at, text_end: at + text.len(), end: at + len, broken, absent: false });
        }
        at += len;
    }
    Ok(at)
}

/// The end of the record at the start of `rest`.
fn record_end(rest: &[u8], framing: Framing, last: bool) -> End {
    let (window, full) = match rest.get(..MAX_RECORD) {
        Some(window) => (window, true),
        None => (rest, false),
    };
    let found = match framing {
        Framing::Whole => None,
        Framing::Lines => memchr(b'\n', window),
        Framing::Ended(byte) => memchr(byte, window),
        Framing::Quoted(delimiter) => match memchr2(b'"', b'\n', window) {
            Some(i) if window.get(i) == Some(&b'"') => match quoted_end(window, delimiter) {
                Ok(found) => found,
                Err(Open) if full || last => {
                    return match memchr(b'\n', window) {
                        Some(newline) => End::Broken(newline + 1),
                        None if full => End::TooLong,
                        None => End::Broken(window.len()),
                    };
                }
                Err(Open) => return End::Behind,
            },
            other => other,
        },
    };
    match found {
        Some(newline) => End::At(newline + 1),
        None if full => End::TooLong,
        None if last => End::At(rest.len()),
        None => End::Behind,
    }
}

/// A quoted field does not end.
struct Open;

/// The newline that ends a record that has quotes, `None` if there is none outside of them.
fn quoted_end(window: &[u8], delimiter: u8) -> Result<Option<usize>, Open> {
    let mut at = 0;
    loop {
        if window.get(at) == Some(&b'"') {
            at = closing_quote(window, at + 1).ok_or(Open)? + 1;
        }
        let Some(i) = memchr2(delimiter, b'\n', window.get(at..).unwrap_or_default()) else { return Ok(None) };
        if window.get(at + i) == Some(&b'\n') {
            return Ok(Some(at + i));
        }
        at += i + 1;
    }
}

/// The quote that closes a field whose text starts at `from`; doubled quotes are text.
pub(crate) fn closing_quote(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let i = at + memchr(b'"', text.get(at..)?)?;
        if text.get(i + 1) != Some(&b'"') {
            return Some(i);
        }
        at = i + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(block: &[u8], framing: Framing) -> Vec<(String, bool)> {
        let mut records = Vec::new();
        assert_eq!(split(block, 0, framing, true, usize::MAX, &mut records), Ok(block.len()));
        records.iter().map(|r| (String::from_utf8_lossy(&block[r.start..r.text_end]).into_owned(), r.broken)).collect()
    }

    #[test]
    fn lines_and_quotes() {
        let good = |v: &[&str]| v.iter().map(|s| ((*s).to_owned(), false)).collect::<Vec<_>>();
        assert_eq!(texts(b"a\r\nb\n\n\r\nc", Framing::Lines), good(&["a", "b", "c"]));
        assert_eq!(texts(b"1,\"x\ny\"\r\n2,z\n", Framing::Quoted(b',')), good(&["1,\"x\ny\"", "2,z"]));
        assert_eq!(
            texts(b"1,\"x\"\"\n\"\n2,5\" pipe\n3,", Framing::Quoted(b',')),
            good(&["1,\"x\"\"\n\"", "2,5\" pipe", "3,"])
        );
        let broken = vec![("1,\"x".to_owned(), true), ("2,z".to_owned(), false)];
        assert_eq!(texts(b"1,\"x\n2,z\n", Framing::Quoted(b',')), broken);
        assert_eq!(texts(b"a\r\n\nb", Framing::Ended(b'\n')), good(&["a\r", "", "b"]));
        assert_eq!(texts(b"a\nb;;", Framing::Ended(b';')), good(&["a\nb", ""]));
        assert_eq!(texts(b"a\nb\n", Framing::Whole), good(&["a\nb\n"]));
        assert_eq!(texts(b"", Framing::Whole), good(&[]));
    }

    #[test]
    fn unfinished_records_wait() {
        for text in [&b"1,\"x\ny"[..], b"1,2", b"1,\"x\"", b"\""] {
            let mut records = Vec::new();
            assert_eq!(split(text, 0, Framing::Quoted(b','), false, usize::MAX, &mut records), Ok(0));
            assert!(records.is_empty());
        }
    }

    #[test]
    fn too_long() {
        let mut text = vec![b'x'; MAX_RECORD + 1];
        assert_eq!(split(&text, 0, Framing::Quoted(b','), false, usize::MAX, &mut Vec::new()), Err(TooLong(0)));
        text[0] = b'"';
        text[3] = b'\n';
        let mut records = Vec::new();
        assert_eq!(split(&text, 0, Framing::Quoted(b','), false, 1, &mut records), Ok(4));
        assert!(records[0].broken);
    }
}
