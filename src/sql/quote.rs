//! Names and texts as SQL has them between quotes: for statements that this program writes, ours and PostgreSQL's alike.

/// A name.
pub(crate) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text.
pub(crate) fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_within_are_doubled() {
        assert_eq!(quoted_name("a\"b'c"), "\"a\"\"b'c\"");
        assert_eq!(quoted_text("a\"b'c"), "'a\"b''c'");
    }
}
