//! What connectors to PostgreSQL share: the server that `uri` names ([`server`]), TLS ([`tls`]), and a connection to it ([`session`]).

pub(super) mod server;
pub(super) mod session;
mod tls;
