//! `POST /tables/{table}/connectors/{connector}/{start|pause}`, and the same below `/views`: connectors one by one.
//!
//! 200 means that the pipeline was told; its stats show when it has done so, before it makes its next step.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::Served;
use crate::connector::config::ConnectorConfig;
use crate::server::error::{ApiError, Result};
use crate::server::extract::Path;

/// Relation, connector, and what is to be done.
type Asked = (String, String, String);

pub(super) async fn input(State(served): State<Arc<Served>>, Path(asked): Path<Asked>) -> Result<StatusCode> {
    let table = served.program.table(&super::normalized(&asked.0)).map(|t| (&*t.name, &*t.connectors));
    turn(&served, "table", table, &asked)
}

pub(super) async fn output(State(served): State<Arc<Served>>, Path(asked): Path<Asked>) -> Result<StatusCode> {
    let view = served.program.view(&super::normalized(&asked.0)).map(|v| (&*v.name, &*v.connectors));
    turn(&served, "view", view, &asked)
}

fn turn(
    served: &Served,
    what: &str,
    relation: Option<(&str, &[ConnectorConfig])>,
    (name, connector, action): &Asked,
) -> Result<StatusCode> {
    let found = relation.filter(|(_, all)| all.iter().any(|c| c.name == *connector)).ok_or_else(|| {
        let message = format!("there is no {what} {name} with a connector {connector}");
        ApiError::new(StatusCode::NOT_FOUND, "UnknownConnector", message)
    })?;
    let endpoint = format!("{}.{connector}", found.0);
    match action.as_str() {
        "start" => served.control.start_connector(&endpoint),
        "pause" => served.control.pause_connector(&endpoint),
        other => {
            return Err(ApiError::bad_request(format!("a connector can be told to start or to pause, not to {other}")));
        }
    }
    Ok(StatusCode::OK)
}
