//! The messages of PostgreSQL's plugin `pgoutput` (version 1, values as text), as change events in Debezium's JSON.
//!
//! Invariant: bytes that are no such message are an error, never a panic.

use std::collections::BTreeMap;

use crate::connector::format::text::json_text;

/// Types whose text is not a JSON string: JSON itself, and bytes, which stand there as `\x…`.
const JSON: [u32; 2] = [114, 3802];
const BYTEA: u32 = 17;

/// A table as the server describes it before its changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Relation {
    /// Its schema and name.
    pub(super) name: (String, String),
    pub(super) columns: Vec<Column>,
}

/// A column's name and type.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_id: u32,
}

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field<'a> {
    Null,
    Text(&'a str),
    /// A long value that did not change, and is not sent.
    Unchanged,
}

/// What a message does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing to the table.
    None,
    /// A change event; or why it cannot be told.
    Event(Result<String, String>),
    /// All rows are gone.
    Truncate,
}

/// Reads messages; keeps the tables that they describe.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The table whose changes are wanted.
    wanted: (String, String),
    /// Whether a row is known by its key alone.
    is_keyed: bool,
    relations: BTreeMap<u32, Relation>,
}

impl Decoder {
    pub(super) fn new(wanted: (String, String), is_keyed: bool) -> Self {
        Self { wanted, is_keyed, relations: BTreeMap::new() }
    }

    /// Reads one message.
    pub(super) fn read(&mut self, data: &[u8]) -> Result<Change, String> {
        let mut bytes = Bytes(data);
        let wrong = || format!("a message of pgoutput cannot be read: it begins with byte {:?}", data.first());
        self.message(&mut bytes).ok_or_else(wrong)
    }

    fn message(&mut self, bytes: &mut Bytes<'_>) -> Option<Change> {
        match bytes.byte()? {
            b'R' => {
                let id = bytes.u32()?;
                let name = (bytes.text()?.to_owned(), bytes.text()?.to_owned());
                let _identity = bytes.byte()?;
                let count = bytes.u16()?;
                let mut columns = Vec::with_capacity(usize::from(count));
                for _ in 0..count {
                    let _flags = bytes.byte()?;
                    let name = bytes.text()?.to_owned();
                    let type_id = bytes.u32()?;
                    let _modifier = bytes.u32()?;
                    columns.push(Column { name, type_id });
                }
                self.relations.insert(id, Relation { name, columns });
                Some(Change::None)
            }
            b'I' => {
                let relation = self.relations.get(&bytes.u32()?)?;
                let new = bytes.expect(b'N')?.row()?;
                Some(self.event(relation, "c", None, Some(new)))
            }
            b'U' => {
                let relation = self.relations.get(&bytes.u32()?)?;
                let old = match bytes.byte()? {
                    kind @ (b'K' | b'O') => {
                        let old = bytes.row()?;
                        bytes.expect(b'N')?;
                        Some((kind, old))
                    }
                    b'N' => None,
                    _ => return None,
                };
                let mut new = bytes.row()?;
                if let Some((b'O', old)) = &old {
                    // A whole old row has what did not change.
                    for (new, old) in new.iter_mut().zip(old).filter(|(new, _)| **new == Field::Unchanged) {
                        *new = *old;
                    }
                }
                Some(self.event(relation, "u", old, Some(new)))
            }
            b'D' => {
                let relation = self.relations.get(&bytes.u32()?)?;
                let kind = bytes.byte()?;
                let old = bytes.row()?;
                Some(self.event(relation, "d", Some((kind, old)), None))
            }
            b'T' => {
                let count = bytes.u32()?;
                let _options = bytes.byte()?;
                let mut all = Change::None;
                for _ in 0..count {
                    if self.relations.get(&bytes.u32()?).is_some_and(|r| r.name == self.wanted) {
                        all = Change::Truncate;
                    }
                }
                Some(all)
            }
            // Types, origins and messages.
            _ => Some(Change::None),
        }
    }

