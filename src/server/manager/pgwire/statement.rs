//! A client's text, cut into statements, and what each asks for.
//!
//! Texts stay as they are but for what is replaced in them (parameters, words of PostgreSQL's): so errors point into what the client wrote.

use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use pgwire::error::PgWireResult;

use super::{catalog, error};

/// The most parameters that the protocol can say.
const MOST_PARAMETERS: usize = u16::MAX as usize;

/// One statement.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    /// Its text, without the semicolon.
    pub text: String,
    /// Its words and signs, and where in `text` each begins and ends.
    pub tokens: Vec<(Token, std::ops::Range<usize>)>,
    /// What it asks for.
    pub kind: Kind,
}

/// What a statement asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rows of the pipeline.
    Pipeline,
    /// Rows of the catalog, or of nothing at all.
    Catalog,
    /// A transaction's beginning.
    Begin,
    /// A transaction's end, by its command.
    End(&'static str),
    /// A setting, which has no effect; by its command.
    Quiet(&'static str),
    /// A setting's value.
    Show(String),
    /// What is not done here, by its first word.
    Refused(String),
}

impl Statement {
    /// Cuts a text at its semicolons.
    ///
    /// # Errors
    /// A text with a string that does not end.
    pub(super) fn split(text: &str) -> PgWireResult<Vec<Self>> {
        let tokens = Tokenizer::new(&GenericDialect, text).tokenize_with_location();
        let tokens = tokens.map_err(|e| error("42601", format!("{} at {}", e.message, e.location)))?;
        let places = Places::new(text);
        let chunks = tokens.split(|t| t.token == Token::SemiColon);
        let statements: Vec<Self> = chunks.filter_map(|chunk| Self::of(text, chunk, &places)).collect();
        match statements.iter().find(|s| s.parameters() > MOST_PARAMETERS) {
            Some(s) => Err(error(
                "54000",
                format!("${}: a statement has at most {MOST_PARAMETERS} parameters", s.parameters()),
            )),
            None => Ok(statements),
        }
    }

    fn of(text: &str, chunk: &[TokenWithSpan], places: &Places<'_>) -> Option<Self> {
        let is_real = |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_) | Token::EOF);
        let tokens = chunk.iter().filter(is_real);
        let tokens = tokens.map(|t| (t.token.clone(), places.offset(t.span.start)..places.offset(t.span.end)));
        let mut tokens: Vec<_> = tokens.collect();
        let (from, to) = (tokens.first()?.1.start, tokens.last()?.1.end);
        for (_, range) in &mut tokens {
            *range = range.start - from..range.end - from;
        }
        let kind = kind(&tokens);
        Some(Self { text: text.get(from..to)?.to_owned(), tokens, kind })
    }

    /// The highest number of its parameters, `$1` and so on.
    pub(super) fn parameters(&self) -> usize {
        self.tokens.iter().filter_map(|(token, _)| parameter(token)).max().unwrap_or(0)
    }

    /// The text with literals in the place of parameters. One that is not given stays.
    pub(super) fn with(&self, literals: &[String]) -> String {
        let literal = |token: &Token| literals.get(parameter(token)?.checked_sub(1)?).cloned();
        let replaced = self.tokens.iter().filter_map(|(token, range)| Some((range.clone(), literal(token)?)));
        replace(&self.text, replaced)
    }
}

/// A text with parts of it replaced, in their order.
pub(super) fn replace(text: &str, parts: impl Iterator<Item = (std::ops::Range<usize>, String)>) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut at = 0;
    for (range, part) in parts {
        replaced.push_str(text.get(at..range.start).unwrap_or_default());
        replaced.push_str(&part);
        at = range.end;
    }
    replaced + text.get(at..).unwrap_or_default()
}

/// The number of a parameter.
fn parameter(token: &Token) -> Option<usize> {
    match token {
        Token::Placeholder(name) => name.strip_prefix('$')?.parse().ok(),
        _ => None,
    }
}

/// A word as SQL compares it; nothing of a quoted one.
pub(super) fn word(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_lowercase()),
        _ => None,
    }
}

