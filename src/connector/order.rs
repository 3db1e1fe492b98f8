//! Which inputs wait for which. `start_after` names labels: an input starts once every input that has one of them is at its end.
//!
//! Invariant: no input waits for itself, be it over others. A program in which one does is refused, and so is a label that nobody has.

use super::config::ConnectorConfig;
use super::{ConnectorError, Result};
use crate::suggest::nearest;

/// For each input the places of those that it waits for. Labels are known in all of a program.
///
/// # Errors
/// A label that no input has, and inputs that wait for each other: the first input that is at fault.
pub fn predecessors(inputs: &[(String, &ConnectorConfig)]) -> Result<Vec<Vec<usize>>> {
    let mut all = Vec::with_capacity(inputs.len());
    for (name, config) in inputs {
        let mut waits_for: Vec<usize> = Vec::new();
        for label in &config.start_after {
            let with_label: Vec<usize> = places_of(inputs, label).collect();
            if with_label.is_empty() {
                return Err(ConnectorError::new(name, unknown(inputs, label)));
            }
            waits_for.extend(with_label);
        }
        waits_for.sort_unstable();
        waits_for.dedup();
        all.push(waits_for);
    }
    for (place, (name, _)) in inputs.iter().enumerate() {
        if let Some(circle) = circle(&all, place) {
            let names: Vec<&str> = circle.iter().filter_map(|at| Some(inputs.get(*at)?.0.as_str())).collect();
            let message = format!(
                "\"start_after\" makes it wait for itself: {}; take one of these out of the circle",
                names.join(" waits for ")
            );
            return Err(ConnectorError::new(name, message));
        }
    }
    Ok(all)
}

fn places_of<'a>(inputs: &'a [(String, &ConnectorConfig)], label: &'a str) -> impl Iterator<Item = usize> + 'a {
    let has = move |config: &ConnectorConfig| config.labels.iter().any(|own| own == label);
    inputs.iter().enumerate().filter(move |(_, (_, config))| has(config)).map(|(place, _)| place)
}

fn unknown(inputs: &[(String, &ConnectorConfig)], label: &str) -> String {
    let labels = inputs.iter().flat_map(|(_, config)| config.labels.iter().map(String::as_str));
    let hint = nearest(label, labels).map(|n| format!("; did you mean \"{n}\"?")).unwrap_or_default();
    format!("\"start_after\": no input connector has the label \"{label}\"{hint}")
}

/// The way from an input over those that it waits for back to it.
fn circle(all: &[Vec<usize>], from: usize) -> Option<Vec<usize>> {
    let mut seen = vec![false; all.len()];
    let mut way = vec![(from, 0)];
    while let Some((at, next)) = way.last_mut() {
        let Some(&to) = all.get(*at).and_then(|waits_for| waits_for.get(*next)) else {
            way.pop();
            continue;
        };
        *next += 1;
        if to == from {
            return Some(way.iter().map(|(at, _)| *at).chain([from]).collect());
        }
        if let Some(seen) = seen.get_mut(to).filter(|seen| !**seen) {
            *seen = true;
            way.push((to, 0));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(items: &[(&str, &str, &str)]) -> Result<Vec<Vec<usize>>> {
        let one = |(name, labels, after): &(&str, &str, &str)| {
            let config = format!(
                r#"[{{"name": "{name}", "transport": {{"name": "x"}}, "labels": {labels}, "start_after": {after}}}]"#
            );
            ConnectorConfig::parse_list("t", &config).unwrap().remove(0)
        };
        let configs: Vec<_> = items.iter().map(one).collect();
        let named: Vec<_> = configs.iter().map(|c| (format!("t.{}", c.name), c)).collect();
        predecessors(&named)
    }

    #[test]
    fn inputs_wait_for_all_that_have_one_of_the_labels() {
        let waits = of(&[
            ("a", r#"["x", "y"]"#, "[]"),
            ("b", r#"["y"]"#, r#""x""#),
            ("c", "[]", r#"["x", "y"]"#),
            ("d", "[]", "null"),
        ]);
        assert_eq!(waits.unwrap(), [vec![], vec![0], vec![0, 1], vec![]]);
    }

    #[test]
    fn circles_and_unknown_labels_are_refused() {
        let e = of(&[("a", r#"["x"]"#, r#"["z"]"#), ("b", r#"["y"]"#, r#"["x"]"#), ("c", r#"["z"]"#, r#"["y"]"#)]);
        let e = e.unwrap_err().to_string();
        assert!(e.contains("t.a") && e.contains("t.a waits for t.c waits for t.b waits for t.a"), "{e}");
        let e = of(&[("b", "[]", r#"["x"]"#), ("a", r#"["x"]"#, r#"["x"]"#)]).unwrap_err().to_string();
        assert!(e.contains("connector t.a") && e.contains("t.a waits for t.a"), "{e}");
        let e = of(&[("a", r#"["backfill"]"#, "[]"), ("b", "[]", r#""backfil""#)]).unwrap_err().to_string();
        assert!(e.contains("t.b") && e.contains("did you mean \"backfill\"?"), "{e}");
    }
}
