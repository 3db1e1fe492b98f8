//! The beginning of a connection: the API key as the password, and the pipeline as the database.
//!
//! With a key, a password is asked for, and goes over the wire as it is: so only a local client, or one with TLS, is asked. The user's name means nothing.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{Sink, SinkExt};
use pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::{
    ClientInfo, ConnectionGuard, ConnectionHandle, ConnectionManager, METADATA_DATABASE, METADATA_USER,
    PgWireConnectionState, PidSecretKeyGenerator, RandomPidSecretKeyGenerator,
};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::startup::Authentication;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};

use super::super::{Manager, Refused};
use super::fatal;
use super::gate::{CONNECTIONS, Gate, Visitor};

/// How long a wrong key waits for its answer.
const WRONG_KEY_PAUSE: Duration = Duration::from_secs(1);

/// Lets a client in.
#[derive(Debug)]
pub(super) struct Startup {
    manager: Arc<Manager>,
    connections: Arc<ConnectionManager>,
    keys: RandomPidSecretKeyGenerator,
    gate: Arc<Gate>,
    visitor: Arc<Visitor>,
}

impl Startup {
    pub(super) fn new(
        manager: Arc<Manager>,
        connections: Arc<ConnectionManager>,
        (gate, visitor): (Arc<Gate>, Arc<Visitor>),
    ) -> Self {
        Self { manager, connections, keys: RandomPidSecretKeyGenerator::default(), gate, visitor }
    }

    async fn let_in<C>(&self, client: &mut C) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = database(client).to_owned();
        if self.manager.find(&name).is_err() {
            let all: Vec<String> = self.manager.all().iter().map(|managed| managed.name()).collect();
            let there =
                if all.is_empty() { "there are none".to_owned() } else { format!("there are: {}", all.join(", ")) };
            return Err(fatal(
                "3D000",
                format!("there is no pipeline \"{name}\" to connect to as a database; {there}"),
            ));
        }
        if !self.gate.let_in(&self.visitor) {
            return Err(fatal(
                "53300",
                format!("{CONNECTIONS} clients are connected, and more there may not be: close a connection"),
            ));
        }
        let (pid, key) = self.keys.generate(client);
        client.set_pid_and_secret_key(pid, key.clone());
        let (handle, guard) = self.connections.register(pid, key);
        client.session_extensions().insert::<Arc<ConnectionHandle>>(handle);
        client.session_extensions().insert::<ConnectionGuard>(guard);
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.server_version = super::catalog::SERVER_VERSION.to_owned();
        parameters.default_transaction_read_only = true;
        parameters.is_superuser = false;
        parameters.time_zone = "UTC".to_owned();
        finish_authentication(client, &parameters).await
    }
}

/// The database that a client asked for: by PostgreSQL's rule its user's name, if it named none.
pub(super) fn database(client: &impl ClientInfo) -> &str {
    let metadata = client.metadata();
    metadata.get(METADATA_DATABASE).or_else(|| metadata.get(METADATA_USER)).map_or("", String::as_str)
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match message {
            PgWireFrontendMessage::Startup(asked) => {
                protocol_negotiation(client, &asked).await?;
                save_startup_parameters_to_metadata(client, &asked);
                if !self.manager.needs_key() {
                    return self.let_in(client).await;
                }
                if !client.is_secure() && !client.socket_addr().ip().is_loopback() {
                    let message = "the password, which is the API key, would cross the network as it is: connect with TLS (sslmode=require)";
                    return Err(fatal("28000", message));
                }
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                client.send(PgWireBackendMessage::Authentication(Authentication::CleartextPassword)).await?;
                Ok(())
            }
            PgWireFrontendMessage::PasswordMessageFamily(given) => {
                let (given, from) = (given.into_password()?, client.socket_addr().ip());
                match self.manager.admit(from, Some(given.password.as_bytes())) {
                    Ok(()) => self.let_in(client).await,
                    Err(Refused::TooMany) => {
                        Err(fatal("53400", "too many wrong keys have come from this address: wait a minute"))
                    }
                    Err(Refused::Wrong) => {
                        tokio::time::sleep(WRONG_KEY_PAUSE).await;
                        Err(fatal("28P01", "the password is not one of the service's API keys"))
                    }
                }
            }
            _ => Ok(()),
        }
    }
}
