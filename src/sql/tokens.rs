//! Looking at words and brackets of a statement before it is parsed.

use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Whether a token is this word, in any case and without quotes.
pub(super) fn is_word(token: Option<&TokenWithSpan>, wanted: &str) -> bool {
    matches!(token.map(|t| &t.token), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(wanted))
}

/// Where the bracket at `start` is closed.
pub(super) fn closing(tokens: &[TokenWithSpan], start: usize, open: &Token, close: &Token) -> Option<usize> {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(start) {
        if token.token == *open {
            depth += 1;
        } else if token.token == *close {
            depth -= 1;
            if depth == 0 {
                return Some(i);
            }
        }
    }
    None
}