fn kind(tokens: &[(Token, std::ops::Range<usize>)]) -> Kind {
    let words: Vec<String> = tokens.iter().take(3).map_while(|(token, _)| word(token)).collect();
    let first = words.first().map_or("(", String::as_str);
    match first {
        "begin" | "start" => Kind::Begin,
        "commit" | "end" => Kind::End("COMMIT"),
        "rollback" | "abort" => Kind::End("ROLLBACK"),
        "set" => Kind::Quiet("SET"),
        "reset" => Kind::Quiet("RESET"),
        "discard" => Kind::Quiet("DISCARD ALL"),
        "deallocate" => Kind::Quiet("DEALLOCATE"),
        "savepoint" => Kind::Quiet("SAVEPOINT"),
        "release" => Kind::Quiet("RELEASE"),
        "show" => Kind::Show(match words.get(1).map(String::as_str) {
            // Those of several words.
            Some("transaction") => "transaction_isolation".to_owned(),
            Some("time") => "timezone".to_owned(),
            Some(name) => name.to_owned(),
            None => String::new(),
        }),
        "select" | "with" | "values" | "(" => {
            let reads = tokens.iter().any(|(token, _)| word(token).is_some_and(|w| w == "from"));
            if !reads || catalog::is_asked(tokens) { Kind::Catalog } else { Kind::Pipeline }
        }
        other => Kind::Refused(other.to_ascii_uppercase()),
    }
}

/// Where lines begin in a text.
struct Places<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, lines }
    }

    /// The byte at a line and a column, which count from 1, the column in characters.
    fn offset(&self, at: Location) -> usize {
        let index = |n: u64| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
        let start = self.lines.get(index(at.line)).copied().unwrap_or(self.text.len());
        let line = self.text.get(start..).unwrap_or_default();
        line.char_indices().nth(index(at.column)).map_or(self.text.len(), |(byte, _)| start + byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(String, Kind)> {
        Statement::split(text).unwrap().into_iter().map(|s| (s.text, s.kind)).collect()
    }

    #[test]
    fn texts_are_cut_at_semicolons_outside_of_strings() {
        let text =
            "BEGIN; SELECT 'a;b', x\nFROM v -- not ; here\nWHERE é = 'ü';;SHOW TIME ZONE; insert into t values (1)";
        let expected = [
            ("BEGIN", Kind::Begin),
            ("SELECT 'a;b', x\nFROM v -- not ; here\nWHERE é = 'ü'", Kind::Pipeline),
            ("SHOW TIME ZONE", Kind::Show("timezone".to_owned())),
            ("insert into t values (1)", Kind::Refused("INSERT".to_owned())),
        ];
        assert_eq!(kinds(text), expected.map(|(text, kind)| (text.to_owned(), kind)));
        assert!(Statement::split("SELECT 'a").is_err());
        assert!(Statement::split("SELECT $65535").is_ok() && Statement::split("SELECT $65536").is_err());
        assert!(Statement::split("SELECT $1000000000000000").is_err());
    }

    #[test]
    fn what_reads_no_relation_or_the_catalog_needs_no_pipeline() {
        for text in [
            "SELECT 1",
            "select version()",
            "SELECT relname FROM pg_catalog.pg_class",
            "SELECT * FROM information_schema.tables",
        ] {
            assert_eq!(kinds(text), [(text.to_owned(), Kind::Catalog)], "{text}");
        }
        for text in ["SELECT tables FROM v", "WITH x AS (SELECT * FROM v) SELECT * FROM x", "(SELECT a FROM v)"] {
            assert_eq!(kinds(text), [(text.to_owned(), Kind::Pipeline)], "{text}");
        }
    }

    #[test]
    fn parameters_become_literals_where_they_stand() {
        let statements = Statement::split("SELECT '$1', $2, \"ä$1\" FROM v\nWHERE é = $1 AND b = $10").unwrap();
        assert_eq!(statements[0].parameters(), 10);
        let literals = ["'o''k'".to_owned(), "7".to_owned()];
        assert_eq!(statements[0].with(&literals), "SELECT '$1', 7, \"ä$1\" FROM v\nWHERE é = 'o''k' AND b = $10");
    }
}
