//! Which connectors are at work: not those that are paused, and not inputs that wait for the end of others (`start_after`).
//!
//! Invariants:
//! 1. A pause loses nothing: an input stays where it is, an output's deltas stay pending.
//! 2. A pause reaches where steps are cut and what outputs are handed, nothing else. A replay reads what was cut, paused or not.
//! 3. An input that steps have taken rows from waits for nobody any more, in later processes neither.
//! 4. What was asked for by the API is part of the checkpoints from then on, and goes before the configuration's `paused`.
//!
//! Known limit: what was asked for less than a checkpoint before a crash may be forgotten; one is begun at once for it.

use crate::connector::Level;
use crate::pipeline::controller::Pipeline;
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::input::InputEndpoint;

impl Pipeline {
    /// Before the first step: who is paused, by the checkpoint or else the configuration. Nobody could ever start one where there is no
    /// API: a run that is to end refuses to wait for it.
    pub(super) fn begin_orchestration(&mut self, until_end: bool) -> Result<()> {
        let names: Vec<&String> =
            self.inputs.iter().map(|i| &i.name).chain(self.outputs.iter().map(|o| &o.name)).collect();
        self.state.paused.retain(|name, _| names.contains(&name));
        for input in &mut self.inputs {
            let asked = self.state.paused.get(&input.name).copied();
            input.is_paused = asked.unwrap_or(input.is_paused);
            input.is_waiting &= asked != Some(false) && !input.has_begun();
        }
        for input in &self.inputs {
            let endless = input.after.iter().filter_map(|at| self.inputs.get(*at)).find(|other| !other.is_finite());
            if let (true, Some(endless)) = (input.is_waiting, endless) {
                return Err(PipelineError::Config(format!(
                    "input {} is to start after the end of {}, which never ends: take the label from it, or \"start_after\" from {}",
                    input.name, endless.name, input.name
                )));
            }
        }
        let paused = self.inputs.iter().find(|i| i.is_paused && i.is_finite()).map(|i| &i.name);
        let paused = paused.or_else(|| self.outputs.iter().find(|o| o.is_paused()).map(|o| &o.name));
        match paused.filter(|_| until_end && !self.control.keeps_changes()) {
            Some(name) => Err(PipelineError::Config(format!(
                "--until-end would wait for ever: connector {name} is paused, and without --api-socket nobody can start it; \
                 take \"paused\" out, or leave --until-end out"
            ))),
            None => Ok(()),
        }
    }

    /// Pauses and starts connectors as the API asked.
    pub(super) fn obey(&mut self) {
        for (name, paused) in self.control.take_connector_requests() {
            let (mut input, mut output) =
                (self.inputs.iter_mut().find(|i| i.name == name), self.outputs.iter_mut().find(|o| o.name == name));
            if let Some(input) = &mut input {
                (input.is_paused, input.is_waiting) = (paused, input.is_waiting && paused);
            }
            if let Some(output) = &mut output {
                output.pause(paused);
            }
            if (input.is_some() || output.is_some()) && self.state.paused.insert(name, paused) != Some(paused) {
                self.is_checkpoint_wanted |= self.config.fault_tolerance.model > Level::None;
            }
        }
    }

    /// Starts the inputs whose time has come. After what was read has been taken over and before each cut, so that an input begins with
    /// the step behind the last one of those that it waits for, whatever the threads do.
    pub(super) fn release(&mut self) -> Result<()> {
        // Asked only where somebody waits: this is done at every turn.
        let done: Vec<bool> = match self.inputs.iter().any(|i| i.is_waiting) {
            true => self.inputs.iter().map(InputEndpoint::is_done).collect(),
            false => Vec::new(),
        };
        for input in &mut self.inputs {
            let is_over = |at: &usize| done.get(*at).copied().unwrap_or(true);
            input.is_waiting &= !input.after.iter().all(is_over);
            for lost in input.start(&*self.env.scheduler, self.parker.unparker())? {
                self.control.notice(format!("{}: {lost}", input.name));
            }
        }
        Ok(())
    }
}
