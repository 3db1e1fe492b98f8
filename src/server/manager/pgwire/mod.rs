//! PostgreSQL's wire protocol: `psql`, psycopg and Grafana read the views of a pipeline, which is the database that they connect to.
//!
//! - `gate`: how many may be connected; `startup`: who, to which pipeline; `statement`: a text cut into statements, and what each asks for;
//! - `session`: simple and extended queries; `parameters`: `$1` made a literal; `ask`: the question to the pipeline's process;
//! - `rows`: Arrow to PostgreSQL's types; `catalog` and `dialect`: what clients ask of `pg_catalog` and `information_schema`.
//!
//! Invariants:
//! 1. Nothing is changed by it: it reads. Each SELECT sees the state after the step that was under way when it came, also within BEGIN and COMMIT.
//! 2. A panic on bytes that a client sent ends that connection alone: all of it runs on threads of one name, which the binary's
//!    panic hook knows by [`THREAD`]; nothing that it shares with the manager is left half done (the manager's locks are for reading here).
//!
//! Known limits: an answer is in memory as a whole. A cancelled query is given up here, while the pipeline's process still finishes it.
//! No cursors, no COPY.

mod ask;
pub(super) mod catalog;
mod dialect;
mod gate;
mod parameters;
mod rows;
mod session;
mod startup;
mod statement;

use std::sync::Arc;

use pgwire::api::auth::StartupHandler;
use pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::{ClientInfo, ConnectionManager, ErrorHandler, PgWireServerHandlers};
use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::tokio::TlsAcceptor;
use tokio::net::TcpListener;

use super::Manager;
use gate::{Gate, Visitor};
use session::Session;
use startup::Startup;

/// The name of the threads that it runs on.
pub const THREAD: &str = "pgwire";
/// Threads; what takes time is the pipelines' own work.
const THREADS: usize = 2;

/// Accepts connections until the returned runtime is dropped.
///
/// # Errors
/// The system gives no threads, or the listener cannot be moved to them.
pub(super) fn serve(
    manager: Arc<Manager>,
    listener: std::net::TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> std::io::Result<tokio::runtime::Runtime> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).thread_name(THREAD).enable_all().build()?;
    listener.set_nonblocking(true)?;
    let guard = runtime.enter();
    let listener = TcpListener::from_std(listener)?;
    drop(guard);
    let server = Server { manager, connections: Arc::new(ConnectionManager::new()), gate: Arc::default() };
    runtime.spawn(accept(server, listener, tls.map(acceptor)));
    Ok(runtime)
}

/// TLS with the service's certificate, under the name that clients of this protocol know.
fn acceptor(of_http: Arc<rustls::ServerConfig>) -> TlsAcceptor {
    let mut config = rustls::ServerConfig::clone(&of_http);
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// What all connections share.
#[derive(Debug)]
struct Server {
    manager: Arc<Manager>,
    connections: Arc<ConnectionManager>,
    gate: Arc<Gate>,
}

async fn accept(server: Server, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others may give some back.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let connection = Connection::new(&server);
        let (gate, visitor, tls) = (Arc::clone(&server.gate), Arc::clone(&connection.visitor), tls.clone());
        tokio::spawn(async move {
            tokio::select! {
                // A connection that breaks is the client's business.
                _ = pgwire::tokio::process_socket(socket, tls, connection) => {}
                () = visitor.is_to_go() => {}
            }
            gate.leave(&visitor);
        });
    }
}

/// What a connection is served by.
struct Connection {
    visitor: Arc<Visitor>,
    session: Arc<Session>,
    startup: Arc<Startup>,
    cancel: Arc<DefaultCancelHandler>,
}

impl Connection {
    fn new(server: &Server) -> Arc<Self> {
        let visitor = server.gate.arrive();
        let (manager, connections) = (Arc::clone(&server.manager), Arc::clone(&server.connections));
        let door = (Arc::clone(&server.gate), Arc::clone(&visitor));
        Arc::new(Self {
            session: Arc::new(Session::new(Arc::clone(&manager), Arc::clone(&visitor))),
            startup: Arc::new(Startup::new(manager, Arc::clone(&connections), door)),
            cancel: Arc::new(DefaultCancelHandler::new(connections)),
            visitor,
        })
    }
}

impl ErrorHandler for Visitor {
    /// The library goes on to listen to one whom it has told that it ends the connection.
    fn on_error<C: ClientInfo>(&self, _: &C, error: &mut PgWireError) {
        if !self.is_in() || matches!(error, PgWireError::UserError(info) if info.is_fatal()) {
            self.refuse();
        }
    }
}

impl PgWireServerHandlers for Connection {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.session)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::clone(&self.session)
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::clone(&self.startup)
    }

    fn error_handler(&self) -> Arc<impl ErrorHandler> {
        Arc::clone(&self.visitor)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::clone(&self.cancel)
    }
}

/// An error with its SQLSTATE.
fn error(state: &str, message: impl Into<String>) -> PgWireError {
    raised("ERROR", state, message.into())
}

/// An error that ends the connection.
fn fatal(state: &str, message: impl Into<String>) -> PgWireError {
    raised("FATAL", state, message.into())
}

fn raised(severity: &str, state: &str, message: String) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new(severity.to_owned(), state.to_owned(), message)))
}
