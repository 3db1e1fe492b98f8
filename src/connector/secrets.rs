//! The secrets of a connector, and a guard that keeps them out of what is said of it.
//!
//! Invariant: an error of a guarded connector, or of its reader, has a secret's reference where it had the secret.
//!
//! Known limit: a secret is found as it was given, not in another spelling (percent-encoded, say); connectors have no other in their messages.

use std::fmt;

use super::{
    Chunk, ConnectorError, Descriptor, Input, InputReader, Level, Next, Output, Position, Result, Resume, SinkPosition,
};
use crate::circuit::Delta;

/// Secrets, with the references that they were given by.
#[derive(Clone, Default)]
pub struct Secrets(Vec<(String, String)>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(_, reference)| reference)).finish()
    }
}

impl Secrets {
    /// Adds one.
    pub(super) fn add(&mut self, secret: &str, reference: &str) {
        if !secret.is_empty() && !self.0.iter().any(|(known, _)| known == secret) {
            self.0.push((secret.to_owned(), format!("${{{reference}}}")));
            // A secret may be part of another one.
            self.0.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        }
    }

    /// An error without secrets.
    pub(super) fn hide(&self, error: ConnectorError) -> ConnectorError {
        let message = self.0.iter().fold(error.message, |text, (secret, reference)| text.replace(secret, reference));
        ConnectorError { message, ..error }
    }

    /// A guarded input; the input itself, if there are no secrets.
    pub(super) fn guard_input(self, input: Box<dyn Input>) -> Box<dyn Input> {
        if self.0.is_empty() { input } else { Box::new(Guarded { inner: input, secrets: self }) }
    }

    /// A guarded output; the output itself, if there are no secrets.
    pub(super) fn guard_output(self, output: Box<dyn Output>) -> Box<dyn Output> {
        if self.0.is_empty() { output } else { Box::new(Guarded { inner: output, secrets: self }) }
    }
}

/// A connector or reader whose errors have no secrets.
struct Guarded<T: ?Sized> {
    secrets: Secrets,
    inner: Box<T>,
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guarded").field(&self.secrets).finish()
    }
}

impl<T: ?Sized> Guarded<T> {
    fn said<R>(&self, result: Result<R>) -> Result<R> {
        result.map_err(|e| self.secrets.hide(e))
    }
}

impl Input for Guarded<dyn Input> {
    fn level(&self) -> Level {
        self.inner.level()
    }

    fn is_finite(&self) -> bool {
        self.inner.is_finite()
    }

    fn selects(&self, partition: &str) -> bool {
        self.inner.selects(partition)
    }

    fn resumes(&self) -> bool {
        self.inner.resumes()
    }

    fn open(&self, position: &Position) -> Result<Box<dyn InputReader>> {
        let inner = self.said(self.inner.open(position))?;
        Ok(Box::new(Guarded { secrets: self.secrets.clone(), inner }))
    }

    fn after_loss(&self, position: &Position) -> Result<(Position, Vec<String>)> {
        self.said(self.inner.after_loss(position))
    }

    fn replay(&self, descriptor: &Descriptor) -> Result<Vec<Chunk>> {
        self.said(self.inner.replay(descriptor))
    }

    fn kept(&self, position: &Position) {
        self.inner.kept(position);
    }
}

impl InputReader for Guarded<dyn InputReader> {
    fn next(&mut self) -> Result<Next> {
        let next = self.inner.next();
        self.said(next)
    }

    fn warning(&self) -> Option<ConnectorError> {
        self.inner.warning().map(|e| self.secrets.hide(e))
    }
}

impl Output for Guarded<dyn Output> {
    fn level(&self) -> Level {
        self.inner.level()
    }

    fn target(&self) -> Option<String> {
        self.inner.target()
    }

    fn open(&mut self, resume: &Resume) -> Result<()> {
        let opened = self.inner.open(resume);
        self.said(opened)
    }

    fn deliver(&mut self, step: u64, delta: &Delta) -> Result<()> {
        let delivered = self.inner.deliver(step, delta);
        self.said(delivered)
    }

    fn flush(&mut self) -> Result<()> {
        let flushed = self.inner.flush();
        self.said(flushed)
    }

    fn replay_done(&mut self) -> Result<()> {
        let checked = self.inner.replay_done();
        self.said(checked)
    }

    fn sync(&mut self) -> Result<SinkPosition> {
        let synced = self.inner.sync();
        self.said(synced)
    }

    fn durable(&self) -> Option<SinkPosition> {
        self.inner.durable()
    }

    fn idle(&mut self) -> Result<()> {
        let idled = self.inner.idle();
        self.said(idled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_references_in_place_of_secrets() {
        let mut secrets = Secrets::default();
        secrets.add("hunter2", "file:pw");
        secrets.add("hunter", "file:name");
        secrets.add("", "file:empty");
        let hidden = secrets.hide(ConnectorError::new("t.c", "hunter may not log in with hunter2"));
        assert_eq!(hidden.message, "${file:name} may not log in with ${file:pw}");
        assert!(!format!("{secrets:?}").contains("hunter"));
    }
}
