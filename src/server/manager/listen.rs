//! The door to the network: HTTP, plain or with TLS.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum_server::Server;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;

use super::{Tls, wrong};

/// How long a client may take to send a request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// A certificate and its key, checked.
pub(super) async fn certified(tls: Option<Tls>) -> std::io::Result<Option<RustlsConfig>> {
    let Some(tls) = tls else { return Ok(None) };
    // Another one that is there already does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = RustlsConfig::from_pem(tls.certificate, tls.key).await;
    config.map(Some).map_err(|e| wrong(format!("--tls-cert and --tls-key: not a certificate and its key: {e}")))
}

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, tls: Option<RustlsConfig>, router: Router) -> std::io::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    match tls {
        Some(config) => {
            let mut server = axum_server::from_tcp_rustls(listener, config)?;
            be_patient(&mut server);
            server.serve(service).await
        }
        None => {
            let mut server = axum_server::from_tcp(listener)?;
            be_patient(&mut server);
            server.serve(service).await
        }
    }
}

fn be_patient<A, B: axum_server::Address>(server: &mut Server<B, A>) {
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
}
