//! A JSON document with its elements as spans of its text: what SQL's JSON functions look into.

use std::ops::Range;

use super::cell::{Cell, Kind};
use super::scan::{Error, Scan};

/// A document's outermost value.
#[derive(Debug)]
pub(crate) enum Document<'a> {
    /// The elements of a list.
    List(Vec<Element<'a>>),
    /// Keys and values of an object, as they stand.
    Object(Vec<(String, Element<'a>)>),
    /// Anything else.
    Scalar(Kind),
}

/// A value within a document.
#[derive(Clone, Debug)]
pub(crate) struct Element<'a> {
    /// Its text, as it stands in the document.
    pub(crate) raw: &'a str,
    /// The text of a string, if it is one.
    string: Option<String>,
    kind: Kind,
}

impl<'a> Document<'a> {
    /// Reads a document.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Error> {
        let mut arena = Vec::new();
        let mut scan = Scan::new(text.as_bytes(), 0, &mut arena);
        let document = if scan.empty(b'[') {
            let mut elements = Vec::new();
            if !scan.empty(b']') {
                loop {
                    elements.push(Element::next(&mut scan, text)?);
                    if scan.empty(b']') {
                        break;
                    }
                    scan.open(b',', "',' or ']'")?;
                }
            }
            Self::List(elements)
        } else if scan.empty(b'{') {
            let mut entries = Vec::new();
            if !scan.empty(b'}') {
                loop {
                    let key = scan.key()?;
                    let key = String::from_utf8_lossy(scan.text(&key)).into_owned();
                    entries.push((key, Element::next(&mut scan, text)?));
                    if !scan.more()? {
                        break;
                    }
                }
            }
            Self::Object(entries)
        } else {
            Self::Scalar(scan.value()?.kind)
        };
        scan.end()?;
        Ok(document)
    }

    /// The value of a key; of one that stands several times, the last.
    pub(crate) fn get(&self, key: &str) -> Option<Element<'a>> {
        match self {
            Self::Object(entries) => entries.iter().rev().find(|(k, _)| k == key).map(|(_, e)| e.clone()),
            _ => None,
        }
    }

    /// The element at a place from 0 or, negative, from the end.
    pub(crate) fn at(&self, place: i64) -> Option<Element<'a>> {
        let Self::List(elements) = self else { return None };
        let place = if place < 0 { i64::try_from(elements.len()).ok()?.checked_add(place)? } else { place };
        elements.get(usize::try_from(place).ok()?).cloned()
    }
}

/// Where the values of a text stand that follow each other, with or without white space between, or, of an array, its elements.
pub(crate) fn values(text: &[u8], is_array: bool) -> Result<Vec<Range<usize>>, Error> {
    let mut arena = Vec::new();
    let mut scan = Scan::new(text, 0, &mut arena);
    let mut values = Vec::new();
    if is_array {
        scan.open(b'[', "an array")?;
        if scan.empty(b']') {
            scan.end()?;
            return Ok(values);
        }
    }
    while is_array || scan.end().is_err() {
        let start = scan.position();
        scan.value()?;
        values.push(start..scan.position());
        if is_array {
            if scan.empty(b']') {
                scan.end()?;
                break;
            }
            scan.open(b',', "',' or ']'")?;
        }
    }
    Ok(values)
}

impl<'a> Element<'a> {
    fn next(scan: &mut Scan<'_>, text: &'a str) -> Result<Self, Error> {
        let start = scan.position();
        let cell: Cell = scan.value()?;
        let raw = text.get(start..scan.position()).unwrap_or_default().trim();
        let string = (cell.kind == Kind::Quoted).then(|| String::from_utf8_lossy(scan.text(&cell)).into_owned());
        Ok(Self { raw, string, kind: cell.kind })
    }

    /// A document as a value.
    pub(crate) fn whole(text: &'a str) -> Result<Self, Error> {
        let mut arena = Vec::new();
        let mut scan = Scan::new(text.as_bytes(), 0, &mut arena);
        let element = Self::next(&mut scan, text)?;
        scan.end()?;
        Ok(element)
    }

    /// As text: a string without its quotes, nothing for null.
    pub(crate) fn text(self) -> Option<String> {
        match self.kind {
            Kind::Null => None,
            _ => Some(self.string.unwrap_or_else(|| self.raw.to_owned())),
        }
    }
}