    fn event(
        &self,
        relation: &Relation,
        op: &str,
        before: Option<(u8, Vec<Field<'_>>)>,
        after: Option<Vec<Field<'_>>>,
    ) -> Change {
        if relation.name != self.wanted {
            return Change::None;
        }
        if !self.is_keyed && op != "c" && !matches!(before, Some((b'O', _))) {
            let why = "the server does not send the whole old row, and the table here has no key: ALTER TABLE … REPLICA IDENTITY FULL, or give the table here a PRIMARY KEY";
            return Change::Event(Err(why.to_owned()));
        }
        let mut text = format!("{{\"op\":\"{op}\"");
        if let Some((kind, row)) = &before {
            text += ",\"before\":";
            // Of a row that is known by its key, all else stands there as NULL.
            object(&mut text, relation, row, *kind == b'K');
        }
        if let Some(row) = &after {
            if let Some(column) = row.iter().zip(&relation.columns).find(|(f, _)| **f == Field::Unchanged) {
                return Change::Event(Err(format!(
                    "column {} is a long value that did not change, and is not sent: let the server send whole old rows (ALTER TABLE … REPLICA IDENTITY FULL)",
                    column.1.name
                )));
            }
            text += ",\"after\":";
            object(&mut text, relation, row, false);
        }
        text.push('}');
        Change::Event(Ok(text))
    }
}

/// A row as a JSON object.
fn object(text: &mut String, relation: &Relation, row: &[Field<'_>], is_key: bool) {
    let values = row.iter().map(|field| match field {
        Field::Text(value) => Some(*value),
        Field::Null | Field::Unchanged => None,
    });
    let fields = relation.columns.iter().zip(values).filter(|(_, value)| value.is_some() || !is_key);
    write(text, fields);
}

/// A JSON object of columns and their values as PostgreSQL writes them.
pub(super) fn write<'a>(text: &mut String, fields: impl Iterator<Item = (&'a Column, Option<&'a str>)>) {
    text.push('{');
    for (i, (column, value)) in fields.enumerate() {
        if i > 0 {
            text.push(',');
        }
        let _ = json_text(text, &column.name);
        text.push(':');
        match value {
            None => text.push_str("null"),
            Some(json) if JSON.contains(&column.type_id) => text.push_str(json),
            Some(other) => {
                let plain = if column.type_id == BYTEA { other.strip_prefix("\\x").unwrap_or(other) } else { other };
                let _ = json_text(text, plain);
            }
        }
    }
    text.push('}');
}

/// What is left of a message.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn expect(&mut self, byte: u8) -> Option<&mut Self> {
        (self.byte()? == byte).then_some(self)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A text that ends with a zero.
    fn text(&mut self) -> Option<&'a str> {
        let end = memchr::memchr(0, self.0)?;
        let text = self.take(end)?;
        self.byte()?;
        std::str::from_utf8(text).ok()
    }

    fn row(&mut self) -> Option<Vec<Field<'a>>> {
        let count = self.u16()?;
        let mut fields = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            fields.push(match self.byte()? {
                b'n' => Field::Null,
                b'u' => Field::Unchanged,
                b't' => {
                    let len = usize::try_from(self.u32()?).ok()?;
                    Field::Text(std::str::from_utf8(self.take(len)?).ok()?)
                }
                _ => return None,
            });
        }
        Some(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [text.as_bytes(), &[0]].concat()
    }

    fn relation() -> Vec<u8> {
        let column =
            |name: &str, type_id: u32| [vec![0], text(name), type_id.to_be_bytes().to_vec(), vec![0xff; 4]].concat();
        let columns = [column("id", 20), column("data", BYTEA), column("doc", 3802)].concat();
        [b"R\0\0\0\x07".to_vec(), text("public"), text("t"), vec![b'd', 0, 3], columns].concat()
    }

    fn row(fields: &[Option<&str>]) -> Vec<u8> {
        let mut bytes = (fields.len() as u16).to_be_bytes().to_vec();
        for field in fields {
            match field {
                None => bytes.push(b'n'),
                Some("…") => bytes.push(b'u'),
                Some(value) => {
                    bytes.push(b't');
                    bytes.extend((value.len() as u32).to_be_bytes());
                    bytes.extend(value.as_bytes());
                }
            }
        }
        bytes
    }

    fn decoder() -> Decoder {
        let mut decoder = Decoder::new(("public".to_owned(), "t".to_owned()), true);
        assert_eq!(decoder.read(&relation()), Ok(Change::None));
        decoder
    }

    #[test]
    fn changes_are_events() {
        let mut decoder = decoder();
        let mut read =
            |kind: u8, parts: &[Vec<u8>]| decoder.read(&[vec![kind, 0, 0, 0, 7], parts.concat()].concat()).unwrap();
        let event = |text: &str| Change::Event(Ok(text.to_owned()));
        let new = [b"N".to_vec(), row(&[Some("1"), Some("\\x00ff"), Some("{\"a\": [1]}")])];
        let inserted = read(b'I', &new);
        assert_eq!(inserted, event(r#"{"op":"c","after":{"id":"1","data":"00ff","doc":{"a": [1]}}}"#));
        let moved =
            read(b'U', &[b"K".to_vec(), row(&[Some("1"), None, None]), b"N".to_vec(), row(&[Some("2"), None, None])]);
        let expected = r#"{"op":"u","before":{"id":"1"},"after":{"id":"2","data":null,"doc":null}}"#;
        assert_eq!(moved, event(expected));
        let whole = row(&[Some("2"), Some("\\x01"), Some("7")]);
        let kept = read(b'U', &[b"O".to_vec(), whole.clone(), b"N".to_vec(), row(&[Some("3"), Some("…"), None])]);
        let before = r#"{"id":"2","data":"01","doc":7}"#;
        assert_eq!(
            kept,
            event(&format!(r#"{{"op":"u","before":{before},"after":{{"id":"3","data":"01","doc":null}}}}"#))
        );
        let Change::Event(Err(why)) = read(b'U', &[b"N".to_vec(), row(&[Some("3"), Some("…"), None])]) else {
            panic!()
        };
        assert!(why.contains("column data") && why.contains("REPLICA IDENTITY FULL"), "{why}");
        assert_eq!(read(b'D', &[b"O".to_vec(), whole]), event(&format!(r#"{{"op":"d","before":{before}}}"#)));
        assert_eq!(decoder.read(b"T\0\0\0\x01\0\0\0\0\x07"), Ok(Change::Truncate));
    }

    #[test]
    fn no_bytes_panic() {
        let mut decoder = decoder();
        let sound = [b"U\0\0\0\x07K".to_vec(), row(&[Some("1")]), b"N".to_vec(), row(&[Some("2"), None])].concat();
        for at in 0..sound.len() {
            assert!(decoder.read(&sound[..at]).is_err());
            for byte in [0, 1, 0x7f, 0xff] {
                let mut spoilt = sound.clone();
                spoilt[at] = byte;
                let _ = decoder.read(&spoilt);
            }
        }
    }
}
