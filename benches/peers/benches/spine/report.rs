//! What is printed: a table a figure, the ratio to each contender, and all targets at the end.

use std::collections::BTreeMap;

use crate::figures::median;

/// What the ratio of Backstay's figure to another's must be, or the figure itself.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At least so many times the best of the others.
    AtLeast(f64),
    /// More than the best of the others.
    Ahead,
    /// At most so many times the least of the others.
    AtMost(f64),
    /// Less than the least of the others.
    Below,
    /// A figure by itself, at most.
    Under(f64),
    /// None.
    Shown,
}

/// A figure and what is wanted of it.
pub struct Row {
    /// Its name.
    pub figure: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    pub target: Target,
    /// A second target.
    pub and: Target,
    /// Which contender is Backstay here.
    pub ours: &'static str,
    /// Whom Backstay is measured against; all if empty.
    pub against: &'static [&'static str],
}

/// Figures by name and contender, one a round.
pub type Figures = BTreeMap<(String, String), Vec<f64>>;

impl Target {
    fn met(self, ratio: f64, figure: f64) -> Option<bool> {
        Some(match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::Ahead => ratio > 1.0,
            Self::AtMost(bound) => ratio <= bound,
            Self::Below => ratio < 1.0,
            Self::Under(bound) => figure < bound,
            Self::Shown => return None,
        })
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtLeast(bound) => format!("at least {bound} x"),
            Self::Ahead => "ahead".into(),
            Self::AtMost(bound) => format!("at most {bound} x"),
            Self::Below => "below 1 x".into(),
            Self::Under(bound) => format!("under {bound} {unit}"),
            Self::Shown => String::new(),
        }
    }
}

/// The verdicts so far.
#[derive(Default)]
pub struct Report {
    lines: Vec<String>,
    met: usize,
    judged: usize,
}

impl Report {
    /// Prints one figure of all contenders. Of those that have none nothing is said.
    pub fn row(&mut self, row: &Row, contenders: &[&str], figures: &Figures) {
        let of = |who: &str, name: &str| figures.get(&(name.to_owned(), who.to_owned()));
        let Some(ours) = of(row.ours, row.figure).map(|rounds| median(rounds)) else { return };
        println!("\n{}: {}", row.figure, row.title);
        let head = ["median", "least", "most", "Backstay/it", "target", "peak MiB"];
        println!(
            "  {:<16} {:>10} {:>10} {:>10} {:>12} {:>14}      {:>10}",
            row.unit, head[0], head[1], head[2], head[3], head[4], head[5]
        );
        let mut best: Option<(&str, f64)> = None;
        for who in contenders {
            let Some(rounds) = of(who, row.figure) else { continue };
            let ratio = ours / median(rounds);
            let against = *who != row.ours && (row.against.is_empty() || row.against.contains(who));
            // The hardest to beat: the smallest ratio where more is better, else the largest.
            let more = matches!(row.target, Target::AtLeast(_) | Target::Ahead);
            if against && best.is_none_or(|(_, least)| if more { ratio < least } else { ratio > least }) {
                best = Some((who, ratio));
            }
            let relative = !matches!(row.target, Target::Under(_) | Target::Shown);
            let (target, met) = match against && relative {
                true => (row.target.text(row.unit), verdict(row.target.met(ratio, ours))),
                false => (String::new(), ""),
            };
            let ratio = if *who == row.ours { String::new() } else { format!("{ratio:.2}") };
            let (least, most) = spread(rounds);
            let peak =
                of(who, &format!("{}:peak", row.figure)).map_or_else(String::new, |p| format!("{:.0}", spread(p).1));
            println!(
                "  {who:<16} {} {} {} {ratio:>12} {target:>14} {met:<6}{peak:>9}",
                number(median(rounds)),
                number(least),
                number(most)
            );
        }
        // The ratios within a round: where they lie far apart the machine was too noisy for a verdict.
        let rounds = |to: &str| match (of(row.ours, row.figure), of(to, row.figure)) {
            (Some(ours), Some(theirs)) if ours.len() > 1 => {
                let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
                let (least, most) = spread(&ratios);
                format!(" ({least:.2} to {most:.2} in a round)")
            }
            _ => String::new(),
        };
        for target in [row.target, row.and] {
            let absolute = matches!(target, Target::Under(_));
            let (to, ratio) = best.unwrap_or(("nobody", f64::NAN));
            if !absolute && best.is_none() {
                continue;
            }
            let Some(met) = target.met(ratio, ours) else { continue };
            let what = if absolute {
                format!("{} {}", number(ours).trim(), row.unit)
            } else {
                format!("{ratio:.2} x {to}{}", rounds(to))
            };
            let line = format!("{:<18} {what}; target {}: {}", row.figure, target.text(row.unit), verdict(Some(met)));
            println!("  -> {line}");
            self.lines.push(line);
            self.judged += 1;
            self.met += usize::from(met);
        }
    }

    /// Prints all targets; whether all are met.
    pub fn summary(&self) -> bool {
        println!("\nTargets");
        self.lines.iter().for_each(|line| println!("  {line}"));
        println!("{} of {} targets met", self.met, self.judged);
        self.met == self.judged
    }
}

fn verdict(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    }
}

fn number(figure: f64) -> String {
    let decimals = if figure.abs() < 100.0 { 2 } else { 0 };
    format!("{figure:>10.decimals$}")
}

fn spread(figures: &[f64]) -> (f64, f64) {
    figures.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), f| (least.min(*f), most.max(*f)))
}
