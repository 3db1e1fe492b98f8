//! Errors of the compiler: each with its place in the SQL text, and rendered with the line and a caret.
//!
//! Lines and columns count from 1; a column counts characters, not bytes. The compiler goes on after an error where it can,
//! so one [`SqlErrors`] tells about several mistakes, in the order of the text.

use std::fmt;

use datafusion_sql::sqlparser::tokenizer::{Location, Span};

use crate::suggest::nearest;

/// One mistake in a SQL text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// What is wrong, in one sentence.
    pub message: String,
    /// The name of the text, as given to [`crate::sql::compile`].
    pub source_name: String,
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// Characters that the caret underlines, at least 1; it never goes beyond the line.
    pub width: u64,
    /// The text of the line.
    pub line_text: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}:{}: error: {}", self.source_name, self.line, self.column, self.message)?;
        writeln!(f, "  {}", self.line_text)?;
        // Tabs stay tabs, so that the caret stands below its place whatever a terminal makes of them.
        let before = self.line_text.chars().take(usize::try_from(self.column - 1).unwrap_or(0));
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        write!(f, "  {indent}{}", "^".repeat(usize::try_from(self.width).unwrap_or(1)))?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SqlError {}

/// Everything that is wrong with a SQL text, at least one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlErrors(pub Vec<SqlError>);

impl fmt::Display for SqlErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SqlErrors {}

/// A mistake before it knows its text.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    pub span: Span,
    pub message: String,
    pub help: Option<String>,
}

impl Mistake {
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Uses `span` if this mistake has no place of its own.
    pub fn or_at(mut self, span: Span) -> Self {
        if self.span == Span::empty() {
            self.span = span;
        }
        self
    }
}

/// A named SQL text that can be looked up by line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

impl Source<'_> {
    /// Gives a mistake its line and caret.
    pub fn locate(&self, mistake: Mistake) -> SqlError {
        let start = Location { line: mistake.span.start.line.max(1), column: mistake.span.start.column.max(1) };
        let line_text = self.text.split('\n').nth(to_usize(start.line) - 1).unwrap_or("").trim_end_matches('\r');
        let length = line_text.chars().count() as u64;
        let column = start.column.min(length + 1);
        let end = match mistake.span.end.line {
            0 => column,
            line if line == start.line => mistake.span.end.column,
            _ => length + 1,
        };
        SqlError {
            message: mistake.message,
            source_name: self.name.to_owned(),
            line: start.line,
            column,
            width: end.min(length + 1).saturating_sub(column).max(1),
            line_text: line_text.to_owned(),
            help: mistake.help,
        }
    }

    /// Byte offset of a place; the end of the text if it lies beyond.
    pub fn offset(&self, location: Location) -> usize {
        let mut start = 0;
        for _ in 1..location.line {
            match self.text.get(start..).and_then(|rest| rest.find('\n')) {
                Some(i) => start += i + 1,
                None => return self.text.len(),
            }
        }
        let rest = self.text.get(start..).unwrap_or("");
        rest.char_indices().nth(to_usize(location.column.max(1)) - 1).map_or(self.text.len(), |(i, _)| start + i)
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// `did you mean `x`?`, or the list of what there is if nothing is near and the list is short.
pub(super) fn suggestion(wanted: &str, what: &str, names: &[String]) -> Option<String> {
    if let Some(name) = nearest(wanted, names.iter().map(String::as_str)) {
        return Some(format!("did you mean `{name}`?"));
    }
    (!names.is_empty() && names.len() <= 20).then(|| format!("there is {what} {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(line: u64, from: u64, to: u64) -> Span {
        Span::new(Location { line, column: from }, Location { line, column: to })
    }

    #[test]
    fn caret_stands_below_its_place() {
        let source = Source { name: "p.sql", text: "SELECT 1;\n\tSELECT žena FROM t" };
        let error = source.locate(Mistake::new(span(2, 9, 13), "no column `žena`").help("did you mean `zena`?"));
        assert_eq!(
            error.to_string(),
            "p.sql:2:9: error: no column `žena`\n  \tSELECT žena FROM t\n  \t       ^^^^\n  help: did you mean `zena`?"
        );
    }

    #[test]
    fn places_beyond_the_text_point_at_its_end() {
        let source = Source { name: "p.sql", text: "SELECT" };
        assert_eq!(source.locate(Mistake::new(span(1, 99, 100), "m")).column, 7);
        assert_eq!(source.locate(Mistake::new(span(9, 1, 2), "m")).line_text, "");
        assert_eq!(source.locate(Mistake::new(Span::empty(), "m")).line, 1);
        assert_eq!(source.offset(Location { line: 3, column: 1 }), 6);
    }

    #[test]
    fn offsets_count_bytes() {
        let source = Source { name: "p", text: "é\nžab" };
        assert_eq!(&source.text[source.offset(Location { line: 2, column: 2 })..], "ab");
    }

    #[test]
    fn nearest_names() {
        assert_eq!(nearest("carier", ["carrier", "flights"]), Some("carrier"));
        assert_eq!(nearest("CARRIERS", ["carrier", "flights"]), Some("carrier"));
        assert_eq!(nearest("zzz", ["carrier", "flights"]), None);
    }
}
