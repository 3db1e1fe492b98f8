//! One task a pipeline: brings what is into line with what is wanted.
//!
//! Rules:
//! 1. A process that ends although it is wanted is started again, after a while that grows. If it ends [`TRIES`] times without having made a
//!    new step, or in a way that will not change ([`Ending::is_final`]), it is given up: stopped, with its last words as the error.
//! 2. A process that is not wanted is asked to stop, or killed if that was the wish; one that does not stop in time is killed.
//! 3. What could not be kept when it was asked for is, as soon as there is room.
//! 4. The manager's end leaves processes as they are; its start takes over those that it finds.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;

use super::Manager;
use super::child::{Ending, Process};
use super::history::Happened;
use super::managed::{Managed, Wish};
use super::record::{DeploymentError, Desired};

/// How often a process is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Failures in a row, without a new step between them, after which a pipeline is given up.
const TRIES: u32 = 4;
/// The wait before the first new try; each one after it takes twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The wait before one is started again that was given up, and could not be noted as such.
const UNKEPT_WAIT: Duration = Duration::from_secs(30);
/// The wait before it is tried again to keep what could not be.
const KEEP_WAIT: Duration = Duration::from_secs(10);
/// How long a graceful stop may take; the process itself ends after 30 s.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// What the task remembers.
struct Supervisor {
    manager: Arc<Manager>,
    managed: Arc<Managed>,
    process: Option<Process>,
    /// Failures since the last new step.
    failures: u32,
    /// The step when the process was seen first.
    first_step: Option<u64>,
    /// Not before this, on the manager's clock.
    start_at: Duration,
    /// When it is tried to keep what could not be, on the manager's clock.
    keep_at: Duration,
    /// Since when the process has been asked to stop.
    stopping: Option<Duration>,
}

/// Runs until the pipeline is deleted.
pub async fn supervise(manager: Arc<Manager>, managed: Arc<Managed>) {
    let (start_at, keep_at) = (Duration::ZERO, Duration::ZERO);
    let (process, failures, first_step, stopping) = (None, 0, None, None);
    let mut supervisor = Supervisor { manager, managed, process, failures, first_step, start_at, keep_at, stopping };
    if supervisor.adopt().await {
        supervisor.managed.show("Unavailable", "Provisioning");
    }
    supervisor.managed.settle();
    loop {
        supervisor.turn().await;
        if supervisor.process.is_none() && supervisor.managed.is_deleted() {
            return;
        }
        let woken = supervisor.managed.woken();
        let _ = tokio::time::timeout(TICK, woken).await;
    }
}

impl Supervisor {
    fn note(&self, what: Happened) {
        self.managed.history.note(self.manager.clock.wall_ms(), what);
    }

    async fn turn(&mut self) {
        self.keep();
        let wish = self.managed.wish();
        if self.process.is_some() {
            self.look(wish).await;
        } else if wish.desired == Desired::Stopped {
            self.managed.show("Stopped", "Stopped");
        } else if self.manager.clock.elapsed() >= self.start_at && !self.manager.is_ending() {
            self.start().await;
        }
    }

    /// Keeps what was changed while it could not be kept.
    fn keep(&mut self) {
        let now = self.manager.clock.elapsed();
        if self.managed.is_kept() || now < self.keep_at {
            return;
        }
        self.keep_at = now + KEEP_WAIT;
        if self.manager.keep(&self.managed).is_ok() {
            tracing::info!(pipeline = self.managed.name(), "what is wanted of it is kept now");
        }
    }

    /// Takes over a process that is there.
    async fn adopt(&mut self) -> bool {
        let Some(pid) = self.managed.place.holder().await else { return false };
        self.note(Happened::Found { pid });
        self.hold(Process::Found(pid));
        true
    }

    fn hold(&mut self, process: Process) {
        self.managed.set_process(process.id());
        self.process = Some(process);
        self.first_step = None;
    }

