//! "Did you mean": the nearest of the names that would have been right.

use serde_json::{Map, Value};

/// The candidate most like `name`, if one is near enough to be a slip of the hand: few letters wrong, or (for names that were
/// cut short or lengthened) alike from the start. Of equally near ones the first by name.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let slips = lower.chars().count() / 3;
    candidates
        .into_iter()
        .map(|c| {
            let candidate = c.to_lowercase();
            (strsim::damerau_levenshtein(&lower, &candidate), strsim::jaro_winkler(&lower, &candidate), c)
        })
        .filter(|(wrong, alike, _)| *wrong <= slips || *alike >= 0.8)
        .min_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.total_cmp(&a.1)).then_with(|| a.2.cmp(b.2)))
        .map(|(_, _, c)| c)
}

/// ` (did you mean "x"?)`, or nothing.
pub fn hint<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map(|c| format!(" (did you mean \"{c}\"?)")).unwrap_or_default()
}

/// Refuses the first key of a JSON object that is not in `known`, with a hint.
pub fn check_keys(object: &Map<String, Value>, known: &[&str], place: &str) -> Result<(), String> {
    match object.keys().find(|k| !known.contains(&k.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!(
            "{place}: unknown key \"{key}\"{}; known: {}",
            hint(key, known.iter().copied()),
            known.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_nonsense_is_not() {
        assert_eq!(nearest("fault_tolerence", ["storage", "fault_tolerance"]), Some("fault_tolerance"));
        assert_eq!(nearest("cvs", ["csv", "json"]), Some("csv"));
        assert_eq!(nearest("zzz", ["storage", "fault_tolerance"]), None);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let object = serde_json::json!({"storge": true});
        let error = check_keys(object.as_object().unwrap(), &["storage", "workers"], "config").unwrap_err();
        assert_eq!(error, "config: unknown key \"storge\" (did you mean \"storage\"?); known: storage, workers");
    }
}
