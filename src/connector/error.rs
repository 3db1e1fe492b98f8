//! How connectors say what went wrong.

use std::path::Path;

use backstay_storage::Error;

use super::ConnectorError;

impl ConnectorError {
    /// An error that trying again does not mend.
    pub fn new(connector: &str, message: impl Into<String>) -> Self {
        Self { connector: connector.to_owned(), message: message.into(), retry: false }
    }

    /// An error of a file of the connector's. A full disk may be tried again: nothing is lost by waiting for room.
    pub(crate) fn file(connector: &str, what: &str, path: &Path, error: &Error) -> Self {
        let retry = matches!(error, Error::NoSpace { .. });
        let message = match error {
            Error::NoSpace { detail, .. } => {
                format!("no space left to {what} {} ({detail}); make room, it goes on by itself", path.display())
            }
            other => format!("cannot {what} {}: {other}", path.display()),
        };
        Self { connector: connector.to_owned(), message, retry }
    }
}
