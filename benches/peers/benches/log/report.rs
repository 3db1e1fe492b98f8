//! What is printed: a table a row, the ratio to what the row is measured against, and all targets at the end.

use crate::figures::median;
use crate::turns::Figures;

/// What a figure must be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A ratio, at most.
    AtMost(f64),
    /// A ratio, at least.
    AtLeast(f64),
    /// A ratio above 1.
    Ahead,
    /// Milliseconds, fewer than.
    Under(f64),
}

impl Target {
    fn met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(bound) => figure <= bound,
            Self::AtLeast(bound) => figure >= bound,
            Self::Ahead => figure > 1.0,
            Self::Under(bound) => figure < bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(bound) => format!("at most {bound} x"),
            Self::AtLeast(bound) => format!("at least {bound} x"),
            Self::Ahead => "ahead".into(),
            Self::Under(bound) => format!("under {bound} ms"),
        }
    }

    fn unit(self) -> &'static str {
        if matches!(self, Self::Under(_)) { "ms" } else { "x" }
    }
}

/// Whether the better figure is the larger or the smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Rates.
    More,
    /// Times.
    Less,
}

struct Line {
    what: String,
    figure: f64,
    spread: (f64, f64),
    target: Target,
}

/// Gathers the targets.
#[derive(Default)]
pub struct Report {
    lines: Vec<Line>,
    left_out: Vec<String>,
}

/// Begins a row.
pub fn title(text: &str) {
    println!("\n{text}");
}

/// Prints the figures of a row.
pub fn table(unit: &str, figures: &[Figures]) {
    println!("  {:<44} {:>12} {:>12} {:>12}", unit, "median", "least", "most");
    for Figures { name, rounds } in figures {
        let (least, most) = spread(rounds);
        println!("  {name:<44} {} {} {}", number(median(rounds)), number(least), number(most));
    }
}

fn number(figure: f64) -> String {
    let decimals = if figure.abs() < 100.0 { 2 } else { 0 };
    format!("{figure:>12.decimals$}")
}

fn spread(figures: &[f64]) -> (f64, f64) {
    figures.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), f| (least.min(*f), most.max(*f)))
}

/// The best of some contenders, by the median.
pub fn best(figures: &[Figures], better: Better) -> &Figures {
    let by_median = |a: &&Figures, b: &&Figures| median(&a.rounds).total_cmp(&median(&b.rounds));
    let best = match better {
        Better::More => figures.iter().max_by(by_median),
        Better::Less => figures.iter().min_by(by_median),
    };
    best.expect("a row has something to be measured against")
}

impl Report {
    /// The log's ratio to one other: that of the medians, and the least and most of the ratios within a round.
    pub fn ratio(&mut self, row: &str, ours: &Figures, other: &Figures, target: Target) {
        let by_round: Vec<f64> = ours.rounds.iter().zip(&other.rounds).map(|(a, b)| a / b).collect();
        self.add(Line {
            what: format!("{row}, to {}", other.name),
            figure: median(&ours.rounds) / median(&other.rounds),
            spread: spread(&by_round),
            target,
        });
    }

    /// A figure that has a target by itself.
    pub fn absolute(&mut self, row: &str, ours: &Figures, target: Target) {
        self.add(Line { what: row.into(), figure: median(&ours.rounds), spread: spread(&ours.rounds), target });
    }

    /// A row that could not be measured here.
    pub fn left_out(&mut self, row: &str, why: &str) {
        println!("  NOT MEASURED: {why}");
        self.left_out.push(format!("{row}: not measured: {why}"));
    }

    fn add(&mut self, line: Line) {
        println!("  -> {}", line.text());
        self.lines.push(line);
    }

    /// Prints all targets; whether all that were measured are met.
    pub fn summary(&self) -> bool {
        println!("\nTargets");
        for line in &self.lines {
            println!("  {}", line.text());
        }
        for line in &self.left_out {
            println!("  {line}");
        }
        let missed = self.lines.iter().filter(|line| !line.target.met(line.figure)).count();
        println!("{} of {} targets met", self.lines.len() - missed, self.lines.len());
        missed == 0
    }
}

impl Line {
    fn text(&self) -> String {
        let (unit, (least, most)) = (self.target.unit(), self.spread);
        let met = if self.target.met(self.figure) { "met" } else { "MISSED" };
        format!(
            "{}: {:.2} {unit} ({least:.2} to {most:.2}); target {}: {met}",
            self.what,
            self.figure,
            self.target.text()
        )
    }
}
