//! Patterns of file names: `*`, `?` and `[…]` in any component of a path.

use std::path::Path;

use backstay_storage::disk::Disk;
use glob::{MatchOptions, Pattern};

use crate::connector::{ConnectorError, Result};

/// Whether a path is a pattern.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// A pattern, checked.
pub(crate) fn check(connector: &str, pattern: &str) -> Result<Pattern> {
    if pattern.contains("**") {
        let message = format!("\"{pattern}\": ** is not supported yet; name the folders with * each");
        return Err(ConnectorError::new(connector, message));
    }
    Pattern::new(pattern).map_err(|e| ConnectorError::new(connector, format!("\"{pattern}\" is not a pattern: {e}")))
}

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Whether a pattern takes in `path`.
pub(crate) fn matches(pattern: &Pattern, path: &str) -> bool {
    pattern.matches_with(path, OPTIONS)
}

/// The files that a pattern takes in, sorted by name, as the pattern spells them (relative ones stay relative to `base`).
pub(crate) fn list(connector: &str, disk: &dyn Disk, base: &Path, pattern: &str) -> Result<Vec<String>> {
    let parts: Vec<&str> = pattern.split('/').collect();
    let mut found = vec![String::new()];
    for (i, part) in parts.iter().enumerate() {
        let last = i + 1 == parts.len();
        let joined = |prefix: &str, name: &str| if i == 0 { name.to_owned() } else { format!("{prefix}/{name}") };
        if !is_pattern(part) && !last {
            found = found.iter().map(|prefix| joined(prefix, part)).collect();
            continue;
        }
        let component = check(connector, part)?;
        let mut next = Vec::new();
        for prefix in &found {
            let spelled = if i > 0 && prefix.is_empty() { "/" } else { prefix };
            let dir = base.join(spelled);
            let fail = |e| ConnectorError::file(connector, "list", &dir, &e);
            if !disk.metadata(&dir).map_err(fail)?.is_some_and(|m| m.is_dir) {
                continue;
            }
            let names = disk.list(&dir).map_err(fail)?;
            let wanted = names.iter().filter(|e| e.metadata.is_dir != last && component.matches_with(&e.name, OPTIONS));
            next.extend(wanted.map(|e| joined(prefix, &e.name)));
        }
        found = next;
    }
    found.sort();
    Ok(found)
}