    async fn start(&mut self) {
        // One that was not there yet, or too busy to answer, when it was looked for.
        if self.adopt().await {
            return;
        }
        let manager = Arc::clone(&self.manager);
        let _starting = manager.starting.read().await;
        if manager.is_ending() {
            return;
        }
        // Looked at again: it may have been stopped, and cleared or deleted, since.
        let Some(record) = self.managed.begin() else { return };
        let started = match super::config::for_process(&record.runtime_config) {
            Ok(config) => self.managed.place.start(&self.manager.starter, &record, &config).await,
            Err(message) => Err(std::io::Error::other(message)),
        };
        match started {
            Ok(child) => {
                self.hold(Process::Own(child));
                self.note(Happened::Start);
                self.managed.show("Initializing", "Provisioning");
            }
            Err(e) => self.give_up(DeploymentError {
                message: format!("its process cannot be started: {e}"),
                exit: "none".into(),
            }),
        }
    }

    async fn look(&mut self, wish: Wish) {
        let liveness = self.managed.place.liveness().await;
        let Some(process) = &mut self.process else { return };
        if let Some(ending) = process.ended(liveness.is_some()) {
            self.process = None;
            self.managed.set_process(None);
            self.stopping = None;
            return self.ended(wish, &ending).await;
        }
        if let Some(now) = &liveness {
            self.managed.history.see(self.manager.clock.wall_ms(), now);
            let first = *self.first_step.get_or_insert(now.step);
            if now.step > first && matches!(now.status.as_str(), "Running" | "Paused") {
                self.failures = 0;
            }
        }
        if wish.desired == Desired::Stopped {
            return self.end(wish);
        }
        let Some(now) = liveness else { return };
        let shown = if self.stopping.is_some() { "Stopping" } else { now.status.as_str() };
        self.managed.show(shown, "Provisioned");
        let call = match (now.status.as_str(), wish.desired) {
            ("Running", Desired::Paused) => "/pause",
            ("Paused", Desired::Running) => "/resume",
            _ => return,
        };
        // If it does not get there, the next turn tries again.
        let _ = self.managed.place.call(Method::POST, call).await;
    }

    /// Brings the process to its end.
    fn end(&mut self, wish: Wish) {
        self.managed.show("Stopping", "Stopping");
        let Some(process) = &self.process else { return };
        let now = self.manager.clock.elapsed();
        let since = *self.stopping.get_or_insert_with(|| {
            process.ask_to_stop();
            now
        });
        if wish.force || now.saturating_sub(since) > STOP_PATIENCE {
            process.kill();
        }
    }

    async fn ended(&mut self, wish: Wish, ending: &Ending) {
        let last_step = self.managed.history.gone();
        if wish.desired == Desired::Stopped || self.manager.is_ending() {
            self.note(Happened::Stop { exit: ending.words.clone() });
            self.managed.show("Stopped", "Stopped");
            return;
        }
        self.failures += 1;
        let reason = self.managed.place.reason().await;
        let message = reason.unwrap_or_else(|| format!("the pipeline's process ended ({})", ending.words));
        if ending.is_final() || self.failures >= TRIES {
            return self.give_up(DeploymentError { message, exit: ending.words.clone() });
        }
        let wait = FIRST_WAIT * 2_u32.pow(self.failures - 1);
        self.start_at = self.manager.clock.elapsed() + wait;
        let (step, exit) = (last_step.unwrap_or(0), ending.words.clone());
        self.note(Happened::Crash { step, exit, message: message.clone() });
        self.managed.show("Unavailable", "Provisioning");
        let (name, words) = (self.managed.name(), &ending.words);
        tracing::warn!(pipeline = name, "its process ended ({words}); again in {wait:?}: {message}");
    }

    fn give_up(&mut self, error: DeploymentError) {
        tracing::error!(pipeline = self.managed.name(), "given up: {}", error.message);
        self.failures = 0;
        self.start_at = Duration::ZERO;
        self.note(Happened::GiveUp { exit: error.exit.clone(), message: error.message.clone() });
        self.managed.show("Stopped", "Stopped");
        let now = self.manager.clock.wall_ms();
        let change = self.manager.change(&self.managed, |record| {
            record.desired = Desired::Stopped;
            record.desired_ms = now;
            record.error = Some(error);
        });
        if let Err(error) = change {
            tracing::error!(pipeline = self.managed.name(), "its failure cannot be kept: {error}");
            // It is wanted still, then.
            self.start_at = self.manager.clock.elapsed() + UNKEPT_WAIT;
        }
    }
}
