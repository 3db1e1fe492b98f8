//! What a running pipeline shows: a live line on a terminal (a bar with the time left while replaying), plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::logging::LogFormat;
use crate::pipeline::status::{Phase, Snapshot};
use crate::pipeline::{Clock, Control};

/// Time between plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Time over which the rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// Shows a pipeline's progress on stderr.
#[derive(Debug)]
pub(super) struct Progress {
    clock: Arc<dyn Clock>,
    /// Whether there is a live line.
    terminal: bool,
    bar: Option<(Phase, ProgressBar)>,
    last_plain: Option<Duration>,
    phase: Option<Phase>,
    rate_from: (Duration, u64),
    rate: f64,
    troubles: Vec<String>,
}

impl Progress {
    pub(super) fn new(clock: Arc<dyn Clock>, format: LogFormat) -> Self {
        let now = clock.elapsed();
        Self {
            clock,
            terminal: format == LogFormat::Text && std::io::stderr().is_terminal(),
            bar: None,
            last_plain: None,
            phase: None,
            rate_from: (now, 0),
            rate: 0.0,
            troubles: Vec::new(),
        }
    }

    /// A line that stays.
    pub(super) fn line(&self, text: &str) {
        match &self.bar {
            Some((_, bar)) => bar.println(text),
            None => tracing::info!("{text}"),
        }
    }

    /// Removes the live line.
    pub(super) fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Shows the figures of now.
    pub(super) fn show(&mut self, control: &Control) {
        for notice in control.take_notices() {
            self.line(&notice);
        }
        let snapshot = control.snapshot();
        self.tell_phase(&snapshot);
        self.tell_troubles(&snapshot);
        let now = self.clock.elapsed();
        let (since, rows) = self.rate_from;
        let window = now.saturating_sub(since);
        if window >= RATE_WINDOW {
            self.rate = (snapshot.new_rows.saturating_sub(rows)) as f64 / window.as_secs_f64();
            self.rate_from = (now, snapshot.new_rows);
        }
        if self.terminal {
            self.live(&snapshot, now);
        } else if self.last_plain.is_none_or(|last| now.saturating_sub(last) >= PLAIN_INTERVAL) {
            if self.last_plain.is_some() && snapshot.phase == Phase::Running {
                self.line(&self.figures(&snapshot, now));
            }
            self.last_plain = Some(now);
        }
    }

    fn tell_phase(&mut self, snapshot: &Snapshot) {
        if self.phase == Some(snapshot.phase) {
            return;
        }
        match (self.phase, snapshot.phase) {
            (_, Phase::Replaying) => {
                if let Some((from, to)) = snapshot.replay {
                    self.line(&format!("replaying steps {from} to {to}"));
                }
            }
            (Some(Phase::Finished), _) => {}
            (_, Phase::Finished) => {
                self.line(
                    "all inputs are at their end; waiting (Ctrl-C stops; --until-end would have stopped by itself)",
                );
            }
            _ => {}
        }
        self.phase = Some(snapshot.phase);
    }

    fn tell_troubles(&mut self, snapshot: &Snapshot) {
        for trouble in &snapshot.troubles {
            if !self.troubles.contains(trouble) {
                self.line(&format!("waiting: {trouble}"));
            }
        }
        self.troubles.clone_from(&snapshot.troubles);
    }

    fn live(&mut self, snapshot: &Snapshot, now: Duration) {
        let kind = if snapshot.phase == Phase::Replaying { Phase::Replaying } else { Phase::Running };
        if self.bar.as_ref().is_none_or(|(phase, _)| *phase != kind) {
            self.clear();
            let bar = if kind == Phase::Replaying { replay_bar(snapshot) } else { ProgressBar::new_spinner() };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            self.bar = Some((kind, bar));
        }
        let figures = self.figures(snapshot, now);
        let Some((_, bar)) = &self.bar else { return };
        if let (Phase::Replaying, Some((from, _))) = (kind, snapshot.replay) {
            bar.set_position((snapshot.step + 1).saturating_sub(from));
        } else {
            bar.set_message(figures);
        }
        bar.tick();
    }

    fn figures(&self, s: &Snapshot, now: Duration) -> String {
        let checkpoint = match s.checkpoint {
            Some((step, at)) => format!("checkpoint at step {step}, {} s ago", now.saturating_sub(at).as_secs()),
            None => "no checkpoint yet".into(),
        };
        let mut line = format!(
            "{} rows/s, step {}, {} rows, lag {} rows parsed and {} steps undelivered, {checkpoint}",
            self.rate.round(),
            s.step,
            s.input_rows,
            s.buffered_rows,
            s.step.saturating_sub(s.delivered_step),
        );
        if s.parse_errors > 0 {
            line.push_str(&format!(", {} rows did not parse", s.parse_errors));
        }
        if s.late_rows > 0 {
            line.push_str(&format!(", {} rows were late", s.late_rows));
        }
        if s.evaluation_errors > 0 {
            line.push_str(&format!(", {} rows left out", s.evaluation_errors));
        }
        line
    }
}

fn replay_bar(snapshot: &Snapshot) -> ProgressBar {
    let (from, to) = snapshot.replay.unwrap_or((1, 1));
    let bar = ProgressBar::new((to + 1).saturating_sub(from));
    // A template that does not parse would only cost the look.
    if let Ok(style) = ProgressStyle::with_template("replaying {bar:30} {pos}/{len} steps, {eta} left") {
        bar.set_style(style);
    }
    bar
}
