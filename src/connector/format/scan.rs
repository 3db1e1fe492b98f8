//! A scanner of JSON text that gives values as spans of it, so that numbers keep every digit and strings are not copied.

use memchr::memchr2;

use super::cell::{Cell, Kind};

/// How deep lists and objects may be nested in a value that is passed over.
const DEPTH: usize = 128;

/// What is wrong with the text, and where in the block.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    pub(crate) at: usize,
    pub(crate) message: String,
}

/// Walks over one document.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    arena: &'a mut Vec<u8>,
}

impl<'a> Scan<'a> {
    /// The document that starts at `at`; texts with escapes go to `arena`.
    pub(crate) fn new(text: &'a [u8], at: usize, arena: &'a mut Vec<u8>) -> Self {
        Self { text, at, arena }
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        Error { at: self.at, message: message.into() }
    }

    fn expected(&self, what: &str) -> Error {
        match self.text.get(self.at) {
            Some(byte) => self.error(format!("expected {what}, got '{}'", char::from(*byte).escape_default())),
            None => self.error(format!("expected {what}, and the line ends")),
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Passes over `byte`.
    pub(crate) fn open(&mut self, byte: u8, what: &str) -> Result<(), Error> {
        if self.peek() != Some(byte) {
            return Err(self.expected(what));
        }
        self.at += 1;
        Ok(())
    }

    /// Whether `byte` is next, which then is passed over.
    pub(crate) fn empty(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    /// A key and its colon.
    pub(crate) fn key(&mut self) -> Result<Cell, Error> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key"));
        }
        let key = self.string()?;
        self.open(b':', "':'")?;
        Ok(key)
    }

    /// A cell's text.
    pub(crate) fn text(&self, cell: &Cell) -> &[u8] {
        let from = if cell.in_arena { &self.arena[..] } else { self.text };
        let start = cell.start as usize;
        from.get(start..start + cell.len as usize).unwrap_or_default()
    }

    /// Passes over the comma or the brace behind an object's value: whether there is more.
    pub(crate) fn more(&mut self) -> Result<bool, Error> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b'}') => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.expected("',' or '}'")),
        }
    }

    /// Passes over the brace behind an object's only value.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.open(b'}', "'}': one change a line")
    }

    /// Whether null is next, which then is passed over.
    pub(crate) fn null(&mut self) -> Result<bool, Error> {
        match self.peek() {
            Some(b'n') => self.word(b"null", Kind::Null).map(|_| true),
            _ => Ok(false),
        }
    }

    /// Goes to a place that was passed over.
    pub(crate) fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    /// The place of the next byte.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// There is nothing behind the document.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the line's end")),
        }
    }

    /// Any value.
    pub(crate) fn value(&mut self) -> Result<Cell, Error> {
        self.nested_value(0)
    }

    fn nested_value(&mut self, depth: usize) -> Result<Cell, Error> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Kind::Bool),
            Some(b'f') => self.word(b"false", Kind::Bool),
            Some(b'n') => self.word(b"null", Kind::Null),
            Some(b'{' | b'[') if depth == DEPTH => Err(self.error(format!("nested deeper than {DEPTH}"))),
            Some(b'{') => {
                self.at += 1;
                if !self.empty(b'}') {
                    loop {
                        self.key()?;
                        self.nested_value(depth + 1)?;
                        if !self.more()? {
                            break;
                        }
                    }
                }
                Ok(Cell::new(Kind::Nested, false, start, self.at))
            }
            Some(b'[') => {
                self.at += 1;
                if !self.empty(b']') {
                    loop {
                        self.nested_value(depth + 1)?;
                        if self.empty(b']') {
                            break;
                        }
                        self.open(b',', "',' or ']'")?;
                    }
                }
                Ok(Cell::new(Kind::Nested, false, start, self.at))
            }
            _ => Err(self.expected("a value")),
        }
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<Cell, Error> {
        let start = self.at;
        if !self.text.get(start..).unwrap_or_default().starts_with(word) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(Cell::new(kind, false, start, self.at))
    }

    fn digits(&mut self) -> Result<(), Error> {
        let from = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == from { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Cell, Error> {
        let start = self.at;
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Cell::new(Kind::Number, false, start, self.at))
    }

    /// A string, whose opening quote is next.
    fn string(&mut self) -> Result<Cell, Error> {
        let start = self.at + 1;
        self.at = start;
        let mut arena_start = None;
        let mut piece = start;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(i) = memchr2(b'"', b'\\', rest) else {
                return Err(self.error("a string is never closed"));
            };
            let end = self.at + i;
            let quote = rest.get(i) == Some(&b'"');
            self.at = end + 1;
            match arena_start {
                None if quote => return Ok(Cell::new(Kind::Quoted, false, start, end)),
                None => arena_start = Some(self.arena.len()),
                Some(_) => {}
            }
            self.arena.extend_from_slice(self.text.get(piece..end).unwrap_or_default());
            if quote {
                return Ok(Cell::new(Kind::Quoted, true, arena_start.unwrap_or_default(), self.arena.len()));
            }
            self.escape()?;
            piece = self.at;
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Result<(), Error> {
        let byte = self.text.get(self.at).copied();
        let plain = match byte {
            Some(b @ (b'"' | b'\\' | b'/')) => b,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.at += 1;
                let mut code = self.hex4()?;
                if (0xd800..0xdc00).contains(&code) && self.text.get(self.at..self.at + 2) == Some(b"\\u") {
                    self.at += 2;
                    let low = self.hex4()?;
                    if (0xdc00..0xe000).contains(&low) {
                        code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    }
                }
                let Some(c) = char::from_u32(code) else {
                    return Err(self.error("half of a \\u surrogate pair"));
                };
                self.arena.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.expected("an escape")),
        };
        self.arena.push(plain);
        self.at += 1;
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, Error> {
        let digits = self.text.get(self.at..self.at + 4).and_then(|d| std::str::from_utf8(d).ok());
        let code =
            digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).and_then(|d| u32::from_str_radix(d, 16).ok());
        let code = code.ok_or_else(|| self.error("expected four hexadecimal digits behind \\u"))?;
        self.at += 4;
        Ok(code)
    }
}
