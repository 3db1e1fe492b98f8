//! API keys. A file has their hashes, never the keys themselves: who reads it can ask nothing.
//!
//! A line is `sha256:<hash in hex>`, and behind that a label for people; empty lines and those that begin with `#` are let pass. Any of the keys will do, so
//! that one can be replaced by another without a moment between.
//!
//! A fast hash is enough, because keys are made here, of 244 random bits: there is nothing to guess.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use uuid::Uuid;

const PREFIX: &str = "sha256:";

/// The hashes of all keys that will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Vec<[u8; 32]>);

/// A new key, from two random ids.
pub fn generate(random: [Uuid; 2]) -> String {
    format!("bsk_{}{}", random[0].simple(), random[1].simple())
}

/// The line that a file has for a key.
pub fn line(key: &str, label: &str) -> String {
    let mut line = PREFIX.to_owned();
    for byte in Sha256::digest(key) {
        let _ = write!(line, "{byte:02x}");
    }
    format!("{line} {label}").trim_end().to_owned()
}

impl Keys {
    /// The keys of a file's text.
    ///
    /// # Errors
    /// A line that is no hash, by its number; no key at all. What stands there is not repeated: it may be a key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let hash = line.split_whitespace().next().and_then(|word| word.strip_prefix(PREFIX)).and_then(hash);
            keys.push(hash.ok_or_else(|| {
                format!("line {number} is not \"{PREFIX}…\": keys are kept as their hashes; `backstay api-key FILE` makes one")
            })?);
        }
        match keys.is_empty() {
            true => Err("there is no key in it: `backstay api-key FILE` makes one".to_owned()),
            false => Ok(Self(keys)),
        }
    }

    /// Whether this is one of the keys. What is compared are hashes, so that the time that it takes tells nothing of a key.
    pub fn has(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.contains(&given)
    }
}

fn hash(hex: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_as_hashes() {
        let key = generate([Uuid::from_u128(1), Uuid::from_u128(2)]);
        assert_eq!(key.len(), 68);
        let text = format!("# ours\n\n{}\n{}\n", line(&key, "for ci"), line("another", ""));
        assert!(!text.contains(&key));
        // As `printf another | sha256sum` has it.
        assert!(text.ends_with("sha256:ae448ac86c4e8e4dec645729708ef41873ae79c6dff84eff73360989487f08e5\n"), "{text}");
        let keys = Keys::parse(&text).unwrap();
        assert!(keys.has(key.as_bytes()) && keys.has(b"another"));
        assert!(!keys.has(b"") && !keys.has(&key.as_bytes()[1..]) && !keys.has(b"Another"));
    }

    #[test]
    fn what_is_no_hash_is_refused_and_not_shown() {
        for bad in [
            "a-key-in-the-clear",
            "sha256:12",
            &format!("sha256:{}", "é".repeat(32)),
            &format!("sha256:{}", "x".repeat(64)),
        ] {
            let error = Keys::parse(&format!("# one\n{bad}\n")).unwrap_err();
            assert!(error.contains("line 2") && !error.contains(bad), "{error}");
        }
        assert!(Keys::parse("# nothing\n").unwrap_err().contains("no key"));
    }
}
